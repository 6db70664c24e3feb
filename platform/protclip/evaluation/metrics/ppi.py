"""Several labels per unit, pooled: micro F1 of subsets of the units.

Shape suffixes: N units, C labels, R resamplings, S subsets.
"""

from collections.abc import Mapping

import numpy as np

from protclip.evaluation.arrays import ratio


def resampled_micro_f1(
    truth_NC: np.ndarray, predicted_NC: np.ndarray, subsets: Mapping[str, np.ndarray], counts_RN: np.ndarray
) -> dict[str, np.ndarray]:
    """Micro F1 when unit n counts `counts_RN[r, n]` times.

    Args:
        truth_NC: Bool, the labels.
        predicted_NC: Bool, the predicted ones.
        subsets: Bool (N,) by name.
        counts_RN: Integers.

    Returns:
        float64 (R,) by subset: 2 TP / (2 TP + FP + FN) over all units and labels, which is the 2PR/(P+R) of
        pooled precision and recall; NaN where there are neither labels nor predictions.
    """
    right_N, either_N = (truth_NC & predicted_NC).sum(1), truth_NC.sum(1) + predicted_NC.sum(1)
    inside_NS = np.column_stack(list(subsets.values())).astype(np.float64)
    right_RS, either_RS = (counts_RN @ (inside_NS * each_N[:, None]) for each_N in (right_N, either_N))
    f1_RS = ratio(2 * right_RS, either_RS, empty=np.nan)
    return dict(zip(subsets, f1_RS.T, strict=True))
