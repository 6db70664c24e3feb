"""Multilabel: protein-centric Fmax and micro AUPR, exact, for one test set and for resamplings of it.

Both follow from what lies at or above each threshold, and only thresholds at which a right label is found
matter: between two of them recall stands still and precision falls. So entries are sorted once, best first,
numbered by the first threshold that includes them, and every protein becomes a few steps along the
thresholds; sums of steps over proteins are sparse matrix products.

Equal scores enter together: the published implementations let the order in which a sort leaves them decide.

Shape suffixes: N proteins, C labels, E entries (a protein and a label), T thresholds, best first,
S steps (a protein and a threshold that includes more of it), R resamplings.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from scipy.sparse import csc_array, hstack

from protclip.evaluation.arrays import ratio

MULTILABEL = ("fmax", "aupr")
"""Names of the metrics."""

ENTRIES_AT_ONCE = 2**20
VALUES_AT_ONCE = 2**21
TRUTH_BITS, SCORE_BITS, PROTEIN_BITS = np.uint64(1), np.uint64(32), np.uint64(33)


def fmax_and_aupr(
    truth_NC: np.ndarray, score_NC: np.ndarray, counts_RN: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fmax and micro AUPR when protein n counts `counts_RN[r, n]` times.

    Fmax (CAFA; DeepFRI, GearNet): the largest 2PR/(P+R) over all scores as thresholds t. P is the mean
    precision of proteins with a score of t or more, R the mean recall of all proteins; a protein without
    labels stays in with recall 0. AUPR: over all entries, (1 / true ones) · Σ over true ones of the
    precision among entries of that score or more, without interpolation.

    Args:
        truth_NC: bool.
        score_NC: Any finite scores of which higher is likelier; compared as float32.
        counts_RN: Integers.

    Returns:
        float64 (R,) each; 0 where no label is true.
    """
    if not truth_NC.any():
        return np.zeros(len(counts_RN)), np.zeros(len(counts_RN))
    key_E, num_thresholds = _protein_threshold_truth(truth_NC, score_NC)
    blocks = (_steps(key_E, proteins, num_thresholds) for proteins in _blocks(truth_NC.shape))
    pieces = np.array_split(counts_RN, -(-len(counts_RN) * num_thresholds // VALUES_AT_ONCE))
    if len(pieces) > 1:
        blocks = [_joined(blocks)]
    both = [_scores(blocks, piece_RN.T.astype(np.float64), truth_NC.sum(1)) for piece_RN in pieces]
    fmax, aupr = (np.concatenate(values) for values in zip(*both, strict=True))
    return fmax, aupr


@dataclass(frozen=True, slots=True)
class _Steps:
    """What each threshold adds to what those before it include of some proteins.

    Attributes:
        proteins: These proteins.
        matrices: Sparse float64 (T, N): entries, true entries, change of the protein's precision, and 1 at
            its first entry.
    """

    proteins: slice
    matrices: Sequence[csc_array]

    def times(self, counts_NR: np.ndarray, share_NR: np.ndarray) -> np.ndarray:
        """Sums (5, T, R) over the proteins, of how often each counts; last of the shares of true entries."""
        parts = [matrix @ counts_NR[self.proteins] for matrix in self.matrices]
        return np.stack([*parts, self.matrices[1] @ share_NR[self.proteins]])


def _joined(blocks: Iterable[_Steps]) -> _Steps:
    """Blocks as one, which pays when it is used again and again."""
    columns = zip(*(block.matrices for block in blocks), strict=True)
    return _Steps(slice(None), [csc_array(hstack(parts)) for parts in columns])


def _scores(
    blocks: Iterable[_Steps], counts_NR: np.ndarray, true_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fmax and AUPR, each (R,)."""
    share_NR = counts_NR / np.maximum(true_N, 1)[:, None] / counts_NR.sum(0)
    sums = (block.times(counts_NR, share_NR) for block in blocks)
    included_TR, found_TR, precision_TR, covered_TR, recall_TR = np.cumsum(reduce(np.add, sums), axis=1)
    precision_TR = ratio(precision_TR, covered_TR)
    fmax_R = ratio(2 * precision_TR * recall_TR, precision_TR + recall_TR).max(0)
    new_TR = np.diff(found_TR, prepend=0, axis=0)
    return fmax_R, ratio((new_TR * ratio(found_TR, included_TR)).sum(0), found_TR[-1])


def _blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Proteins in blocks of few entries, so that what is made of them on the way stays small."""
    proteins, labels = shape
    at_once = max(1, ENTRIES_AT_ONCE // labels)
    for start in range(0, proteins, at_once):
        yield slice(start, min(start + at_once, proteins))


def _steps(key_E: np.ndarray, proteins: slice, num_thresholds: int) -> _Steps:
    """Steps of a block of proteins."""
    bounds = np.arange(proteins.start, proteins.stop + 1, dtype=np.uint64) << PROTEIN_BITS
    start_N = np.searchsorted(key_E, bounds)
    key_E = key_E[start_N[0] : start_N[-1]]
    start_N -= start_N[0]
    place_E = key_E >> TRUTH_BITS
    last_S = np.flatnonzero(np.append(place_E[1:] != place_E[:-1], True)[: len(key_E)])
    threshold_S = place_E[last_S].astype(np.uint32).astype(np.int32)
    start_of_step_N = np.searchsorted(last_S, start_N)
    steps_N = np.diff(start_of_step_N)
    first_S = start_of_step_N[:-1][steps_N > 0]

    def within(total_S: np.ndarray, before_N: np.ndarray) -> np.ndarray:
        """A running total of each protein alone."""
        return total_S - np.repeat(before_N, steps_N)

    def matrix(total_S: np.ndarray) -> csc_array:
        change_S = np.diff(total_S, prepend=0.0)
        change_S[first_S] = total_S[first_S]
        changed_S = np.flatnonzero(change_S)
        start_N = np.searchsorted(changed_S, start_of_step_N)
        parts = change_S[changed_S], threshold_S[changed_S], start_N
        return csc_array(parts, shape=(num_thresholds, len(steps_N)))

    found_E = np.cumsum(key_E & np.uint64(1), dtype=np.int64)
    included_S = within(last_S + 1, start_N[:-1])
    found_S = within(found_E[last_S], np.append(0, found_E)[start_N[:-1]])
    totals = included_S, found_S, found_S / included_S, np.ones(len(last_S))
    return _Steps(proteins, [matrix(total_S) for total_S in totals])


def _protein_threshold_truth(truth_NC: np.ndarray, score_NC: np.ndarray) -> tuple[np.ndarray, int]:
    """Sorted uint64 keys of the entries that a threshold includes, and the number of thresholds.

    A key has 31 bits of the protein, 32 of the first such threshold, and 1 of the truth. Sorting integers
    that carry their entry is several times as fast as an argsort.
    """
    key_NC = np.empty(truth_NC.shape, np.uint64)
    for block in _blocks(truth_NC.shape):
        proteins = np.arange(block.start, block.stop, dtype=np.uint64)[:, None] << TRUTH_BITS
        key_NC[block] = _descending(score_NC[block]) << SCORE_BITS | proteins | truth_NC[block]
    key_E = key_NC.reshape(-1)
    key_E.sort()
    score_T = np.unique(_descending(score_NC[truth_NC]))
    end_T = np.searchsorted(key_E, (score_T + np.uint64(1)) << SCORE_BITS)
    key_E = key_E[: end_T[-1]]
    threshold_E = np.repeat(np.arange(len(end_T), dtype=np.uint32), np.diff(end_T, prepend=0))
    for start in range(0, len(key_E), ENTRIES_AT_ONCE):
        key = key_E[start : start + ENTRIES_AT_ONCE]
        threshold = threshold_E[start : start + ENTRIES_AT_ONCE].astype(np.uint64) << TRUTH_BITS
        key[:] = key >> TRUTH_BITS << PROTEIN_BITS | threshold | key & np.uint64(1)
    key_E.sort()
    return key_E, len(end_T)


def _descending(scores: np.ndarray) -> np.ndarray:
    """Numbers of 32 bits, as uint64, in the opposite order of float32 scores; equal for equal scores."""
    # Adding 0 makes 0 of -0.
    bits = (scores.astype(np.float32) + np.float32(0)).view(np.uint32)
    return (bits ^ np.where(bits >> 31, np.uint32(0), np.uint32(0x7FFFFFFF))).astype(np.uint64)
