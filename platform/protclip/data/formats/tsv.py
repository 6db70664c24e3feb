"""UniProtKB REST table (TSV): one entry a line, columns found by their names in the header line."""

from functools import lru_cache

from protclip.data.formats.common import (
    BadRecord,
    Source,
    after_first,
    after_last,
    checked_sequence,
    confidence,
    each,
    iso_date,
    joined,
    lines,
    protein_name,
    taxon,
)
from protclip.errors import DataError
from protclip.records import Property, ProteinRecord

_COLUMNS = {
    "Entry": ("entry", "accession"),
    "Entry Name": ("entry name", "id"),
    "Reviewed": ("reviewed", "status"),
    "Protein names": ("protein names", "protein_name"),
    "Function [CC]": ("function [cc]", "cc_function"),
    "Subcellular location [CC]": ("subcellular location [cc]", "cc_subcellular_location"),
    "Sequence similarities": ("sequence similarities", "cc_similarity"),
    "Protein existence": ("protein existence", "protein_existence"),
    "Sequence": ("sequence",),
    "Length": ("length",),
    "Organism (ID)": ("organism (id)", "organism id", "organism_id"),
    "Date of last modification": ("date of last modification", "date_modified"),
}
"""Column titles, each with its accepted spellings in lower case (title, older title, REST field)."""

_REQUIRED = ("Entry", "Protein names", "Sequence")
_NAME_ENDS = (" [Cleaved into: ", " [Includes: ")
_FLAGS = (" (Fragment)", " (Fragments)")


def _cells(line: bytes) -> list[str]:
    """The cells of one line."""
    return line.decode(errors="replace").rstrip("\r\n").split("\t")


@lru_cache
def _columns(header: bytes) -> dict[str, int]:
    """Position of each known column that the header line names."""
    found = {cell.strip().lower(): position for position, cell in enumerate(_cells(header))}
    return {
        title: found[spelling]
        for title, spellings in _COLUMNS.items()
        for spelling in spellings
        if spelling in found
    }


def _start(head: bytes) -> tuple[bytes, int]:
    """The header line.

    Raises:
        DataError: A column that every record needs is not there.
    """
    end = head.find(b"\n") + 1 or len(head)
    header = head[:end]
    columns = _columns(header)
    missing = [title for title in _REQUIRED if title not in columns]
    if missing:
        raise DataError(
            f"no column {' and no column '.join(map(repr, missing))} in the table; export it from UniProt "
            f"as TSV with these columns (found, separated by tabs: {', '.join(_cells(header[:2000]))})"
        )
    return header, end


def parse(raw: bytes, header: bytes) -> ProteinRecord:
    """One row.

    Args:
        raw: The row's bytes.
        header: The header line. Without the column "Reviewed" an entry counts as unreviewed.

    Raises:
        BadRecord: It has another number of cells than the header, or lacks accession, name or a
            proper sequence.
    """
    columns = _columns(header)
    cells = _cells(raw)
    accession = cells[columns["Entry"]].strip() if len(cells) > columns["Entry"] else None
    if len(cells) != header.count(b"\t") + 1:
        raise BadRecord("wrong number of columns", accession)
    if not accession:
        raise BadRecord("no accession")

    def cell(title: str) -> str:
        return cells[columns[title]].strip() if title in columns else ""

    try:
        length = cell("Length")
        return ProteinRecord(
            accession=accession,
            entry_name=cell("Entry Name"),
            reviewed=cell("Reviewed").lower() == "reviewed",
            sequence=checked_sequence(cell("Sequence").encode(), int(length) if length.isdecimal() else None),
            protein_name=protein_name([("Full", _own_name(cell("Protein names")))]),
            function=_comment(Property.FUNCTION, cell("Function [CC]")),
            subcellular_location=_comment(Property.SUBCELLULAR_LOCATION, cell("Subcellular location [CC]")),
            similarity=_comment(Property.SIMILARITY, cell("Sequence similarities")),
            confidence=confidence(cell("Protein existence")),
            taxon_id=taxon(cell("Organism (ID)")),
            annotation_date=iso_date(cell("Date of last modification")),
        )
    except BadRecord as error:
        error.accession = accession
        raise


def _own_name(names: str) -> str:
    """The names of the protein itself, without those of its parts and without flags."""
    for end in _NAME_ENDS:
        names = names.partition(end)[0]
    for flag in _FLAGS:
        names = names.removesuffix(flag)
    return names


def _comment(prop: Property, text: str) -> str | None:
    """The blocks of one comment cell ("FUNCTION: A.; FUNCTION: B.") without their headings."""
    heading = f"{prop.label}: "
    return joined([text.removeprefix(heading).replace(f"; {heading}", " ")])


SOURCE = Source(each(lines, parse), after_first(b"\n"), after_last(b"\n"), _start)
