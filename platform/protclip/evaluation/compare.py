"""Which differences between checkpoints are real: paired bootstrap over the test units both were run on."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from protclip import storage
from protclip.errors import BenchmarkError
from protclip.evaluation.bootstrap import Interval, holm, interval, p_value, resampled
from protclip.evaluation.registry import KINDS
from protclip.evaluation.store import ResultStore
from protclip.evaluation.trial import CHECKPOINT, Result, Trial

RESULTS = "results.json"

Verdict = Literal["better", "worse", "no difference shown", "not comparable"]


class _Stored(BaseModel):
    """A part of `results.json`; what a comparison does not need is not looked at."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Provenance(_Stored):
    """Which checkpoint, and where its results are kept."""

    checkpoint: str
    step: int
    results: str


class Task(_Stored):
    """What a comparison must know of a benchmark; see `Benchmark`."""

    name: str
    title: str
    group: str
    kind: str
    metric: str
    higher_is_better: bool


class _Row(_Stored):
    """A benchmark by one protocol."""

    spec: Task
    protocol: str
    trials: tuple[Trial, ...]


class _Results(_Stored):
    """All of it."""

    provenance: _Provenance
    benchmarks: tuple[_Row, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """The results of one checkpoint.

    Attributes:
        name: What it is called: the report's directory.
        uri: Where it is.
        checkpoint: URI of the checkpoint.
        step: Optimisation steps the checkpoint has seen.
        store: Its kept results.
        rows: The checkpoint's runs by seed, by benchmark and protocol.
        tasks: The benchmarks by name.
    """

    name: str
    uri: str
    checkpoint: str
    step: int
    store: ResultStore
    rows: Mapping[tuple[str, str], Mapping[int, Trial]]
    tasks: Mapping[str, Task]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One checkpoint held against the reference on one benchmark.

    Attributes:
        task: The benchmark.
        protocol: "frozen" or "finetune".
        candidate: Name of the report that is compared.
        verdict: What can be said at the level asked for.
        why: Why nothing can be said, where it is not comparable.
        reference_value: The reference's primary metric, mean over the seeds both have.
        value: The candidate's.
        interval: 95 % interval of the candidate's less the reference's; None where it is undefined.
        p: Two-sided p-value of the difference.
        corrected_p: The same, corrected for the number of benchmarks.
    """

    task: Task
    protocol: str
    candidate: str
    verdict: Verdict
    why: str = ""
    reference_value: float = float("nan")
    value: float = float("nan")
    interval: Interval | None = None
    p: float = float("nan")
    corrected_p: float = float("nan")

    @property
    def difference(self) -> float:
        """The candidate's less the reference's."""
        return self.value - self.reference_value

    @property
    def label(self) -> str:
        """The benchmark's name, with the protocol where that is not the usual one."""
        return self.task.name if self.protocol == "frozen" else f"{self.task.name}, {self.protocol}"


def read_reports(uris: Sequence[str]) -> list[Report]:
    """Reports by the names of their directories, by whole URIs where those are equal.

    Raises:
        BenchmarkError: One is given twice, is no report of `protclip benchmark`, or of an older release.
        DataError: One is not there.
    """
    if len(set(uris)) < len(uris):
        raise BenchmarkError(f"a report is given twice: {', '.join(uris)}")
    names = [storage.basename(uri) for uri in uris]
    unique = len(set(names)) == len(names)
    return [_read(uri, name if unique else uri) for uri, name in zip(uris, names, strict=True)]


def _read(uri: str, name: str) -> Report:
    """One report."""
    path = storage.join(uri, RESULTS)
    try:
        stored = _Results.model_validate(storage.read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BenchmarkError(
            f"{path}: no report that this release can read ({where}: {first['msg']}); run protclip benchmark "
            "again"
        ) from error
    kept = stored.provenance.results
    return Report(
        name=name,
        uri=uri,
        checkpoint=stored.provenance.checkpoint,
        step=stored.provenance.step,
        store=ResultStore(kept if kept.startswith("/") or "://" in kept else storage.join(uri, kept)),
        rows={
            (row.spec.name, row.protocol): {
                trial.seed: trial
                for trial in row.trials
                if (trial.model, trial.protocol) == (CHECKPOINT, row.protocol)
            }
            for row in stored.benchmarks
        },
        tasks={row.spec.name: row.spec for row in stored.benchmarks},
    )


def compare(reports: Sequence[Report], resamples: int, level: float, seed: int) -> list[Comparison]:
    """Holds every report against the first, on each benchmark and protocol that one of them has.

    Args:
        reports: At least two.
        resamples: Bootstrap resamples, the same for all reports.
        level: Significance level, for all benchmarks of a candidate together (Holm).
        seed: Seed of the resampling.

    Returns:
        Candidate by candidate, in the order of the reference's report.

    Raises:
        BenchmarkError: A benchmark is of a kind that this release does not have.
    """
    tasks = {name: task for report in reversed(reports) for name, task in report.tasks.items()}
    found: dict[str, list[Comparison]] = {report.name: [] for report in reports[1:]}
    for name, protocol in dict.fromkeys(key for report in reports for key in report.rows):
        rng = np.random.default_rng(seed)
        for one in _compare_row(tasks[name], protocol, reports, resamples, rng):
            found[one.candidate].append(one)
    return [one for rows in found.values() for one in _judged(rows, level)]


def _compare_row(
    task: Task, protocol: str, reports: Sequence[Report], resamples: int, rng: np.random.Generator
) -> list[Comparison]:
    """One benchmark by one protocol, not yet corrected for the number of benchmarks."""
    if task.kind not in KINDS:
        raise BenchmarkError(f"{task.name}: unknown kind {task.kind!r}; known: {', '.join(KINDS)}")
    reference, *candidates = reports
    key = task.name, protocol
    kept = {report.name: kept_results(report, key) for report in reports}
    reasons = {c.name: why_not(reference, c, key, kept[reference.name], kept[c.name]) for c in candidates}
    seeds = {
        name: sorted(kept[reference.name].keys() & kept[name].keys())
        for name, why in reasons.items()
        if not why
    }
    runs = {
        (name, seed): kept[name][seed]
        for candidate, common in seeds.items()
        for seed in common
        for name in (reference.name, candidate)
    }
    drawn = resampled(KINDS[task.kind], [(r.units, r.ids) for r in runs.values()], resamples, rng, task.name)
    samples = {run: sample[task.metric] for run, sample in zip(runs, drawn, strict=True)}
    found = []
    for name, why in reasons.items():
        if why:
            found.append(Comparison(task, protocol, name, "not comparable", why))
            continue
        common = seeds[name]
        values = [
            statistics.fmean(runs[who, seed].metrics[task.metric] for seed in common)
            for who in (reference.name, name)
        ]
        if not all(map(math.isfinite, values)):
            found.append(Comparison(task, protocol, name, "not comparable", f"{task.metric} is undefined"))
            continue
        differences_R = np.mean([samples[name, s] - samples[reference.name, s] for s in common], 0)
        found.append(
            Comparison(
                task,
                protocol,
                name,
                "no difference shown",
                reference_value=values[0],
                value=values[1],
                interval=interval(differences_R),
                p=p_value(differences_R),
            )
        )
    return found


def kept_results(report: Report, key: tuple[str, str]) -> dict[int, Result]:
    """A report's results of a benchmark by seed, as far as its runs succeeded and are kept."""
    found = {seed: report.store.find(trial) for seed, trial in report.rows.get(key, {}).items()}
    return {seed: result for seed, result in found.items() if result is not None}


def why_not(
    reference: Report,
    candidate: Report,
    key: tuple[str, str],
    own: Mapping[int, Result],
    other: Mapping[int, Result],
) -> str:
    """Why two reports cannot be compared on a benchmark; empty when they can."""
    for report, kept in ((reference, own), (candidate, other)):
        if key not in report.rows:
            return f"{report.name} did not run it"
        if not kept:
            return f"no run of {report.name} succeeded, or {report.store.uri} does not keep it any more"
    common = own.keys() & other.keys()
    if not common:
        return "no seed in common"
    if any(own[seed].trial.version != other[seed].trial.version for seed in common):
        return "other data, protocol or release"
    if any(list(own[seed].ids) != list(other[seed].ids) for seed in common):
        return "other test data"
    return ""


def _judged(rows: Sequence[Comparison], level: float) -> list[Comparison]:
    """One candidate's rows with corrected p-values and verdicts."""
    comparable = [row for row in rows if row.verdict != "not comparable"]
    corrected = iter(holm([row.p for row in comparable]))
    return [row if row.verdict == "not comparable" else _judge(row, next(corrected), level) for row in rows]


def _judge(row: Comparison, corrected_p: float, level: float) -> Comparison:
    """A row with its verdict."""
    verdict: Verdict = "no difference shown"
    if corrected_p <= level:
        verdict = "better" if (row.difference > 0) == row.task.higher_is_better else "worse"
    return replace(row, verdict=verdict, corrected_p=corrected_p)


def fewest_resamples(num_benchmarks: int, level: float) -> int:
    """Resamples without which no difference among so many benchmarks can be shown at a level."""
    return math.ceil(2 * num_benchmarks / level)
