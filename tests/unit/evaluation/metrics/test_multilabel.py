import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from protclip.evaluation.metrics import multilabel
from protclip.evaluation.metrics.multilabel import fmax_and_aupr


def naive_fmax(truth, score) -> float:
    """Every score as a threshold, by loops over thresholds and proteins."""
    best = 0.0
    for threshold in np.unique(score):
        precisions, recalls = [], []
        for true, row in zip(truth, score, strict=True):
            predicted = row >= threshold
            if predicted.any():
                precisions.append((true & predicted).sum() / predicted.sum())
            recalls.append((true & predicted).sum() / true.sum() if true.any() else 0.0)
        precision, recall = np.mean(precisions), np.mean(recalls)
        if precision + recall > 0:
            best = max(best, 2 * precision * recall / (precision + recall))
    return best


def both(truth, score, counts=None) -> tuple[np.ndarray, np.ndarray]:
    return fmax_and_aupr(truth, score, np.ones((1, len(truth)), int) if counts is None else counts)


def case(seed: int, proteins: int, labels: int, levels: int, density: float):
    """Made truth and scores; few levels make many ties, low density proteins without labels."""
    rng = np.random.default_rng(seed)
    truth = rng.random((proteins, labels)) < density
    return truth, (rng.integers(-levels, levels, (proteins, labels)) / 3).astype(np.float32)


CASES = given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 8),
    st.integers(1, 7),
    st.sampled_from([1, 3, 1000]),
    st.sampled_from([0.1, 0.5, 0.95]),
)


@settings(max_examples=150, deadline=None)
@CASES
def test_fmax_and_aupr_equal_a_double_loop_and_scikit_learn(seed, proteins, labels, levels, density):
    truth, score = case(seed, proteins, labels, levels, density)
    fmax, aupr = both(truth, score)
    assert fmax[0] == pytest.approx(naive_fmax(truth, score), abs=1e-12)
    if truth.any():
        assert aupr[0] == pytest.approx(average_precision_score(truth, score, average="micro"), abs=1e-12)
    else:
        assert aupr[0] == 0


@settings(max_examples=100, deadline=None)
@CASES
def test_fmax_and_aupr_of_counts_equal_those_of_repeated_rows(seed, proteins, labels, levels, density):
    truth, score = case(seed, proteins, labels, levels, density)
    counts = np.random.default_rng(seed).multinomial(proteins, np.full(proteins, 1 / proteins), 5)
    repeated = [both(np.repeat(truth, c, axis=0), np.repeat(score, c, axis=0)) for c in counts]
    for found, expected in zip(both(truth, score, counts), np.array(repeated)[..., 0].T, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_fmax_and_aupr_do_not_depend_on_blocks_or_order(monkeypatch):
    truth, score = case(0, 60, 9, 4, 0.2)
    counts = np.random.default_rng(1).integers(0, 3, (7, 60))
    whole = both(truth, score, counts)
    monkeypatch.setattr(multilabel, "ENTRIES_AT_ONCE", 50)
    monkeypatch.setattr(multilabel, "VALUES_AT_ONCE", 20)
    order, labels = np.random.default_rng(2).permutation(60), np.random.default_rng(3).permutation(9)
    np.testing.assert_allclose(
        both(truth[order][:, labels], score[order][:, labels], counts[:, order]), whole
    )


def test_fmax_and_aupr_of_known_values():
    truth = np.array([[True, False], [False, True], [False, False]])
    assert both(truth, np.where(truth, 2.0, -1.0)) == (pytest.approx(0.8), pytest.approx(1.0))
    # The third protein has no label: it takes no part in precision while nothing is predicted for it,
    # but recall cannot pass 2/3.
    tied = both(truth, np.zeros((3, 2)))
    assert tied == (pytest.approx(2 * (1 / 3) * (2 / 3)), pytest.approx(2 / 6))
    assert both(np.zeros((3, 2), bool), np.ones((3, 2))) == (0, 0)


def test_fmax_and_aupr_take_negative_zero_and_half_precision_as_what_they_are():
    truth = np.array([[True, False, False]])
    tied, above = np.array([[-0.0, 0.0, -1.0]]), np.array([[-1.0, -2.0, -3.0]], np.float16)
    assert both(truth, tied)[1] == pytest.approx(0.5)
    assert both(truth, above)[1] == pytest.approx(1)
