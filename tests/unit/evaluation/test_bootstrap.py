"""The bootstrap against scipy, and its verdicts against worlds where the truth is known."""

import numpy as np
import pytest
from scipy import stats

from made_results import kind, resample
from protclip.evaluation.bootstrap import affordable, draw_counts, holm, interval, p_value, resampled

NUM_UNITS = 120


def hits(rng, share, num=NUM_UNITS):
    return {"hit": (rng.random(num) < share).astype(float)}


def names(num=NUM_UNITS, prefix="u"):
    return [f"{prefix}{i}" for i in range(num)]


def test_draw_counts_draws_as_many_as_there_are_and_each_as_often():
    counts = draw_counts(50, 4000, np.random.default_rng(0))
    assert counts.shape == (4000, 50)
    assert (counts.sum(1) == 50).all()
    assert counts.mean(0) == pytest.approx(np.ones(50), abs=0.1)
    assert counts.var() == pytest.approx(1 - 1 / 50, abs=0.03)


def test_resampled_is_the_same_with_and_without_a_fast_way():
    rng = np.random.default_rng(1)
    runs = [(hits(rng, 0.4), names()), (hits(rng, 0.7), names())]
    fast = resampled(kind(), runs, 30, np.random.default_rng(2), "x")
    slow = resampled(kind(resample=None), runs, 30, np.random.default_rng(2), "x")
    for a, b in zip(fast, slow, strict=True):
        assert a.keys() == b.keys() == {"share", "square", "rank"}
        for metric in a:
            np.testing.assert_allclose(a[metric], b[metric])


def test_resampled_draws_the_same_units_for_runs_over_the_same_units_only(monkeypatch):
    monkeypatch.setattr("protclip.evaluation.bootstrap.RESAMPLES_AT_ONCE", 7)
    first = hits(np.random.default_rng(3), 0.5)
    missed = {"hit": 1 - first["hit"]}
    runs = [(first, names()), (missed, names()), (first, names(prefix="v")), (first, names())]
    shares = [s["share"] for s in resampled(kind(), runs, 200, np.random.default_rng(4), "x")]
    assert {len(s) for s in shares} == {200}
    np.testing.assert_allclose(shares[0] + shares[1], 1)
    np.testing.assert_array_equal(shares[0], shares[3])
    assert abs(np.corrcoef(shares[0], shares[2])[0, 1]) < 0.3


def test_interval_agrees_with_scipy():
    values = np.random.default_rng(5).gamma(2.0, size=80)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(6)
    ).confidence_interval
    drawn = resample({"hit": values}, draw_counts(80, 9999, np.random.default_rng(7)))["share"]
    assert interval(drawn) == pytest.approx((theirs.low, theirs.high), rel=0.01)


def test_interval_leaves_out_undefined_values_until_they_are_most():
    values = np.append(np.linspace(0, 1, 101), [np.nan] * 40)
    assert interval(values) == pytest.approx((0.025, 0.975))
    assert interval(np.array([1.0, np.nan, np.nan])) is None


@pytest.mark.parametrize("shift", [0.0, 0.12, 0.3, -0.2])
def test_p_value_agrees_with_a_permutation_test(shift):
    rng = np.random.default_rng(8)
    differences = rng.normal(shift, 0.8, size=100)
    permuted = stats.permutation_test(
        (differences, np.zeros(100)), lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples", n_resamples=9999, vectorized=True, rng=rng,
    )  # fmt: skip
    drawn = resample({"hit": differences}, draw_counts(100, 9999, rng))["share"]
    assert p_value(drawn) == pytest.approx(permuted.pvalue, abs=0.02)


def test_p_value_is_small_exactly_when_the_interval_leaves_out_zero():
    centres = np.linspace(-0.5, 0.5, 41)
    spread = np.random.default_rng(9).normal(size=3001) / 8
    for values in (centre + spread for centre in centres):
        low, high = interval(values)
        assert (p_value(values) <= 0.05) == (low > 0 or high < 0)


def test_p_value_of_equal_or_undefined_runs_shows_nothing():
    assert p_value(np.zeros(100)) == 1
    assert p_value(np.full(100, np.nan)) == 1
    assert p_value(np.ones(999)) == 0.002


def test_p_value_errs_at_its_level_and_finds_a_true_difference():
    rng = np.random.default_rng(10)
    wrong = right = 0
    for _ in range(400):
        difficulty = rng.random(200)

        def model(share, difficulty=difficulty):
            own = rng.random(200)
            return (0.7 * difficulty + 0.3 * own < share).astype(float)

        one, other, better = model(0.5), model(0.5), model(0.6)
        counts = draw_counts(200, 400, rng)
        shares = [resample({"hit": m}, counts)["share"] for m in (one, other, better)]
        wrong += p_value(shares[1] - shares[0]) <= 0.05
        right += p_value(shares[2] - shares[0]) <= 0.05
    # 400 repeats at a level of 0.05 are wrong 20 times, with a standard deviation of 4.4.
    assert 7 <= wrong <= 33
    assert right > 380


def test_holm_agrees_with_its_definition():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_errs_in_few_families():
    p_values = np.random.default_rng(11).random((2000, 22))
    wrong = np.mean([min(holm(family)) <= 0.05 for family in p_values.tolist()])
    assert wrong == pytest.approx(0.05, abs=0.015)


def test_affordable_depends_on_size_alone_and_never_starves():
    small, large = {"hit": np.zeros(1000)}, {"hit": np.broadcast_to(0.0, (30_000, 2000))}
    assert affordable([small], 1000) == 1000
    assert affordable([large], 1000) == 200
    assert affordable([large], 50) == 50
    assert affordable([], 1000) == 1000
