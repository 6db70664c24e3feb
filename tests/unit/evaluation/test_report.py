"""The report in all its forms."""

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from made_results import failed, kind, provenance, result, spec
from protclip.evaluation import registry
from protclip.evaluation.cells import HEADINGS, overview
from protclip.evaluation.report import TABLE_COLUMNS, files, summary_markdown, table
from protclip.evaluation.results import summarise


def hits(share, num=40):
    return np.arange(num) < share * num


@pytest.fixture(scope="module", autouse=True)
def _hits():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.KINDS, "hits", kind())
        yield


@pytest.fixture(scope="module")
def summaries():
    places = spec(
        "places",
        title="places & <parts>",
        group="A | B",
        notes="Mind the gap.",
        published={"share": {"ProtCLIP": 0.61, "GearNet": 0.3}, "square": {"ProtCLIP": 0.95}},
    )
    ranks = spec("ranks", group="Ranks", metric="rank", higher_is_better=False)
    lost = spec("lost", group="A | B")
    return [
        *summarise(
            places,
            [result("places", hits(s), seed, notes=[f"seed {seed}"]) for seed, s in ((0, 0.5), (2, 0.7))]
            + [result("places", hits(0.4), 0, "composition", protocol="alone")],
            leak=0.125,
        ),
        *summarise(ranks, [result("ranks", hits(0.9)), result("ranks", hits(0.5), model="untouched")]),
        *summarise(lost, [failed(result("lost", hits(1)), "no | such <file>")]),
    ]


@pytest.fixture(scope="module")
def report(summaries):
    return files(provenance(), summaries)


def test_overview_has_a_row_for_each_benchmark(summaries):
    low, high = summaries[0].primary.interval
    ranked = "10.000 [{:.3f}, {:.3f}]".format(*summaries[1].primary.interval)
    assert overview(summaries) == [
        (
            "places",
            "share",
            f"0.600 [{low:.3f}, {high:.3f}]",
            "2 ± 0.141",
            "0.400 composition (+0.200)",
            "0.610 (-0.010 ≈)",
            *["–"] * 3,
            "12.5%",
        ),
        (
            "ranks",
            "rank less is better",
            ranked,
            "1",
            "50.000 untouched (-40.000)",
            *["–"] * 5,
        ),
        ("lost", "share", "failed", *["–"] * 7),
    ]
    assert all(len(row) == len(HEADINGS) for row in overview(summaries))


class Page(HTMLParser):
    """Checks that every element is closed in order; takes down what would be fetched, and rows of cells."""

    VOID = frozenset({"meta"})

    def __init__(self):
        super().__init__()
        self.open, self.fetched, self.rows = [], [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.fetched += [v for k, v in attrs.items() if k.split(":")[-1] in {"src", "href"} and v[:1] != "#"]
        self.fetched += [tag] * (tag in {"script", "link", "img", "iframe"})
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1] += [""] * int(attrs.get("colspan", 1))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def test_html_report_is_well_formed_escaped_and_self_contained(report):
    text = report["report.html"].decode()
    page = Page()
    page.feed(text)
    assert (page.open, page.fetched) == ([], [])
    assert not re.search(r"url\([^#]|@import", text)
    assert "places &amp; &lt;parts&gt;" in text
    assert "<parts>" not in text
    assert "s3://bucket/run/step-7 (step 7)" in text
    ids = set(re.findall(r' id="([^"]+)"', text))
    assert {"places-frozen", "ranks-frozen", "lost-frozen"} <= ids
    assert set(re.findall(r'<a href="#([^"]+)"', text)) <= ids


def test_html_overview_has_whole_rows_under_their_groups(report):
    page = Page()
    page.feed(report["report.html"].decode())
    overview_rows = page.rows[:6]
    assert {len(row) for row in overview_rows} == {len(HEADINGS)}
    assert [row[-1] or row[0] for row in overview_rows[1:]][:1] == ["A | B"]
    assert "failed: no | such <file>" in [cell for row in overview_rows for cell in row]


def test_html_bars_are_as_long_as_their_values(report):
    text = report["report.html"].decode()
    drawn = [ElementTree.fromstring(svg) for svg in re.findall(r'<svg class="bars".*?</svg>', text)]
    places, ranks = ([float(bar.get("width")) for bar in svg.findall("rect")] for svg in drawn)
    assert np.array(places) / places[0] == pytest.approx(np.array([0.6, 0.4, 0.61, 0.3]) / 0.6, rel=0.01)
    assert ranks[1] / ranks[0] == pytest.approx(5, rel=0.01)


def test_html_bars_of_negative_values_end_at_zero():
    runs = [result("x", [-0.5, -0.5]), result("x", [0.25, 0.25], model="untouched")]
    text = files(provenance(), summarise(spec("x"), runs))["report.html"].decode()
    svg = ElementTree.fromstring(re.findall(r'<svg class="bars".*?</svg>', text)[0])
    below, above = ([float(bar.get(key)) for key in ("x", "width")] for bar in svg.findall("rect"))
    assert below[0] + below[1] == pytest.approx(above[0])
    assert below[1] / above[1] == pytest.approx(2, rel=0.01)


def test_markdown_report_has_whole_tables_and_names_its_pictures(report):
    text = report["report.md"].decode()
    for found in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in found.splitlines()}) == 1
    assert "| share | 0.600 ± 0.141 |" in text
    assert "| square | 0.370 ± 0.170 |" in text
    for said in ("Mind the gap.", "- seed 2", "- Failed: no | such <file>", "12.5% of the test proteins"):
        assert said in text
    assert set(re.findall(r"!\[\w+\]\((.+?)\)", text)) == {n for n in report if n.endswith(".png")}


def test_markdown_overview_is_grouped_in_the_order_of_the_suite(summaries):
    first = [line.split(" | ")[0].strip("| ") for line in summary_markdown(summaries).splitlines()[2:]]
    assert first == ["**A \\| B**", "places", "lost", "**Ranks**", "ranks"]


def test_json_report_says_everything_and_where_results_are(report):
    found = json.loads(report["results.json"], parse_constant=pytest.fail)
    assert found["provenance"]["results"] == "results"
    by_name = {b["spec"]["name"]: b for b in found["benchmarks"]}
    places = by_name["places"]
    (share, *_) = places["scores"]
    assert share["values"] == {"0": 0.5, "2": 0.7}
    assert share["baselines"] == {"composition": 0.4}
    assert share["published"]["ProtCLIP"]["value"] == 0.61
    assert {(t["model"], t["seed"], len(t["key"])) for t in places["trials"]} == {
        ("checkpoint", 0, 16),
        ("checkpoint", 2, 16),
        ("composition", 0, 16),
    }
    assert by_name["lost"]["errors"] == ["no | such <file>"]


def test_json_report_has_null_where_a_number_is_undefined():
    nothing = dict.fromkeys(("share", "square", "rank"), float("nan"))
    runs = [result("x", [np.nan, np.nan], metrics=nothing), result("x", [1, 0], model="untouched")]
    summaries = summarise(spec("x", published={"share": {"ProtCLIP": 0.5}}), runs)
    report = files(provenance(), summaries)
    (benchmark,) = json.loads(report["results.json"], parse_constant=pytest.fail)["benchmarks"]
    assert benchmark["scores"][0]["mean"] is None
    assert benchmark["scores"][0]["interval"] is None
    assert overview(summaries)[0][2:6] == ("–", "1", "0.500 untouched (–)", "0.500 (–)")


def test_table_is_numbers_under_their_columns(summaries):
    rows = [dict(zip(TABLE_COLUMNS, row, strict=True)) for row in table(summaries)]
    places, ranks, lost = rows
    assert places["value"] == pytest.approx(0.6)
    assert places["low"] < 0.6 < places["high"]
    assert (places["baseline"], places["over_baseline"]) == ("composition", pytest.approx(0.2))
    assert (places["ProtCLIP"], places["ProtST"], places["leak"]) == (0.61, None, 0.125)
    assert places["ProtCLIP_difference"] == pytest.approx(-0.01)
    assert (ranks["baseline_value"], ranks["deviation"]) == (pytest.approx(50), None)
    assert (lost["value"], lost["error"], lost["benchmark"]) == (None, "no | such <file>", "lost")
