"""Pictures of a sweep; each is a figure, or a sentence that says why there is none."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from protclip.data.charts import INK, LINE, new_figure, plain
from protclip.evaluation.charts import BASE, OURS, SMALL
from protclip.tuning.candidate import State
from protclip.tuning.sweep_axes import (
    AMBER,
    NONE,
    Scale,
    complete_of,
    curves_of,
    goal_of,
    legend,
    named,
    objective,
    value_axis,
    value_of,
)
from protclip.tuning.sweep_maps import draw_contour, draw_parallel, draw_slices
from protclip.tuning.tried import Results

MARKS: dict[State, tuple[str, str]] = {
    "complete": ("o", OURS), "pruned": ("v", AMBER), "failed": ("x", "#c8553d"), "stopped": ("s", BASE),
}  # fmt: skip


def draw(results: Results) -> dict[str, Figure | str]:
    """All pictures by name; those that cannot be drawn are sentences."""
    pictures: dict[str, Callable[[Results], Figure | str]] = {
        "history": draw_history,
        "contour": draw_contour,
        "parallel": draw_parallel,
        "importance": draw_importance,
        "slices": draw_slices,
        "curves": draw_curves,
    }
    if len(results.objectives) > 1:
        pictures = {"pareto": draw_pareto} | pictures
    return {name: drawn(results) for name, drawn in pictures.items()}


def draw_history(results: Results) -> Figure | str:
    """Objective of each trial in the order they were begun, with the best so far."""
    complete = complete_of(results)
    if not complete:
        return NONE
    figure = new_figure("Objective by trial", 0.6 + 2.9 * len(results.objectives))
    axes = figure.subplots(len(results.objectives), 1, squeeze=False, sharex=True)[:, 0]
    for axis, (metric, direction) in zip(axes, results.objectives.items(), strict=True):
        scale = goal_of(results, metric)
        for state, (marker, colour) in MARKS.items():
            tried = [t for t in results.tried if t.outcome.state == state]
            if not tried:
                continue
            values = np.array([value_of(results, t, metric) for t in tried])
            # What has no value is at the bad end: it is no good.
            bad = scale.low if direction == "maximize" else scale.high
            values = np.clip(np.where(np.isfinite(values), values, bad), scale.low, scale.high)
            numbers = [t.number for t in tried]
            axis.plot(numbers, values, marker, color=colour, markersize=5.5, label=state, alpha=0.85)
        values = np.array([value_of(results, t, metric) for t in complete])
        best = (np.maximum if direction == "maximize" else np.minimum).accumulate(values)
        numbers = [*(t.number for t in complete), max(t.number for t in results.tried)]
        shown = np.clip([*best, best[-1]], scale.low, scale.high)
        axis.step(numbers, shown, where="post", color=INK, linewidth=1.2, zorder=1, label="best so far")
        value_axis(axis, scale)
        axis.set_ylabel(named(results, metric))
        axis.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes[-1].set_xlabel("trial")
    legend(figure, axes[0])
    return figure


def draw_curves(results: Results) -> Figure | str:
    """The objective of each trial at each of its validations; pruned ones end early."""
    curves = curves_of(results)
    if not curves:
        return (
            "The Pareto front of several objectives is not followed during training."
            if len(results.objectives) > 1
            else "No trial told the objective during training."
        )
    metric, direction = next(iter(results.objectives.items()))
    values = [v for curve in curves.values() for v in curve.values() if math.isfinite(v)]
    if not values:
        return "The objective was undefined at every validation."
    figure = new_figure("Objective by training step", 3.6)
    axis = figure.subplots()
    scale = objective(metric, direction, values)
    best = {t.number for t in results.best}
    for tried in results.tried:
        if curve := curves.get(tried.number):
            steps, reached = list(curve), np.clip(list(curve.values()), scale.low, scale.high)
            state = tried.outcome.state
            marker, colour = MARKS[state]
            if tried.number in best:
                axis.plot(
                    steps, reached, color=OURS, linewidth=2.4, zorder=4, label=f"best, trial {tried.number}"
                )
            else:
                shade = BASE if state == "complete" else colour
                axis.plot(steps, reached, color=shade, linewidth=0.9, alpha=0.55)
            axis.plot(steps[-1], reached[-1], marker, color=colour, markersize=5, zorder=3, label=state)
    value_axis(axis, scale)
    axis.set_xlim(0)
    axis.set_xlabel("training step")
    axis.set_ylabel(named(results, metric))
    axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    legend(figure, axis)
    return figure


def draw_importance(results: Results) -> Figure | str:
    """Share of each dimension in the variance of each objective."""
    if not results.importance:
        return "Several complete trials are needed that differ in their objective."
    counts = [len(shares) for shares in results.importance.values()]
    figure = new_figure("Importance of each dimension", 0.75 + 0.4 * len(counts) + 0.3 * sum(counts))
    axes = figure.subplots(len(counts), 1, squeeze=False, sharex=True, height_ratios=counts)[:, 0]
    for axis, (metric, shares) in zip(axes, results.importance.items(), strict=True):
        axis.barh(range(len(shares)), list(shares.values()), 0.62, color=OURS, alpha=0.75)
        for y, share in enumerate(shares.values()):
            axis.text(share + 0.01, y, f"{share:.1%}", va="center", **SMALL)
        axis.set_yticks(range(len(shares)), list(shares))
        axis.set_ylim(len(shares) - 0.4, -0.6)
        axis.set_xlim(0, 1.08)
        axis.xaxis.set_visible(False)
        plain(axis, f"share in the variance of {metric}")
    return figure


def draw_pareto(results: Results) -> Figure | str:
    """Complete trials by two objectives, and those of which no other is better by both."""
    if len(results.objectives) != 2:
        return f"It is drawn for two objectives; the sweep has {len(results.objectives)}."
    complete = complete_of(results)
    if not complete:
        return NONE
    figure = new_figure("Pareto front", 4.2)
    axis = figure.subplots()
    points = {t.number: t.values for t in complete if t.values is not None}
    best = {t.number for t in results.best}
    front = {number: points[number] for number in best if number in points}
    others = np.array([v for n, v in points.items() if n not in best]).reshape(-1, 2)
    # The end of the front that is best by one objective may be far out by the other.
    first, second = (
        _stretched(goal_of(results, metric), [point[i] for point in front.values()], others[:, i])
        for i, metric in enumerate(results.objectives)
    )
    others = np.clip(others, (first.low, second.low), (first.high, second.high))
    axis.plot(*others.T, "o", color=BASE, markersize=5, alpha=0.7, label="dominated")
    line = np.array(sorted(front.values())).reshape(-1, 2)
    axis.plot(*line.T, "o-", color=OURS, markersize=7, linewidth=1.2, label="Pareto front")
    for (x, y), numbers in _together(front, first, second):
        label = ", ".join(map(str, numbers))
        axis.annotate(label, (x, y), (6, 6), textcoords="offset points", **SMALL)
    value_axis(axis, first, "x")
    value_axis(axis, replace(second, cut=first.cut or second.cut))
    axis.grid(color=LINE, linewidth=0.7)
    axis.set_xlabel(named(results, first.key))
    axis.set_ylabel(named(results, second.key))
    legend(figure, axis)
    return figure


def _stretched(scale: Scale, front: Sequence[float], others: np.ndarray) -> Scale:
    """An axis that all of the front fits on."""
    low, high = min(scale.low, *front), max(scale.high, *front)
    return replace(scale, low=low, high=high, cut=bool(((others < low) | (others > high)).any()))


def _together(
    points: Mapping[int, tuple[float, ...]], first: Scale, second: Scale
) -> list[tuple[tuple[float, ...], list[int]]]:
    """Trials by place, those so near to each other that their numbers would overlap as one."""
    found: list[tuple[tuple[float, ...], list[int]]] = []
    for number, point in sorted(points.items(), key=lambda item: item[1]):
        for (x, y), numbers in found[-1:]:
            near = abs(first.place(x) - first.place(point[0])) < 0.05
            if near and abs(second.place(y) - second.place(point[1])) < 0.08:
                numbers.append(number)
                break
        else:
            found.append((point, [number]))
    return found
