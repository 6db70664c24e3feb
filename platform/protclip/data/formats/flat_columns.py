"""Flat file entries of plain modern form as Arrow columns, without a Python object per entry.

UniProt writes nearly every entry in one plain form, and for that form whole columns are cut out of a
block at once: numpy finds the lines, Arrow copies the wanted spans and matches them. Whatever is not
proved plain is left to `flatfile`, which decides what such an entry means; here nothing is interpreted
in a second way. The result of both together equals that of `flatfile` alone.
"""

# pyarrow makes its compute functions when it is imported, no type checker sees them.
# pyright: reportAttributeAccessIssue=false

from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from protclip.data.formats import flatfile
from protclip.data.formats.common import NAME_PREFIX, RECORD_SCHEMA, RESIDUES, BadRecord, Span
from protclip.records import Property

Lines = tuple[np.ndarray, np.ndarray]
"""Of each entry the number of its first line of some kind and of the line after the last, int64."""

PIECE_BYTES = 2**20
SPACE, NEWLINE, HYPHEN = b" \n-"


def _code(text: bytes) -> int:
    """Some bytes as `_Text.words` reads them."""
    return int.from_bytes(text, "little")


ID, AC, DT, DE, OX, CC, PE, SQ, SEQUENCE, END, INTERNAL = (
    _code(kind) for kind in (b"ID", b"AC", b"DT", b"DE", b"OX", b"CC", b"PE", b"SQ", b"  ", b"//", b"**")
)
_KINDS = dict.fromkeys((ID, AC, DT, DE, OX, PE, SQ, SEQUENCE, END), (1, 1)) | {
    CC: (0, 1),
    INTERNAL: (0, 0),
}
"""The fewest and the most runs of lines of a kind in a plain entry."""
_PLACES = {AC: 1, DT: 2, DE: 3, SQ: -3, SEQUENCE: -2, END: -1}
"""Where some runs stand, counted from the entry's first run or from its end."""
_TOPIC, _CONTINUED = _code(b"CC   -!-"), _code(b"CC      ")

_HEAD = (
    r"^ID   (?P<entry_name>[^ \n]+) +(?P<status>Reviewed|Unreviewed); +(?P<length>[0-9]{1,9}) AA\.\n"
    r"AC   (?P<accession>[^; \n]+);"
)
_TAXON = r"^OX   NCBI_TaxID=(?P<taxon_id>[0-9]{1,9})[ ;]"
_PART = r"^DE   (?:Contains|Includes):$"
_KEYS = ("Full", "Short", "EC", "Allergen", "Biotech", "CD_antigen", "INN")
_NAME = rf"^DE   .{{9}}(?P<key>{'|'.join(_KEYS)})=(?P<value>[^{{}};]*)(?:\{{E[^{{}}]*\}})?;$"
_PREFIXES = [NAME_PREFIX.get(key, "") for key in _KEYS]
# What stands before a name: first the prefixes of an entry's first name, then those of the others.
_OPENINGS = pa.array([*_PREFIXES, *(f" ({prefix}" for prefix in _PREFIXES)], pa.large_string())
_CLOSINGS = pa.array(["", ")"], pa.large_string())
_NOTHING = pa.scalar("", pa.large_string())
_NO_RESIDUE = b"!"
_LETTERS = bytes(c if c in RESIDUES + b"\n" else ord(_NO_RESIDUE) for c in range(256))
_TOPICS = (Property.FUNCTION, Property.SUBCELLULAR_LOCATION, Property.SIMILARITY)


class _Text:
    """A block's bytes and where its lines begin.

    Attributes:
        data: The bytes.
        characters: The same as uint8.
        starts: Offset of each line, and of the end, int64.
        odd: Offsets of control characters other than line ends, and of bytes beyond ASCII.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.characters = np.frombuffer(data, np.uint8)
        signed = self.characters.view(np.int8)
        # In pieces, because the comparison's result then stays in the processor's cache.
        pieces = range(0, len(data), PIECE_BYTES)
        low = [np.flatnonzero(signed[at : at + PIECE_BYTES] < SPACE) + at for at in pieces]
        ends = np.concatenate([[-1], *low, [len(data) - 1]])
        odd = np.flatnonzero(self.characters[ends[1:-1]] != NEWLINE) + 1
        self.odd = ends[odd]
        self.starts = np.delete(ends, odd) + 1

    def words(self, at: np.ndarray, size: int) -> np.ndarray:
        """The `size` bytes (2 or 8) at each offset as one number."""
        count = max(0, len(self.data) - size + 1)
        return np.ndarray(count, f"<u{size}", buffer=self.data, strides=(1,))[at]

    def spans(self, starts: np.ndarray, ends: np.ndarray) -> pa.LargeStringArray:
        """Stretches of the text that follow one another without overlap."""
        offsets = np.empty(2 * len(starts), np.int64)
        offsets[::2], offsets[1::2] = starts, ends
        # Every second cell is what lies between two stretches.
        cells = _strings(offsets, pa.py_buffer(self.data))
        return cells.take(pa.array(np.arange(0, len(cells), 2)))

    def lines(self, numbers: np.ndarray) -> pa.LargeStringArray:
        """Lines without their line ends."""
        return self.spans(self.starts[numbers], self.starts[numbers + 1] - 1)


def _strings(offsets: np.ndarray, text: pa.Buffer, valid: np.ndarray | None = None) -> pa.LargeStringArray:
    """Strings that lie one after the other in a buffer; `valid` tells those that are not null."""
    mask = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    count = max(0, len(offsets) - 1)
    return pa.LargeStringArray.from_buffers(count, pa.py_buffer(offsets), text, mask)


def _numbers(lines: Lines) -> tuple[np.ndarray, np.ndarray]:
    """The number of every line of all entries, and the entry of each."""
    first, stop = lines
    counts = stop - first
    entry = np.repeat(np.arange(len(first)), counts)
    return np.arange(len(entry)) + (first - np.cumsum(counts) + counts)[entry], entry


def _changes(values: np.ndarray) -> np.ndarray:
    """Where a value differs from the one before it; true for the first."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]


def columns(data: bytes) -> tuple[pa.Table, list[Span]]:
    """The plain entries of a block.

    Args:
        data: Bytes that begin at an entry or at the end of the terminator before it.

    Returns:
        A table of `RECORD_SCHEMA`, in the order of the block, and the spans of all else, which
        `flatfile.records` must read.
    """
    text = _Text(data)
    lines = _plain_layout(text)
    begin, end = text.starts[lines[ID][0]], text.starts[lines[END][0]] + 2
    head = pc.extract_regex(text.spans(begin, text.starts[lines[AC][0] + 1]), _HEAD)
    taxon = pc.struct_field(pc.extract_regex(text.lines(lines[OX][0]), _TAXON), 0)
    level = text.characters[text.starts[lines[PE][0]] + 5].astype(np.int8) - ord("0")
    dates = _dates(text, lines[DT])
    sequences, clean = _sequences(text, lines[SEQUENCE])
    names, named = _names(text, lines[DE])
    comments, commented = _comments(text, lines[CC])

    accession, entry_name, status, length = (
        pc.struct_field(head, name) for name in ("accession", "entry_name", "status", "length")
    )
    stated = pc.cast(length, pa.int64()).fill_null(0).to_numpy()
    plain = clean & named & commented & (stated > 0) & (stated == _lengths(sequences))
    plain &= (level >= 1) & (level <= 5) & _numpy(taxon.is_valid()) & _numpy(dates.is_valid())
    table = pa.table(
        {
            "accession": accession,
            "entry_name": entry_name,
            "reviewed": pc.equal(status, "Reviewed"),
            "sequence": sequences,
            "protein_name": names,
            **comments,
            "confidence": level,
            "taxon_id": pc.cast(taxon, pa.int32()),
            "annotation_date": dates,
            "offset": begin,
        }
    )
    if not plain.all():
        table, begin, end = table.filter(pa.array(plain)), begin[plain], end[plain]
    between = zip([0, *end.tolist()], [*begin.tolist(), len(data)], strict=True)
    # A terminator's line end is no entry.
    return table.cast(RECORD_SCHEMA), [span for span in between if data[slice(*span)] not in (b"", b"\n")]


def _numpy(values: pa.Array) -> np.ndarray:
    """Values without nulls."""
    return values.to_numpy(zero_copy_only=False)


def _lengths(strings: pa.Array) -> np.ndarray:
    """Bytes of each string, 0 for null."""
    return pc.binary_length(strings).fill_null(0).to_numpy()


def _plain_layout(text: _Text) -> dict[int, Lines]:
    """The lines of each kind, of the entries whose lines have the order of a modern entry."""
    count = int(np.searchsorted(text.starts, len(text.data) - 1))
    kind = text.words(text.starts[:count], 2)
    first = np.flatnonzero(_changes(kind))
    kind, first = kind[first], np.append(first, [count, count])
    entry = np.cumsum(kind == ID) - 1
    kind[entry < 0] = 0  # What stands before the first entry belongs to none.
    opened = np.flatnonzero(kind == ID)
    after = np.append(opened[1:], len(kind))[: len(opened)]

    plain = np.ones(len(opened), bool)
    holder = np.searchsorted(text.starts[first[opened]], text.odd, side="right")
    plain[holder[holder > 0] - 1] = False
    runs: dict[int, np.ndarray] = {}
    for wanted, (fewest, most) in _KINDS.items():
        found = np.flatnonzero(kind == wanted)
        times = np.bincount(entry[found], minlength=len(opened))
        plain &= (times >= fewest) & (times <= most)
        runs[wanted] = np.full(len(opened), len(kind))
        runs[wanted][entry[found]] = found
    for wanted, place in _PLACES.items():
        plain &= runs[wanted] == (opened + place if place >= 0 else after + place)
    plain &= first[opened + 1] - first[opened] == 1
    plain &= text.starts[first[after]] - text.starts[first[after - 1]] <= len(b"//\n")
    return {wanted: (first[run[plain]], first[run[plain] + 1]) for wanted, run in runs.items()}


def _dates(text: _Text, lines: Lines) -> pa.Array:
    """The date of each entry's last DT line, null when it is none."""
    at = text.starts[lines[1] - 1]
    stated = text.spans(at, at + len(b"DT   16-JAN-2019")).dictionary_encode()
    return pa.array([_date(line) for line in stated.dictionary.to_pylist()], pa.date32()).take(stated.indices)


def _date(line: str) -> date | None:
    """The date of the beginning of a DT line."""
    try:
        return flatfile.entry_date(line[5:]) if line.startswith("DT   ") else None
    except BadRecord:
        return None


def _sequences(text: _Text, lines: Lines) -> tuple[pa.Array, np.ndarray]:
    """The sequences, and which have nothing but residue letters."""
    blocks = text.spans(text.starts[lines[0]], text.starts[lines[1]])
    letters = blocks.buffers()[2].to_pybytes().translate(_LETTERS, b" ")
    counts = np.cumsum(lines[1] - lines[0])
    line_ends = np.flatnonzero(np.frombuffer(letters, np.uint8) == NEWLINE)
    offsets = np.append(0, line_ends[counts - 1] - counts + 1)
    residues = letters.replace(b"\n", b"")
    clean = np.ones(len(counts), bool)
    if _NO_RESIDUE in residues:
        wrong = np.flatnonzero(np.frombuffer(residues, np.uint8) == ord(_NO_RESIDUE))
        clean[np.searchsorted(offsets, wrong, side="right") - 1] = False
    return _strings(offsets, pa.py_buffer(residues)), clean


def _names(text: _Text, lines: Lines) -> tuple[pa.Array, np.ndarray]:
    """The protein names, and which have nothing but plain DE lines."""
    numbers, entry = _numbers(lines)
    written = text.lines(numbers)
    parts = np.cumsum(_numpy(pc.match_substring_regex(written, _PART)))
    own = parts == np.append(0, parts)[np.searchsorted(entry, entry)]
    found = pc.extract_regex(written, _NAME)
    key, value = pc.struct_field(found, "key"), pc.struct_field(found, "value")
    # Left to the pattern, the blank before an evidence tag would halve its speed.
    name = pc.ascii_rtrim(value, characters=" ")
    tagged = _lengths(written) > len("DE   RecName: =;") + _lengths(key) + _lengths(value)
    is_name = own & (_lengths(name) > 0) & (_lengths(value) - _lengths(name) == tagged)
    plain = np.bincount(entry[is_name], minlength=len(lines[0])) > 0
    plain[entry[own & ~is_name & _numpy(pc.match_substring(written, "="))]] = False

    key, name = key.filter(pa.array(is_name)), name.filter(pa.array(is_name))
    entry = entry[is_name]
    further = ~_changes(entry)
    place = _numpy(pc.index_in(key, value_set=pa.array(_KEYS))) + len(_KEYS) * further
    names = pc.binary_join_element_wise(
        _OPENINGS.take(pa.array(place)), name, _CLOSINGS.take(pa.array(further.astype(int))), _NOTHING
    )
    return _joined(names, entry, len(lines[0])), plain


def _joined(pieces: pa.LargeStringArray, entry: np.ndarray, count: int) -> pa.LargeStringArray:
    """All pieces of an entry as one string, null when it has none; `entry` is sorted."""
    _, offsets, text = pieces.buffers()
    bounds = np.searchsorted(entry, np.arange(count + 1))
    return _strings(np.frombuffer(offsets, np.int64)[bounds], text, bounds[1:] > bounds[:-1])


def _comments(text: _Text, lines: Lines) -> tuple[dict[str, pa.Array], np.ndarray]:
    """The comment texts by property, and which entries have them in plain form."""
    numbers, entry = _numbers(lines)
    at, line_end = text.starts[numbers], text.starts[numbers + 1] - 1
    words = text.words(at, 8)
    goes_on = (words == _CONTINUED) & (text.characters[at + 8] == SPACE) & ~_changes(entry)
    first = np.flatnonzero(~goes_on)
    stop = np.append(first, len(at))[1:]
    is_topic = words[first] == _TOPIC
    first, stop = first[is_topic], stop[is_topic]
    topics = text.words(at[first] + len("CC   -!- "), 8)

    plain = np.ones(len(lines[0]), bool)
    texts: dict[str, pa.Array] = {}
    for topic in _TOPICS:
        heading = f"CC   -!- {topic.label}: "
        chosen = topics == _code(topic.label[:8].encode())
        blocks = first[chosen], stop[chosen]
        opening, closing = blocks[0], blocks[1] - 1
        words_at = np.minimum(at[opening] + len(heading), line_end[opening])
        tidy = _numpy(pc.equal(text.spans(at[opening], words_at), heading))
        tidy &= (text.characters[words_at] > SPACE) & (text.characters[line_end[closing] - 1] > SPACE)
        plain[entry[opening[~tidy]]] = False

        inner, block = _numbers(blocks)
        begin, end, owner = at[inner] + len("CC       "), line_end[inner], entry[inner]
        begin[inner == opening[block]] = words_at
        hyphen = (text.characters[end - 1] == HYPHEN) & (text.characters[end - 2] != SPACE)
        # The line end is taken along, to become the blank before the next line.
        blank = (~hyphen | (inner == closing[block])) & np.append(~_changes(owner), False)[1:]
        pieces = text.spans(begin, end + blank)
        _, offsets, letters = pieces.buffers()
        letters = pa.py_buffer(letters.to_pybytes().replace(b"\n", b" "))
        texts[topic] = _joined(_strings(np.frombuffer(offsets, np.int64), letters), owner, len(plain))
    return texts, plain


SOURCE = replace(flatfile.SOURCE, columns=columns)
