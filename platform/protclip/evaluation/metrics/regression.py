"""Regression: a number per example.

Shape suffixes: N examples, G groups of equal values, R resamplings.
"""

import numpy as np

from protclip.evaluation.arrays import ratio

REGRESSION = ("spearman", "mae")
"""Names of the metrics."""

VALUES_AT_ONCE = 2**21


def resampled_regression(
    truth_N: np.ndarray, predicted_N: np.ndarray, counts_RN: np.ndarray
) -> dict[str, np.ndarray]:
    """Metrics when example n counts `counts_RN[r, n]` times.

    Args:
        truth_N: True values.
        predicted_N: Predicted values.
        counts_RN: Integers; no row is all zero.

    Returns:
        float64 (R,) each: spearman, as `resampled_spearman` has it; mae, the mean absolute error.
    """
    error_N = np.abs(truth_N.astype(np.float64) - predicted_N)
    return {
        "spearman": resampled_spearman(truth_N, predicted_N, counts_RN),
        "mae": counts_RN @ error_N / counts_RN.sum(1),
    }


def resampled_spearman(truth_N: np.ndarray, predicted_N: np.ndarray, counts_RN: np.ndarray) -> np.ndarray:
    """Spearman's correlation when example n counts `counts_RN[r, n]` times: float64 (R,).

    The Pearson correlation of average ranks in full precision (ProtCLIP's code ranks in half precision, which
    ties ranks above 2048), 0 when a side is constant, so that a constant prediction has a value.
    """
    pieces = np.array_split(counts_RN, -(-counts_RN.size // VALUES_AT_ONCE))
    return np.concatenate([_spearman(truth_N, predicted_N, piece) for piece in pieces])


def _spearman(truth_N: np.ndarray, predicted_N: np.ndarray, counts_RN: np.ndarray) -> np.ndarray:
    """(R,) rank correlations."""
    truth_RN, predicted_RN = _centred_ranks(truth_N, counts_RN), _centred_ranks(predicted_N, counts_RN)
    covariance_R = np.einsum("rn,rn,rn->r", counts_RN, truth_RN, predicted_RN)
    spread_R = np.sqrt(
        np.einsum("rn,rn,rn->r", counts_RN, truth_RN, truth_RN)
        * np.einsum("rn,rn,rn->r", counts_RN, predicted_RN, predicted_RN)
    )
    return ratio(covariance_R, spread_R)


def _centred_ranks(value_N: np.ndarray, counts_RN: np.ndarray) -> np.ndarray:
    """(R, N) average ranks less their mean, exact in float64."""
    _, first_G, group_N = np.unique(np.sort(value_N), return_index=True, return_inverse=True)
    order_N = np.argsort(value_N, kind="stable")
    size_RG = np.add.reduceat(counts_RN[:, order_N], first_G, axis=1)
    below_RG = np.cumsum(size_RG, axis=1) - size_RG
    rank_RG = below_RG + (size_RG + 1) / 2 - (counts_RN.sum(1, keepdims=True) + 1) / 2
    rank_RN = np.empty(counts_RN.shape)
    rank_RN[:, order_N] = rank_RG[:, group_N]
    return rank_RN
