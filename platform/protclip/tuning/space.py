"""The space of a sweep: which values each dimension can have, checked before anything starts."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

import optuna

from protclip.config.study import Dimension, Value
from protclip.errors import ConfigError
from protclip.tuning.candidate import Candidate, Param, Template

MOST_COMBINATIONS = 100_000
"""Of a grid; more than can be trained."""


class Space:
    """Dimensions by dotted key of the training's or the sampling's configuration.

    Every end of a range and every choice is loaded as a configuration, the other dimensions at their first
    values or, should the two contradict each other, at their last ones: only together have, say, the four
    thresholds of `loss.pda.theta` a meaning. Combinations in between can still be contradictory.

    A choice that is text is taken as it would be on the command line, so `null` and `{function: 0.3, …}` can
    be choices, too.

    Attributes:
        conditional: Some dimension is not in every trial.

    Args:
        dimensions: The configuration's `space`.
        template: Makes candidates.

    Raises:
        ConfigError: A key does not exist, a value does not suit it, or dimensions contradict each other.
    """

    def __init__(self, dimensions: Mapping[str, Dimension], template: Template) -> None:
        self._template = template
        self._dimensions = {key: dimensions[key] for key in _parents_first(dimensions)}
        self._whole: set[str] = set()
        self.conditional = any(dimension.when for dimension in dimensions.values())
        for key, dimension in self._dimensions.items():
            made = [self._load(key, value) for value in _ends(dimension)]
            if dimension.choices is None:
                self._check_range(key, dimension, _value_of(made[0], key))

    def __iter__(self) -> Iterator[str]:
        """Keys, what others depend on before these."""
        return iter(self._dimensions)

    @property
    def is_numeric(self) -> bool:
        """Every dimension is a range."""
        return all(dimension.choices is None for dimension in self._dimensions.values())

    def ends(self, key: str) -> tuple[Param, ...]:
        """Low and high, or all choices, of a dimension."""
        return _ends(self._dimensions[key])

    def always(self, key: str) -> bool:
        """Whether a key is a dimension of every trial."""
        return key in self._dimensions and not self._dimensions[key].when

    def suggest(self, trial: optuna.Trial) -> dict[str, Param]:
        """A trial's value of each dimension that it has."""
        params: dict[str, Param] = {}
        for key, dimension in self._dimensions.items():
            if all(p in params and params[p] in values for p, values in dimension.when.items()):
                params[key] = self._suggest(trial, key, dimension)
        return self.read(params)

    def read(self, params: Mapping[str, Param]) -> dict[str, Param]:
        """What Optuna keeps of a trial as `suggest` gave it: steps without what rounding leaves behind."""
        return {
            key: float(f"{params[key]:.12g}") if dimension.step and key not in self._whole else params[key]
            for key, dimension in self._dimensions.items()
            if key in params
        }

    @staticmethod
    def settings(params: Mapping[str, Param]) -> list[str]:
        """`key=value` for `Template.make`, which gives the same values again."""
        return [f"{key}={_text(value)}" for key, value in params.items()]

    def grid(self) -> list[dict[str, Param]]:
        """Every combination of choices and steps, the last dimension varying fastest.

        Raises:
            ConfigError: A range has no steps, a dimension is not in every trial, or there are too many.
        """
        values = [self._steps(key, dimension) for key, dimension in self._dimensions.items()]
        if (many := math.prod(map(len, values))) > MOST_COMBINATIONS:
            raise ConfigError(f"sampler=grid: {many} combinations; take longer steps or another sampler")
        return [
            dict(zip(self._dimensions, combination, strict=True))
            for combination in itertools.product(*values)
        ]

    def _suggest(self, trial: optuna.Trial, key: str, dimension: Dimension) -> Param:
        """The value of one dimension."""
        if dimension.choices is not None:
            return trial.suggest_categorical(key, dimension.choices)
        (low, high), step, log = _range(dimension), dimension.step, dimension.log
        if key in self._whole:
            return trial.suggest_int(key, int(low), int(high), step=int(step or 1), log=log)
        return trial.suggest_float(key, low, high, step=step, log=log)

    def _steps(self, key: str, dimension: Dimension) -> Sequence[Param]:
        """All values of a dimension."""
        if dimension.when:
            raise ConfigError(f"space.{key}: sampler=grid has every dimension in every trial; drop when")
        if dimension.choices is not None:
            return dimension.choices
        step = dimension.step or (1 if key in self._whole and not dimension.log else None)
        if step is None:
            raise ConfigError(f"space.{key}: sampler=grid needs choices, or low, high and step")
        low, high = _range(dimension)
        values = [low + index * step for index in range(round((high - low) / step) + 1)]
        return [int(v) if key in self._whole else float(f"{v:.12g}") for v in values]

    def _check_range(self, key: str, dimension: Dimension, value: object) -> None:
        """Holds a range against the key's type, of which `value` is one."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"space.{key}: takes no number; give choices instead of low and high")
        if isinstance(value, int):
            self._whole.add(key)
        if (step := dimension.step) is None:
            return
        if key in self._whole and not step.is_integer():
            raise ConfigError(f"space.{key}: step={step:g} is not a whole number, as the key's values are")
        low, high = _range(dimension)
        steps = (high - low) / step
        if abs(steps - round(steps)) > 1e-8:
            raise ConfigError(
                f"space.{key}: steps of {step:g} from low={low:g} miss high={high:g}; the last one is "
                f"{low + math.floor(steps) * step:g}"
            )

    def _load(self, key: str, value: Param) -> Candidate:
        """A candidate with a value of one dimension."""
        first: ConfigError | None = None
        for held in (0, -1):
            try:
                return self._template.make("space", self.settings(self._around(key, value, held)))
            except ConfigError as error:
                first = first or error
        text = str(first).replace("command line: ", "").replace("\n", "; ")
        # What is held can be what is wrong.
        named = [k for k in self if re.search(rf"(?<![\w.]){re.escape(k)}(?![\w.])", text)]
        raise ConfigError(f"space.{named[0] if named and key not in named else key}: {text}") from first

    def _around(self, key: str, value: Param, held: int) -> dict[str, Param]:
        """A value of one dimension, the others at one of theirs, so that it is there."""
        forced: dict[str, Param] = {key: value}
        for dependent in reversed(self._dimensions):
            if dependent in forced:
                for parent, values in self._dimensions[dependent].when.items():
                    forced.setdefault(parent, values[held])
        params: dict[str, Param] = {}
        for other, dimension in self._dimensions.items():
            if all(p in params and params[p] in values for p, values in dimension.when.items()):
                params[other] = forced.get(other, _ends(dimension)[held])
        return params


def _parents_first(dimensions: Mapping[str, Dimension]) -> Sequence[str]:
    """Keys so that each comes behind those it depends on."""
    for key, dimension in dimensions.items():
        inner = next((other for other in dimensions if other.startswith(f"{key}.")), None)
        if inner is not None:
            raise ConfigError(f"space.{key}: {inner} is a part of it; drop one of the two")
        for parent, values in dimension.when.items():
            _check_condition(f"space.{key}: when names {parent}", dimensions.get(parent), values, dimensions)
    try:
        return list(TopologicalSorter({key: d.when for key, d in dimensions.items()}).static_order())
    except CycleError as error:
        circle = " → ".join(error.args[1])
        raise ConfigError(f"space.{error.args[1][0]}: when goes round in a circle: {circle}") from error


def _check_condition(
    where: str, parent: Dimension | None, values: Sequence[Value], dimensions: Mapping[str, Dimension]
) -> None:
    """Refuses a condition that never holds."""
    if parent is None:
        raise ConfigError(f"{where}, which is no dimension; there are {', '.join(dimensions)}")
    if parent.choices is None:
        raise ConfigError(f"{where}, a range; a dimension can depend on choices only")
    never = [value for value in values if value not in parent.choices]
    if never or not values:
        choices = ", ".join(map(_text, parent.choices))
        raise ConfigError(f"{where}: {', '.join(map(_text, never)) or 'none'} is not among {choices}")


def _ends(dimension: Dimension) -> tuple[Param, ...]:
    """Low and high, as whole numbers if they are, or all choices."""
    if dimension.choices is not None:
        return dimension.choices
    return tuple(int(v) if v.is_integer() else v for v in _range(dimension))


def _range(dimension: Dimension) -> tuple[float, float]:
    """Low and high of a dimension without choices."""
    assert dimension.low is not None
    assert dimension.high is not None
    return dimension.low, dimension.high


def _value_of(candidate: Candidate, key: str) -> object:
    """A candidate's value of a key."""
    value: object = candidate.pretrain
    for config in (candidate.sample, candidate.pretrain):
        if config is not None and hasattr(config, key.partition(".")[0]):
            value = config
            break
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


def _text(value: Param) -> str:
    """A value as on the command line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)
