"""What the formats share: how a file is cut into records, and how a record's parts are checked and worded."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa

from protclip.records import STRATA_SCHEMA, ProteinRecord

RESIDUES = b"LAGVSERTIDPKQNFYMHWCXBUZO"
"""The letters of the ESM-2 alphabet (`tensors.RESIDUE_TOKENS`, which needs torch)."""

_EXISTENCE = (
    "evidence at protein level",
    "evidence at transcript level",
    "inferred from homology",
    "predicted",
    "uncertain",
)
NAME_PREFIX = {"EC": "EC ", "Allergen": "allergen ", "CD_antigen": "CD antigen "}

RECORD_SCHEMA = pa.schema(
    [
        *(STRATA_SCHEMA.field(name).with_nullable(True) for name in ProteinRecord.__slots__),
        pa.field("offset", pa.int64()),
    ]
)
"""The fields of `ProteinRecord` and where the entry begins."""

Span = tuple[int, int]
"""Start and end in some bytes."""


class BadRecord(Exception):  # noqa: N818 - not an error of the program, it becomes a Rejection
    """One entry cannot become a record; `accession` is given when the parser knows it.

    Attributes:
        reason: Short stable phrase, see `Rejection`.
        accession: The entry's accession, or None.
    """

    def __init__(self, reason: str, accession: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.accession = accession


Outcomes = Iterator[tuple[int, int, ProteinRecord | BadRecord]]
"""(start, end, what became of those bytes) of each entry in a run of bytes."""


def _no_header(head: bytes) -> tuple[bytes, int]:
    """A format whose records begin at once."""
    return b"", 0


@dataclass(frozen=True, slots=True)
class Source:
    """How one format is cut and parsed.

    Attributes:
        records: (bytes that begin at an entry, header) to the outcome of every entry in them.
        first_end: Where the first complete entry of some bytes ends, 0 when there is none.
        last_end: Where the last complete entry ends, 0 when there is none.
        start: First bytes of a file to (header every parser task needs, offset of the first entry);
            raises `DataError` when the file as a whole is unusable.
        leftover: (bytes after the last complete entry of the file, header) to the reason why they are
            not a proper end, or an empty string. None when `records` can tell.
        columns: Those entries that can be read many at once, as a table of `RECORD_SCHEMA`, and the spans
            that `records` must read. None when it must read all.
    """

    records: Callable[[bytes, bytes], Outcomes]
    first_end: Callable[[bytes], int]
    last_end: Callable[[bytes], int]
    start: Callable[[bytes], tuple[bytes, int]] = _no_header
    leftover: Callable[[bytes, bytes], str] | None = None
    columns: Callable[[bytes], tuple[pa.Table, list[Span]]] | None = None


def after_first(terminator: bytes) -> Callable[[bytes], int]:
    """The `Source.first_end` of entries that end with fixed bytes."""
    return lambda data: data.find(terminator) + len(terminator) if terminator in data else 0


def after_last(terminator: bytes) -> Callable[[bytes], int]:
    """The `Source.last_end` of entries that end with fixed bytes."""
    return lambda data: data.rfind(terminator) + len(terminator) if terminator in data else 0


def each(
    spans: Callable[[bytes], Iterator[tuple[int, int]]],
    parse: Callable[[bytes, bytes], ProteinRecord],
) -> Callable[[bytes, bytes], Outcomes]:
    """The `Source.records` of a format whose entries are cut out first and parsed one by one."""

    def records(data: bytes, header: bytes) -> Outcomes:
        for start, end in spans(data):
            try:
                outcome = parse(data[start:end], header)
            except BadRecord as error:
                outcome = error
            yield start, end, outcome

    return records


def lines(data: bytes) -> Iterator[tuple[int, int]]:
    """Spans of the lines that are not blank."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        if not data[start:end].isspace():
            yield start, end
        start = end


def decoded_json(raw: bytes) -> Any:
    """The value of a JSON text.

    Raises:
        BadRecord: It is not JSON, or has characters that no UTF-8 file can hold.
    """
    try:
        value = json.loads(raw)
        if b"\\u" in raw:
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise BadRecord("malformed JSON") from error
    return value


def checked_sequence(sequence: bytes, stated: int | None) -> str:
    """The sequence as text.

    Args:
        sequence: Residue letters.
        stated: Length the entry states, None when it states none.

    Raises:
        BadRecord: It is missing, a stand-in word of stated length 0, has letters outside the residue
            alphabet, or another length than stated.
    """
    if not sequence:
        raise BadRecord("no sequence")
    if stated == 0:
        raise BadRecord("placeholder sequence")
    if sequence.translate(None, RESIDUES):
        raise BadRecord("letters outside the residue alphabet")
    if stated is not None and len(sequence) != stated:
        raise BadRecord("sequence length differs from the stated one")
    return sequence.decode()


def protein_name(parts: Iterable[tuple[str, str]]) -> str:
    """The names of one protein in the shape of UniProt's "Protein names" column.

    Args:
        parts: (DE line key, name) in the order of the entry: Full, Short, EC, Allergen, Biotech,
            CD_antigen, INN.

    Returns:
        "Full (Short) (EC x) (Alternative full) …".

    Raises:
        BadRecord: There is no name.
    """
    names = [NAME_PREFIX.get(key, "") + value for key, value in parts if value]
    if not names:
        raise BadRecord("no protein name")
    return f"{names[0]} ({') ('.join(names[1:])})" if len(names) > 1 else names[0]


def with_evidence(text: str, tags: list[str]) -> str:
    """A location followed by its evidence, as in the flat file."""
    return f"{text} {{{', '.join(tags)}}}" if tags else text


def sentence(text: str, tags: list[str]) -> str:
    """A free text followed by its evidence, as in the flat file: "Text. {ECO:…}."."""
    text = text.strip()
    return with_evidence(text if text.endswith(".") else text + ".", tags) + ("." if tags else "")


def location_text(places: list[str], note: str) -> str:
    """A SUBCELLULAR LOCATION block in the flat file's words.

    Args:
        places: "Location {evidence}; Topology {evidence}", one per place.
        note: Sentences of the note, or an empty string.
    """
    return " ".join([f"{place}." for place in places] + ([f"Note={note}"] if note else []))


def joined(blocks: list[str]) -> str | None:
    """All blocks of one comment topic as one text; None when there is nothing in them."""
    return " ".join(filter(None, blocks)) or None


def confidence(existence: str | None) -> int | None:
    """Protein existence level of words such as "1: Evidence at protein level", None when not stated."""
    words = (existence or "").rpartition(":")[2].strip().lower()
    return _EXISTENCE.index(words) + 1 if words in _EXISTENCE else None


def taxon(identifier: str | None) -> int | None:
    """NCBI taxonomy identifier, None when it is not a number."""
    return int(identifier) if identifier and identifier.isdecimal() and len(identifier) < 10 else None


def iso_date(text: str | None) -> date | None:
    """The date of "YYYY-MM-DD", None when not stated.

    Raises:
        BadRecord: Something else is stated.
    """
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise BadRecord("malformed date") from error
