"""Arithmetic on rows that everything here shares, defined where a divisor is zero.

Shape suffixes: N rows, F width.
"""

import numpy as np


def ratio(above: np.ndarray, below: np.ndarray, empty: float = 0.0) -> np.ndarray:
    """The quotient of floats, element by element; `empty` where `below` is 0."""
    return np.divide(above, below, out=np.full(np.shape(above), empty), where=below > 0)


def unit(rows_NF: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, in their precision; zero rows stay zero."""
    norm_N = np.linalg.norm(rows_NF, axis=1, keepdims=True)
    return np.divide(rows_NF, norm_N, out=np.zeros_like(rows_NF), where=norm_N > 0)


def standardised(rows_NF: np.ndarray, reference_NF: np.ndarray) -> np.ndarray:
    """Columns less the mean, over the deviation of `reference_NF`; a constant column is only centred."""
    deviation_F = reference_NF.std(0)
    return (rows_NF - reference_NF.mean(0)) / np.where(deviation_F > 0, deviation_F, 1)
