"""Comparisons of made reports in which the truth is known."""

import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from made_results import failed, kind, result, spec, write_report
from protclip.cli import main
from protclip.errors import BenchmarkError, DataError
from protclip.evaluation import registry
from protclip.evaluation.compare import compare, fewest_resamples, read_reports
from protclip.evaluation.compare_report import TABLE_COLUMNS, Compared, draw, files, table

UNITS = 300
DIFFICULTY = np.random.default_rng(0).random(UNITS)


@pytest.fixture(autouse=True)
def _hits(monkeypatch):
    monkeypatch.setitem(registry.KINDS, "hits", kind())


def hits(share, seed=0):
    """What a model gets right: mostly what is easy for all models, and a little luck."""
    return 0.8 * DIFFICULTY + 0.2 * np.random.default_rng(seed).random(UNITS) < share


def compared(uris, level=0.05):
    reports = read_reports(uris)
    rows = compare(reports, 2000, level, 0)
    return Compared(reports, rows, 2000, level, "2026-11-23T00:00:00+00:00", "f00")


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A reference, one that is better at some things and worse at others, and one that is equal."""
    root = tmp_path_factory.mktemp("reports")
    up, down, same = (spec(name) for name in ("up", "down", "same"))
    ranks = spec("ranks", metric="rank", higher_is_better=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.KINDS, "hits", kind())
        return [
            write_report(
                root / name,
                [
                    (made, [result(made.name, hits(share, [run, seed]), seed) for seed in (0, 1)])
                    for made, share in zip((up, down, same, ranks), shares, strict=True)
                ],
                checkpoint=f"/runs/{name}/step-9",
            )
            for run, (name, shares) in enumerate(
                [("ref", (0.5, 0.5, 0.5, 0.5)), ("other", (0.6, 0.4, 0.5, 0.6)), ("equal", (0.5,) * 4)]
            )
        ]


def test_compare_tells_true_differences_from_none(three):
    found = compared(three)
    other, equal = (
        {row.task.name: row for row in found.rows if row.candidate == name} for name in ("other", "equal")
    )
    assert [row.candidate for row in found.rows] == ["other"] * 4 + ["equal"] * 4
    assert {name: row.verdict for name, row in other.items()} == {
        "up": "better",
        "down": "worse",
        "same": "no difference shown",
        "ranks": "better",
    }
    assert {row.verdict for row in equal.values()} == {"no difference shown"}
    up, ranks = other["up"], other["ranks"]
    assert up.difference == pytest.approx(up.value - up.reference_value)
    assert 0 < up.interval[0] < up.difference < up.interval[1]
    assert ranks.difference == pytest.approx(ranks.value - ranks.reference_value)
    assert ranks.interval[1] < 0
    for row in other.values():
        assert row.p <= row.corrected_p <= 4 * row.p


def test_compare_holds_every_candidate_against_the_first_alone(three):
    alone = compared([three[0], three[2]]).rows
    assert [row for row in compared(three).rows if row.candidate == "equal"] == alone


def test_compare_pairs_units_so_that_small_differences_show(tmp_path):
    base = hits(0.5)
    more = base.copy()
    more[np.flatnonzero(~base)[:12]] = True
    uris = [
        write_report(tmp_path / name, [(spec("x"), [result("x", hit)])])
        for name, hit in (("ref", base), ("more", more))
    ]
    (row,) = compared(uris).rows
    # Unpaired, a difference of 0.04 between 300 units each has a standard error of 0.041.
    assert row.difference == pytest.approx(0.04)
    assert row.verdict == "better"
    assert row.interval[1] - row.interval[0] < 0.05


def test_compare_corrects_for_the_number_of_benchmarks(tmp_path):
    few = hits(0.5)
    few_more = few.copy()
    few_more[np.flatnonzero(~few)[:7]] = True
    few_more[np.flatnonzero(few)[:1]] = False
    names = [f"b{i}" for i in range(6)]
    uris = [
        write_report(tmp_path / run, [(spec(n), [result(n, hit if n == "b0" else few)]) for n in names])
        for run, hit in (("ref", few), ("more", few_more))
    ]
    first, *others = compared(uris).rows
    assert first.p < 0.05 < first.corrected_p == pytest.approx(6 * first.p)
    assert first.verdict == "no difference shown"
    assert {row.p for row in others} == {1}


def test_compare_says_why_something_is_not_comparable(tmp_path):
    made = [spec(n) for n in ("absent", "version", "units", "seeds", "broken", "undefined", "fine")]
    _, version, units, seeds, broken, undefined, fine = made
    nothing = dict.fromkeys(("share", "square", "rank"), float("nan"))
    ref = [(m, [result(m.name, hits(0.5))]) for m in made]
    other = [
        (version, [result("version", hits(0.5), version="v2")]),
        (units, [result("units", hits(0.5), ids=[f"w{i}" for i in range(UNITS)])]),
        (seeds, [result("seeds", hits(0.5), 3)]),
        (broken, [failed(result("broken", hits(0.5)), "out of memory")]),
        (undefined, [result("undefined", hits(0.5), metrics=nothing)]),
        (fine, [result("fine", hits(0.5)), result("fine", hits(0.5), protocol="finetune")]),
    ]
    uris = [write_report(tmp_path / "ref", ref), write_report(tmp_path / "other", other)]
    found = compared(uris)
    why = {row.label: row.why for row in found.rows if row.verdict == "not comparable"}
    assert why == {
        "absent": "other did not run it",
        "version": "other data, protocol or release",
        "units": "other test data",
        "seeds": "no seed in common",
        "broken": f"no run of other succeeded, or {uris[1]}/results does not keep it any more",
        "undefined": "share is undefined",
        "fine, finetune": "ref did not run it",
    }
    # What is not comparable does not count in the correction.
    (fine_row,) = [row for row in found.rows if row.label == "fine"]
    assert fine_row.corrected_p == fine_row.p
    text = files(found)["compare.md"].decode()
    assert "| not comparable: other test data |" in text


def test_compare_uses_the_seeds_both_have(tmp_path):
    runs = [
        [result("x", hits(0.5, 0), 0), result("x", hits(0.9, 1), 1)],
        [result("x", hits(0.5, 0), 0), result("x", hits(0.1, 2), 2)],
    ]
    uris = [write_report(tmp_path / name, [(spec("x"), run)]) for name, run in zip("ab", runs, strict=True)]
    (row,) = compared(uris).rows
    assert (row.difference, row.verdict) == (0, "no difference shown")


def test_read_reports_refuses_what_is_no_report(tmp_path):
    (tmp_path / "results.json").write_text('{"provenance": {}, "rows": []}')
    with pytest.raises(
        BenchmarkError, match=r"results.json: no report .*provenance.checkpoint.*run protclip"
    ):
        read_reports([str(tmp_path)])
    with pytest.raises(DataError, match="nowhere"):
        read_reports([str(tmp_path / "nowhere")])


def test_read_reports_names_them_apart(tmp_path):
    runs = [(spec("x"), [result("x", hits(0.5))])]
    one, two, three = (write_report(tmp_path / name, runs) for name in ("a/bench", "b/bench", "c"))
    assert [report.name for report in read_reports([one, three])] == ["bench", "c"]
    assert [report.name for report in read_reports([one, two])] == [one, two]
    with pytest.raises(BenchmarkError, match="given twice"):
        read_reports([one, two, one])


def test_compare_refuses_a_kind_it_does_not_have(tmp_path, monkeypatch):
    uris = [write_report(tmp_path / name, [(spec("x"), [result("x", hits(0.5))])]) for name in "ab"]
    monkeypatch.delitem(registry.KINDS, "hits")
    with pytest.raises(BenchmarkError, match="x: unknown kind 'hits'; known: "):
        compared(uris)


def test_files_say_the_same_in_all_forms(three):
    found = compared(three)
    made = files(found)
    rows = [dict(zip(TABLE_COLUMNS, row, strict=True)) for row in table(found)]
    stored = json.loads(made["compare.json"], parse_constant=pytest.fail)
    assert stored["rows"] == json.loads(json.dumps(rows))
    assert [report["checkpoint"] for report in stored["reports"]] == [
        f"/runs/{name}/step-9" for name in ("ref", "other", "equal")
    ]
    markdown, page = made["compare.md"].decode(), made["compare.html"].decode()
    for row in found.rows:
        assert f"{row.difference:+.3f}" in markdown
        assert f"{row.difference:+.3f}" in page
    assert "## other against ref" in markdown
    assert "| ranks | rank ↓ |" in markdown
    assert made["compare.png"].startswith(b"\x89PNG")
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(svg)


def test_draw_places_differences_and_intervals_by_verdict(three):
    found = compared(three)
    other, _ = draw(found).axes
    up = found.rows[0]
    spans = [line for line in other.lines if len(line.get_xdata()) == 2 and line.get_ydata()[0] == 0]
    assert list(spans[0].get_xdata()) == pytest.approx(list(up.interval))
    colours = {line.get_ydata()[0]: line.get_color() for line in other.lines if line.get_marker() == "o"}
    assert colours[0] != colours[1] != colours[2]
    assert 3 not in colours  # A rank has no place on an axis of shares.
    assert any("better" in text.get_text() for text in other.texts)


def test_draw_says_when_nothing_is_comparable(tmp_path):
    uris = [
        write_report(tmp_path / name, [(spec(name), [result(name, hits(0.5))])]) for name in ("one", "two")
    ]
    (axis,) = draw(compared(uris)).axes
    assert [text.get_text() for text in axis.texts] == ["nothing comparable"]


def test_fewest_resamples_can_show_a_difference():
    assert fewest_resamples(22, 0.05) == 880


def test_command_takes_reports_without_a_key(capsys):
    assert main(["compare", "a", "s3://b/c", "output=o", "resamples=9", "--dry-run"]) == 0
    config = json.loads(capsys.readouterr().out)["config"]
    assert [uri.rsplit("/", 1)[-1] for uri in config["reports"]] == ["a", "c"]
    assert main(["compare", "a", "output=o", "b", "--dry-run"]) == 2
    assert "expected key=value, got 'b'" in capsys.readouterr().err
