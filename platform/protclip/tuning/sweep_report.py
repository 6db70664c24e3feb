"""A sweep as a page, as Markdown, as JSON, as tables and as pictures."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from itertools import accumulate

from matplotlib.figure import Figure
from optuna.distributions import distribution_to_json

from protclip.evaluation.charts import png, svg
from protclip.page import html_facts, html_list, html_page, html_table, markdown_table
from protclip.tuning.candidate import Param, State
from protclip.tuning.sweep_axes import curves_of, dimensions, named, value_of, word
from protclip.tuning.sweep_charts import draw
from protclip.tuning.tried import Results, Tried

ORDER: tuple[State, ...] = ("complete", "stopped", "pruned", "failed")
PICTURES = {
    "pareto": "Pareto front",
    "history": "Objective by trial",
    "contour": "Map of the two most important dimensions",
    "parallel": "Parallel coordinates",
    "importance": "Importance",
    "slices": "Objective by each dimension",
    "curves": "Learning curves",
}
BEST, WHY = "Best (at step)", "Why"
"""Columns that are there when a trial has something in them."""
MOST_ROWS = 20
"""Of a table in a log or a description."""
LOG_WIDTH, GAP = 190, 3
"""Of a table in a log, and between its columns, in characters."""
LONGEST_WHY = 300
"""Characters of a reason in a table."""
READING = (
    "Trials are sorted by the first objective, the best first; after them come those that did not run to the "
    "end, with the objective where they ended in brackets. Importance is estimated from the complete trials "
    "and rough when those are few; maps are interpolated between them. The best of many trials looks better "
    "than it is: confirm it with other seeds before building on it."
)
STYLE = """
main { max-width: 80rem } svg { width: 100%; height: auto; display: block; max-width: 62rem; margin: auto }
svg + svg { margin-top: 2rem } svg text { font-family: system-ui, sans-serif !important }
.trials { font-size: .87rem } .trials td, .trials th { padding: .3rem .55rem; vertical-align: top }
.trials td:nth-child(2), .trials th:nth-child(2) { text-align: left }
.why td:last-child, .why th:last-child { text-align: left; white-space: normal; min-width: 9rem }
p { color: var(--dim); font-size: .87rem; margin: 1rem 0 0 }
details { margin-top: .6rem } summary { cursor: pointer } dd { user-select: all }
"""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a sweep came from, and how its best trials are trained again.

    Attributes:
        created: When the report was made, ISO 8601.
        git_sha: Commit of the code, when known.
        config: The sweep's configuration file, or its name.
        store: URL of the Optuna store, without a password.
        commands: Command that trains a trial again, by its number; for the best.
    """

    created: str
    git_sha: str | None
    config: str
    store: str
    commands: Mapping[int, str] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, str]:
        """Labels and values for people."""
        return {
            "Configuration": self.config,
            "Optuna store": self.store,
            "Code": self.git_sha or "unknown commit",
            "Made": self.created,
        }


def files(results: Results, provenance: Provenance) -> dict[str, bytes]:
    """The report in all forms, by file name; it says why a picture is not there.

    Args:
        results: The sweep; also one of which no trial is complete.
        provenance: Where it came from.
    """
    drawn = draw(results)
    figures = {name: figure for name, figure in drawn.items() if isinstance(figure, Figure)}
    missing = {name: why for name, why in drawn.items() if isinstance(why, str)}
    return {
        "sweep.html": to_html(results, provenance, figures, missing).encode(),
        "sweep.md": to_markdown(results, provenance, list(figures), missing).encode(),
        "sweep.json": (json.dumps(to_json(results, provenance), indent=2, allow_nan=False) + "\n").encode(),
        **{f"{name}.png": png(figure) for name, figure in figures.items()},
    }


def ranked(results: Results) -> list[Tried]:
    """Trials for people: the best, other complete ones by the first objective, then the rest by state."""
    first, direction = next(iter(results.objectives.items()))
    sign = 1 if direction == "minimize" else -1
    best = [t.number for t in results.best]

    def place(tried: Tried) -> tuple[int, int, float, int]:
        value = sign * value_of(results, tried, first)
        front = best.index(tried.number) if tried.number in best else len(best)
        state = ORDER.index(tried.outcome.state)
        return state, front, value if math.isfinite(value) else math.inf, tried.number

    return sorted(results.tried, key=place)


def headings(results: Results) -> tuple[str, ...]:
    """Of a short table; a dimension is called by the last parts of its key that tell it apart."""
    goals = (named(results, metric) for metric in results.objectives)
    return ("Trial", "State", *goals, "Step", *_short(list(dimensions(results))))


def log_table(results: Results) -> tuple[list[str], list[list[str]]]:
    """Headings and rows for a log: the first trials, the most important dimensions as far as they fit.

    Returns:
        The last column says how many dimensions are left out, if any.
    """
    keys = list(dimensions(results))
    shown = (_row(results, tried, keys) for tried in ranked(results)[:MOST_ROWS])
    columns = list(zip(headings(results), *shown, strict=True))
    ends = list(accumulate(max(map(len, column)) + GAP for column in columns))
    kept = [column for column, end in zip(columns, ends, strict=True) if end <= LOG_WIDTH]
    if left := len(columns) - len(kept):
        kept.append((f"+{left}", *[""] * (len(columns[0]) - 1)))
    first, *rows = (list(row) for row in zip(*kept, strict=True))
    return first, rows


def _row(results: Results, tried: Tried, keys: Sequence[str]) -> tuple[str, ...]:
    """A row for `headings`; in brackets the objectives where a trial ended early."""
    values = [word(value_of(results, tried, metric)) for metric in results.objectives]
    if tried.values is None:
        values = [value if value == "–" else f"({value})" for value in values]
    params = (word(tried.params[key]) if key in tried.params else "–" for key in keys)
    return (str(tried.number), tried.outcome.state, *values, f"{tried.outcome.step:,}", *params)


def _short(keys: Sequence[str]) -> list[str]:
    """The last two parts of each dotted key, all of it where those are not unique."""
    tails = [".".join(key.split(".")[-2:]) for key in keys]
    return [key if tails.count(tail) > 1 else tail for key, tail in zip(keys, tails, strict=True)]


def _all_trials(results: Results) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the table of all trials."""
    keys = list(dimensions(results))
    head, end = headings(results), 2 + len(results.objectives)
    names = [*head[:end], BEST, head[end], *keys, WHY]
    rows = []
    for tried in ranked(results):
        row = _row(results, tried, keys)
        best = [_best(tried, metric) for metric in results.objectives]
        rows.append([*row[:end], "; ".join(filter(None, best)), *row[end:], _why(tried)])
    kept = [i for i, name in enumerate(names) if name not in (BEST, WHY) or any(row[i] for row in rows)]
    return [names[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _best(tried: Tried, metric: str) -> str:
    """The best value a trial had during training and its step; empty for what is known at the end only."""
    if metric not in tried.outcome.best:
        return ""
    value, step = tried.outcome.best[metric]
    return f"{word(value)} ({step:,})"


def _why(tried: Tried) -> str:
    """Why a trial failed, in a line."""
    text = " ".join(tried.outcome.error.split())
    return text if len(text) <= LONGEST_WHY else f"{text[: LONGEST_WHY - 1]}…"


def _counts(results: Results) -> str:
    """How many trials ended how."""
    counts = Counter(tried.outcome.state for tried in results.tried)
    states = ", ".join(f"{counts[state]} {state}" for state in ORDER if counts[state])
    ended = "1 trial" if len(results.tried) == 1 else f"{len(results.tried)} trials"
    return f"{ended}: {states}." if states else "No trial has ended."


def _importance(results: Results) -> list[str]:
    """A sentence for each objective of which it is known."""
    return [
        f"Importance for {metric}: " + ", ".join(f"{key} {share:.0%}" for key, share in shares.items()) + "."
        for metric, shares in results.importance.items()
    ]


def _facts(results: Results, provenance: Provenance, tried: Tried) -> dict[str, str]:
    """What a best trial reached, by what, where it is and how it is trained again."""
    outcome = tried.outcome
    goals: dict[str, str] = {}
    for metric in results.objectives:
        goals[metric] = f"{word(value_of(results, tried, metric))} at step {outcome.step:,}"
        if metric in outcome.best:
            value, step = outcome.best[metric]
            goals[metric] += f"; its best was {word(value)} at step {step:,}"
    places = {
        "Checkpoint": outcome.checkpoint,
        "Benchmarks": outcome.report,
        "MLflow model": outcome.model,
        "MLflow run": outcome.run_id,
        "Train it again": provenance.commands.get(tried.number),
    }
    params = {key: word(tried.params[key]) for key in dimensions(results) if key in tried.params}
    return goals | params | {label: place for label, place in places.items() if place}


def _title(tried: Tried) -> str:
    """A best trial's number and name."""
    return f"Trial {tried.number} ({tried.outcome.name})"


def _reached(results: Results, tried: Tried) -> str:
    """A trial's objectives."""
    return ", ".join(f"{metric} {word(value_of(results, tried, metric))}" for metric in results.objectives)


def summary_markdown(results: Results) -> str:
    """The best trials, importance and counts, for a run's description."""
    keys = list(dimensions(results))
    lines = [_counts(results), ""]
    if results.best:
        rows = (_row(results, tried, keys) for tried in results.best[:MOST_ROWS])
        lines += [*markdown_table(headings(results), rows), ""]
    lines += [f"- {sentence}" for sentence in _importance(results)]
    failed = [tried for tried in results.tried if tried.outcome.error]
    if failed:
        lines += [f"- First of {len(failed)} failed: {_title(failed[0])}: {_why(failed[0])}"]
    return "\n".join(lines).strip() + "\n"


def to_markdown(
    results: Results, provenance: Provenance, pictures: Sequence[str], missing: Mapping[str, str]
) -> str:
    """The report as Markdown, with pictures beside it.

    Args:
        results: The sweep.
        provenance: Where it came from.
        pictures: Names of those there are.
        missing: Why others are not there, by name.
    """
    lines = [f"# Sweep {results.name}", "", summary_markdown(results)]
    for tried in results.best:
        facts = _facts(results, provenance, tried)
        lines += [f"## {_title(tried)}", "", *(f"- {label}: {value}" for label, value in facts.items()), ""]
    lines += ["## All trials", "", *markdown_table(*_all_trials(results)), "", READING, ""]
    lines += [f"![{PICTURES[name]}]({name}.png)" for name in pictures] + [""]
    lines += [f"- {PICTURES[name]}: {why}" for name, why in missing.items()]
    lines += [f"- {label}: {value}" for label, value in provenance.facts.items()]
    return "\n".join(lines) + "\n"


def to_html(
    results: Results, provenance: Provenance, pictures: Mapping[str, Figure], missing: Mapping[str, str]
) -> str:
    """The report as one page that needs nothing from outside.

    Args:
        results: The sweep.
        provenance: Where it came from.
        pictures: By name.
        missing: Why others are not there, by name.
    """
    best = [
        f"<details{'' if index else ' open'}>"
        f"<summary>{escape(f'{_title(tried)}: {_reached(results, tried)}')}</summary>"
        f"{html_facts(_facts(results, provenance, tried))}</details>"
        for index, tried in enumerate(results.best)
    ]
    heading = "Pareto front" if len(results.objectives) > 1 else "Best trial"
    goals = ", ".join(f"{metric} ({direction})" for metric, direction in results.objectives.items())
    left_out = html_list(f"{PICTURES[name]}: {why}" for name, why in missing.items())
    names, rows = _all_trials(results)
    # Dotted keys may be broken after a dot.
    table = html_table(
        [name.replace(".", ".\u200b") for name in names], rows, "trials why" if WHY in names else "trials"
    )
    cards = [
        f"<h2>{heading}</h2>{''.join(best)}<p>{_counts(results)}</p>",
        "".join(map(svg, pictures.values())) + (left_out if missing else ""),
        f"<h2>All trials</h2>{table}<p>{escape(READING)}</p>",
        html_facts({"Sought": goals} | provenance.facts),
    ]
    return html_page(f"Sweep {results.name}", cards, STYLE)


def table_columns(results: Results) -> tuple[str, ...]:
    """Of `table`."""
    best = (f"best {metric}" for metric in results.objectives)
    outcome = ("step", "seconds", "run_id", "checkpoint", "error")
    return ("trial", "state", *results.objectives, *best, *dimensions(results), *outcome)


def table(results: Results) -> list[list[str | float | None]]:
    """A row for each trial, for `table_columns`, the best first; what is unknown or undefined is None."""
    keys = list(dimensions(results))
    return [
        [
            tried.number,
            tried.outcome.state,
            *(_finite(value_of(results, tried, metric)) for metric in results.objectives),
            *(_finite(tried.outcome.best.get(metric, (math.nan, 0))[0]) for metric in results.objectives),
            *(_cell(tried.params.get(key)) for key in keys),
            tried.outcome.step,
            tried.outcome.seconds,
            tried.outcome.run_id,
            tried.outcome.checkpoint,
            tried.outcome.error or None,
        ]
        for tried in ranked(results)
    ]


def _cell(value: Param) -> str | float | None:
    """A dimension's value as tables have it."""
    return word(value) if isinstance(value, bool) else value


def _finite(value: float) -> float | None:
    """A number as JSON has it."""
    return value if math.isfinite(value) else None


def to_json(results: Results, provenance: Provenance) -> dict[str, object]:
    """Everything; undefined numbers are null."""
    curves = curves_of(results)
    space = {
        key: json.loads(distribution_to_json(distribution))
        for trial in results.study.get_trials(deepcopy=False)
        for key, distribution in trial.distributions.items()
    }
    return {
        "name": results.name,
        "provenance": asdict(provenance),
        "objectives": dict(results.objectives),
        "best": [tried.number for tried in results.best],
        "importance": results.importance,
        "space": space,
        "trials": [_json(_trial_json(tried, curves.get(tried.number, {}))) for tried in results.tried],
    }


def _trial_json(tried: Tried, curve: Mapping[int, float]) -> dict[str, object]:
    """One trial as plain values."""
    return {
        "number": tried.number,
        "params": tried.params,
        "values": tried.values,
        "started": tried.started and tried.started.isoformat(),
        **asdict(tried.outcome),
        "curve": curve,
    }


def _json(value: object) -> object:
    """The same with null for undefined numbers."""
    if isinstance(value, Mapping):
        return {key: _json(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [_json(part) for part in value]
    return _finite(value) if isinstance(value, float) else value
