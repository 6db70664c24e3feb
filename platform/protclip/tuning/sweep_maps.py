"""Pictures of a sweep over its dimensions; each is a figure, or a sentence that says why there is none."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from matplotlib.tri import Triangulation

from protclip.data.charts import DIM, INK, new_figure, plain
from protclip.evaluation.charts import CARD, OURS, SMALL
from protclip.tuning.sweep_axes import (
    CUT,
    NONE,
    STAR,
    Scale,
    colours_of,
    complete_of,
    dimensions,
    goal_of,
    key_axis,
    named,
    value_axis,
    value_of,
    word,
)
from protclip.tuning.tried import Results, Tried

BELOW = SMALL | {
    "xytext": (0, -5), "textcoords": "offset points", "ha": "center", "va": "top",
    "bbox": {"facecolor": CARD, "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
}  # fmt: skip
"""Of what is written below a point, over whatever is there."""
ACROSS = 3
"""Panels side by side."""
ROW = 0.62
"""Height of an axis of the parallel coordinates, in inches."""
FEW = 4
"""Trials without which there is no surface between them."""


def draw_contour(results: Results) -> Figure | str:
    """The objective over the two most important dimensions of numbers that trials have together."""
    complete = complete_of(results)
    if not complete:
        return NONE
    numeric = {key: scale for key, scale in dimensions(results).items() if scale.numeric}
    if len(numeric) < 2:
        return f"A map needs two dimensions of numbers; the sweep has {', '.join(numeric) or 'none'}."
    maps = []
    for metric in results.objectives:
        shares = results.importance.get(metric, {})
        x, y = sorted(numeric, key=lambda key: -shares.get(key, 0.0))[:2]
        both = [t for t in complete if x in t.params and y in t.params]
        if both:
            maps.append((metric, numeric[x], numeric[y], both))
    if not maps:
        return "No complete trial has both of the most important dimensions."
    down = math.ceil(len(maps) / 2)
    figure = new_figure("Objective over the two most important dimensions", 0.5 + 3.9 * down)
    axes = figure.subplots(down, min(2, len(maps)), squeeze=False).flat
    for axis, (metric, x, y, tried) in zip(axes, maps, strict=False):
        _draw_map(figure, axis, results, metric, (x, y), tried)
    for axis in list(axes)[len(maps) :]:
        axis.set_visible(False)
    return figure


def _draw_map(
    figure: Figure,
    axis: Axes,
    results: Results,
    metric: str,
    scales: tuple[Scale, Scale],
    tried: Sequence[Tried],
) -> None:
    """Trials by two dimensions in the colour of their objective, and what lies between them."""
    where = np.array([[scale.place(t.params[scale.key]) for scale in scales] for t in tried])
    goal = goal_of(results, metric)
    values = np.clip([value_of(results, t, metric) for t in tried], goal.low, goal.high)
    cmap, norm = colours_of(results, goal)
    places, index = np.unique(where.round(6), axis=0, return_inverse=True)
    mean = np.bincount(index.ravel(), values) / np.bincount(index.ravel())
    spread = np.linalg.svd(places - places.mean(0), compute_uv=False)
    if len(places) >= FEW and spread[-1] > 1e-3 and mean.min() < mean.max():
        axis.tricontourf(Triangulation(*places.T), mean, 12, cmap=cmap, norm=norm, alpha=0.75)
    axis.scatter(*where.T, c=values, cmap=cmap, norm=norm, s=30, edgecolors=CARD, linewidths=0.8, zorder=3)
    best = {t.number for t in results.best}
    if len(results.objectives) == 1:
        stars = [place for t, place in zip(tried, where, strict=True) if t.number in best]
        axis.plot(*np.reshape(stars, (-1, 2)).T, **STAR, zorder=4)
    for scale, side in zip(scales, ("x", "y"), strict=True):
        key_axis(axis, scale, side, 6, 60)
        axis.set(**{f"{side}lim": (-0.03, 1.03)})
    plain(axis, CUT if goal.cut else "")
    bar = figure.colorbar(ScalarMappable(norm, cmap), ax=axis, pad=0.02, aspect=28)
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=INK)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: word(float(value))))
    bar.set_label(named(results, metric), color=DIM, fontsize=8.5)
    bar.outline.set_visible(False)  # pyright: ignore


def draw_slices(results: Results) -> Figure | str:
    """Each objective against each dimension."""
    complete = complete_of(results)
    if not complete:
        return NONE
    axes_of = dimensions(results)
    rows = math.ceil(len(axes_of) / ACROSS)
    across = min(ACROSS, len(axes_of))
    figure = new_figure("Objective by each dimension", 0.5 + 2.5 * rows * len(results.objectives))
    parts = figure.subplots(rows * len(results.objectives), across, squeeze=False)
    for part in parts.flat:
        part.set_visible(False)
    best = {t.number for t in results.best}
    for index, metric in enumerate(results.objectives):
        goal = goal_of(results, metric)
        for place, (key, scale) in enumerate(axes_of.items()):
            axis = parts[index * rows + place // across][place % across]
            axis.set_visible(True)
            having = [t for t in complete if key in t.params]
            xs = [scale.place(t.params[key]) for t in having]
            ys = np.clip([value_of(results, t, metric) for t in having], goal.low, goal.high)
            axis.plot(xs, ys, "o", color=OURS, markersize=5, alpha=0.55)
            for x, y, tried in zip(xs, ys, having, strict=True):
                if tried.number in best:
                    axis.plot(x, y, **STAR, zorder=4)
            key_axis(axis, scale, "x", 5, 108 // across)
            axis.set_xlim(-0.06, 1.06)
            value_axis(axis, goal if place == 0 else replace(goal, cut=False))
            if place % across == 0:
                axis.set_ylabel(named(results, metric))
    return figure


def draw_parallel(results: Results) -> Figure | str:
    """Parallel coordinates, an axis under the other so that every key has room: a line for each trial."""
    complete = complete_of(results)
    if len(complete) < 2:
        return f"Two complete trials are needed; there is {'one' if complete else 'none'}."
    goals = {metric: goal_of(results, metric) for metric in results.objectives}
    axes_of = dimensions(results)
    scales = [*goals.values(), *axes_of.values()]
    figure = new_figure("Parallel coordinates", 0.7 + ROW * len(scales))
    axis = figure.subplots()
    metric, goal = next(iter(goals.items()))
    cmap, norm = colours_of(results, goal)
    lacks = any(key not in t.params for t in complete for key in axes_of)
    best = {t.number for t in results.best}
    sign = 1 if results.objectives[metric] == "maximize" else -1
    bad_first = sorted(complete, key=lambda t: sign * value_of(results, t, metric))
    for order, tried in enumerate(bad_first):
        places = [scale.place(value_of(results, tried, name)) for name, scale in goals.items()]
        places += [s.place(tried.params[k]) if k in tried.params else -0.1 for k, s in axes_of.items()]
        bold = tried.number in best
        colour = cmap(float(norm(value_of(results, tried, metric))))
        width, alpha = (2.4, 1.0) if bold else (1.1, 0.6)
        axis.plot(
            places, range(len(places)), color=colour, linewidth=width, alpha=alpha, zorder=2 + order / 1000
        )
    for y, scale in enumerate(scales):
        axis.plot((0, 1), (y, y), color=DIM, linewidth=0.9, zorder=3)
        for x, label in scale.ticks(7, 80):
            axis.plot(x, y, "|", color=DIM, markersize=6, zorder=3)
            axis.annotate(label, (x, y), zorder=5, **BELOW)
    if lacks:
        axis.annotate("not set", (-0.1, len(scales) - 1), **BELOW)
    axis.set_yticks(range(len(scales)), [*(named(results, name) for name in goals), *axes_of])
    axis.set_ylim(len(scales) - 0.4, -0.3)
    axis.set_xlim(-0.15 if lacks else -0.03, 1.05)
    axis.xaxis.set_visible(False)
    plain(axis, CUT if any(goal.cut for goal in goals.values()) else "")
    return figure
