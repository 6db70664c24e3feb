"""How well the texts of entries agree with their proteins, in numbers that add up.

The paper's confidence levels say how much is known of a protein. Where its text is guessed, a trained
model should find text and sequence agreeing less: the mean cosine should fall as C rises.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from protclip.data.manifest import ConsistencyCount
from protclip.records import CONFIDENCE_LEVELS, COVERAGE_LEVELS, NUM_PROPERTIES

BIN_EDGES = np.linspace(-1, 1, 41)
COLUMNS = ("C", "R", "entries", "mean cosine", "deviation")
ALL = "all"

Key = tuple[int | None, int | None]


def count(
    confidence_N: np.ndarray, coverage_N: np.ndarray, cosine_N: np.ndarray
) -> Iterator[ConsistencyCount]:
    """The strata of some entries.

    Args:
        confidence_N: C of each.
        coverage_N: Number of properties of each.
        cosine_N: float32 protein-text cosine of each.
    """
    strata_N2 = np.stack([confidence_N, coverage_N], axis=1)
    for confidence, coverage in np.unique(strata_N2, axis=0).tolist():
        inside = (confidence_N == confidence) & (coverage_N == coverage)
        cosines = cosine_N[inside].astype(np.float64)
        yield ConsistencyCount(
            confidence=confidence,
            coverage=coverage,
            rows=len(cosines),
            total=float(cosines.sum()),
            squares=float((cosines**2).sum()),
            histogram=tuple(np.histogram(cosines, BIN_EDGES)[0].tolist()),
        )


def by_stratum(counts: Iterable[ConsistencyCount]) -> tuple[ConsistencyCount, ...]:
    """Sums per (C, R)."""
    return _sums(counts, lambda c: (c.confidence, c.coverage))


def by_confidence(counts: Iterable[ConsistencyCount]) -> tuple[ConsistencyCount, ...]:
    """Sums per C."""
    return _sums(counts, lambda c: (c.confidence, None))


def _sums(
    counts: Iterable[ConsistencyCount], key: Callable[[ConsistencyCount], Key]
) -> tuple[ConsistencyCount, ...]:
    """Sums of what has the same key, in its order; exact, so the order of the summands is nothing to them."""
    groups: dict[Key, list[ConsistencyCount]] = defaultdict(list)
    for each in counts:
        groups[key(each)].append(each)
    return tuple(
        ConsistencyCount(
            confidence=confidence,
            coverage=coverage,
            rows=sum(c.rows for c in group),
            total=math.fsum(c.total for c in group),
            squares=math.fsum(c.squares for c in group),
            histogram=tuple(np.sum([c.histogram for c in group], axis=0).tolist()),
        )
        for (confidence, coverage), group in sorted(groups.items(), key=lambda item: _order(item[0]))
    )


def _order(key: Key) -> tuple[int, int]:
    """Levels in their order, all of them last."""
    return key[0] or len(CONFIDENCE_LEVELS) + 1, key[1] or len(COVERAGE_LEVELS) + 1


def correlation(counts: Iterable[ConsistencyCount]) -> float | None:
    """Pearson's r of C and cosine over all entries, below 0 when worse ones agree less; None for one C."""
    levels = by_confidence(counts)
    rows = sum(c.rows for c in levels)
    level = sum(c.rows * (c.confidence or 0) for c in levels) / rows
    mean = math.fsum(c.total for c in levels) / rows
    spread = sum(c.rows * ((c.confidence or 0) - level) ** 2 for c in levels) / rows
    variance = math.fsum(c.squares for c in levels) / rows - mean**2
    if spread == 0 or variance <= 0:
        return None
    covariance = sum(c.rows * ((c.confidence or 0) - level) * (c.mean - mean) for c in levels) / rows
    return covariance / math.sqrt(spread * variance)


def table_rows(counts: Sequence[ConsistencyCount]) -> list[tuple[str, ...]]:
    """Cells under `COLUMNS`: every stratum, and every C over all R."""
    return [
        (
            str(c.confidence),
            ALL if c.coverage is None else f"{c.coverage}/{NUM_PROPERTIES}",
            f"{c.rows:,}",
            f"{c.mean:.4f}",
            f"{c.deviation:.4f}",
        )
        for c in (*by_stratum(counts), *by_confidence(counts))
    ]


def draw(title: str, counts: Sequence[ConsistencyCount], path: Path) -> None:
    """Left the distribution of the cosine by C, right its mean by (C, R).

    Args:
        title: Heading of the picture.
        counts: Per stratum.
        path: PNG file to write.
    """
    figure = Figure(figsize=(12, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=14, fontweight="bold")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for level in by_confidence(counts):
        shares = np.array(level.histogram) / level.rows
        name = f"C = {level.confidence}: mean {level.mean:.3f}, {level.rows:,} entries"
        (line,) = left.step(BIN_EDGES, [*shares, shares[-1]], where="post", label=name)
        left.axvline(level.mean, color=line.get_color(), linestyle=":", linewidth=1.2)
    left.set_xlabel("cosine of protein and text")
    left.set_ylabel("share of the entries of a level")
    occupied = np.flatnonzero(np.sum([c.histogram for c in counts], axis=0))
    left.set_xlim(BIN_EDGES[occupied[0]], BIN_EDGES[occupied[-1] + 1])
    left.set_ylim(bottom=0)
    left.legend(frameon=False, fontsize=9)
    left.spines[["top", "right"]].set_visible(False)

    means = np.full((len(CONFIDENCE_LEVELS), len(COVERAGE_LEVELS)), np.nan)
    for stratum in by_stratum(counts):
        means[(stratum.confidence or 0) - 1, (stratum.coverage or 0) - 1] = stratum.mean
    image = right.imshow(means, cmap="YlGnBu", aspect="auto")
    right.set_facecolor("#f2f2f2")
    middle = (np.nanmin(means) + np.nanmax(means)) / 2
    for (row, column), mean in np.ndenumerate(means):
        text = "–" if np.isnan(mean) else f"{mean:.3f}"
        right.text(column, row, text, ha="center", va="center", color="white" if mean > middle else "black")
    right.set_xticks(range(len(COVERAGE_LEVELS)), [f"{r}/{NUM_PROPERTIES}" for r in COVERAGE_LEVELS])
    right.set_yticks(range(len(CONFIDENCE_LEVELS)), [f"C = {c}" for c in CONFIDENCE_LEVELS])
    right.set_xlabel("property coverage R")
    right.tick_params(length=0)
    figure.colorbar(image, ax=right, label="mean cosine")
    figure.savefig(path)
