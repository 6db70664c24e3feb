"""Dimensions and objectives of a sweep as axes of pictures, and what its pictures share."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import Locator, LogLocator, MaxNLocator
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from protclip.data.charts import INK, LINE, plain
from protclip.evaluation.charts import CARD, OURS
from protclip.tuning.candidate import Param
from protclip.tuning.tried import Direction, Results, Tried

AMBER = "#d99a2b"
GOOD_LAST = LinearSegmentedColormap.from_list("good last", (AMBER, "#a9adb5", OURS))
"""From bad to good, to be told apart on white and on black."""
STAR = {"marker": "*", "markersize": 13, "color": CARD, "markeredgecolor": INK, "linestyle": "none"}
NONE = "No trial is complete."
CUT = "worse values are shown at the end of the axis"
SHORTEST = 4
"""Characters of a name beside others, with a gap."""
ORDERS = 20
"""Ratio of the largest to the smallest choice from which on orders of magnitude are shown."""
ROOM = 5.0
"""Most the worse half of an objective's values takes of an axis, in times of the better half."""


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis.

    Attributes:
        key: What it shows.
        low: Smallest value.
        high: Largest value.
        log: Whether orders of magnitude are shown.
        whole: Whether all values are whole numbers.
        cut: Whether there are worse values, which are shown at the end.
        choices: The values, where those are names (then there is no `low` and `high`) or few numbers.
    """

    key: str
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    whole: bool = False
    cut: bool = False
    choices: tuple[Param, ...] = ()

    @property
    def numeric(self) -> bool:
        """Whether values have an order and distances."""
        return not math.isnan(self.low)

    def place(self, value: Param) -> float:
        """Where a value is, from 0 to 1; one beyond the axis is at its end."""
        if not self.numeric:
            return (self.choices.index(value) + 0.5) / len(self.choices)
        low, high, at = (self._bent(float(v or 0)) for v in (self.low, self.high, value))
        return 0.5 if low == high else min(1.0, max(0.0, (at - low) / (high - low)))

    def ticks(self, most: int, room: int) -> list[tuple[float, str]]:
        """Places and labels.

        Args:
            most: About so many, unless the values are names.
            room: Characters that fit side by side.
        """
        shown: Sequence[Param] = self.choices
        if self.numeric and not 0 < len(self.choices) <= most:
            inside = [float(v) for v in self._locator(most).tick_values(self.low, self.high) if self._has(v)]
            shown = inside if len(inside) > 1 else sorted({self.low, self.high})
        shown = shown[:: -(-len(shown) * SHORTEST // room)]
        longest = max(SHORTEST, room // len(shown)) - 1
        return [(self.place(value), word(value, longest)) for value in shown]

    def _locator(self, most: int) -> Locator:
        """Chooses round numbers."""
        if not self.log:
            return MaxNLocator(most, integer=self.whole, steps=(1, 2, 5, 10))
        wide = self.high / self.low > 10 ** (most / 3)
        return LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0), numticks=most)

    def _has(self, value: float) -> bool:
        """Whether a number is on the axis."""
        slack = 1e-9 * abs(self.high - self.low)
        return self.low - slack <= value <= self.high + slack

    def _bent(self, value: float) -> float:
        """A number as the axis counts."""
        return math.log10(value) if self.log else value


def word(value: Param, longest: int = 10**6) -> str:
    """A value for people: numbers by four significant digits, the rest as in YAML."""
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "–"
    text = str(value)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def dimensions(results: Results) -> dict[str, Scale]:
    """An axis for each dimension that a trial has, the most important for the first objective first."""
    found: dict[str, list[BaseDistribution]] = {}
    for trial in results.study.get_trials(deepcopy=False):
        for key, distribution in trial.distributions.items():
            found.setdefault(key, []).append(distribution)
    shares = next(iter(results.importance.values()), {})
    keys = sorted(found, key=lambda key: -shares.get(key, 0.0))
    return {key: _dimension(key, found[key], [t.params.get(key) for t in results.tried]) for key in keys}


def _dimension(key: str, distributions: Iterable[BaseDistribution], values: Iterable[Param]) -> Scale:
    """One axis, wide enough for all that was asked for at one time or another."""
    choices: dict[Param, None] = {}
    ends = [float(v) for v in values if isinstance(v, int | float)]
    log = whole = False
    for distribution in distributions:
        if isinstance(distribution, CategoricalDistribution):
            choices |= dict.fromkeys(distribution.choices)
        else:
            ends += [distribution.low, distribution.high]  # pyright: ignore
            log = log or distribution.log  # pyright: ignore
            whole = isinstance(distribution, IntDistribution)
    if not choices:
        return Scale(key, min(ends), max(ends), log, whole)
    numbers = [c for c in choices if isinstance(c, int | float) and not isinstance(c, bool)]
    if len(numbers) < len(choices):
        return Scale(key, choices=tuple(choices))
    low, high = float(min(numbers)), float(max(numbers))
    return Scale(key, low, high, low > 0 and high / low >= ORDERS, choices=tuple(sorted(numbers)))


def objective(key: str, direction: Direction, values: Sequence[float]) -> Scale:
    """An axis on which a few diverged trials do not press all others together.

    Args:
        key: The metric.
        direction: Which of its values are good.
        values: At least one finite number.
    """
    finite = np.array([v for v in values if math.isfinite(v)])
    sign = 1 if direction == "minimize" else -1
    best, median, worst = (float(np.quantile(sign * finite, q)) for q in (0, 0.5, 1))
    end = min(worst, median + ROOM * (median - best)) if median > best else worst
    low, high = sorted((sign * best, sign * end))
    return Scale(key, low, high, cut=end < worst)


def value_of(results: Results, tried: Tried, metric: str) -> float:
    """A trial's objective, or what it last was where the trial is not complete; NaN where it never was."""
    if tried.values is not None:
        return tried.values[list(results.objectives).index(metric)]
    return tried.outcome.metrics.get(metric, math.nan)


def complete_of(results: Results) -> list[Tried]:
    """Trials with finite objectives."""
    return [t for t in results.tried if t.values is not None and all(map(math.isfinite, t.values))]


def curves_of(results: Results) -> dict[int, dict[int, float]]:
    """What each trial told during training: the objective by step, by number of the trial."""
    trials = results.study.get_trials(deepcopy=False)
    return {t.number: dict(sorted(t.intermediate_values.items())) for t in trials if t.intermediate_values}


def goal_of(results: Results, metric: str) -> Scale:
    """The axis of an objective of complete trials."""
    values = [value_of(results, t, metric) for t in complete_of(results)]
    return objective(metric, results.objectives[metric], values)


def named(results: Results, metric: str) -> str:
    """An objective's name with an arrow to where it is good."""
    return f"{metric} {'↑' if results.objectives[metric] == 'maximize' else '↓'}"


def colours_of(results: Results, goal: Scale) -> tuple[Colormap, Normalize]:
    """The colours of an objective."""
    colours = GOOD_LAST if results.objectives[goal.key] == "maximize" else GOOD_LAST.reversed()
    return colours, Normalize(goal.low, goal.high)


def key_axis(axis: Axes, scale: Scale, side: Literal["x", "y"], most: int, room: int) -> None:
    """A dimension's values and name along a side."""
    places, labels = zip(*scale.ticks(most, room), strict=True)
    axis.set(**{f"{side}ticks": places, f"{side}ticklabels": labels, f"{side}label": scale.key})


def value_axis(axis: Axes, scale: Scale, side: Literal["x", "y"] = "y") -> None:
    """An objective's limits and grid."""
    margin = 0.06 * (scale.high - scale.low) or 0.5 * abs(scale.low) or 1.0
    axis.set(**{f"{side}lim": (scale.low - margin, scale.high + margin)})
    plain(axis, CUT if scale.cut else "")
    axis.grid(axis=side, color=LINE, linewidth=0.7)
    axis.set_axisbelow(True)


def legend(figure: Figure, axis: Axes) -> None:
    """What is drawn, once for each kind, below the picture."""
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=6,
        frameon=False,
        fontsize=8.5,
        labelcolor=INK,
        handlelength=1.4,
    )
