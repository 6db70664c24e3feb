"""How far a metric would move with another draw of test units: percentile bootstrap, paired across runs.

Units are drawn with replacement as often as there are units (Efron & Tibshirani 1993, chapters 13 and 16).
What this covers is the choice of test units, neither another training nor units that hang together, such
as pairs that share a protein.

Shape suffixes: R resamples, N test units.
"""

from collections.abc import Sequence

import numpy as np

from protclip.evaluation.kind import Kind, Units
from protclip.progress import progress

LEVEL = 0.95
FEWEST = 200
VALUES_AT_MOST = 4_000_000_000
"""Values of units that are looked at in all: a minute or two."""
COUNTS_AT_ONCE, RESAMPLES_AT_ONCE = 2**23, 500
SHOWN_AFTER_S = 3

Interval = tuple[float, float]
Run = tuple[Units, Sequence[str]]
"""What was measured of each unit, and the units' names."""


def affordable(units: Sequence[Units], resamples: int) -> int:
    """How many resamples of some runs are drawn: those wanted, fewer of very large units, never under 200.

    Depends on sizes alone, so that the same results always have the same intervals.
    """
    values = sum(array.size for each in units for array in each.values())
    return min(resamples, max(FEWEST, VALUES_AT_MOST // max(1, values)))


def resampled(
    kind: Kind, runs: Sequence[Run], resamples: int, rng: np.random.Generator, label: str
) -> list[dict[str, np.ndarray]]:
    """Every metric of every run on resamples of its units.

    Runs over the same units, in the same order, are measured on the same resamples, so that their
    differences are paired; others are independent.

    Args:
        kind: The kind of benchmark.
        runs: Units and their names.
        resamples: How many (R).
        rng: Draws the resamples.
        label: What the progress bar says.

    Returns:
        For each run (R,) float64 by metric; NaN where a metric is undefined.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, (_, ids) in enumerate(runs):
        groups.setdefault(tuple(ids), []).append(index)
    pieces: list[list[dict[str, np.ndarray]]] = [[] for _ in runs]
    with progress(
        f"bootstrap of {label}", " resamples", resamples * len(runs), delay=SHOWN_AFTER_S, leave=False
    ) as bar:
        for ids, members in groups.items():
            at_once = max(1, min(COUNTS_AT_ONCE // len(ids), RESAMPLES_AT_ONCE))
            for start in range(0, resamples, at_once):
                counts_RN = draw_counts(len(ids), min(at_once, resamples - start), rng)
                for index in members:
                    pieces[index].append(_metrics(kind, runs[index][0], counts_RN))
                    bar.update(len(counts_RN))
    return [{name: np.concatenate([p[name] for p in parts]) for name in parts[0]} for parts in pieces]


def draw_counts(num_units: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """int64 (R, N): how often each unit is drawn; rows sum to N."""
    drawn_RN = rng.integers(num_units, size=(resamples, num_units))
    drawn_RN += num_units * np.arange(resamples)[:, None]
    counts = np.bincount(drawn_RN.ravel(), minlength=drawn_RN.size)
    return counts.reshape(resamples, num_units)


def _metrics(kind: Kind, units: Units, counts_RN: np.ndarray) -> dict[str, np.ndarray]:
    """(R,) by metric, all at once where the kind can do that."""
    if kind.resample is not None:
        return kind.resample(units, counts_RN)
    rows_N = np.arange(counts_RN.shape[1])
    scores = [
        kind.score({name: array[drawn_N] for name, array in units.items()})
        for drawn_N in (np.repeat(rows_N, counts_N) for counts_N in counts_RN)
    ]
    return {name: np.array([score[name] for score in scores], dtype=np.float64) for name in scores[0]}


def interval(values_R: np.ndarray, level: float = LEVEL) -> Interval | None:
    """Bounds that hold the middle `level` of the values; None when most of them are undefined."""
    defined = values_R[np.isfinite(values_R)]
    if 2 * len(defined) < len(values_R):
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return low, high


def p_value(differences_R: np.ndarray) -> float:
    """Two-sided probability of a difference by chance, from resampled differences.

    The smallest level at which the percentile interval leaves out zero, never 0 (Davison & Hinkley 1997,
    4.2); 1 when a difference is undefined in most resamples.
    """
    defined = differences_R[np.isfinite(differences_R)]
    if 2 * len(defined) < len(differences_R):
        return 1.0
    rarer = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (1 + rarer) / (1 + len(defined)))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979): all under a level are real at that level together."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
