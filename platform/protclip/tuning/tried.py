"""What a sweep has tried so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import optuna

from protclip.tuning.candidate import Outcome, Param

Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True, slots=True)
class Tried:
    """One trial that has ended.

    Attributes:
        number: In the study, from 0.
        params: Its value of each dimension that it has, by dotted key.
        values: Its objectives in the order of `Results.objectives`; None unless it is complete.
        outcome: What came of it.
        started: When it began.
    """

    number: int
    params: Mapping[str, Param]
    values: tuple[float, ...] | None
    outcome: Outcome
    started: datetime | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """A sweep's trials.

    Attributes:
        name: The sweep's.
        objectives: Direction by metric.
        tried: All trials that have ended, by number.
        best: With one objective the best complete trial, with several those of the Pareto front, by the first
            objective; empty when none is complete.
        importance: Share of each dimension in the variance of each objective (sum 1), the largest first; an
            objective of too few or too equal trials is not there.
        study: Optuna's own view, for its pictures.
    """

    name: str
    objectives: Mapping[str, Direction]
    tried: Sequence[Tried]
    best: Sequence[Tried]
    importance: Mapping[str, Mapping[str, float]]
    study: optuna.Study
