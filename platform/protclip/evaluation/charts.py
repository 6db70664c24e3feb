"""Pictures of results: what the checkpoint reaches and what it is held against."""

import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from protclip.data.charts import DIM, INK, LINE, new_figure, plain
from protclip.evaluation.results import Summary
from protclip.evaluation.trial import UNTOUCHED
from protclip.page import number

OURS, BASE, PUBLISHED = "#2f6fde", "#8a94a6", ("#d99a2b", "#a1479a", "#2e9e6b", "#c8553d")
CARD = "#ffffff"
THEME = {INK: "var(--ink)", DIM: "var(--dim)", LINE: "var(--line)", CARD: "var(--card)"}
"""Colours of a printed picture, and what they are on a page, which may be dark."""
KNOWN = ("ProtCLIP", "ProtST", "BioBridge", "ESM-2")
"""Models whose published values have a column and a colour of their own."""
ROW = 0.25
SMALL = {"fontsize": 8.5, "color": INK}


def png(figure: Figure) -> bytes:
    """A picture as a PNG file."""
    sink = io.BytesIO()
    figure.savefig(sink, format="png", facecolor=CARD)
    return sink.getvalue()


def svg(figure: Figure) -> str:
    """A picture as an element of a page, in the page's colours and font; the same for equal pictures."""
    sink = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "protclip"}):
        figure.savefig(sink, format="svg", transparent=True, metadata=nothing)
    text = sink.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in THEME.items():
        text = text.replace(colour, variable)
    return text


def grouped(summaries: Iterable[Summary]) -> dict[str, list[Summary]]:
    """Rows by group, both in the order given."""
    groups: dict[str, list[Summary]] = {}
    for summary in summaries:
        groups.setdefault(summary.spec.group, []).append(summary)
    return groups


def draw_overview(title: str, summaries: Sequence[Summary]) -> Figure:
    """A bar for each row with its interval, its baselines and published values, all on one axis.

    A metric that does not lie between -1 and 1 has only its number.
    """
    groups = grouped(summaries)
    num_lines = len(summaries) + len(groups)
    figure = new_figure(title, 1.3 + ROW * num_lines)
    axis = figure.subplots()
    lowest, y = 0.0, -1
    ticks: dict[int, str] = {}
    for group, rows in groups.items():
        y += 1
        axis.text(0, y, group, transform=axis.get_yaxis_transform(), va="center", fontweight="bold", **SMALL)
        for row in rows:
            y += 1
            ticks[y] = f"{row.label}  ·  {_metric(row)}"
            lowest = min(lowest, _draw_row(axis, y, row))
    axis.set_yticks(list(ticks), list(ticks.values()))
    axis.set_ylim(num_lines - 0.4, -0.6)
    axis.set_xlim(lowest * 1.05, 1)
    axis.axvline(0, color=DIM, linewidth=0.8)
    plain(axis, "")
    axis.grid(axis="x", color=LINE, linewidth=0.7)
    axis.set_axisbelow(True)
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    if handles:
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside lower center",
            ncols=4,
            frameon=False,
            fontsize=8,
            labelcolor=INK,
            handlelength=1.2,
        )
    return figure


def _metric(row: Summary) -> str:
    """The primary metric's name, with an arrow where less is better."""
    return row.spec.metric if row.spec.higher_is_better else f"{row.spec.metric} ↓"


def _draw_row(axis: Axes, y: int, row: Summary) -> float:
    """One bar with all that belongs to it; the lowest value drawn."""
    score = row.primary
    beside = {"transform": axis.get_yaxis_transform(), "va": "center"}
    if score is None:
        axis.text(1.02, y, "failed", **beside, **SMALL)
        return 0.0
    text = number(score.mean)
    if score.interval is not None:
        text += f"  [{number(score.interval[0])}, {number(score.interval[1])}]"
    axis.text(1.02, y, text, **beside, **SMALL)
    if not abs(score.mean) <= 1:
        return 0.0
    axis.barh(y, score.mean, 0.62, color=OURS, alpha=0.6, label="this checkpoint", zorder=2)
    drawn = [score.mean]
    if score.interval is not None:
        axis.plot(score.interval, (y, y), color=INK, linewidth=1.5, zorder=7, label="95 % interval")
        drawn += score.interval
    for name, value in score.baselines.items():
        untouched = name.startswith(UNTOUCHED)
        axis.plot(
            value,
            y,
            "D" if untouched else "o",
            markersize=5 if untouched else 4.2,
            color=INK if untouched else CARD,
            markeredgecolor=CARD if untouched else BASE,
            label="encoder before pre-training" if untouched else "other baselines",
            zorder=5,
        )
        drawn.append(value)
    for model, published in score.published.items():
        if model in KNOWN:
            colour = PUBLISHED[KNOWN.index(model)]
            label = f"{model}, published"
            axis.vlines(published.value, y - 0.42, y + 0.42, colour, linewidth=2.6, zorder=6, label=label)
            drawn.append(published.value)
    return min(value for value in drawn if math.isfinite(value))


def draw_groups(title: str, summaries: Sequence[Summary]) -> Figure | None:
    """Mean primary metric of each group on a radar; None for fewer than three groups.

    Each benchmark counts once, by its best protocol; another model is shown in the groups of which it has
    all benchmarks. Metrics beyond 0 … 1, or of which less is better, stay out.
    """
    best: dict[str, dict[str, dict[str, float]]] = {}
    for row in summaries:
        score = row.primary
        if score is None or not row.spec.higher_is_better or not abs(score.mean) <= 1:
            continue
        of_row = best.setdefault(row.spec.group, {}).setdefault(row.spec.name, {})
        found = [("this checkpoint", score.mean)]
        found += [("before pre-training", v) for n, v in score.baselines.items() if n.startswith(UNTOUCHED)]
        found += [(f"{m}, published", p.value) for m, p in score.published.items() if m in KNOWN]
        for name, value in found:
            of_row[name] = max(value, of_row.get(name, 0.0))
    if len(best) < 3:
        return None
    figure = new_figure(title, 5.4)
    axis = figure.subplots(subplot_kw={"projection": "polar"})
    angles = np.linspace(0, 2 * np.pi, len(best), endpoint=False)
    colours = {"this checkpoint": OURS, "before pre-training": BASE}
    colours |= {f"{m}, published": c for m, c in zip(KNOWN, PUBLISHED, strict=True)}
    for name, colour in colours.items():
        means = np.array([_group_mean(rows, name) for rows in best.values()])
        if np.isfinite(means).any():
            ring = np.append(means, means[0]), np.append(angles, angles[0])
            axis.plot(ring[1], ring[0], "o-", color=colour, linewidth=1.8, markersize=4, label=name)
            if name == "this checkpoint":
                axis.fill(ring[1], ring[0], color=colour, alpha=0.12)
    plain(axis, "")
    axis.set_xticks(angles, list(best))
    axis.tick_params(axis="x", pad=22)
    axis.set_ylim(0, 1)
    axis.set_yticks((0.25, 0.5, 0.75, 1), ("", "0.5", "", "1"), color=DIM)
    axis.tick_params(axis="y", labelsize=7.5)
    axis.grid(color=LINE)
    axis.patch.set_alpha(0)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8.5, labelcolor=INK)
    return figure


def _group_mean(benchmarks: Mapping[str, Mapping[str, float]], name: str) -> float:
    """Mean over a group's benchmarks; NaN unless all are known."""
    values = [values.get(name, math.nan) for values in benchmarks.values()]
    return statistics.fmean(values)
