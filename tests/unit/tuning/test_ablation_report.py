"""An ablation's report in all its forms, of made rows."""

import json
import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from protclip.tuning.ablation import VALIDATION, Row, compare_variants
from protclip.tuning.ablation_charts import colour, draw_effects, draw_series
from protclip.tuning.ablation_report import TABLE_COLUMNS, Ablated, files, overview, overview_headings, table
from protclip.tuning.candidate import Outcome

METRICS = ("valid/t2p_r10", "valid/loss/total")
WEIGHTS = {"0.3": 0.3, "0.7": 0.7, "1.0": 1.0, "lost": 0.1}


def ablated(seeds=(0, 1, 2), **changes):
    """λ1 of which 0.3 is worse, 1.0 is not known to be other, and one was never trained."""
    rng = np.random.default_rng(1)
    means = {"0.3": 0.3, "0.7": 0.6, "1.0": 0.6}
    outcomes = {
        (v, s): Outcome(
            f"x-{v}-s{s}",
            "complete",
            metrics={
                "valid/t2p_r10": mean + 0.01 * rng.normal(),
                "valid/loss/total": 900 * (1 - mean) + 5 * rng.normal(),
            },
        )
        for v, mean in means.items()
        for s in seeds
    }
    rows = compare_variants(outcomes, dict.fromkeys(WEIGHTS, "p"), "0.7", METRICS, 100, 0.05)
    made = Ablated(
        name="lambda1",
        reference="0.7",
        varied={variant: {"loss.bsr": weight} for variant, weight in WEIGHTS.items()},
        seeds=seeds,
        rows=rows,
        incomplete={"x-lost-s0": "out of <memory>"},
        num_pairs={},
        resamples=100,
        level=0.05,
        created="2026-11-23T00:00:00+00:00",
        git_sha="f00",
    )
    return replace(made, **changes)


def test_overview_has_the_reference_first_and_a_sign_for_each_verdict():
    made = ablated()
    assert overview_headings(made) == ("Variant", "t2p_r10", "loss/total ↓")
    rows = {row[0]: row[1:] for row in overview(made)}
    assert next(iter(rows)) == "0.7 (reference)"
    assert all(cell.endswith(" ▼") for cell in rows["0.3"])
    assert re.fullmatch(r"0\.6\d\d ± 0\.0\d\d", rows["0.7 (reference)"][0])
    assert not any(re.search("[▲▼]", cell) for cell in rows["1.0"])
    assert rows["lost"] == ("–", "–")


def test_overview_of_one_seed_has_open_signs():
    made = ablated(seeds=(0,))
    assert {e.verdict for row in made.rows for e in row.effects.values()} == {"not comparable"}
    row = made.rows[0]
    open_ = {v: replace(e, verdict="worse (one seed)") for v, e in row.effects.items()}
    (_, first, *_) = overview(replace(made, rows=[replace(row, effects=open_)]))
    assert first[1].endswith(" ▽")


def test_overview_counts_pairs_where_they_differ_and_says_when_that_matters():
    even = ablated(num_pairs={"0.3": 1000, "0.7": 1010})
    assert overview_headings(even)[1] == "Training pairs"
    assert [row[1] for row in overview(even)] == ["1,010", "1,000", "–", "–"]
    assert len(even.remarks) == 1
    assert "target_pairs" in ablated(num_pairs={"0.3": 1000, "0.7": 2000}).remarks[1]


def test_files_say_the_same_in_all_forms():
    made = ablated()
    written = files(made)
    assert set(written) == {f"ablation{end}" for end in (".html", ".md", ".json", ".png", "_series.png")}
    stored = json.loads(written["ablation.json"], parse_constant=pytest.fail)
    rows = [dict(zip(TABLE_COLUMNS, row, strict=True)) for row in table(made)]
    assert stored["rows"] == json.loads(json.dumps(rows))
    assert stored["values"]["valid/t2p_r10"]["0.3"]["2"] == made.rows[0].values["0.3"][2]
    markdown, page = written["ablation.md"].decode(), written["ablation.html"].decode()
    for row in made.rows:
        effect = row.effects["0.3"]
        for text in (f"{row.mean('0.3'):.3f}"[:5], f"{effect.difference:+.3f}"[:4]):
            assert text in markdown
            assert text in page
    assert "| lost | 0 | – | – | – | – | not comparable: no seed of which both are complete |" in markdown
    assert "x-lost-s0 is missing: out of &lt;memory&gt;" in page
    assert "ablation_series.png" in markdown
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) == 2
    for picture in pictures:
        ElementTree.fromstring(picture)
    for name in ("ablation.png", "ablation_series.png"):
        assert written[name].startswith(b"\x89PNG")


def test_files_of_named_variants_have_no_line():
    named = {variant: {"loss.bsr": weight, "loss.mlm": weight} for variant, weight in WEIGHTS.items()}
    written = files(ablated(varied=named))
    assert "ablation_series.png" not in written
    assert b"ablation_series" not in written["ablation.md"]


def test_draw_effects_places_differences_and_intervals_by_verdict():
    made = ablated()
    first, _ = draw_effects("t", "0.7", made.rows).axes
    effects = made.rows[0].effects
    spans = {line.get_ydata()[0]: line for line in first.lines if line.get_linewidth() > 2}
    dots = {line.get_ydata()[0]: line for line in first.lines if line.get_marker() == "o"}
    for y, name in enumerate(("0.3", "1.0")):
        assert list(spans[y].get_xdata()) == pytest.approx(list(effects[name].interval))
        assert dots[y].get_xdata()[0] == pytest.approx(effects[name].difference)
        assert dots[y].get_color() == colour(effects[name].verdict)
    assert 2 not in dots
    assert [label.get_text() for label in first.get_yticklabels()] == ["0.3", "1.0", "lost"]


def test_draw_series_puts_means_over_their_values():
    made = ablated()
    figure = draw_series("t", "0.7", made.rows, made.varied)
    first, second = figure.axes
    line = first.lines[0]
    assert list(line.get_xdata()) == [0.3, 0.7, 1.0]
    assert list(line.get_ydata()) == pytest.approx([made.rows[0].mean(v) for v in ("0.3", "0.7", "1.0")])
    assert (first.get_xlabel(), second.get_xlabel()) == ("loss.bsr", "loss.bsr")
    (bars,) = first.containers[0][2]
    (low, high) = bars.get_segments()[0][:, 1]
    assert high - low == pytest.approx(2 * made.rows[0].deviation("0.3"))


def test_colour_of_one_seed_is_that_of_several():
    assert colour("better (one seed)") == colour("better") != colour("worse") == colour("worse (one seed)")


def test_row_of_one_value_has_no_deviation():
    row = Row("m", "m", VALIDATION, True, {"a": {0: 0.5}, "b": {}})
    assert row.mean("a") == 0.5
    assert math.isnan(row.deviation("a"))
    assert math.isnan(row.mean("b"))
