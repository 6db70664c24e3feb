"""What a benchmark yields: numbers, what they are held against, and how they came about."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from protclip.evaluation.spec import BenchmarkSpec


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run of a kind found.

    Attributes:
        metrics: Metric name to value.
        baselines: Baseline name to its metrics, on the same data.
        counts: Examples per split, classes and the like.
        notes: What a reader must know besides.
    """

    metrics: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]]
    counts: Mapping[str, int]
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """One run of one benchmark.

    Attributes:
        benchmark: Its name.
        seed: Seed of the run.
        outcome: What was found.
        seconds: Wall-clock time.
        device: "cpu" or the GPU's name.
    """

    benchmark: str
    seed: int
    outcome: Outcome
    seconds: float
    device: str


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one benchmark over all seeds.

    Attributes:
        metric: Its name.
        values: Value by seed.
        baselines: Mean over seeds by baseline.
        published: Published value by model.
    """

    metric: str
    values: Mapping[int, float]
    baselines: Mapping[str, float]
    published: Mapping[str, float]

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
    """One benchmark over all seeds.

    Attributes:
        spec: What was asked.
        scores: Its metrics, the primary one first.
        counts: Examples per split, classes and the like.
        notes: What a reader must know.
        seconds: Wall-clock time by seed.
        device: Where it ran.
    """

    spec: BenchmarkSpec
    scores: Sequence[Score]
    counts: Mapping[str, int]
    notes: Sequence[str]
    seconds: Mapping[int, float]
    device: str

    @property
    def primary(self) -> Score:
        """The score by which models are compared."""
        return self.scores[0]

    def ranked(self, values: Mapping[str, float]) -> list[tuple[str, float]]:
        """Names and values of several baselines or models, best first by the primary metric."""
        return sorted(values.items(), key=lambda item: item[1], reverse=self.spec.higher_is_better)


def summarise(spec: BenchmarkSpec, results: Sequence[Result]) -> Summary:
    """One benchmark's runs, at least one, gathered over seeds."""
    first = results[0].outcome
    published: dict[str, dict[str, float]] = {str(k): v for k, v in spec.published.items()}
    scores = [
        Score(
            metric=name,
            values={r.seed: r.outcome.metrics[name] for r in results},
            baselines={
                baseline: statistics.fmean(r.outcome.baselines[baseline][name] for r in results)
                for baseline, metrics in first.baselines.items()
                if name in metrics
            },
            published=published.get(name, {}),
        )
        for name in sorted(first.metrics, key=lambda name: name != spec.metric)
    ]
    own = [spec.notes.strip()] if spec.notes.strip() else []
    return Summary(
        spec=spec,
        scores=scores,
        counts=first.counts,
        notes=list(dict.fromkeys([*own, *(note for r in results for note in r.outcome.notes)])),
        seconds={r.seed: r.seconds for r in results},
        device=results[0].device,
    )
