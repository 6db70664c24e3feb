"""What a benchmark yields: numbers with intervals, what they are held against, and how they came about."""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from protclip.evaluation.bootstrap import Interval, affordable, interval, resampled
from protclip.evaluation.registry import KINDS
from protclip.evaluation.spec.base import Benchmark
from protclip.evaluation.trial import CHECKPOINT, Result, Trial

RESAMPLING_SEED = 22
"""Fixed, so that the same results always have the same intervals."""


@dataclass(frozen=True, slots=True)
class Published:
    """A published value of a metric.

    Attributes:
        value: The value in our unit.
        difference: Ours less theirs.
        equal: Whether they differ by at most the benchmark's tolerance; None for metrics that have none.
    """

    value: float
    difference: float
    equal: bool | None


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one benchmark over all seeds.

    Attributes:
        metric: Its name.
        values: Value by seed; NaN where it is undefined.
        interval: Bounds of the 95 % interval of the mean; None where there is none.
        baselines: Mean over seeds by baseline.
        published: Published values by model.
    """

    metric: str
    values: Mapping[int, float]
    interval: Interval | None
    baselines: Mapping[str, float]
    published: Mapping[str, Published]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.values.values())

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over seeds, None for a single one."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None


@dataclass(frozen=True, slots=True)
class Summary:
    """One benchmark by one protocol over all seeds: a row of the report.

    Attributes:
        spec: What was asked.
        protocol: "frozen" or "finetune".
        scores: Its metrics, the primary one first; none when no run succeeded.
        leak: Share of the test proteins whose sequence was among the pre-training pairs, when known.
        trials: Every run behind the row, its baselines' too.
        errors: What went wrong, the row itself first.
        counts: Examples per split, classes and the like.
        notes: What a reader must know.
        resamples: Resamples behind the intervals.
        seconds: Wall-clock time by seed.
        device: Where it ran.
    """

    spec: Benchmark[Any]
    protocol: str
    scores: Sequence[Score]
    leak: float | None
    trials: Sequence[Trial]
    errors: Sequence[str]
    counts: Mapping[str, int]
    notes: Sequence[str]
    resamples: int
    seconds: Mapping[int, float]
    device: str

    @property
    def label(self) -> str:
        """The benchmark's name, with the protocol where that is not the usual one."""
        return self.spec.name if self.protocol == "frozen" else f"{self.spec.name}, {self.protocol}"

    @property
    def primary(self) -> Score | None:
        """The score by which models are compared; None when no run succeeded."""
        return self.scores[0] if self.scores else None

    @property
    def best_baseline(self) -> tuple[str, float] | None:
        """Name and value of the best baseline by the primary metric."""
        known = {} if self.primary is None else self.primary.baselines
        ranked = sorted((v, name) for name, v in known.items() if math.isfinite(v))
        if not ranked:
            return None
        value, name = ranked[-1 if self.spec.higher_is_better else 0]
        return name, value


def summarise(
    spec: Benchmark[Any], results: Sequence[Result], leak: float | None = None, resamples: int = 1000
) -> list[Summary]:
    """One benchmark's runs gathered over seeds: a row for each protocol of the checkpoint.

    Args:
        spec: The benchmark.
        results: Its runs, failed ones too, at least one of them the checkpoint's.
        leak: Share of its test proteins whose sequence was among the pre-training pairs, when known.
        resamples: Bootstrap resamples; fewer are drawn where they would take minutes.
    """
    protocols = dict.fromkeys(r.trial.protocol for r in results if r.trial.model == CHECKPOINT)
    others = [r for r in results if r.trial.model != CHECKPOINT]
    return [
        _row(
            spec,
            protocol,
            [r for r in results if r.trial.model == CHECKPOINT and r.trial.protocol == protocol],
            others,
            leak,
            resamples,
        )
        for protocol in protocols
    ]


def _row(
    spec: Benchmark[Any],
    protocol: str,
    own: Sequence[Result],
    others: Sequence[Result],
    leak: float | None,
    resamples: int,
) -> Summary:
    """One row, of the checkpoint's runs by one protocol and of all baselines."""
    done = [r for r in own if r.error is None]
    baselines: dict[str, list[Result]] = {}
    for other in others:
        if other.error is None:
            baselines.setdefault(_baseline(other.trial), []).append(other)
    kind = KINDS[spec.kind]
    drawn = affordable([r.units for r in done], resamples)
    rng = np.random.default_rng(RESAMPLING_SEED)
    samples = resampled(kind, [(r.units, r.ids) for r in done], drawn, rng, spec.name)
    scores = []
    for metric in sorted(done[0].metrics if done else (), key=lambda name: name != spec.metric):
        values = {r.trial.seed: r.metrics[metric] for r in done}
        mean = statistics.fmean(values.values())
        scores.append(
            Score(
                metric=metric,
                values=values,
                interval=interval(np.mean([sample[metric] for sample in samples], 0)),
                baselines={
                    name: statistics.fmean(r.metrics[metric] for r in runs)
                    for name, runs in baselines.items()
                    if metric in runs[0].metrics
                },
                published={
                    model: Published(
                        value,
                        mean - value,
                        abs(mean - value) <= spec.tolerance if metric == spec.metric else None,
                    )
                    for model, value in spec.published.get(metric, {}).items()
                },
            )
        )
    first = done[0] if done else own[0]
    return Summary(
        spec=spec,
        protocol=protocol,
        scores=scores,
        leak=leak,
        trials=[r.trial for r in (*own, *others)],
        errors=list(dict.fromkeys(_errors((*own, *others)))),
        counts=first.counts,
        notes=list(
            dict.fromkeys(note for note in (spec.notes.strip(), *(n for r in done for n in r.notes)) if note)
        ),
        resamples=drawn if done else 0,
        seconds={r.trial.seed: r.seconds for r in done},
        device=first.device,
    )


def _baseline(trial: Trial) -> str:
    """What a baseline is called in a row."""
    return f"{trial.model}, {trial.protocol}" if trial.protocol == "finetune" else trial.model


def _errors(results: Iterable[Result]) -> Iterator[str]:
    """What went wrong, and in which baseline."""
    for result in results:
        if result.error is not None:
            own = result.trial.model == CHECKPOINT
            yield result.error if own else f"{_baseline(result.trial)}: {result.error}"
