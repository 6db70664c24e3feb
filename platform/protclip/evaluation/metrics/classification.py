"""Classification: one class per example.

Shape suffixes: N examples, C classes, R resamplings.
"""

import numpy as np
from scipy.sparse import csr_array

from protclip.evaluation.arrays import ratio

CLASSIFICATION = ("accuracy", "mcc", "macro_f1")
"""Names of the metrics."""


def resampled_classification(
    truth_N: np.ndarray, predicted_N: np.ndarray, counts_RN: np.ndarray
) -> dict[str, np.ndarray]:
    """Metrics when example n counts `counts_RN[r, n]` times.

    Args:
        truth_N: True class indices.
        predicted_N: Predicted class indices.
        counts_RN: Integers; no row is all zero.

    Returns:
        float64 (R,) each: accuracy; mcc, Matthews correlation of any number of classes (Gorodkin's R_K), 0
        when a side is constant; macro_f1, the mean over classes that occur or are predicted.
    """
    classes = int(max(truth_N.max(), predicted_N.max())) + 1
    right_N = truth_N == predicted_N
    true_RC = counts_RN @ _one_hot(truth_N, classes)
    predicted_RC = counts_RN @ _one_hot(predicted_N, classes)
    right_RC = counts_RN[:, right_N] @ _one_hot(truth_N[right_N], classes)
    total_R, right_R = true_RC.sum(1), right_RC.sum(1)
    covariance_R = right_R * total_R - (true_RC * predicted_RC).sum(1)
    spread_R = np.sqrt((total_R**2 - (true_RC**2).sum(1)) * (total_R**2 - (predicted_RC**2).sum(1)))
    occurrences_RC = true_RC + predicted_RC
    f1_RC = ratio(2 * right_RC, occurrences_RC)
    return {
        "accuracy": right_R / total_R,
        "mcc": ratio(covariance_R, spread_R),
        "macro_f1": f1_RC.sum(1) / (occurrences_RC > 0).sum(1),
    }


def _one_hot(class_N: np.ndarray, classes: int) -> csr_array:
    """(N, C) float64 with a one per row."""
    size = len(class_N)
    return csr_array((np.ones(size), class_N, np.arange(size + 1)), shape=(size, classes))
