"""A comparison of checkpoints as a page, as Markdown, as JSON, as a table and as a picture."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from protclip.data.charts import DIM, LINE, new_figure, plain
from protclip.evaluation.charts import BASE, ROW, SMALL, png, svg
from protclip.evaluation.compare import Comparison, Report, Verdict
from protclip.page import difference, html_facts, html_page, html_table, markdown_table, number

TITLE = "Comparison of checkpoints"
COLOURS: dict[Verdict, str] = {"better": "#2e9e6b", "worse": "#c8553d", "no difference shown": BASE}
TABLE_COLUMNS = (
    "candidate", "benchmark", "protocol", "metric", "reference_value", "value", "difference",
    "low", "high", "p", "corrected_p", "verdict", "why",
)  # fmt: skip
STYLE = """
main { max-width: 74rem } svg { width: 100%; height: auto; display: block }
svg text { font-family: system-ui, sans-serif !important }
td:last-child, th:last-child { text-align: left; white-space: normal }
p { color: var(--dim); font-size: .87rem; margin: 1rem 0 0 }
"""


@dataclass(frozen=True, slots=True)
class Compared:
    """What was compared, and what came out.

    Attributes:
        reports: The reference, then the candidates.
        rows: Candidate by candidate.
        resamples: Bootstrap resamples.
        level: Significance level.
        created: When, ISO 8601.
        git_sha: Commit of the comparing code, when known.
    """

    reports: Sequence[Report]
    rows: Sequence[Comparison]
    resamples: int
    level: float
    created: str
    git_sha: str | None

    def of(self, candidate: Report) -> list[Comparison]:
        """The rows of one candidate."""
        return [row for row in self.rows if row.candidate == candidate.name]

    @property
    def facts(self) -> dict[str, str]:
        """What was compared with what, for people."""
        names = ["Reference", *["Candidate"] * (len(self.reports) - 1)]
        said = [
            f"{name} {report.name}: {report.checkpoint} (step {report.step}), {report.uri}"
            for name, report in zip(names, self.reports, strict=True)
        ]
        return {
            "Reports": "; ".join(said),
            "Code": self.git_sha or "unknown commit",
            "Made": self.created,
        }

    @property
    def reading(self) -> str:
        """How to read the tables."""
        return (
            "Differences are the candidate's less the reference's, means over the seeds both have. Intervals "
            f"(95 %) and two-sided p-values come from {self.resamples:,} paired bootstrap resamples of the "
            f"test units; p is corrected for the number of benchmarks (Holm), and a difference is called "
            f"better or worse when the corrected p is at most {self.level:g}. This says whether other test "
            "units would show the difference, not whether another pre-training would; units that share a "
            "protein count as independent."
        )


def files(compared: Compared) -> dict[str, bytes]:
    """The comparison in all forms, by file name."""
    figure = draw(compared)
    return {
        "compare.html": to_html(compared, figure).encode(),
        "compare.md": to_markdown(compared).encode(),
        "compare.json": (json.dumps(to_json(compared), indent=2, allow_nan=False) + "\n").encode(),
        "compare.png": png(figure),
    }


def headings(compared: Compared, candidate: Report) -> tuple[str, ...]:
    """Of the table of one candidate."""
    values = (compared.reports[0].name, candidate.name)
    return ("Benchmark", "Metric", *values, "Difference [95 % interval]", "p", "p, corrected", "Verdict")


def cells(row: Comparison) -> tuple[str, ...]:
    """A row for `headings`."""
    metric = row.task.metric if row.task.higher_is_better else f"{row.task.metric} ↓"
    if row.verdict == "not comparable":
        return (row.label, metric, *["–"] * 5, f"{row.verdict}: {row.why}")
    return (
        row.label,
        metric,
        number(row.reference_value),
        number(row.value),
        _difference(row),
        f"{row.p:.2g}",
        f"{row.corrected_p:.2g}",
        row.verdict,
    )


def _difference(row: Comparison) -> str:
    """The difference with its interval."""
    low_high = "" if row.interval is None else " [{}, {}]".format(*map(difference, row.interval))
    return difference(row.difference) + low_high


def summary_markdown(compared: Compared) -> str:
    """A table for each candidate."""
    reference, *candidates = compared.reports
    lines = []
    for candidate in candidates:
        lines += [f"## {candidate.name} against {reference.name}", ""]
        lines += [*markdown_table(headings(compared, candidate), map(cells, compared.of(candidate))), ""]
    return "\n".join(lines)


def to_markdown(compared: Compared) -> str:
    """The comparison as Markdown, with a picture beside it."""
    facts = [f"- {label}: {value}" for label, value in compared.facts.items()]
    picture = "![differences](compare.png)"
    parts = (f"# {TITLE}", summary_markdown(compared), compared.reading, picture, "\n".join(facts))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def to_html(compared: Compared, figure: Figure) -> str:
    """The comparison as one page that needs nothing from outside."""
    reference, *candidates = compared.reports
    cards = [svg(figure) + f"<p>{escape(compared.reading)}</p>" + html_facts(compared.facts)]
    for candidate in candidates:
        title = f"<h2>{escape(candidate.name)} against {escape(reference.name)}</h2>"
        table = html_table(headings(compared, candidate), map(cells, compared.of(candidate)))
        cards.append(title + table)
    return html_page(TITLE, cards, STYLE)


def table(compared: Compared) -> list[list[str | float | None]]:
    """A row for each candidate, benchmark and protocol, for `TABLE_COLUMNS`."""
    return [
        [
            row.candidate,
            row.task.name,
            row.protocol,
            row.task.metric,
            *map(_finite, (row.reference_value, row.value, row.difference)),
            *(row.interval or (None, None)),
            *map(_finite, (row.p, row.corrected_p)),
            row.verdict,
            row.why,
        ]
        for row in compared.rows
    ]


def to_json(compared: Compared) -> dict[str, object]:
    """Everything; undefined numbers are null."""
    return {
        "reports": [
            {"name": r.name, "uri": r.uri, "checkpoint": r.checkpoint, "step": r.step}
            for r in compared.reports
        ],
        "resamples": compared.resamples,
        "level": compared.level,
        "created": compared.created,
        "git_sha": compared.git_sha,
        "rows": [dict(zip(TABLE_COLUMNS, row, strict=True)) for row in table(compared)],
    }


def _finite(value: float) -> float | None:
    """A number as JSON has it."""
    return value if math.isfinite(value) else None


def draw(compared: Compared) -> Figure:
    """A forest plot for each candidate: differences with intervals, coloured by verdict."""
    reference, *candidates = compared.reports
    shown = [[row for row in compared.of(c) if row.verdict != "not comparable"] for c in candidates]
    heights = [max(1, len(rows)) for rows in shown]
    figure = new_figure(TITLE, 0.8 + 0.55 * len(shown) + ROW * sum(heights))
    axes = figure.subplots(len(shown), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axis, candidate, rows in zip(axes, candidates, shown, strict=True):
        _draw_candidate(axis, rows)
        plain(axis, f"{candidate.name} less {reference.name}")
        axis.grid(axis="x", color=LINE, linewidth=0.7)
        axis.set_axisbelow(True)
    return figure


def _draw_candidate(axis: Axes, rows: Sequence[Comparison]) -> None:
    """One panel; a metric that does not lie between -1 and 1 has only its numbers."""
    beside = {"transform": axis.get_yaxis_transform(), "va": "center"}
    for y, row in enumerate(rows):
        colour = COLOURS[row.verdict]
        axis.text(1.02, y, f"{_difference(row)}  {row.verdict}", **beside, **SMALL)
        if max(abs(row.value), abs(row.reference_value)) <= 1:
            if row.interval is not None:
                axis.plot(row.interval, (y, y), color=colour, linewidth=2.2, solid_capstyle="butt")
            axis.plot(row.difference, y, "o", color=colour, markersize=6)
    axis.axvline(0, color=DIM, linewidth=0.9)
    axis.set_yticks(range(len(rows)), [f"{row.label}  ·  {row.task.metric}" for row in rows])
    axis.set_ylim(max(1, len(rows)) - 0.4, -0.6)
    if not rows:
        axis.text(0.5, 0.5, "nothing comparable", transform=axis.transAxes, ha="center", va="center", **SMALL)
