"""What every report is made of: a self-contained HTML page, tables in HTML and Markdown, shares, sizes."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

STYLE = """
:root { --ink: #1c2330; --dim: #667085; --line: #e4e7ec; --card: #fff; --page: #f5f6f8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaee; --dim: #98a2b3; --line: #333b49;
  --card: #1d232e; --page: #141821; } }
* { box-sizing: border-box }
body { margin: 0; padding: 2.5rem 1rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: auto }
h1 { font-size: 1.7rem; margin: 0 0 1.2rem } h2 { font-size: 1.15rem; margin: 0 0 .8rem }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1.3rem 1.5rem; margin-bottom: 1.2rem; overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .35rem .7rem; border-bottom: 1px solid var(--line); white-space: nowrap }
th { white-space: normal; color: var(--dim); font-weight: 600 }
th:first-child, td:first-child { text-align: left }
tr:last-child td { border-bottom: 0 }
ul, dl { color: var(--dim); font-size: .87rem; margin: 1rem 0 0; padding-left: 1.1rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; padding: 0 }
dd { margin: 0; overflow-wrap: anywhere }
"""


def html_page(title: str, cards: Iterable[str], style: str = "") -> str:
    """A page that needs nothing from outside.

    Args:
        title: Its heading, as text.
        cards: The HTML of each card.
        style: CSS beyond `STYLE`.
    """
    body = "".join(f"<section>{card}</section>" for card in cards)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head><body><main>"
        f"<h1>{escape(title)}</h1>{body}</main></body></html>\n"
    )


def html_table(headings: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table whose first column is text and the others numbers; `kind` is its CSS class."""
    head = "".join(f"<th>{escape(h)}</th>" for h in headings)
    body = "".join(f"<tr>{''.join(f'<td>{escape(c)}</td>' for c in row)}</tr>" for row in rows)
    return f'<table class="{kind}"><tr>{head}</tr>{body}</table>'


def html_facts(facts: Mapping[str, str]) -> str:
    """Labels and values."""
    return f"<dl>{''.join(f'<dt>{escape(k)}</dt><dd>{escape(v)}</dd>' for k, v in facts.items())}</dl>"


def html_list(items: Iterable[str]) -> str:
    """Remarks, one under the other."""
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table."""
    head, *body = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in (headings, *rows)]
    return [f"| {head} |", f"|{'---|' * len(headings)}", *(f"| {line} |" for line in body)]


def percent(part: float, whole: float) -> str:
    """A share for people, which is zero only when the part is."""
    if not whole:
        return "–"
    return f"{part / whole:.2%}" if not 0 < part / whole < 0.0001 else "< 0.01%"


def size(num_bytes: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:,.0f} {unit}" if unit == "B" else f"{num_bytes:,.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.2f} TB"


def number(value: float) -> str:
    """A metric for people: three decimals, one for ranks past a hundred, a dash where it is undefined."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3f}"


def difference(value: float) -> str:
    """A difference of metrics for people, always with its sign."""
    return "–" if not math.isfinite(value) else f"{value:+.1f}" if abs(value) >= 100 else f"{value:+.3f}"
