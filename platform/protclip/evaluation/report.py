"""The results as a page (self-contained HTML), as Markdown, and as JSON."""

import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape

from protclip.evaluation.results import Summary
from protclip.page import html_facts, html_list, html_page, html_table, markdown_table
from protclip.provenance import git_sha

PACKAGES = ("protclip", "numpy", "scikit-learn", "torch")
HEADINGS = ("Benchmark", "Metric", "Model", "Baselines", "Difference", "Best published", "Difference")


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
        git_sha: Commit of the evaluating code, when known.
        versions: Package versions.
    """

    checkpoint: str
    step: int
    data_manifest: str
    created: str
    git_sha: str | None = field(default_factory=git_sha)
    versions: Mapping[str, str] = field(default_factory=versions)


def number(value: float) -> str:
    """A metric as a reader wants it: three decimals, one for ranks past a hundred."""
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3f}"


def with_deviation(mean: float, deviation: float | None) -> str:
    """Mean, and the deviation over seeds when there are several."""
    return number(mean) if deviation is None else f"{number(mean)} ± {number(deviation)}"


def heading(summary: Summary) -> str:
    """Group and title of a benchmark."""
    return f"{summary.spec.group}: {summary.spec.title}"


def overview(summaries: Iterable[Summary]) -> list[tuple[str, ...]]:
    """One row per benchmark for `HEADINGS`, by its primary metric; differences are to the best of them."""
    rows = []
    for summary in summaries:
        score = summary.primary
        row = [summary.spec.name, score.metric, with_deviation(score.mean, score.deviation)]
        baselines, published = summary.ranked(score.baselines), summary.ranked(score.published)
        for ranked, shown in ((baselines, len(baselines)), (published, 1)):
            row.append(", ".join(f"{number(value)} ({name})" for name, value in ranked[:shown]) or "–")
            row.append(f"{score.mean - ranked[0][1]:+.3f}" if ranked else "–")
        rows.append(tuple(row))
    return rows


def details(summary: Summary) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and rows of every metric of one benchmark."""
    baselines = list(dict.fromkeys(name for score in summary.scores for name in score.baselines))
    models = list(dict.fromkeys(name for score in summary.scores for name in score.published))
    rows = []
    for score in summary.scores:
        others = [score.baselines.get(n) for n in baselines] + [score.published.get(n) for n in models]
        cells = ["–" if value is None else number(value) for value in others]
        rows.append((score.metric, with_deviation(score.mean, score.deviation), *cells))
    return ("Metric", "Model", *baselines, *(f"{m} (published)" for m in models)), rows


def facts(provenance: Provenance) -> dict[str, str]:
    """The provenance as labels and values for people."""
    return {
        "Checkpoint": f"{provenance.checkpoint} (step {provenance.step})",
        "Pairs manifest": provenance.data_manifest,
        "Code": provenance.git_sha or "unknown commit",
        "Versions": ", ".join(f"{name} {version}" for name, version in provenance.versions.items()),
        "Made": provenance.created,
    }


def remarks(summary: Summary) -> list[str]:
    """Data sizes, run time, notes and sources of one benchmark."""
    sizes = ", ".join(f"{name} {count:,}" for name, count in summary.counts.items())
    seconds = sum(summary.seconds.values())
    runs = f"{len(summary.seconds)} run(s), seeds {', '.join(map(str, summary.seconds))}"
    return [
        f"Data: {sizes}",
        f"{runs}, {seconds:.1f} s on {summary.device}",
        *summary.notes,
        f"Source: {summary.spec.citation} Licence: {summary.spec.licence}",
    ]


def to_json(provenance: Provenance, summaries: Sequence[Summary]) -> dict[str, object]:
    """Everything, one row per benchmark, metric and seed."""
    return {
        "provenance": asdict(provenance),
        "benchmarks": [
            {
                "spec": summary.spec.model_dump(mode="json"),
                "counts": dict(summary.counts),
                "notes": list(summary.notes),
                "device": summary.device,
            }
            for summary in summaries
        ],
        "rows": [
            {
                "benchmark": summary.spec.name,
                "metric": score.metric,
                "primary": score is summary.primary,
                "seed": seed,
                "value": value,
                "mean": score.mean,
                "deviation": score.deviation,
                "baselines": dict(score.baselines),
                "published": dict(score.published),
                "seconds": summary.seconds[seed],
            }
            for summary in summaries
            for score in summary.scores
            for seed, value in score.values.items()
        ],
    }


def files(provenance: Provenance, summaries: Sequence[Summary]) -> dict[str, str]:
    """The report in all forms, by file name."""
    return {
        "report.html": to_html(provenance, summaries),
        "report.md": to_markdown(provenance, summaries),
        "results.json": json.dumps(to_json(provenance, summaries), indent=2) + "\n",
    }


def summary_markdown(summaries: Sequence[Summary]) -> str:
    """The overview alone as a Markdown table."""
    return "\n".join(markdown_table(HEADINGS, overview(summaries)))


def to_markdown(provenance: Provenance, summaries: Sequence[Summary]) -> str:
    """The report as Markdown."""
    lines = ["# Benchmark results", "", summary_markdown(summaries), ""]
    lines += [f"- {label}: {value}" for label, value in facts(provenance).items()]
    for summary in summaries:
        lines += ["", f"## {heading(summary)}", "", *markdown_table(*details(summary)), ""]
        lines += [f"- {remark}" for remark in remarks(summary)]
    return "\n".join(lines) + "\n"


STYLE = """
:root { --ours: #2f6fde; --base: #aab3c2; --pub: #d99a2b; }
.overview td { white-space: normal } .details tr:nth-child(2) { font-weight: 600 }
svg { width: 100%; max-width: 46rem; height: auto; margin-bottom: 1rem }
section > p { margin: 0 0 .2rem; font-weight: 600 }
svg text { fill: var(--ink); font-size: 12px } .dim { fill: var(--dim) }
"""


def to_html(provenance: Provenance, summaries: Sequence[Summary]) -> str:
    """The report as one page that needs nothing from outside."""
    cards = [html_table(HEADINGS, overview(summaries), "overview") + html_facts(facts(provenance))]
    for summary in summaries:
        table = html_table(*details(summary), "details")
        title = f"<h2>{escape(heading(summary))}</h2>"
        cards.append(title + _bars(summary) + table + html_list(remarks(summary)))
    return html_page("Benchmark results", cards, STYLE)


def _bars(summary: Summary) -> str:
    """The primary metric of the model, the baselines and the published models as an SVG bar chart."""
    score = summary.primary
    bars = [("this model", score.mean, "--ours")]
    bars += [(name, value, "--base") for name, value in score.baselines.items()]
    bars += [(f"{name} (published)", value, "--pub") for name, value in score.published.items()]
    full, step = 620, 40
    scale = full / max(*(value for _, value, _ in bars), 1e-9)
    rows = []
    for y, (name, value, colour) in zip(range(0, step * len(bars), step), bars, strict=True):
        width = max(value * scale, 1.0)
        rows.append(
            f'<text class="dim" y="{y + 13}">{escape(name)}</text>'
            f'<rect y="{y + 18}" width="{width:.1f}" height="14" rx="3" style="fill: var({colour})"/>'
            f'<text x="{width + 6:.1f}" y="{y + 30}">{number(value)}</text>'
        )
    label = escape(f"{score.metric} of the model and what it is held against")
    size = f'viewBox="0 0 720 {step * len(bars)}"'
    return f'<p>{escape(score.metric)}</p><svg {size} role="img" aria-label="{label}">{"".join(rows)}</svg>'
