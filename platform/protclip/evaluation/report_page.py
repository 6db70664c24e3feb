"""The results as one page that needs nothing from outside."""

import math
from collections.abc import Sequence
from html import escape

from matplotlib.figure import Figure

from protclip.evaluation.cells import HEADINGS, READING, Cell, Provenance, cells, details, heading, remarks
from protclip.evaluation.charts import grouped, svg
from protclip.evaluation.results import Summary
from protclip.page import html_facts, html_list, html_page, html_table, number

STYLE = """
:root { --ours: #2f6fde; --base: #8a94a6; --pub: #d99a2b; --bad: #c8553d; }
main { max-width: 80rem }
.overview td, .overview th { padding: .35rem .55rem; vertical-align: top }
.overview td:first-child { white-space: normal; min-width: 13rem }
.overview small { display: block; color: var(--dim); font-size: .78rem }
.overview .group td { font-weight: 600; padding-top: 1rem }
.overview .failed { color: var(--bad); white-space: normal; text-align: left }
.overview a { color: inherit; text-decoration-color: var(--line) }
.details tr:nth-child(2) { font-weight: 600 }
.pictures svg { width: 100%; height: auto; display: block; margin: auto }
.pictures svg + svg { max-width: 54rem; margin-top: 1.5rem }
.pictures svg text { font-family: system-ui, sans-serif !important }
.bars { width: 100%; max-width: 46rem; height: auto; margin-bottom: 1rem }
.bars text { fill: var(--ink); font-size: 12px } .bars .dim { fill: var(--dim) }
.reading { color: var(--dim); font-size: .87rem; margin: 1rem 0 0 }
.measured { margin: 0 0 .2rem; font-weight: 600 }
"""
FULL, STEP = 600, 40
"""Length of the longest bar and height of one with its name."""


def to_html(
    title: str, provenance: Provenance, summaries: Sequence[Summary], bars: Figure, radar: Figure | None
) -> str:
    """The page: overview, pictures, and a card for each row.

    Args:
        title: Its heading.
        provenance: What was evaluated, and with what.
        summaries: Rows, grouped.
        bars: Picture of the overview.
        radar: Picture of the groups, if there is one.
    """
    pictures = svg(bars) + ("" if radar is None else svg(radar))
    cards = [
        _overview(summaries) + f'<p class="reading">{escape(READING)}</p>' + html_facts(provenance.facts),
        f'<div class="pictures">{pictures}</div>',
    ]
    for summary in summaries:
        table = _bars(summary) + html_table(*details(summary), "details") if summary.scores else ""
        title_html = f'<h2 id="{escape(_anchor(summary))}">{escape(heading(summary))}</h2>'
        cards.append(title_html + table + html_list(remarks(summary)))
    return html_page(title, cards, STYLE)


def _anchor(summary: Summary) -> str:
    """Where a row's details are on the page."""
    return f"{summary.spec.name}-{summary.protocol}"


def _overview(summaries: Sequence[Summary]) -> str:
    """The overview, a heading above each group."""
    head = "".join(f"<th>{escape(h)}</th>" for h in HEADINGS)
    body = []
    for group, members in grouped(summaries).items():
        body.append(f'<tr class="group"><td colspan="{len(HEADINGS)}">{escape(group)}</td></tr>')
        for summary in members:
            (label, title), metric, *rest = cells(summary)
            link = f'<a href="#{escape(_anchor(summary))}">{escape(label)}</a>'
            row = f"<td>{link}<small>{escape(title)}</small></td>{_cell(metric)}"
            if summary.primary is None:
                span = len(HEADINGS) - 3
                row += (
                    f'<td class="failed" colspan="{span}">failed: {escape(rest[0][1])}</td>{_cell(rest[-1])}'
                )
            else:
                row += "".join(map(_cell, rest))
            body.append(f"<tr>{row}</tr>")
    return f'<table class="overview"><tr>{head}</tr>{"".join(body)}</table>'


def _cell(cell: Cell) -> str:
    """A cell with its smaller line."""
    return f"<td>{escape(cell[0])}{f'<small>{escape(cell[1])}</small>' if cell[1] else ''}</td>"


def _bars(summary: Summary) -> str:
    """The primary metric of the checkpoint, the baselines and the published models as bars."""
    score = summary.primary
    assert score is not None, "only rows with scores are drawn"
    found = [("this checkpoint", score.mean, "--ours")]
    found += [(name, value, "--base") for name, value in score.baselines.items()]
    found += [(f"{name} (published)", p.value, "--pub") for name, p in score.published.items()]
    bars = [bar for bar in found if math.isfinite(bar[1])]
    low, high = min(0.0, *(v for _, v, _ in bars), 0.0), max(0.0, *(v for _, v, _ in bars), 0.0)
    scale = FULL / ((high - low) or 1)
    rows = []
    for y, (name, value, colour) in zip(range(0, STEP * len(bars), STEP), bars, strict=True):
        start, end = (min(0.0, value) - low) * scale, (max(0.0, value) - low) * scale
        rows.append(
            f'<text class="dim" y="{y + 13}">{escape(name)}</text>'
            f'<rect x="{start:.1f}" y="{y + 18}" width="{max(end - start, 1):.1f}" height="14" rx="3" '
            f'style="fill: var({colour})"/>'
            f'<text x="{end + 6:.1f}" y="{y + 30}">{number(value)}</text>'
        )
    label = escape(f"{score.metric} of the checkpoint and what it is held against")
    size = f'viewBox="0 0 {FULL + 100} {STEP * len(bars)}"'
    drawn = f'<svg class="bars" {size} role="img" aria-label="{label}">{"".join(rows)}</svg>'
    return f'<p class="measured">{escape(score.metric)}</p>{drawn}'
