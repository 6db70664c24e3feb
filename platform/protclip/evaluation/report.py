"""The results as a page, as Markdown, as JSON, as a table and as pictures."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict

from protclip.evaluation.cells import (
    HEADINGS,
    READING,
    Provenance,
    details,
    heading,
    overview,
    remarks,
)
from protclip.evaluation.charts import KNOWN, draw_groups, draw_overview, grouped, png
from protclip.evaluation.report_page import to_html
from protclip.evaluation.results import Score, Summary
from protclip.page import markdown_table

TITLE = "Benchmark results"
TABLE_COLUMNS = (
    "group", "benchmark", "protocol", "metric", "value", "low", "high", "seeds", "deviation",
    "baseline", "baseline_value", "over_baseline",
    *(f"{model}{what}" for model in KNOWN for what in ("", "_difference")),
    "leak", "error",
)  # fmt: skip
"""Of `table`; a model's name is the column of its published value."""


def files(provenance: Provenance, summaries: Sequence[Summary]) -> dict[str, bytes]:
    """The report in all forms, by file name.

    Args:
        provenance: What was evaluated, and with what.
        summaries: Rows in the order of the suite, at least one.
    """
    ordered = [summary for rows in grouped(summaries).values() for summary in rows]
    bars, radar = draw_overview("The primary metrics", ordered), draw_groups("Their means by group", ordered)
    pictures = {"overview.png": png(bars)} | ({} if radar is None else {"groups.png": png(radar)})
    return {
        "report.html": to_html(TITLE, provenance, ordered, bars, radar).encode(),
        "report.md": to_markdown(provenance, ordered, list(pictures)).encode(),
        "results.json": (json.dumps(to_json(provenance, ordered), indent=2, allow_nan=False) + "\n").encode(),
        **pictures,
    }


def summary_markdown(summaries: Sequence[Summary]) -> str:
    """The overview alone, grouped, as a Markdown table."""
    rows = []
    for group, members in grouped(summaries).items():
        rows += [(f"**{group}**", *[""] * (len(HEADINGS) - 1)), *overview(members)]
    return "\n".join(markdown_table(HEADINGS, rows))


def to_markdown(provenance: Provenance, summaries: Sequence[Summary], pictures: Sequence[str]) -> str:
    """The report as Markdown, with pictures beside it."""
    lines = [f"# {TITLE}", "", summary_markdown(summaries), "", READING, ""]
    lines += [f"![{name.partition('.')[0]}]({name})" for name in pictures] + [""]
    lines += [f"- {label}: {value}" for label, value in provenance.facts.items()]
    for summary in summaries:
        lines += ["", f"## {heading(summary)}", ""]
        if summary.scores:
            lines += [*markdown_table(*details(summary)), ""]
        lines += [f"- {remark}" for remark in remarks(summary)]
    return "\n".join(lines) + "\n"


def table(summaries: Sequence[Summary]) -> list[list[str | float | None]]:
    """One row for each benchmark and protocol by its primary metric, for `TABLE_COLUMNS`."""
    rows: list[list[str | float | None]] = []
    for summary in summaries:
        spec, score = summary.spec, summary.primary
        row: list[str | float | None] = [spec.group, spec.name, summary.protocol, spec.metric]
        if score is not None:
            name, value = summary.best_baseline or (None, None)
            low, high = score.interval or (None, None)
            over = None if value is None else _json(score.mean - value)
            deviation = None if score.deviation is None else _json(score.deviation)
            row += [_json(score.mean), low, high, len(score.values), deviation, name, value, over]
            for model in KNOWN:
                known = score.published.get(model)
                row += [None, None] if known is None else [known.value, _json(known.difference)]
        row += [None] * (len(TABLE_COLUMNS) - 2 - len(row))
        rows.append([*row, summary.leak, "; ".join(summary.errors) or None])
    return rows


def to_json(provenance: Provenance, summaries: Sequence[Summary]) -> dict[str, object]:
    """Everything; undefined numbers are null. `protclip compare` reads it."""
    return {
        "provenance": asdict(provenance),
        "benchmarks": [
            {
                "spec": summary.spec.model_dump(mode="json"),
                "protocol": summary.protocol,
                "scores": [_score_json(score) for score in summary.scores],
                "leak": summary.leak,
                "trials": [{**asdict(trial), "key": trial.key} for trial in summary.trials],
                "errors": list(summary.errors),
                "counts": dict(summary.counts),
                "notes": list(summary.notes),
                "resamples": summary.resamples,
                "seconds": dict(summary.seconds),
                "device": summary.device,
            }
            for summary in summaries
        ],
    }


def _score_json(score: Score) -> dict[str, object]:
    """One metric as plain values."""
    return {
        "metric": score.metric,
        "mean": _json(score.mean),
        "deviation": None if score.deviation is None else _json(score.deviation),
        "interval": score.interval,
        "values": {seed: _json(value) for seed, value in score.values.items()},
        "baselines": {name: _json(value) for name, value in score.baselines.items()},
        "published": {
            model: {**asdict(p), "difference": _json(p.difference)} for model, p in score.published.items()
        },
    }


def _json(value: float) -> float | None:
    """A number as JSON has it."""
    return value if math.isfinite(value) else None
