"""Which variants of an ablation differ from the reference by more than chance.

A difference is judged by two sorts of noise at once: another training (the differences of equal seeds
vary) and other test units (paired bootstrap, the same resamples for all runs). How a run happens to do on
a unit is in both, so the error is rather too large than too small; taking one sort alone for all noise
finds differences where there are none. Validation metrics have no test units, only seeds.

Shape suffixes: S training seeds, R resamples.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from scipy import stats

from protclip.errors import BenchmarkError
from protclip.evaluation.bootstrap import LEVEL, Interval, affordable, holm, resampled
from protclip.evaluation.compare import Report, Task, kept_results, read_reports, why_not
from protclip.evaluation.metrics.validation import lower_is_better
from protclip.evaluation.registry import KINDS
from protclip.evaluation.trial import Result
from protclip.tuning.candidate import Outcome, Param

Verdict = Literal[
    "better", "worse", "better (one seed)", "worse (one seed)", "no difference shown", "not comparable"
]

VALIDATION = "Validation"
"""Group of the rows that are no benchmarks."""
RESAMPLING_SEED = 22
"""Fixed, so that the same outcomes always have the same verdicts."""

NOTHING = 1e-9
"""Share of a difference that rounding alone can make vary."""
FEWEST_POINTS = 3
"""Of a line."""

Key = tuple[str, int]
"""Variant and training seed."""


@dataclass(frozen=True, slots=True)
class Effect:
    """A variant held against the reference by one metric.

    Attributes:
        verdict: What can be said at the level asked for; of one seed it holds for these two trainings, not
            for the settings, since how much trainings vary is unknown.
        why: Why nothing can be said, where it is not comparable.
        seeds: Training seeds both have.
        difference: The variant's less the reference's, mean over these seeds.
        seed_error: Standard error of the difference over seeds; NaN for one seed.
        unit_error: The same over test units; NaN where there are none.
        interval: 95 % interval of the difference; None where it is not comparable.
        p: Two-sided p-value of the difference.
        corrected_p: The same, corrected for the variant's number of rows.
    """

    verdict: Verdict
    why: str = ""
    seeds: tuple[int, ...] = ()
    difference: float = math.nan
    seed_error: float = math.nan
    unit_error: float = math.nan
    interval: Interval | None = None
    p: float = math.nan
    corrected_p: float = math.nan


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of all variants.

    Attributes:
        name: As in MLflow, `bench/BENCHMARK/METRIC` or `valid/…`.
        label: The same for people.
        group: The benchmark's, or `VALIDATION`.
        higher_is_better: Direction.
        values: Value by variant and training seed, of a benchmark the mean over its own seeds.
        effects: By variant, without the reference.
    """

    name: str
    label: str
    group: str
    higher_is_better: bool
    values: Mapping[str, Mapping[int, float]]
    effects: Mapping[str, Effect] = field(default_factory=dict)

    def mean(self, variant: str) -> float:
        """Mean over seeds; NaN where there is no value."""
        return statistics.fmean(self.values[variant].values()) if self.values[variant] else math.nan

    def deviation(self, variant: str) -> float:
        """Sample standard deviation over seeds; NaN where there are not two values."""
        values = self.values[variant].values()
        return statistics.stdev(values) if len(values) > 1 else math.nan


def compare_variants(
    outcomes: Mapping[Key, Outcome],
    pairs: Mapping[str, str],
    reference: str,
    metrics: Sequence[str],
    resamples: int,
    level: float,
) -> list[Row]:
    """Holds every variant against the reference, on each benchmark's primary metric and some others.

    Args:
        outcomes: Complete ones.
        pairs: URI of the pairs of every variant; validation metrics of other pairs are not comparable.
        reference: A variant.
        metrics: Validation metrics.
        resamples: Bootstrap resamples of the test units; fewer are drawn where they would take minutes.
        level: Significance level, for all rows of a variant together (Holm).

    Returns:
        Benchmarks in the order of the suite, then validation metrics.

    Raises:
        BenchmarkError: A report cannot be read, or is of a kind that this release does not have.
        DataError: A report is not there any more.
    """
    with_report = {key: uri for key, outcome in outcomes.items() if (uri := outcome.report) is not None}
    reports = dict(zip(with_report, read_reports(list(with_report.values())), strict=True))
    tasks = {task.name: task for report in reports.values() for task in report.tasks.values()}
    rows = [
        _benchmark(tasks[name], protocol, reports, list(pairs), reference, resamples)
        for name, protocol in dict.fromkeys(key for report in reports.values() for key in report.rows)
    ]
    rows += [_validation(metric, outcomes, pairs, reference) for metric in metrics]
    judged = {variant: _judged(rows, variant, level) for variant in pairs if variant != reference}
    return [
        replace(row, effects={variant: effects[index] for variant, effects in judged.items()})
        for index, row in enumerate(rows)
    ]


def _benchmark(
    task: Task,
    protocol: str,
    reports: Mapping[Key, Report],
    variants: Sequence[str],
    reference: str,
    resamples: int,
) -> Row:
    """One benchmark by one protocol, not yet corrected for the number of rows."""
    if task.kind not in KINDS:
        raise BenchmarkError(f"{task.name}: unknown kind {task.kind!r}; known: {', '.join(KINDS)}")
    kept = {key: kept_results(report, (task.name, protocol)) for key, report in reports.items()}
    runs = {(*key, seed): result for key, results in kept.items() for seed, result in results.items()}
    drawn = affordable([run.units for run in runs.values()], resamples)
    rng = np.random.default_rng(RESAMPLING_SEED)
    samples = resampled(
        KINDS[task.kind], [(run.units, run.ids) for run in runs.values()], drawn, rng, task.name
    )
    samples_R = {run: sample[task.metric] for run, sample in zip(runs, samples, strict=True)}
    effects = {}
    for variant in (v for v in variants if v != reference):
        differences, differences_R, reasons = {}, [], []
        for seed in _common(reports, variant, reference):
            base, other = (reference, seed), (variant, seed)
            why = why_not(reports[base], reports[other], (task.name, protocol), kept[base], kept[other])
            common = sorted(kept[base].keys() & kept[other].keys())
            found = [_value(kept[other][s], task) - _value(kept[base][s], task) for s in common]
            if not why and not np.isfinite(found).all():
                why = f"{task.metric} is undefined"
            if why:
                reasons.append(why)
                continue
            differences[seed] = statistics.fmean(found)
            differences_R.append(np.mean([samples_R[*other, s] - samples_R[*base, s] for s in common], 0))
        effects[variant] = _effect(differences, differences_R, reasons)
    values = {
        variant: {
            seed: statistics.fmean(_value(result, task) for result in results.values())
            for (name, seed), results in kept.items()
            if name == variant and results
        }
        for variant in variants
    }
    further = "" if protocol == "frozen" else f"/{protocol}"
    return Row(
        name=f"bench/{task.name}{further}/{task.metric}",
        label=f"{task.name}{further.replace('/', ', ')} · {task.metric}",
        group=task.group,
        higher_is_better=task.higher_is_better,
        values=values,
        effects=effects,
    )


def _validation(
    metric: str, outcomes: Mapping[Key, Outcome], pairs: Mapping[str, str], reference: str
) -> Row:
    """One validation metric, not yet corrected for the number of rows."""
    measured = {key: o.metrics[metric] for key, o in outcomes.items() if metric in o.metrics}
    effects = {}
    for variant in (v for v in pairs if v != reference):
        if pairs[variant] != pairs[reference]:
            effects[variant] = Effect("not comparable", "measured on validation pairs of its own")
            continue
        differences = {
            seed: measured[variant, seed] - measured[reference, seed]
            for seed in _common(measured, variant, reference)
        }
        effects[variant] = _effect(differences, [], [])
    return Row(
        name=metric,
        label=metric.removeprefix("valid/"),
        group=VALIDATION,
        higher_is_better=not lower_is_better(metric),
        values={
            variant: {seed: value for (name, seed), value in measured.items() if name == variant}
            for variant in pairs
        },
        effects=effects,
    )


def _value(result: Result, task: Task) -> float:
    """A run's primary metric."""
    return result.metrics[task.metric]


def _common(keys: Mapping[Key, object], variant: str, reference: str) -> list[int]:
    """Training seeds that both have."""
    return sorted(seed for name, seed in keys if name == variant and (reference, seed) in keys)


def _effect(
    differences: Mapping[int, float], samples_SR: Sequence[np.ndarray], reasons: Sequence[str]
) -> Effect:
    """What differences by seed, and the same on resamples of the test units, say; not yet corrected.

    The two sorts of noise add up; Student's t has Satterthwaite's (1946) degrees of freedom, with those of
    the units, which are many, taken as infinite.
    """
    if not differences:
        return Effect("not comparable", reasons[0] if reasons else "no seed of which both are complete")
    seeds = tuple(differences)
    values_S = np.array(list(differences.values()))
    known = Effect("not comparable", seeds=seeds, difference=float(values_S.mean()))
    if len(seeds) > 1:
        known = replace(known, seed_error=float(values_S.std(ddof=1)) / math.sqrt(len(seeds)))
    if samples_SR:
        means_R = np.mean(samples_SR, 0)
        defined = means_R[np.isfinite(means_R)]
        if 2 * len(defined) < len(means_R):
            return replace(known, why="undefined in most resamples")
        known = replace(known, unit_error=float(defined.std(ddof=1)))
    elif len(seeds) == 1:
        return replace(known, why="one seed does not tell how much trainings vary; give seeds=0,1,2")
    by_seeds, by_units = (0.0 if math.isnan(e) else e for e in (known.seed_error, known.unit_error))
    error = math.hypot(by_seeds, by_units)
    if error <= NOTHING * abs(known.difference):
        if known.difference:
            return replace(known, why="nothing varies, so that there is no noise to hold it against")
        return replace(known, verdict="no difference shown", interval=(0.0, 0.0), p=1.0)
    degrees = (len(seeds) - 1) * (error / by_seeds) ** 4 if by_seeds else math.inf
    reach = float(stats.t.ppf((1 + LEVEL) / 2, degrees)) * error
    return replace(
        known,
        verdict="no difference shown",
        interval=(known.difference - reach, known.difference + reach),
        p=2 * float(stats.t.sf(abs(known.difference) / error, degrees)),
    )


def _judged(rows: Sequence[Row], variant: str, level: float) -> list[Effect]:
    """A variant's effects with corrected p-values and verdicts."""
    effects = [row.effects[variant] for row in rows]
    corrected = iter(holm([e.p for e in effects if e.verdict != "not comparable"]))
    return [
        effect
        if effect.verdict == "not comparable"
        else _judge(effect, row.higher_is_better, next(corrected), level)
        for row, effect in zip(rows, effects, strict=True)
    ]


def _judge(effect: Effect, higher_is_better: bool, corrected_p: float, level: float) -> Effect:
    """An effect with its verdict."""
    verdict: Verdict = "no difference shown"
    if corrected_p <= level:
        if (effect.difference > 0) == higher_is_better:
            verdict = "better" if len(effect.seeds) > 1 else "better (one seed)"
        else:
            verdict = "worse" if len(effect.seeds) > 1 else "worse (one seed)"
    return replace(effect, verdict=verdict, corrected_p=corrected_p)


def series(varied: Mapping[str, Mapping[str, Param]]) -> tuple[str, dict[str, float]] | None:
    """The one key in which variants differ, if it is a number, and its value by variant.

    Args:
        varied: Value of every key in which they differ, by variant.
    """
    keys = list(dict.fromkeys(key for own in varied.values() for key in own))
    if len(keys) != 1 or len(varied) < FEWEST_POINTS:
        return None
    values = {variant: own[keys[0]] for variant, own in varied.items()}
    numbers = {
        v: float(x) for v, x in values.items() if isinstance(x, int | float) and not isinstance(x, bool)
    }
    return (keys[0], numbers) if len(numbers) == len(values) else None
