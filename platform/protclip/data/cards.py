"""Tables with pictures that describe a data set, and those that every kind of data set has."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from protclip.data.charts import draw_lengths
from protclip.data.footers import Footers
from protclip.data.manifest import FileEntry
from protclip.data.summary import GroupSummary, Histogram, Summary, combined, quantile
from protclip.page import percent, size
from protclip.records import Property

SHARES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
QUANTILES = ("5 %", "25 %", "median", "75 %", "95 %", "99 %")
WITHIN = "Quantiles are exact to within 3 %, which is half the width of a bin."


@dataclass(frozen=True, slots=True)
class Card:
    """One table of a report.

    Attributes:
        title: Its heading.
        headings: Heading of each column.
        rows: Cells, as many as columns.
        notes: Remarks below it.
        picture: Name of the picture above it, empty when there is none.
        paint: Writes this picture.
    """

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: Sequence[str] = ()
    picture: str = ""
    paint: Callable[[Path], None] | None = None


def label(prop: Property) -> str:
    """A property's name for people."""
    return prop.replace("_", " ")


def histogram_of(summary: Summary, pick: Callable[[GroupSummary], Histogram], section: str = "") -> Histogram:
    """The sum of one histogram over the strata of a section, or of all sections."""
    return combined(pick(group) for group in summary.groups if section in {"", group.section})


def lengths_card(summary: Summary, sections: Mapping[str, str], whole: Footers, what: str) -> Card:
    """Lengths per section, or per split."""
    rows, panel = [], {}
    for section, name in {**sections, "": "all"}.items():
        histogram = histogram_of(summary, lambda group: group.lengths, section)
        if not histogram:
            continue
        residues = sum(g.residues for g in summary.groups if section in {"", g.section})
        count = sum(histogram.values())
        rows.append((name, f"{count:,}", f"{residues:,}", f"{residues / count:,.1f}", *quantiles(histogram)))
        if section:
            panel[name] = histogram
    notes = [WITHIN]
    if "length" in whole.ranges:
        shortest, longest = whole.ranges["length"]
        notes.insert(0, f"The shortest has {shortest:,}, the longest {longest:,} residues.")
    return Card(
        f"Length of {what} in residues",
        ("", what, "residues", "mean", *QUANTILES),
        rows,
        notes,
        "lengths.png" if panel else "",
        partial(draw_lengths, f"Length of {what}", "residues", {"": panel}) if panel else None,
    )


def quantiles(histogram: Histogram) -> list[str]:
    """Cells for `QUANTILES`."""
    return [f"{quantile(histogram, share):,}" for share in SHARES]


def files_card(parts: Mapping[str, tuple[Sequence[FileEntry], Footers]]) -> Card:
    """Files and row groups, of each part of the data set."""
    rows = [
        (
            name,
            f"{found.files:,}",
            size(found.num_bytes),
            f"{found.rows / max(1, found.files):,.0f}",
            size(found.num_bytes / max(1, found.files)),
            size(max((file.num_bytes for file in files), default=0)),
            f"{found.row_groups:,}",
            f"{found.rows / max(1, found.row_groups):,.0f}",
            f"{found.num_bytes / max(1, found.rows):,.0f}",
        )
        for name, (files, found) in parts.items()
    ]
    headings = (
        *("", "files", "size", "rows per file", "size per file", "largest file"),
        *("row groups", "rows per group", "bytes per row"),
    )
    return Card("Files", headings, rows, ["Every file is there and as the manifest says."])


def columns_card(whole: Footers) -> Card:
    """Where the bytes are."""
    total = whole.column_bytes.total()
    rows = [
        (name, size(count), percent(count, total), f"{count / max(1, whole.rows):,.1f}")
        for name, count in whole.column_bytes.most_common()
    ]
    return Card("Columns", ("column", "compressed", "share", "bytes per row"), rows)
