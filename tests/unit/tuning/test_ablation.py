"""The paired comparison of variants, held against plain loops, scipy, and made data whose truth is known."""

import math
import statistics

import numpy as np
import pytest
from scipy import stats

from made_results import failed, kind, result, spec, write_report
from protclip.errors import BenchmarkError
from protclip.evaluation import registry
from protclip.evaluation.bootstrap import draw_counts, holm
from protclip.tuning.ablation import RESAMPLING_SEED, VALIDATION, _effect, compare_variants, series
from protclip.tuning.candidate import Outcome

UNITS = 200
LOSS, RANK, RECALL = "valid/loss/gc", "valid/t2p_median_rank", "valid/t2p_r10"


@pytest.fixture(autouse=True)
def _hits(monkeypatch):
    monkeypatch.setitem(registry.KINDS, "hits", kind())


def hits(share, seed):
    return np.random.default_rng(seed).random(UNITS) < share


def outcome(name, report=None, **metrics):
    return Outcome(name, "complete", metrics={f"valid/{k}": v for k, v in metrics.items()}, report=report)


def compared(outcomes, variants, metrics=(), *, pairs=None, resamples=500, level=0.05):
    places = pairs or dict.fromkeys(variants, "p")
    return compare_variants(outcomes, places, variants[0], metrics, resamples, level)


def measured(values):
    """Outcomes with one validation metric, by variant and seed."""
    return {(v, s): outcome(f"{v}-{s}", t2p_r10=x) for v, xs in values.items() for s, x in enumerate(xs)}


def test_effect_of_seeds_alone_is_the_paired_t_test():
    reference, variant = [0.5, 0.55, 0.48, 0.6], [0.56, 0.58, 0.55, 0.63]
    (row,) = compared(measured({"a": reference, "b": variant}), ["a", "b"], [RECALL])
    effect = row.effects["b"]
    expected = stats.ttest_rel(variant, reference)
    assert effect.p == pytest.approx(expected.pvalue)
    assert effect.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert effect.difference == pytest.approx(statistics.fmean(variant) - statistics.fmean(reference))
    assert (effect.seeds, effect.corrected_p, row.group) == ((0, 1, 2, 3), effect.p, VALIDATION)
    assert math.isnan(effect.unit_error)


def test_effect_adds_the_noise_of_seeds_and_of_units(tmp_path):
    """Against a loop that follows the definitions step by step."""
    benchmark_seeds, seeds, resamples = (0, 1), (0, 1, 2), 400
    made = {
        (v, s, b): hits(share, [i, s, b])
        for i, (v, share) in enumerate((("a", 0.5), ("b", 0.58)))
        for s in seeds
        for b in benchmark_seeds
    }
    outcomes = {}
    for v in "ab":
        for s in seeds:
            runs = [result("x", made[v, s, b], b, model_digest=f"{v}{s}") for b in benchmark_seeds]
            outcomes[v, s] = outcome(f"{v}{s}", write_report(tmp_path / f"{v}{s}", [(spec("x"), runs)]))
    (row,) = compared(outcomes, ["a", "b"], resamples=resamples)
    effect = row.effects["b"]

    per_seed = [
        np.mean([made["b", s, b].mean() - made["a", s, b].mean() for b in benchmark_seeds]) for s in seeds
    ]
    counts_RN = draw_counts(UNITS, resamples, np.random.default_rng(RESAMPLING_SEED))
    resampled = []
    for counts_N in counts_RN:
        unit = np.repeat(np.arange(UNITS), counts_N)
        resampled.append(
            np.mean(
                [made["b", s, b][unit].mean() - made["a", s, b][unit].mean() for s in seeds for b in (0, 1)]
            )
        )
    by_seeds, by_units = np.std(per_seed, ddof=1) / math.sqrt(3), np.std(resampled, ddof=1)
    error = math.sqrt(by_seeds**2 + by_units**2)
    degrees = error**4 / (by_seeds**4 / 2)
    assert effect.difference == pytest.approx(np.mean(per_seed))
    assert (effect.seed_error, effect.unit_error) == pytest.approx((by_seeds, by_units))
    assert effect.p == pytest.approx(2 * stats.t.sf(abs(np.mean(per_seed)) / error, degrees))
    reach = stats.t.ppf(0.975, degrees) * error
    assert effect.interval == pytest.approx((np.mean(per_seed) - reach, np.mean(per_seed) + reach))
    assert row.name == "bench/x/share"
    assert row.values["b"][1] == pytest.approx(np.mean([made["b", 1, b].mean() for b in benchmark_seeds]))


@pytest.mark.parametrize(
    ("unit", "noise", "seed"),
    [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.1, 0.1, 0.3), (1.0, 1.0, 0.1), (0.3, 1.0, 0.1), (1.0, 0.3, 0.05)],
    ids=["units", "noise on units", "seeds", "mixed", "mostly noise", "mostly units"],
)
def test_effect_rarely_sees_a_difference_where_there_is_none(unit, noise, seed):
    """Three seeds, level 0.05, whatever the noise is made of."""
    rng = np.random.default_rng(5)
    trials, num_units, resamples, found = 400, 100, 200, 0
    for _ in range(trials):
        values_SN = (
            unit * rng.normal(size=num_units)
            + noise * rng.normal(size=(3, num_units))
            + seed * rng.normal(size=(3, 1))
        )
        weights_RN = draw_counts(num_units, resamples, rng) / num_units
        effect = _effect(dict(enumerate(values_SN.mean(1))), list(values_SN @ weights_RN.T), [])
        found += effect.p <= 0.05
    # Binomial: 0.05 ± 3 standard errors of 400 trials ends at 0.083; there is no lower bound to keep.
    assert found / trials < 0.083


def test_effect_finds_a_difference_of_some_errors():
    rng = np.random.default_rng(6)
    found = 0
    for _ in range(100):
        values_SN = 0.5 + rng.normal(size=(3, 200)) + 0.02 * rng.normal(size=(3, 1))
        weights_RN = draw_counts(200, 200, rng) / 200
        found += _effect(dict(enumerate(values_SN.mean(1))), list(values_SN @ weights_RN.T), []).p <= 0.05
    assert found > 95


def test_effect_of_one_seed_counts_units_alone_and_says_so(tmp_path):
    outcomes = {
        (v, 0): outcome(
            v,
            write_report(tmp_path / v, [(spec("x"), [result("x", hits(share, 1), model_digest=v)])]),
            t2p_r10=share,
        )
        for v, share in (("a", 0.4), ("up", 0.7), ("down", 0.2), ("same", 0.4))
    }
    bench, valid = compared(outcomes, ["a", "up", "down", "same"], [RECALL])
    assert {v: e.verdict for v, e in bench.effects.items()} == {
        "up": "better (one seed)",
        "down": "worse (one seed)",
        "same": "no difference shown",
    }
    assert math.isnan(bench.effects["up"].seed_error)
    effect = valid.effects["up"]
    assert (effect.verdict, round(effect.difference, 6)) == ("not comparable", 0.3)
    assert "seeds=0,1,2" in effect.why


def test_verdicts_follow_the_direction_of_the_metric():
    low, high = (0.1, 0.11, 0.12), (0.9, 0.92, 0.93)
    outcomes = {
        (v, s): outcome(f"{v}{s}", t2p_r10=xs[s], **{"loss/gc": xs[s], "t2p_median_rank": xs[s]})
        for v, xs in (("a", low), ("b", high))
        for s in range(3)
    }
    rows = {row.name: row for row in compared(outcomes, ["a", "b"], [RECALL, LOSS, RANK])}
    verdicts = {name: row.effects["b"].verdict for name, row in rows.items()}
    assert verdicts == {RECALL: "better", LOSS: "worse", RANK: "worse"}


def test_p_is_corrected_for_the_rows_of_a_variant_that_can_be_compared():
    rng = np.random.default_rng(0)
    names = [f"m{i}" for i in range(4)]
    values = {(v, s): rng.normal(size=4) for v in "abc" for s in range(3)}
    outcomes = {
        (v, s): outcome(f"{v}{s}", **dict(zip(names, xs, strict=True))) for (v, s), xs in values.items()
    }
    rows = compared(outcomes, ["a", "b", "c"], [f"valid/{n}" for n in (*names, "absent")])
    for variant in "bc":
        effects = [row.effects[variant] for row in rows]
        assert [e.corrected_p for e in effects[:4]] == pytest.approx(holm([e.p for e in effects[:4]]))
        assert effects[4].verdict == "not comparable"


def test_only_seeds_both_have_are_paired():
    values = measured({"a": [0.1, 0.2, 0.3, 0.4], "b": [0.2, 0.31, 0.4]})
    del values["a", 0]
    (row,) = compared(values, ["a", "b"], [RECALL])
    assert row.effects["b"].seeds == (1, 2)
    assert row.effects["b"].difference == pytest.approx(0.105)
    assert row.mean("a") == pytest.approx(0.3)


def test_equal_trainings_show_no_difference_and_constant_differences_no_noise():
    values = measured({"a": [0.1, 0.2], "same": [0.1, 0.2], "odd": [0.25, 0.45], "shifted": [0.6, 0.7]})
    (row,) = compared(values, ["a", "same", "odd", "shifted"], [RECALL])
    same, odd, shifted = row.effects.values()
    assert (same.verdict, same.p, same.interval) == ("no difference shown", 1.0, (0.0, 0.0))
    assert odd.p < 1
    assert (shifted.verdict, shifted.difference) == ("not comparable", pytest.approx(0.5))
    assert "nothing varies" in shifted.why


def test_what_cannot_be_compared_says_why(tmp_path):
    def report(name, runs):
        (tmp_path / name).mkdir()
        return write_report(tmp_path / name, runs)

    good = [(spec("x"), [result("x", hits(0.5, 1), model_digest="a")])]
    other_version = [(spec("x"), [result("x", hits(0.5, 2), model_digest="b", version="v2")])]
    undefined = [
        (
            spec("x"),
            [
                result(
                    "x",
                    hits(0.5, 2),
                    model_digest="c",
                    metrics={"share": math.nan, "square": 0.0, "rank": 0.0},
                )
            ],
        )
    ]
    broken = [(spec("x"), [failed(result("x", hits(0.5, 2), model_digest="d"), "out of memory")])]
    outcomes = {
        ("a", 0): outcome("a", report("a", good), t2p_r10=0.5),
        ("version", 0): outcome("b", report("b", other_version), t2p_r10=0.5),
        ("undefined", 0): outcome("c", report("c", undefined), t2p_r10=0.5),
        ("broken", 0): outcome("d", report("d", broken), t2p_r10=0.5),
    }
    variants = ["a", "version", "undefined", "broken", "absent"]
    pairs = {v: "q" if v == "version" else "p" for v in variants}
    bench, valid = compared(outcomes, variants, [RECALL], pairs=pairs)
    assert {e.verdict for e in bench.effects.values()} == {"not comparable"}
    why = {v: e.why for v, e in bench.effects.items()}
    assert why["version"] == "other data, protocol or release"
    assert why["undefined"] == "share is undefined"
    assert "no run of d succeeded" in why["broken"]
    assert why["absent"] == "no seed of which both are complete"
    assert valid.effects["version"].why == "measured on validation pairs of its own"


def test_compare_refuses_a_kind_it_does_not_have(tmp_path, monkeypatch):
    uri = write_report(tmp_path / "a", [(spec("x"), [result("x", hits(0.5, 1))])])
    monkeypatch.delitem(registry.KINDS, "hits")
    with pytest.raises(BenchmarkError, match="x: unknown kind 'hits'; known: "):
        compared({("a", 0): outcome("a", uri)}, ["a", "b"])


def test_series_is_one_number_that_varies():
    key = "loss.bsr"
    assert series({"x": {key: 0.1}, "y": {key: 1}, "z": {key: 0.5}}) == (key, {"x": 0.1, "y": 1.0, "z": 0.5})
    assert series({"x": {key: 0.1}, "y": {key: 1}}) is None
    assert series({v: {key: x, "loss.mlm": x} for v, x in zip("xyz", (0.1, 0.2, 0.3), strict=True)}) is None
    assert series({v: {key: x} for v, x in zip("xyz", (True, 0.2, 0.3), strict=True)}) is None
    assert series({v: {key: x} for v, x in zip("xyz", (None, 0.2, 0.3), strict=True)}) is None
