import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from protclip.evaluation.report import Provenance, files, overview
from protclip.evaluation.results import Outcome, Result, summarise
from protclip.evaluation.spec import ClassificationSpec, RetrievalSpec

COMMON = {"title": "places & <parts>", "group": "g", "citation": "c", "licence": "l"}
PLACES = ClassificationSpec.model_validate(
    {
        **COMMON,
        "name": "places",
        "kind": "classification",
        "metric": "mcc",
        "notes": "Mind the gap.",
        "published": {"mcc": {"A": 0.9, "B|C": 0.3}, "accuracy": {"A": 0.95}},
        "data": {"format": "csv", "files": {"train": "a", "test": "a"}},
    }
)
RANKS = RetrievalSpec.model_validate(
    {
        **COMMON,
        "name": "ranks",
        "kind": "retrieval",
        "metric": "t2p_median_rank",
        "higher_is_better": False,
        "data": {"format": "pairs"},
    }
)
PROVENANCE = Provenance(
    "s3://bucket/run/step-7", 7, "abc", "2026-11-22T12:00:00+00:00", "f00", {"python": "3"}
)


def result(name, seed, metrics, baselines, notes=()):
    return Result(name, seed, Outcome(metrics, baselines, {"test": 1200}, notes), 1.5, "cpu")


@pytest.fixture
def summaries():
    places = [
        result(
            "places",
            seed,
            {"accuracy": 0.8, "mcc": value},
            {"majority": {"accuracy": 0.5, "mcc": 0.0}, "composition": {"accuracy": 0.7, "mcc": 0.4 + seed}},
            ["a note", f"seed {seed}"],
        )
        for seed, value in ((0, 0.6), (2, 0.8))
    ]
    ranks = [result("ranks", 0, {"t2p_median_rank": 4.0}, {"chance": {"t2p_median_rank": 50.0}})]
    return [summarise(PLACES, places), summarise(RANKS, ranks)]


def test_summarise_gives_mean_and_deviation_primary_metric_first(summaries):
    score = summaries[0].primary
    assert [s.metric for s in summaries[0].scores] == ["mcc", "accuracy"]
    assert score.values == {0: 0.6, 2: 0.8}
    assert (score.mean, score.deviation) == (pytest.approx(0.7), pytest.approx(0.1 * 2**0.5))
    assert score.baselines == {"majority": 0, "composition": pytest.approx(1.4)}
    assert score.published == {"A": 0.9, "B|C": 0.3}
    assert summaries[0].notes == ["Mind the gap.", "a note", "seed 0", "seed 2"]
    assert summaries[1].primary.deviation is None


def test_overview_compares_with_the_best_of_each_kind(summaries):
    assert overview(summaries) == [
        (
            "places",
            "mcc",
            "0.700 ± 0.141",
            "1.400 (composition), 0.000 (majority)",
            "-0.700",
            "0.900 (A)",
            "-0.200",
        ),
        ("ranks", "t2p_median_rank", "4.000", "50.000 (chance)", "-46.000", "–", "–"),
    ]


def test_summary_ranks_by_the_metrics_direction(summaries):
    values = {"x": 1.0, "y": 2.0}
    assert summaries[0].ranked(values) == [("y", 2.0), ("x", 1.0)]
    assert summaries[1].ranked(values) == [("x", 1.0), ("y", 2.0)]


class Balanced(HTMLParser):
    """Checks that every element is closed in order."""

    VOID = frozenset({"meta", "rect"})

    def __init__(self):
        super().__init__()
        self.open, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_html_report_is_well_formed_escaped_and_self_contained(summaries):
    page = files(PROVENANCE, summaries)["report.html"]
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert not any(tag in {"script", "link", "img", "iframe"} for tag, _ in parser.tags)
    assert not any({"src", "href"} & attributes.keys() for _, attributes in parser.tags)
    assert "url(" not in page
    assert "places &amp; &lt;parts&gt;" in page
    assert "<parts>" not in page
    assert "s3://bucket/run/step-7 (step 7)" in page
    svgs = re.findall(r"<svg.*?</svg>", page)
    bars = [len(ElementTree.fromstring(svg).findall("rect")) for svg in svgs]
    assert bars == [5, 2]


def test_html_bars_are_as_long_as_their_values(summaries):
    svg = re.findall(r"<svg.*?</svg>", files(PROVENANCE, summaries)["report.html"])[1]
    widths = [float(bar.get("width")) for bar in ElementTree.fromstring(svg).findall("rect")]
    assert widths[1] / widths[0] == pytest.approx(50 / 4, rel=0.01)


def test_markdown_report_has_whole_tables(summaries):
    text = files(PROVENANCE, summaries)["report.md"]
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert "| mcc | 0.700 ± 0.141 | 0.000 | 1.400 | 0.900 | 0.300 |" in text
    assert "Mind the gap." in text


def test_json_report_has_a_row_per_benchmark_metric_and_seed(summaries):
    found = json.loads(files(PROVENANCE, summaries)["results.json"])
    assert found["provenance"]["git_sha"] == "f00"
    rows = {(r["benchmark"], r["metric"], r["seed"]): r for r in found["rows"]}
    assert len(rows) == 5
    assert rows["places", "mcc", 2]["value"] == 0.8
    assert rows["places", "mcc", 2]["primary"] is True
    assert rows["places", "accuracy", 0]["published"] == {"A": 0.95}
    assert found["benchmarks"][0]["spec"]["name"] == "places"
    assert found["benchmarks"][0]["counts"] == {"test": 1200}
