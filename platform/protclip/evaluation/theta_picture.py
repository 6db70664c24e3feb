"""The picture of a θ report: measures over θ, and what θ changes in each family. Suffixes as in `theta`."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from protclip.data.charts import DIM, INK, LINE, new_figure, plain
from protclip.evaluation.segments import SITE_KINDS
from protclip.evaluation.segments_report import TRACK_COLOURS
from protclip.evaluation.theta import FEW, mean_and_error
from protclip.evaluation.theta_choice import Findings
from protclip.evaluation.theta_page import CRITERIA
from protclip.records import PROPERTIES

WIDTH = 13
SMALLEST = 0.01
"""Least change that has a full colour: rounding is no difference."""
ALIGNED = {"above": "#2f6fde", "first": "#2e9e6b", "accuracy": "#8a94a6"}
SIZES = {"share": ("residues in the segment", "#2f6fde"), "few": (f"at most {FEW} residues", "#c8553d")}


def draw_thetas(findings: Findings) -> Figure:
    """A column for each property: agreement, sites and size over θ, and families as a heat map."""
    panels = {
        "agreement with texts": _draw_alignment,
        "enrichment on sites": _draw_sites,
        "segments": _draw_sizes,
    }
    heights = [1.0, 1.0, 0.8] + ([0.2 + 0.12 * len(findings.groups)] if findings.names else [])
    figure = new_figure("What the threshold θ changes", 1.2 + 2.3 * sum(heights))
    figure.set_figwidth(WIDTH)
    axes = figure.subplots(len(heights), len(PROPERTIES), height_ratios=heights, sharey="row", squeeze=False)
    for row, (label, draw_panel) in enumerate(panels.items()):
        for k, prop in enumerate(PROPERTIES):
            axis = axes[row, k]
            draw_panel(axis, findings, k)
            plain(axis, "" if row else prop.label.capitalize())
            axis.grid(axis="y", color=LINE, linewidth=0.7)
            axis.set_axisbelow(True)
            best = findings.answer.properties[k].peak.theta
            axis.axvline(findings.training[k], color=DIM, linewidth=1, dashes=(4, 3), label="θ of training")
            axis.axvline(best, color=INK, linewidth=1, label="best θ", zorder=1)
        axes[row, 0].set_ylabel(label)
        _legend(axes[row])
    if findings.names:
        changes = [_changes(findings, k) for k in range(len(PROPERTIES))]
        limit = max(np.abs(np.nan_to_num(changes)).max(), SMALLEST)
        for k, axis in enumerate(axes[-1]):
            _draw_families(axis, findings, k, changes[k], limit)
        label = f"{CRITERIA[findings.config.criterion]},\nless that at training θ; dot: best θ"
        figure.colorbar(axes[-1, 0].images[0], ax=list(axes[-1]), fraction=0.02, pad=0.01, label=label)
    for axis in axes[-1]:
        axis.set_xlabel("θ")
    return figure


def _draw_alignment(axis: Axes, findings: Findings, k: int) -> None:
    """What segments know of their protein, and PDA's task."""
    for name, colour in ALIGNED.items():
        _band(axis, findings.measured.thetas, findings.measured.alignment[name][:, k], CRITERIA[name], colour)
    axis.axhline(0.5, color=ALIGNED["above"], linewidth=0.8, dashes=(1, 2))
    axis.set_ylim(0, 1.03)


def _draw_sites(axis: Axes, findings: Findings, k: int) -> None:
    """Enrichment of each kind of site."""
    values = findings.measured.overlap["enrichment"]
    for s, (kind, colour) in enumerate(zip(SITE_KINDS, TRACK_COLOURS, strict=True)):
        if not np.isnan(values[:, k, s]).all():
            _band(axis, findings.measured.thetas, values[:, k, s], kind.name, colour)
    axis.axhline(1, color=DIM, linewidth=0.8, dashes=(1, 2))


def _draw_sizes(axis: Axes, findings: Findings, k: int) -> None:
    """How large segments are, and how many have collapsed."""
    for name, (label, colour) in SIZES.items():
        _band(axis, findings.measured.thetas, findings.measured.alignment[name][:, k], label, colour)
    axis.set_ylim(0, 1.03)


def _band(axis: Axes, thetas: tuple[float, ...], values_NT: np.ndarray, label: str, colour: str) -> None:
    """A mean over θ with two standard errors on either side."""
    mean_T, error_T = mean_and_error(values_NT)
    axis.plot(thetas, mean_T, "o-", color=colour, linewidth=1.6, markersize=3, label=label)
    axis.fill_between(
        thetas, mean_T - 2 * error_T, mean_T + 2 * error_T, color=colour, alpha=0.16, linewidth=0
    )


def _legend(axes: np.ndarray) -> None:
    """One for a row of panels, right of it."""
    handles = {}
    for axis in axes:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    axes[-1].legend(
        handles.values(),
        handles.keys(),
        loc="center left",
        bbox_to_anchor=(1.02, 0.5),
        frameon=False,
        fontsize=8,
        labelcolor=INK,
    )


def _changes(findings: Findings, k: int) -> np.ndarray:
    """Mean criterion of each group (groups, T) less that at the training θ, paired by protein."""
    scores_NT = findings.measured.of(findings.config.criterion)[:, k]
    at = findings.measured.thetas.index(findings.training[k])
    changes_NT = scores_NT - scores_NT[:, at, None]
    return np.stack([mean_and_error(changes_NT[members_N])[0] for _, members_N in findings.groups])


def _draw_families(axis: Axes, findings: Findings, k: int, changes: np.ndarray, limit: float) -> None:
    """What θ changes in each family, its best θ marked."""
    thetas = findings.measured.thetas
    axis.imshow(np.ma.masked_invalid(changes), cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    for row, family in enumerate(findings.answer.properties[k].families):
        axis.plot(thetas.index(family.peak.theta), row, "o", color=INK, markeredgecolor="white", markersize=5)
    plain(axis, "")
    axis.set_yticks(range(len(findings.groups)), [name for name, _ in findings.groups])
    axis.set_xticks(range(0, len(thetas), 2), [f"{theta:g}" for theta in thetas[::2]])
