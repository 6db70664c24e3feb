"""Amino-acid composition, the plainest description of a protein: what the model has to beat."""

from collections.abc import Sequence

import numpy as np

from protclip.tensors import RESIDUE_LOOKUP, STANDARD_RESIDUES, VOCAB_SIZE


def composition(sequences: Sequence[str]) -> np.ndarray:
    """Share of each of the 20 amino acids, and the logarithm of the length: float64 (N, 21)."""
    counts_NV = np.array(
        [
            np.bincount(RESIDUE_LOOKUP[np.frombuffer(s.encode(), np.uint8)], minlength=VOCAB_SIZE)
            for s in sequences
        ]
    )
    length_N = counts_NV.sum(1, keepdims=True)
    return np.hstack([counts_NV[:, STANDARD_RESIDUES] / length_N, np.log(length_N)])
