"""Pictures of an ablation: differences from the reference, and metrics along a series of values."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from protclip.data.charts import DIM, INK, LINE, new_figure, plain
from protclip.evaluation.charts import BASE, OURS, ROW, SMALL
from protclip.evaluation.compare_report import COLOURS
from protclip.page import difference
from protclip.tuning.ablation import Row, Verdict, series
from protclip.tuning.candidate import Param

ACROSS = 2


def colour(verdict: Verdict) -> str:
    """Of what is drawn for a verdict."""
    return next((c for name, c in COLOURS.items() if verdict.startswith(name)), BASE)


def draw_effects(title: str, reference: str, rows: Sequence[Row]) -> Figure:
    """A forest plot for each metric: differences from the reference with 95 % intervals, by verdict.

    Args:
        title: Heading.
        reference: The variant that differences are from.
        rows: A panel each, at least one.
    """
    heights = [len(row.effects) for row in rows]
    figure = new_figure(f"{title}: differences from {reference}", 0.8 + 0.62 * len(rows) + ROW * sum(heights))
    panels = figure.subplots(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, row in zip(panels, rows, strict=True):
        _draw_effects(axis, row)
        plain(axis, row.label if row.higher_is_better else f"{row.label}  (less is better)")
        axis.grid(axis="x", color=LINE, linewidth=0.7)
        axis.set_axisbelow(True)
    return figure


def _draw_effects(axis: Axes, row: Row) -> None:
    """One panel; what is not comparable has only its verdict, what is true of one seed an open dot."""
    beside = {"transform": axis.get_yaxis_transform(), "va": "center"}
    for y, effect in enumerate(row.effects.values()):
        shade, text = colour(effect.verdict), effect.verdict
        if effect.interval is not None:
            text = f"{difference(effect.difference)}  {text}"
            fill = "none" if "one seed" in effect.verdict else "full"
            axis.plot(effect.interval, (y, y), color=shade, linewidth=2.2, solid_capstyle="butt")
            axis.plot(effect.difference, y, "o", color=shade, markersize=6, fillstyle=fill)
        axis.text(1.02, y, text, **beside, **SMALL)
    axis.axvline(0, color=DIM, linewidth=0.9)
    axis.set_yticks(range(len(row.effects)), list(row.effects))
    axis.set_ylim(len(row.effects) - 0.4, -0.6)


def draw_series(
    title: str, reference: str, rows: Sequence[Row], varied: Mapping[str, Mapping[str, Param]]
) -> Figure | None:
    """Every metric along the one number in which variants differ; None where they differ otherwise.

    Small dots are trainings, large ones means over seeds with their standard deviation, coloured by
    verdict; a dashed line marks the reference.

    Args:
        title: Heading.
        reference: A variant.
        rows: A panel each.
        varied: Value of every key in which variants differ, by variant.
    """
    if (found := series(varied)) is None or not rows:
        return None
    key, places = found
    down = -(-len(rows) // ACROSS)
    figure = new_figure(f"{title}: by {key}", 0.6 + 2.5 * down)
    panels = figure.subplots(down, ACROSS, squeeze=False, sharex=True)
    for axis, row in zip(panels.flat, rows, strict=False):
        _draw_line(axis, row, places, reference)
        plain(axis, row.label if row.higher_is_better else f"{row.label}  (less is better)")
        axis.grid(axis="y", color=LINE, linewidth=0.7)
        axis.set_axisbelow(True)
    for axis in list(panels.flat)[len(rows) :]:
        axis.set_visible(False)
    for axis in list(panels.flat)[max(0, len(rows) - ACROSS) : len(rows)]:
        axis.set_xlabel(key)
        axis.tick_params(labelbottom=True)
    return figure


def _draw_line(axis: Axes, row: Row, places: Mapping[str, float], reference: str) -> None:
    """One panel."""
    variants = sorted((v for v in places if math.isfinite(row.mean(v))), key=places.__getitem__)
    axis.plot([places[v] for v in variants], [row.mean(v) for v in variants], color=OURS, linewidth=1.4)
    for variant in variants:
        x, values = places[variant], list(row.values[variant].values())
        effect = row.effects.get(variant)
        shade = INK if effect is None else colour(effect.verdict)
        axis.plot([x] * len(values), values, ".", color=OURS, alpha=0.35, markersize=5)
        if math.isfinite(deviation := row.deviation(variant)):
            axis.errorbar(x, row.mean(variant), deviation, color=shade, linewidth=1.3, capsize=2.5)
        axis.plot(x, row.mean(variant), "o", color=shade, markersize=6)
    axis.axvline(places[reference], color=DIM, linewidth=0.9, dashes=(4, 3))
