import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import mean_absolute_error

from protclip.evaluation.metrics import regression
from protclip.evaluation.metrics.regression import resampled_regression

VALUES = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6))
ROWS = st.lists(st.tuples(VALUES, VALUES), min_size=2, max_size=40)


@settings(max_examples=100, deadline=None)
@given(ROWS)
def test_resampled_regression_equals_scipy_and_scikit_learn(rows):
    truth, predicted = np.array(rows).T
    assume(len(set(truth)) > 1 and len(set(predicted)) > 1)
    found = resampled_regression(truth, predicted, np.ones((1, len(rows)), int))
    assert found["spearman"][0] == pytest.approx(spearmanr(truth, predicted).statistic, abs=1e-12)
    assert found["mae"][0] == pytest.approx(mean_absolute_error(truth, predicted))


@settings(max_examples=50, deadline=None)
@given(ROWS, st.integers(0, 2**32 - 1))
def test_resampled_regression_equals_repeated_rows(rows, seed):
    truth, predicted = np.array(rows).T
    counts = np.random.default_rng(seed).multinomial(len(rows), np.full(len(rows), 1 / len(rows)), 4)
    found = resampled_regression(truth, predicted, counts)
    for r, count in enumerate(counts):
        once = np.ones((1, len(rows)), int)
        expected = resampled_regression(np.repeat(truth, count), np.repeat(predicted, count), once)
        assert found["spearman"][r] == pytest.approx(expected["spearman"][0], abs=1e-12)
        assert found["mae"][r] == pytest.approx(expected["mae"][0])


def test_resampled_regression_does_not_depend_on_pieces(monkeypatch):
    rng = np.random.default_rng(0)
    truth, predicted, counts = rng.random(30), rng.random(30), rng.integers(0, 3, (9, 30))
    whole = resampled_regression(truth, predicted, counts)["spearman"]
    monkeypatch.setattr(regression, "VALUES_AT_ONCE", 70)
    np.testing.assert_array_equal(resampled_regression(truth, predicted, counts)["spearman"], whole)


def test_spearman_of_a_constant_side_is_zero():
    constant, rising = np.full(5, 0.1), np.arange(5.0)
    once = np.ones((1, 5), int)
    assert resampled_regression(rising, constant, once)["spearman"] == 0
    assert resampled_regression(constant, rising, once)["spearman"] == 0


def test_spearman_has_no_false_ties_beyond_half_precision():
    truth = np.arange(5000.0)
    swapped = truth.reshape(-1, 2)[:, ::-1].ravel()
    found = resampled_regression(truth, swapped, np.ones((1, 5000), int))["spearman"][0]
    assert found == pytest.approx(1 - 6 * 5000 / (5000 * (5000**2 - 1)), abs=1e-15)
    assert found < 1
