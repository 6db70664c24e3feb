"""Pictures of distributions and counts, for people."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from protclip.data.summary import Histogram, bin_floor, bin_width, quantile
from protclip.page import percent

DRAWN_BITS = 2
COLOURS = ("#d99a2b", "#2f6fde", "#2e9e6b")
ONLY = "#7a8699"
INK, DIM, LINE = "#1c2330", "#667085", "#e4e7ec"
WIDTH = 8.6
MOST_DECADES = 4.6
"""Of an axis as wide as the picture, with three labels to the decade."""

Panel = Mapping[str, Histogram]
"""Histograms of one picture by label; equal labels have equal colours in all panels."""


def draw_lengths(title: str, unit: str, panels: Mapping[str, Panel], path: Path) -> None:
    """Distributions of lengths on a logarithmic axis, all of the same area, with their medians.

    Args:
        title: Heading of the picture.
        unit: What is counted, label of the horizontal axis.
        panels: Pictures by heading, two side by side; one alone needs no heading. None is empty.
        path: PNG file to write.
    """
    across = min(2, len(panels))
    down = -(-len(panels) // across)
    figure = new_figure(title, 3.4 if down == 1 else 0.5 + 2.75 * down)
    axes = figure.subplots(down, across, squeeze=False).flat
    colours = _colours(label for panel in panels.values() for label in panel)
    for (heading, panel), axis in zip(panels.items(), axes, strict=False):
        room = 1.12 + (0.1 if down == 1 else 0.14) * len(panel)
        for label, histogram in panel.items():
            edges, density = density_of(histogram)
            median = quantile(histogram, 0.5)
            text = f"{label}: {sum(histogram.values()):,}, median {median:,}"
            axis.stairs(density, edges, fill=True, color=colours[label], alpha=0.22)
            axis.stairs(density, edges, color=colours[label], linewidth=1.4, label=text)
            # Ends below the legend.
            axis.axvline(max(1, median), 0, 0.97 / room, color=colours[label], linewidth=1.2, dashes=(4, 3))
        axis.set_xscale("log", base=2)
        low, high = axis.get_xlim()
        crowded = math.log10(high / low) * across > MOST_DECADES
        axis.xaxis.set_major_locator(LogLocator(10, subs=(1.0, 3.0) if crowded else (1.0, 2.0, 5.0)))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.set_ylim(0, axis.dataLim.y1 * room)
        axis.yaxis.set_visible(False)
        axis.set_xlabel(unit)
        plain(axis, heading)
        axis.spines["bottom"].set(visible=True, color=LINE)
        axis.legend(frameon=False, fontsize=8, loc="upper left", handlelength=1.2, labelcolor=INK)
    for axis in list(axes):
        axis.set_visible(False)
    figure.savefig(path)


def density_of(histogram: Histogram) -> tuple[np.ndarray, np.ndarray]:
    """Edges of all bins that are drawn, and the share of the rows in each per octave.

    Args:
        histogram: Rows by lowest value of their bin, at least one; 0 counts as 1.
    """
    wide: dict[int, int] = {}
    for lowest, count in zip(
        bin_floor(np.maximum(1, list(histogram)), DRAWN_BITS).tolist(), histogram.values(), strict=True
    ):
        wide[lowest] = wide.get(lowest, 0) + count
    edges = [min(wide)]
    while edges[-1] <= max(wide):
        edges.append(edges[-1] + bin_width(edges[-1], DRAWN_BITS))
    counts = np.array([wide.get(edge, 0) for edge in edges[:-1]], dtype=np.float64)
    bounds = np.array(edges, dtype=np.float64)
    return bounds, counts / counts.sum() / np.diff(np.log2(bounds))


def draw_years(title: str, panel: Panel, path: Path) -> None:
    """Rows by year, one row of bars for each label, each on its own scale.

    Args:
        title: Heading of the picture.
        panel: Rows by year.
        path: PNG file to write.
    """
    shown = {label: counts for label, counts in panel.items() if counts}
    figure = new_figure(title, 0.8 + 1.7 * len(shown))
    axes = figure.subplots(len(shown), 1, squeeze=False, sharex=True)[:, 0]
    colours = _colours(panel)
    for axis, (label, counts) in zip(axes, shown.items(), strict=True):
        axis.bar(list(counts), list(counts.values()), color=colours[label], width=0.8)
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.xaxis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))
        axis.set_ylabel("entries")
        plain(axis, f"{label}: {sum(counts.values()):,}")
        axis.grid(axis="y", color=LINE)
        axis.set_axisbelow(True)
    axes[-1].set_xlabel("year")
    figure.savefig(path)


def draw_bars(title: str, bars: Sequence[tuple[str, Mapping[str, int]]], total: int, path: Path) -> None:
    """Horizontal bars, one under the other, with counts and shares; the parts of a bar add up.

    Args:
        title: Heading of the picture.
        bars: Label and counts by kind, which is named when there are several.
        total: What the shares are of.
        path: PNG file to write.
    """
    kinds = list(dict.fromkeys(kind for _, counts in bars for kind in counts))
    figure = new_figure(title, 0.9 + 0.27 * len(bars))
    axis = figure.subplots()
    colours = _colours(kinds)
    sums = [sum(counts.values()) for _, counts in bars]
    start = np.zeros(len(bars))
    for kind in kinds:
        width = np.array([counts.get(kind, 0) for _, counts in bars])
        axis.barh(range(len(bars)), width, left=start, height=0.72, color=colours[kind], label=kind)
        start += width
    for place, count in enumerate(sums):
        text = f"{count:,}  ({percent(count, total)})"
        axis.text(count + max(sums) * 0.01, place, text, va="center", fontsize=8, color=INK)
    axis.set_yticks(range(len(bars)), [label for label, _ in bars])
    axis.set_ylim(len(bars) - 0.4, -0.6)
    axis.set_xlim(0, max(sums) * 1.25)
    axis.xaxis.set_visible(False)
    plain(axis, "")
    if len(kinds) > 1:
        axis.legend(frameon=False, fontsize=8.5, loc="lower right", labelcolor=INK)
    figure.savefig(path)


def new_figure(title: str, height: float) -> Figure:
    """An empty picture with a heading."""
    figure = Figure(figsize=(WIDTH, math.ceil(height * 20) / 20), dpi=150, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # pyright: ignore
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12.5, fontweight="bold", color=INK)
    return figure


def _colours(labels: Iterable[str]) -> dict[str, str]:
    """A colour for each label, by first appearance; a quiet one when there is nothing to tell apart."""
    distinct = list(dict.fromkeys(labels))
    return dict(zip(distinct, COLOURS if len(distinct) > 1 else (ONLY,), strict=False))


def plain(axis: Axes, heading: str) -> None:
    """Takes away what is not data."""
    axis.set_title(heading, fontsize=10, color=INK, loc="left")
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0, labelsize=8.5, labelcolor=INK)
    axis.xaxis.label.set(color=DIM, fontsize=8.5)
    axis.yaxis.label.set(color=DIM, fontsize=8.5)
