"""What reports say of a result, in words and numbers for people."""

import importlib.metadata
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from protclip.evaluation.charts import KNOWN
from protclip.evaluation.results import Published, Score, Summary
from protclip.page import difference, number
from protclip.provenance import git_sha

PACKAGES = ("protclip", "numpy", "scikit-learn", "torch", "torch_geometric")
HEADINGS = ("Benchmark", "Metric", "Value [95 % interval]", "Seeds", "Best baseline", *KNOWN, "Leak")
NONE = ("–", "")

Cell = tuple[str, str]
"""What is said, and what is said smaller beside or below it."""


def versions() -> dict[str, str]:
    """Versions of Python and of what the numbers depend on."""
    return {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in PACKAGES}


@dataclass(frozen=True, slots=True)
class Provenance:
    """What was evaluated, and with what.

    Attributes:
        checkpoint: URI of the checkpoint.
        step: Optimisation steps it has seen.
        data_manifest: sha256 of the manifest of the pairs it was trained on.
        created: When the report was made, ISO 8601.
        results: URI of the kept results, relative to the report's directory where they lie in it.
        git_sha: Commit of the evaluating code, when known.
        versions: Package versions.
    """

    checkpoint: str
    step: int
    data_manifest: str
    created: str
    results: str = "results"
    git_sha: str | None = field(default_factory=git_sha)
    versions: Mapping[str, str] = field(default_factory=versions)

    @property
    def facts(self) -> dict[str, str]:
        """Labels and values for people."""
        return {
            "Checkpoint": f"{self.checkpoint} (step {self.step})",
            "Pairs manifest": self.data_manifest,
            "Code": self.git_sha or "unknown commit",
            "Versions": ", ".join(f"{name} {version}" for name, version in self.versions.items()),
            "Made": self.created,
        }


def cells(summary: Summary) -> list[Cell]:
    """One row for `HEADINGS`, by the primary metric; a failed one says why."""
    spec, score = summary.spec, summary.primary
    head = [
        (summary.label, spec.title),
        (spec.metric, "" if spec.higher_is_better else "less is better"),
    ]
    leak = ("–" if summary.leak is None else f"{summary.leak:.1%}", "")
    if score is None:
        return [*head, ("failed", summary.errors[0]), *[NONE] * (len(HEADINGS) - 4), leak]
    baseline = summary.best_baseline
    deviation = "" if score.deviation is None else f"± {number(score.deviation)}"
    return [
        *head,
        (number(score.mean), _interval(score)),
        (str(len(score.values)), deviation),
        NONE if baseline is None else (number(baseline[1]), _against(baseline, score)),
        *(_published(score.published.get(model)) for model in KNOWN),
        leak,
    ]


def overview(summaries: Sequence[Summary]) -> list[tuple[str, ...]]:
    """Every row for `HEADINGS` as text; titles and reasons are left to the details."""
    rows = []
    for summary in summaries:
        first, *rest = cells(summary)
        say = [part[0] if summary.primary is None else " ".join(filter(None, part)) for part in rest]
        rows.append((first[0], *say))
    return rows


def _interval(score: Score) -> str:
    """The interval in brackets."""
    return "" if score.interval is None else f"[{number(score.interval[0])}, {number(score.interval[1])}]"


def _against(baseline: tuple[str, float], score: Score) -> str:
    """A baseline's name and what the checkpoint has over it."""
    return f"{baseline[0]} ({difference(score.mean - baseline[1])})"


def _published(published: Published | None) -> Cell:
    """A published value and ours less it."""
    if published is None:
        return NONE
    equal = " ≈" if published.equal else ""
    return number(published.value), f"({difference(published.difference)}{equal})"


def heading(summary: Summary) -> str:
    """Group, title and protocol of a row."""
    protocol = "" if summary.protocol == "frozen" else f", {summary.protocol}"
    return f"{summary.spec.group}: {summary.spec.title}{protocol}"


def details(summary: Summary) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and rows of every metric of one benchmark."""
    baselines = list(dict.fromkeys(name for score in summary.scores for name in score.baselines))
    models = list(dict.fromkeys(name for score in summary.scores for name in score.published))
    rows = []
    for score in summary.scores:
        others = [score.baselines.get(name, math.nan) for name in baselines]
        others += [score.published[m].value if m in score.published else math.nan for m in models]
        mean = number(score.mean)
        if score.deviation is not None:
            mean += f" ± {number(score.deviation)}"
        rows.append((score.metric, mean, _interval(score) or "–", *map(number, others)))
    published = (f"{model} (published)" for model in models)
    return ("Metric", "This checkpoint", "95 % interval", *baselines, *published), rows


def remarks(summary: Summary) -> list[str]:
    """Data sizes, run time, what went wrong, notes and sources of one benchmark."""
    found = [f"Failed: {error}" for error in summary.errors]
    if summary.counts:
        found.append("Data: " + ", ".join(f"{name} {count:,}" for name, count in summary.counts.items()))
    if summary.seconds:
        runs = f"{len(summary.seconds)} run(s), seeds {', '.join(map(str, summary.seconds))}"
        found.append(
            f"{runs}, {sum(summary.seconds.values()):.1f} s on {summary.device}; intervals from "
            f"{summary.resamples:,} resamples"
        )
    if summary.leak is not None:
        found.append(f"Leak: {summary.leak:.1%} of the test proteins were among the pre-training pairs")
    source = f"Source: {summary.spec.citation} Licence: {summary.spec.licence}"
    return [*found, *summary.notes, source]


READING = (
    "Values are means over seeds. Intervals hold 95 % of the bootstrap over test units (proteins, pairs or "
    "queries); they do not cover another training, and units that share a protein count as independent. "
    "Differences to published values are ours less theirs, ≈ where they are within the benchmark's "
    "tolerance. Leak is the share of test proteins whose exact sequence was among the pre-training pairs."
)
"""How to read an overview."""
