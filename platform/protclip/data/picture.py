"""Counts per (confidence, coverage), for people: a text table and a picture."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from rich import box
from rich.console import Console
from rich.table import Table

from protclip.data.manifest import StratumCount
from protclip.records import CONFIDENCE_LEVELS, COVERAGE_LEVELS, NUM_PROPERTIES

EVIDENCE = ("protein level", "transcript level", "from homology", "predicted", "uncertain")
COLOURS = "YlGnBu"


Panel = tuple[str, Sequence[StratumCount]]
"""Heading and counts of one heat map."""


def render(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> tuple[str, str]:
    """A table as text for a terminal and as Markdown.

    Args:
        title: Heading of both.
        columns: Heading of each column.
        rows: Cells, as many as columns.
    """
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    text = _printed(table)
    table.box, table.title = box.MARKDOWN, None
    return text, f"# {title}\n\n{_printed(table)}"


def _printed(table: Table) -> str:
    """A table without colours, as wide as it needs."""
    sink = io.StringIO()
    Console(file=sink, width=200).print(table)
    return "\n".join(line.rstrip() for line in sink.getvalue().splitlines()).strip("\n") + "\n"


def draw(title: str, panels: Sequence[Panel], path: Path) -> None:
    """Heat maps side by side on one logarithmic colour scale, each cell with its count and share.

    Args:
        title: Heading of the picture.
        panels: What to show, left to right.
        path: PNG file to write.
    """
    grids = [_grid(counts) for _, counts in panels]
    largest = max(2, *(int(grid.max()) for grid in grids))
    norm = LogNorm(vmin=1, vmax=largest)
    figure = Figure(figsize=(1.2 + 5.0 * len(panels), 5.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=14, fontweight="bold")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    image = None
    for axis, (heading, _), grid in zip(axes, panels, grids, strict=True):
        total = max(1, int(grid.sum()))
        image = axis.imshow(np.ma.masked_equal(grid, 0), norm=norm, cmap=COLOURS, aspect="auto")
        axis.set_facecolor("#f2f2f2")
        for (row, column), count in np.ndenumerate(grid):
            dark = count > 0 and float(norm(count)) > 0.55
            axis.text(
                column,
                row,
                f"{count:,}\n{count / total:.2%}" if count else "–",
                ha="center",
                va="center",
                fontsize=9,
                color="white" if dark else "black" if count else "#999999",
            )
        axis.set_title(f"{heading}: {grid.sum():,}", fontsize=12)
        axis.set_xticks(
            range(len(COVERAGE_LEVELS)),
            [
                f"{r}/{NUM_PROPERTIES}\n{s:.1%}"
                for r, s in zip(COVERAGE_LEVELS, grid.sum(0) / total, strict=True)
            ],
        )
        axis.set_yticks(
            range(len(CONFIDENCE_LEVELS)),
            [
                f"C = {c}\n{word}\n{s:.1%}"
                for c, word, s in zip(CONFIDENCE_LEVELS, EVIDENCE, grid.sum(1) / total, strict=True)
            ],
        )
        axis.set_xlabel("property coverage R and its share")
        axis.set_xticks(np.arange(-0.5, len(COVERAGE_LEVELS)), minor=True)
        axis.set_yticks(np.arange(-0.5, len(CONFIDENCE_LEVELS)), minor=True)
        axis.grid(which="minor", color="white", linewidth=2)
        axis.tick_params(which="both", length=0)
        axis.spines[:].set_visible(False)
    axes[0].set_ylabel("confidence C and its share")
    assert image is not None, "there is at least one panel"
    figure.colorbar(
        image,
        ax=list(axes),
        label="entries (log scale)",
        pad=0.02,
        format=FuncFormatter(lambda value, _: f"{value:,.0f}"),
    )
    figure.savefig(path)


def _grid(counts: Iterable[StratumCount]) -> np.ndarray:
    """int64 counts by [C - 1, coverage - 1]."""
    grid = np.zeros((len(CONFIDENCE_LEVELS), len(COVERAGE_LEVELS)), dtype=np.int64)
    for stratum in counts:
        grid[stratum.confidence - 1, stratum.coverage - 1] += stratum.total
    return grid
