"""UniProtKB flat file (`.dat`): entries of two-letter lines, ended by `//`.

Speed is the point of this module. One vectorised pass finds where each kind of line begins; after it
only the few lines that are needed are looked at, and never the references, cross references and
features, which are most of an entry.
"""

import re
from collections.abc import Iterator
from datetime import date
from functools import lru_cache

import numpy as np

from protclip.data.formats.common import (
    BadRecord,
    Outcomes,
    Source,
    after_first,
    after_last,
    checked_sequence,
    joined,
    protein_name,
)
from protclip.records import ProteinRecord


def _code(line: bytes) -> int:
    """The first two bytes of a line as one number."""
    return line[0] << 8 | line[1]


ID, AC, DT, DE, OX, CC, PE, SQ, END = map(
    _code, (b"ID", b"AC", b"DT", b"DE", b"OX", b"CC", b"PE", b"SQ", b"//")
)
_INTERNAL = _code(b"**")
_WANTED = np.zeros(65536, bool)
_WANTED[[ID, AC, DT, DE, OX, CC, PE, SQ, END]] = True

_IDENTITY = re.compile(rb"ID   (\S+) +(\w+);[^\n]*?(\d+) AA\.")
_ACCESSION = re.compile(rb"AC   +([^;\s]+)")
_COMMENT = re.compile(r"CC   -!- (FUNCTION|SUBCELLULAR LOCATION|SIMILARITY):([^\n]*(?:\nCC       [^\n]*)*)")
_TAXON = re.compile(rb"OX   NCBI_TaxID=(\d{1,9})\b")
_REVIEWED = {b"Reviewed": True, b"STANDARD": True, b"Unreviewed": False, b"PRELIMINARY": False}
_LEVELS = {b"%d" % level: level for level in range(1, 6)}
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_OLD_NAME_END = re.compile(r" \[(?:Contains|Includes):.*| \(Fragments?\)\.?$", re.IGNORECASE)

Lines = dict[int, tuple[int, int]]
"""Span of the first run of lines of each kind in one entry."""


def _runs(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(kind, start, end) of each run of wanted lines of one kind; `**` lines interrupt no run."""
    characters = np.frombuffer(data if len(data) > 1 else b"\n\n", np.uint8)
    starts = np.append(-1, np.flatnonzero(characters[:-2] == ord("\n"))) + 1
    kinds = characters[starts].astype(np.uint16) << 8 | characters[starts + 1]
    public = kinds != _INTERNAL
    if not public.all():
        starts, kinds = starts[public], kinds[public]
    first = np.append(True, kinds[1:] != kinds[:-1])[: len(kinds)] | (kinds == ID)
    starts, kinds = starts[first], kinds[first]
    ends = np.append(starts, len(data))[1:]
    wanted = _WANTED[kinds]
    return zip(kinds[wanted].tolist(), starts[wanted].tolist(), ends[wanted].tolist(), strict=True)


def records(data: bytes, header: bytes = b"") -> Outcomes:
    """The outcome of every entry, and of every stretch between entries that is none.

    Args:
        data: Bytes that begin at an entry; line ends may be CRLF.
        header: Unused, flat files have none.
    """
    lines: Lines = {}
    border = 0
    for kind, start, end in _runs(data):
        if kind in (ID, END):
            stop = start + 2 if kind == END else start
            if lines:
                yield lines[ID][0], stop, _outcome(data, lines, start, terminated=kind == END)
            else:
                yield from _stray(data, border, stop)
            border = stop
            lines = {ID: (start, end)} if kind == ID else {}
        elif lines:
            lines.setdefault(kind, (start, end))
    if lines:
        yield lines[ID][0], len(data), _outcome(data, lines, len(data), terminated=False)
    else:
        yield from _stray(data, border, len(data))


def _stray(data: bytes, start: int, end: int) -> Outcomes:
    """What stands outside entries; blank lines and lone terminators are nothing."""
    text = data[start:end].lstrip(b"/ \t\r\n")
    if text:
        yield end - len(text), end, BadRecord("not a UniProtKB record")


def _outcome(data: bytes, lines: Lines, end: int, *, terminated: bool) -> ProteinRecord | BadRecord:
    """The record of one entry, or what is wrong with it."""
    try:
        return _record(data, lines, end, terminated=terminated)
    except BadRecord as error:
        return error


def _record(data: bytes, lines: Lines, end: int, *, terminated: bool) -> ProteinRecord:
    """The record of one entry, `end` being where its terminator begins."""
    identity = _IDENTITY.match(data, lines[ID][0])
    if identity is None:
        raise BadRecord("not a UniProtKB record")
    if not terminated:
        raise BadRecord("no terminator")
    entry_name, status, length = identity.groups()
    if status not in _REVIEWED:
        raise BadRecord("unknown review status")
    accession = _ACCESSION.match(data, lines[AC][0]) if AC in lines else None
    if accession is None:
        raise BadRecord("no accession")
    if SQ not in lines:
        raise BadRecord("no sequence")
    sequence = checked_sequence(data[lines[SQ][1] : end].translate(None, b" \r\n"), int(length))
    if DE not in lines:
        raise BadRecord("no protein name")

    texts: dict[str, list[str]] = {"FUNCTION": [], "SUBCELLULAR LOCATION": [], "SIMILARITY": []}
    for topic, text in _COMMENT.findall(_block(data, lines, CC)):
        texts[topic].append(_unwrapped(text, "\nCC       "))
    function, location, similarity = map(joined, texts.values())

    taxon = _TAXON.match(data, lines[OX][0]) if OX in lines else None
    level = data[lines[PE][0] + 5 : lines[PE][0] + 6] if PE in lines else b""
    dates = _block(data, lines, DT).rstrip().rpartition("\n")[2]
    return ProteinRecord(
        accession=accession[1].decode(errors="replace"),
        entry_name=entry_name.decode(errors="replace"),
        reviewed=_REVIEWED[status],
        sequence=sequence,
        protein_name=_name(_block(data, lines, DE)),
        function=function,
        subcellular_location=location,
        similarity=similarity,
        confidence=_LEVELS.get(level),
        taxon_id=int(taxon[1]) if taxon else None,
        annotation_date=_date(dates[5:16]) if dates else None,
    )


def _block(data: bytes, lines: Lines, kind: int) -> str:
    """The lines of one kind with plain line ends; empty when there are none."""
    start, end = lines.get(kind, (0, 0))
    block = data[start:end].decode(errors="replace")
    return block.replace("\r\n", "\n") if "\r" in block else block


def _unwrapped(text: str, indent: str) -> str:
    """Continued lines joined by a space, or by nothing after a hyphen that breaks a word."""
    pieces = [
        line if line.endswith("-") and not line.endswith(" -") else line + " " for line in text.split(indent)
    ]
    return "".join(pieces).strip()


def _name(block: str) -> str:
    """Protein name of the DE lines; `Contains:` and `Includes:` name other proteins."""
    if not block.startswith(("DE   RecName:", "DE   SubName:")):
        plain = _unwrapped(block[5:], "\nDE   ")
        return protein_name([("Full", _OLD_NAME_END.sub("", plain).rstrip("."))])
    parts: list[tuple[str, str]] = []
    for line in block.split("\n"):
        key, found, value = line[14:].partition("=")
        if found:
            value = value.rstrip("; ")
            if value.endswith("}"):
                value = value[: value.rfind(" {")]
            parts.append((key, value))
        elif line.startswith(("DE   Contains:", "DE   Includes:")):
            break
    return protein_name(parts)


@lru_cache(maxsize=4096)
def _date(text: str) -> date:
    """The date of "16-JAN-2019"."""
    try:
        return date(int(text[7:]), _MONTHS.index(text[3:6]) + 1, int(text[:2]))
    except ValueError as error:
        raise BadRecord("malformed date") from error


SOURCE = Source(records, after_first(b"\n//"), after_last(b"\n//"))
