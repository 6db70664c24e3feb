"""UniProtKB flat file (`.dat`): entries of two-letter lines, ended by `//`.

Speed is the point of this module. One vectorised pass finds where each kind of line begins; after it
only the few lines that are needed are looked at, and never the references, cross references and
features, which are most of an entry.
"""

import re
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
    protein_name,
)
from protclip.records import ProteinRecord


def _code(line: bytes) -> int:
    """The first two bytes of a line as one number."""
    return line[0] << 8 | line[1]


ID, DE, OX, CC, PE, SQ, END = map(_code, (b"ID", b"DE", b"OX", b"CC", b"PE", b"SQ", b"//"))
PIECE_BYTES = 2**20
NEWLINE = ord("\n")
_INTERNAL = _code(b"**")
_WANTED = np.zeros(65536, bool)
_WANTED[[ID, DE, OX, CC, PE, SQ, END]] = True

_IDENTITY = re.compile(
    rb"ID   (\S+) +(\w+); +(?:PRT; +)?(\d{1,9}) AA\.[^\n]*(?:\n\*\*[^\n]*)*(?:\nAC   +([^;\s]+))?"
)
_TAXON = re.compile(rb"OX   NCBI_TaxID=(\d{1,9})\b")
_NAME = re.compile(r"DE   .{9}(\w+)=([^\n]*[^\n;])")
_EVIDENCE = re.compile(r" \{E[^\n{}]*\}(?=;)")
_PARTS = re.compile(r"^DE   (?:Contains|Includes):.*", re.MULTILINE | re.DOTALL)
_OLD_NAME_END = re.compile(r" \[(?:Contains|Includes):.*| \(Fragments?\)\.?$", re.IGNORECASE)
_COMMENT = re.compile(r"CC   -!- (FUNCTION|SUBCELLULAR LOCATION|SIMILARITY):([^\n]*(?:\nCC       [^\n]*)*)")
_REVIEWED = {b"Reviewed": True, b"STANDARD": True, b"Unreviewed": False, b"PRELIMINARY": False}
_LEVELS = {b"%d" % level: level for level in range(1, 6)}
_MONTHS = (b"JAN", b"FEB", b"MAR", b"APR", b"MAY", b"JUN", b"JUL", b"AUG", b"SEP", b"OCT", b"NOV", b"DEC")

Span = tuple[int, int]


def _runs(data: bytes, start: int, end: int) -> tuple[list[int], list[Span], list[int]]:
    """Each run of wanted lines of one kind: kinds, spans, and which runs begin or end an entry.

    `**` lines interrupt no run.
    """
    starts = _line_starts(data, start, end)
    characters = np.frombuffer(data, np.uint8)
    kinds = characters[starts].astype(np.uint16) << 8 | characters[starts + 1]
    public = kinds != _INTERNAL
    if not public.all():
        starts, kinds = starts[public], kinds[public]
    first = np.flatnonzero(np.append(True, kinds[1:] != kinds[:-1])[: len(kinds)] | (kinds == ID))
    starts, kinds = starts[first], kinds[first]
    ends = np.append(starts, end)[1:]
    wanted = np.flatnonzero(_WANTED[kinds])
    kinds = kinds[wanted]
    spans = zip(starts[wanted].tolist(), ends[wanted].tolist(), strict=True)
    return kinds.tolist(), list(spans), np.flatnonzero((kinds == ID) | (kinds == END)).tolist()


def _line_starts(data: bytes, start: int, end: int) -> np.ndarray:
    """Offsets of the lines of two characters or more, int64."""
    size = (end - start) // 8 * 8
    # Eight bytes at once, because most groups of eight hold no line end.
    groups = (np.frombuffer(data, np.uint8, size, start) == NEWLINE).view(np.uint64)
    hits = np.flatnonzero(groups != 0)
    within = np.flatnonzero(groups[hits].view(bool))
    rest = np.array([at + 1 for at in range(start + size, end - 2) if data[at] == NEWLINE], np.int64)
    starts = np.concatenate(([start], (hits * 8 + start + 1)[within >> 3] + (within & 7), rest))
    return starts[: np.searchsorted(starts, end - 1)]


def records(data: bytes, header: bytes = b"") -> Outcomes:
    """The outcome of every entry, and of every stretch between entries that is none.

    Args:
        data: Bytes that begin at an entry; line ends may be CRLF.
        header: Unused, flat files have none.
    """
    start = 0
    while start < len(data):
        end = data.rfind(b"\n//", start, start + PIECE_BYTES)
        if end < 0:
            end = data.find(b"\n//", start)
        end = end + 3 if end >= 0 else len(data)
        yield from _piece(data, start, end)
        start = end


def _piece(data: bytes, border: int, last: int) -> Outcomes:
    """The outcomes of the entries in one part of the data, small enough for the processor's cache."""
    kinds, spans, borders = _runs(data, border, last)
    opened: int | None = None
    for index in borders:
        start = spans[index][0]
        ended = kinds[index] == END
        stop = start + 2 if ended else start
        if opened is not None:
            lines = dict(zip(kinds[opened:index], spans[opened:index], strict=True))
            yield border, stop, _outcome(data, lines, start, terminated=ended)
        elif data[border:stop] != b"\n":
            yield from _stray(data, border, stop)
        border, opened = (stop, None) if ended else (start, index)
    if opened is None:
        yield from _stray(data, border, last)
    else:
        lines = dict(zip(kinds[opened:], spans[opened:], strict=True))
        yield border, last, _outcome(data, lines, last, terminated=False)


def _stray(data: bytes, start: int, end: int) -> Outcomes:
    """What stands outside entries; blank lines and lone terminators are nothing."""
    text = data[start:end].lstrip(b"/ \t\r\n")
    if text:
        yield end - len(text), end, BadRecord("not a UniProtKB record")


def _outcome(data: bytes, lines: dict[int, Span], end: int, *, terminated: bool) -> ProteinRecord | BadRecord:
    """The record of one entry, or what is wrong with it."""
    try:
        return _record(data, lines, end, terminated=terminated)
    except BadRecord as error:
        return error


def _record(data: bytes, lines: dict[int, Span], end: int, *, terminated: bool) -> ProteinRecord:
    """The record of one entry, `end` being where its terminator begins."""
    identity = _IDENTITY.match(data, lines[ID][0])
    if identity is None:
        raise BadRecord("not a UniProtKB record")
    if not terminated:
        raise BadRecord("no terminator")
    entry_name, status, length, accession = identity.groups()
    if status not in _REVIEWED:
        raise BadRecord("unknown review status")
    if accession is None:
        raise BadRecord("no accession")
    if SQ not in lines:
        raise BadRecord("no sequence")
    sequence = checked_sequence(data[lines[SQ][1] : end].translate(None, b" \r\n"), int(length))
    if DE not in lines:
        raise BadRecord("no protein name")

    texts: dict[str, str] = {}
    for topic, lines_of_text in _COMMENT.findall(_block(data, lines[CC])) if CC in lines else ():
        if text := _unwrapped(lines_of_text, "\nCC       "):
            texts[topic] = f"{texts[topic]} {text}" if topic in texts else text

    taxon = _TAXON.match(data, lines[OX][0]) if OX in lines else None
    level = data[lines[PE][0] + 5 : lines[PE][0] + 6] if PE in lines else b""
    last_date = data.rfind(b"\nDT   ", lines[ID][0], lines[DE][0]) + 6
    # Positional, because this call is a tenth of all the work.
    return ProteinRecord(
        accession.decode("utf-8", "replace"),
        entry_name.decode("utf-8", "replace"),
        _REVIEWED[status],
        sequence,
        _name(_block(data, lines[DE])),
        texts.get("FUNCTION"),
        texts.get("SUBCELLULAR LOCATION"),
        texts.get("SIMILARITY"),
        _LEVELS.get(level),
        int(taxon[1]) if taxon else None,
        _date(data[last_date : last_date + 11]) if last_date > 5 else None,
    )


def _block(data: bytes, span: Span) -> str:
    """The lines of one kind with plain line ends."""
    block = data[span[0] : span[1]].decode("utf-8", "replace")
    return block.replace("\r\n", "\n") if "\r" in block else block


def _unwrapped(text: str, indent: str) -> str:
    """Continued lines joined by a space, or by nothing after a hyphen that breaks a word."""
    if "-\n" in text:
        text = text.replace(" -" + indent, " - ").replace("-" + indent, "-")
    return text.replace(indent, " ").strip()


def _name(block: str) -> str:
    """Protein name of the DE lines; `Contains:` and `Includes:` name other proteins."""
    if "s:\n" in block:
        block = _PARTS.sub("", block)
    if "{" in block:
        block = _EVIDENCE.sub("", block)
    parts = _NAME.findall(block)
    if not parts:
        plain = _unwrapped(block[5:], "\nDE   ")
        parts = [("Full", _OLD_NAME_END.sub("", plain).rstrip("."))]
    return protein_name(parts)


@lru_cache(maxsize=4096)
def _date(text: bytes) -> date:
    """The date of "16-JAN-2019"."""
    try:
        return date(int(text[7:]), _MONTHS.index(text[3:6]) + 1, int(text[:2]))
    except ValueError as error:
        raise BadRecord("malformed date") from error


SOURCE = Source(records, after_first(b"\n//"), after_last(b"\n//"))
