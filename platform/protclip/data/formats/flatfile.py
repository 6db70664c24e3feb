"""UniProtKB flat file (`.dat`): entries of two-letter lines, ended by `//`.

Speed is the point of this module: it jumps to the few lines it needs and never looks at the rest
(references, cross references, features), which is most of an entry.
"""

import re
from collections.abc import Iterator
from datetime import date
from functools import lru_cache

from protclip.data.formats.common import BadRecord, Source, checked_sequence, joined, protein_name
from protclip.records import ProteinRecord

_BORDER = re.compile(rb"\n(?://|(?=ID   ))")
_ID = re.compile(rb"ID   (\S+) +(\w+);[^\n]*?(\d+) AA\.")
_DIGITS = re.compile(rb"\d+")
_REVIEWED = {b"Reviewed": True, b"STANDARD": True, b"Unreviewed": False, b"PRELIMINARY": False}
_MONTHS = (b"JAN", b"FEB", b"MAR", b"APR", b"MAY", b"JUN", b"JUL", b"AUG", b"SEP", b"OCT", b"NOV", b"DEC")
_OLD_NAME_END = re.compile(r" \[(?:Contains|Includes):.*| \(Fragments?\)\.?$", re.IGNORECASE | re.DOTALL)


def split(data: bytes) -> Iterator[tuple[int, int]]:
    """Spans that end at `//`, or before an ID line when the terminator is missing."""
    start = 3 if data.startswith(b"//\n") else 0
    for border in _BORDER.finditer(data, start):
        yield start, border.end()
        start = border.end()
    yield start, len(data)


def last_end(data: bytes) -> int:
    """Offset just after the last `//`."""
    return data.rfind(b"\n//") + 3 if b"\n//" in data else 0


@lru_cache(maxsize=4096)
def _date(text: bytes) -> date:
    """The date of "16-JAN-2019"."""
    try:
        return date(int(text[7:11]), _MONTHS.index(text[3:6]) + 1, int(text[:2]))
    except ValueError as error:
        raise BadRecord("malformed date") from error


def _unwrapped(lines: bytes, indent: bytes) -> str:
    """Lines joined by a space, or by nothing after a hyphen that breaks a word; ends with the topic."""
    text = lines.replace(b" -" + indent, b" - ").replace(b"-" + indent, b"-").replace(indent, b" ")
    return text.partition(b"\n")[0].decode(errors="replace")


def _name(lines: bytes) -> str:
    """Protein name of the lines from the first DE line to the references."""
    if not lines.startswith((b"\nDE   RecName:", b"\nDE   SubName:")):
        plain = _OLD_NAME_END.sub("", _unwrapped(lines[6:], b"\nDE   "))
        return protein_name([("Full", plain.strip().rstrip("."))])
    parts: list[tuple[str, str]] = []
    for line in lines.split(b"\nDE   ")[1:]:
        if line.startswith((b"Contains:", b"Includes:")):
            break
        key, found, value = line.partition(b"\n")[0].partition(b"=")
        if found:
            value = value.rstrip(b"; ")
            if value.endswith(b"}"):
                value = value[: value.rfind(b" {")]
            parts.append((key.rpartition(b" ")[2].decode(), value.decode(errors="replace")))
    return protein_name(parts)


def parse(raw: bytes, header: bytes = b"") -> ProteinRecord:
    """One entry.

    Args:
        raw: The entry's bytes; line ends may be CRLF.
        header: Unused, flat files have none.

    Raises:
        BadRecord: It is no entry, is not terminated, or lacks accession, name or a proper sequence.
    """
    if b"\r" in raw:
        raw = raw.replace(b"\r\n", b"\n")
    raw = raw.lstrip()
    identity = _ID.match(raw)
    if identity is None:
        raise BadRecord("not a UniProtKB record")
    if not raw.endswith(b"\n//"):
        raise BadRecord("no terminator")
    entry_name, status, length = identity.groups()
    if status not in _REVIEWED:
        raise BadRecord("unknown review status")
    ac = raw.find(b"\nAC   ", identity.end())
    accession = raw[ac + 6 : raw.find(b";", ac)].strip() if ac > 0 else b""
    if not accession:
        raise BadRecord("no accession")

    sq = raw.rfind(b"\nSQ   ")
    if sq < 0:
        raise BadRecord("no sequence")
    sequence = checked_sequence(raw[raw.find(b"\n", sq + 1) : -3].translate(None, b" \n"), int(length))

    de = raw.find(b"\nDE   ", ac, sq)
    if de < 0:
        raise BadRecord("no protein name")
    references = raw.find(b"\nRN", de, sq)
    if references < 0:
        references = raw.find(b"\nCC", de, sq)
    dt = raw.rfind(b"\nDT   ", ac, de)
    ox = raw.find(b"\nOX   NCBI_TaxID=", de, references)
    taxon = _DIGITS.match(raw, ox + 17) if ox > 0 else None
    # From the end backwards: features take fewer bytes than cross references in most entries, and
    # bytes.rfind is faster than bytes.find.
    pe = raw.rfind(b"\nPE", references, sq)
    level = raw[pe + 6 : pe + 7] if pe > 0 else b""

    function: list[str] = []
    location: list[str] = []
    similarity: list[str] = []
    cc = raw.find(b"\nCC   -!- ", references, sq)
    if cc > 0:
        end = raw.find(b"\nDR", cc, sq)
        for comment in raw[cc : end if end > 0 else sq].split(b"\nCC   -!- "):
            if comment.startswith(b"FUNCTION:"):
                function.append(_unwrapped(comment[9:], b"\nCC       "))
            elif comment.startswith(b"SUBCELLULAR LOCATION:"):
                location.append(_unwrapped(comment[21:], b"\nCC       "))
            elif comment.startswith(b"SIMILARITY:"):
                similarity.append(_unwrapped(comment[11:], b"\nCC       "))

    return ProteinRecord(
        accession=accession.decode(errors="replace"),
        entry_name=entry_name.decode(errors="replace"),
        reviewed=_REVIEWED[status],
        sequence=sequence,
        protein_name=_name(raw[de:references]),
        function=joined(function),
        subcellular_location=joined(location),
        similarity=joined(similarity),
        confidence=int(level) if level in b"12345" and level else None,
        taxon_id=int(taxon[0]) if taxon else None,
        annotation_date=_date(raw[dt + 6 : dt + 17]) if dt > 0 else None,
    )


SOURCE = Source(parse, split, last_end)
