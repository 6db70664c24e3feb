"""Runs gathered over seeds."""

import math

import numpy as np
import pytest

from made_results import failed, kind, result, spec
from protclip.evaluation import registry
from protclip.evaluation.results import summarise

PLACES = spec(
    "places",
    notes="Mind the gap.",
    tolerance=0.05,
    published={"share": {"ProtCLIP": 0.62, "ESM-2": 0.5}, "square": {"ProtCLIP": 0.36}},
)


@pytest.fixture(autouse=True)
def _hits(monkeypatch):
    monkeypatch.setitem(registry.KINDS, "hits", kind())


def hits(share, num=40):
    return np.arange(num) < share * num


def test_summarise_gives_mean_deviation_and_interval_primary_metric_first():
    (summary,) = summarise(PLACES, [result("places", hits(s), seed) for seed, s in ((0, 0.5), (2, 0.7))])
    score = summary.primary
    assert [s.metric for s in summary.scores] == ["share", "square", "rank"]
    assert score.values == {0: 0.5, 2: 0.7}
    assert (score.mean, score.deviation) == (pytest.approx(0.6), pytest.approx(0.1 * 2**0.5))
    low, high = score.interval
    assert 0.4 < low < 0.55
    assert 0.65 < high < 0.8
    assert summary.counts == {"test": 40}
    assert summary.seconds == {0: 1.5, 2: 1.5}


def test_summarise_is_the_same_every_time():
    runs = [result("places", hits(0.5)), result("places", hits(0.3), model="untouched")]
    assert summarise(PLACES, runs) == summarise(PLACES, runs)


def test_summarise_interval_narrows_by_seeds_only_as_far_as_they_differ():
    def width(runs):
        low, high = summarise(PLACES, runs)[0].primary.interval
        return high - low

    rng = np.random.default_rng(0)
    one, other = (rng.random(400) < 0.5 for _ in range(2))
    single = width([result("places", one)])
    assert width([result("places", one, 0), result("places", one, 1)]) == single
    assert width([result("places", one, 0), result("places", other, 1)]) < 0.85 * single


def test_summarise_holds_against_published_values():
    published = summarise(PLACES, [result("places", hits(0.6))])[0].primary.published
    assert published["ProtCLIP"].difference == pytest.approx(-0.02)
    assert published["ProtCLIP"].equal
    assert not published["ESM-2"].equal
    (_, square, _) = summarise(PLACES, [result("places", hits(0.6))])[0].scores
    assert square.published["ProtCLIP"].equal is None


def test_summarise_makes_a_row_of_each_protocol_with_all_baselines():
    runs = [
        result("places", hits(0.6)),
        result("places", hits(0.8), protocol="finetune", notes=["tuned"]),
        result("places", hits(0.5), 0, "untouched"),
        result("places", hits(0.6), 1, "untouched"),
        result("places", hits(0.7), 0, "untouched", protocol="finetune"),
        result("places", hits(0.1), 0, "majority", protocol="alone"),
    ]
    frozen, tuned = summarise(PLACES, runs, leak=0.25)
    assert (frozen.label, tuned.label) == ("places", "places, finetune")
    assert tuned.primary.baselines == pytest.approx(
        {"untouched": 0.55, "untouched, finetune": 0.7, "majority": 0.1}
    )
    assert frozen.best_baseline == ("untouched, finetune", pytest.approx(0.7))
    assert (frozen.notes, tuned.notes) == (["Mind the gap."], ["Mind the gap.", "tuned"])
    assert frozen.leak == tuned.leak == 0.25
    assert len(frozen.trials) == 5


def test_summary_best_baseline_follows_the_direction_and_skips_the_undefined():
    ranks = spec("ranks", metric="rank", higher_is_better=False)
    runs = [result("ranks", hits(0.6))] + [
        result("ranks", hits(s), model=name, protocol="alone") for name, s in (("a", 0.2), ("b", 0.4))
    ]
    runs.append(result("ranks", hits(0.5), model="c", metrics={"rank": math.nan}))
    (summary,) = summarise(ranks, runs)
    assert summary.primary.metric == "rank"
    assert summary.best_baseline == ("b", pytest.approx(60))


def test_summarise_tells_of_failed_runs_and_goes_on_with_the_others():
    good, bad = result("places", hits(0.6), 0), result("places", hits(0.6), 1)
    baseline = result("places", hits(0.5), model="composition", protocol="alone")
    (summary,) = summarise(PLACES, [good, failed(bad, "out of memory"), failed(baseline, "no such file")])
    assert summary.primary.values == {0: 0.6}
    assert summary.errors == ["out of memory", "composition: no such file"]
    (summary,) = summarise(PLACES, [failed(good, "out of memory"), failed(bad, "out of memory"), baseline])
    assert (summary.primary, summary.best_baseline) == (None, None)
    assert summary.errors == ["out of memory"]
