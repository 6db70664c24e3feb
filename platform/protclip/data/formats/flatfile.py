"""UniProtKB flat file (`.dat`): entries of two-letter lines, ended by `//`.

This is the meaning of a flat file, of every age and state. `flat_columns` reads entries of plain modern
form many times faster and leaves the others to this module.
"""

import re
from datetime import date
from functools import lru_cache
from itertools import pairwise

from protclip.data.formats.common import (
    BadRecord,
    Outcomes,
    Source,
    after_first,
    after_last,
    checked_sequence,
    protein_name,
)
from protclip.records import ProteinRecord

_TERMINATOR = b"\n//"
_INTERNAL = re.compile(r"^\*\*.*\n", re.MULTILINE)
_IDENTITY = re.compile(r"ID   (\S+) +(\w+); +(?:PRT; +)?(\d{1,9}) AA\.[^\n]*(?:\nAC   +([^;\s]+))?", re.ASCII)
# These begin with a line end, not with "^", because text that is alike is then found much faster.
_TAXON = re.compile(r"\nOX   NCBI_TaxID=(\d{1,9})\b", re.ASCII)
_LEVEL = re.compile(r"\nPE   ([1-5])")
_DATE = re.compile(r"\nDT   ([^\n]{0,11})")
_NAME_LINE = re.compile(r"\nDE[^\n]*")
_COMMENT = re.compile(r"\nCC   -!- (FUNCTION|SUBCELLULAR LOCATION|SIMILARITY):([^\n]*(?:\nCC       [^\n]*)*)")
_NAME = re.compile(r"^DE   .{9}(\w+)=([^\n]*[^\n;])", re.MULTILINE)
_EVIDENCE = re.compile(r" \{E[^\n{}]*\}(?=;)")
_PARTS = re.compile(r"^DE   (?:Contains|Includes):$.*", re.MULTILINE | re.DOTALL)
_OLD_NAME_END = re.compile(r" \[(?:Contains|Includes):.*| \(Fragments?\)\.?$", re.IGNORECASE)
_REVIEWED = {"Reviewed": True, "STANDARD": True, "Unreviewed": False, "PRELIMINARY": False}
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


def records(data: bytes, header: bytes = b"") -> Outcomes:
    """The outcome of every entry, and of every stretch between entries that is none.

    Args:
        data: Bytes that begin at an entry; line ends may be CRLF.
        header: Unused, flat files have none.
    """
    start = 0
    while start < len(data):
        found = data.find(_TERMINATOR, start)
        end = len(data) if found < 0 else found + len(_TERMINATOR)
        yield from _stretch(data, start, end, terminated=found >= 0)
        start = end


def _stretch(data: bytes, start: int, end: int, *, terminated: bool) -> Outcomes:
    """The outcomes of the bytes up to a terminator or the end; only the last entry in them has it."""
    opened = [start + match.start() for match in re.finditer(rb"\nID", b"\n" + data[start:end])]
    bounds = [*opened, end]
    # Blank lines and lone terminators are nothing.
    stray = data[start : bounds[0]].lstrip(b"/ \t\r\n")
    if stray:
        yield bounds[0] - len(stray), bounds[0], BadRecord("not a UniProtKB record")
    for begin, stop in pairwise(bounds):
        try:
            outcome = _record(data[begin:stop], terminated=terminated and stop == end)
        except BadRecord as error:
            outcome = error
        yield begin, stop, outcome


def _record(entry: bytes, *, terminated: bool) -> ProteinRecord:
    """The record of one entry."""
    text = entry.decode("utf-8", "replace").replace("\r\n", "\n")
    # Lines of UniProt's internal form may stand anywhere, also inside a comment.
    text = _INTERNAL.sub("", text) if "\n**" in text else text
    identity = _IDENTITY.match(text)
    if identity is None:
        raise BadRecord("not a UniProtKB record")
    if not terminated:
        raise BadRecord("no terminator")
    entry_name, status, length, accession = identity.groups()
    if status not in _REVIEWED:
        raise BadRecord("unknown review status")
    if accession is None:
        raise BadRecord("no accession")
    text, found, residues = text.removesuffix(_TERMINATOR.decode()).rpartition("\nSQ")
    if not found:
        raise BadRecord("no sequence")
    residues = residues.partition("\n")[2].replace("\n", "").replace(" ", "")
    sequence = checked_sequence(residues.encode(), int(length))

    texts: dict[str, str] = {}
    for topic, lines_of_text in _COMMENT.findall(text):
        if comment := _unwrapped(lines_of_text, "\nCC       "):
            texts[topic] = f"{texts[topic]} {comment}" if topic in texts else comment
    taxon, level, dates = _TAXON.search(text), _LEVEL.search(text), _DATE.findall(text)
    return ProteinRecord(
        accession=accession,
        entry_name=entry_name,
        reviewed=_REVIEWED[status],
        sequence=sequence,
        protein_name=_name("".join(_NAME_LINE.findall(text))[1:]),
        function=texts.get("FUNCTION"),
        subcellular_location=texts.get("SUBCELLULAR LOCATION"),
        similarity=texts.get("SIMILARITY"),
        confidence=int(level[1]) if level else None,
        taxon_id=int(taxon[1]) if taxon else None,
        annotation_date=entry_date(dates[-1]) if dates else None,
    )


def _unwrapped(text: str, indent: str) -> str:
    """Continued lines joined by a space, or by nothing after a hyphen that breaks a word."""
    return re.sub(f"(?<! )-{indent}", "-", text).replace(indent, " ").strip()


def _name(block: str) -> str:
    """Protein name of the DE lines; `Contains:` and `Includes:` name other proteins."""
    block = _EVIDENCE.sub("", _PARTS.sub("", block))
    parts = _NAME.findall(block)
    if not parts:
        plain = _unwrapped(block[5:], "\nDE   ")
        parts = [("Full", _OLD_NAME_END.sub("", plain).rstrip("."))]
    return protein_name(parts)


@lru_cache(maxsize=4096)
def entry_date(text: str) -> date:
    """The date of "16-JAN-2019".

    Raises:
        BadRecord: It is none.
    """
    try:
        return date(int(text[7:]), _MONTHS.index(text[3:6]) + 1, int(text[:2]))
    except ValueError as error:
        raise BadRecord("malformed date") from error


SOURCE = Source(records, after_first(_TERMINATOR), after_last(_TERMINATOR))
