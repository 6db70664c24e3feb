"""Reading UniProtKB files of every format, whole or block by block.

A reader decompresses a file and cuts it into blocks at record ends (`read_blocks`); any process can
then parse a block by itself (`parse_block`). Every stretch of the input becomes a record or a
`Rejection`; memory stays bounded whatever the file holds.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO

import pyarrow as pa
from isal.igzip_lib import DECOMP_GZIP, IgzipDecompressor, IsalError

from protclip import storage
from protclip.data.formats import flat_columns, protanno, rest_json, tsv, uniprot_xml
from protclip.data.formats.common import RECORD_SCHEMA, BadRecord, Source
from protclip.errors import DataError
from protclip.records import ProteinRecord, Rejection

SOURCES: dict[str, Source] = {
    "flat": flat_columns.SOURCE,
    "xml": uniprot_xml.SOURCE,
    "tsv": tsv.SOURCE,
    "json": rest_json.SOURCE,
    "json_lines": rest_json.LINES,
    "protanno": protanno.SOURCE,
}

BLOCK_BYTES = 16 * 2**20
MAX_RECORD_BYTES = 64 * 2**20
MAX_REJECTED_BYTES = 2**20
HEAD_BYTES = 2**18
PIECE_BYTES = 2**18
TAIL_BYTES = 16

_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_SUFFIXES = {
    ".dat": "flat",
    ".xml": "xml",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".csv": "tsv",
    ".json": "json",
    ".jsonl": "json",
}
_ACCESSION = re.compile(rb'(?:^AC +|<accession>|"primaryAccession"\s*:\s*")([\w-]+)', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive whole records of one file, or one stretch of it that is none.

    Attributes:
        offset: Where `data` begins in the decompressed file.
        data: The bytes.
        format: Key of `SOURCES`.
        header: What a parser must know from the beginning of the file.
        error: Why `data` cannot be records; empty when it can.
    """

    offset: int
    data: bytes
    format: str
    header: bytes = b""
    error: str = ""


def _gunzipped(file: IO[bytes]) -> Iterator[bytes]:
    """Decompressed pieces of all members of a gzip file.

    Unlike `igzip.open` it hands out everything that stands before damage or a premature end.

    Raises:
        EOFError: The last member is cut off.
        IsalError: The data is damaged.
    """
    data = file.read(PIECE_BYTES)
    while data:
        member = IgzipDecompressor(flag=DECOMP_GZIP)
        while not member.eof:
            if member.needs_input and not data and not (data := file.read(PIECE_BYTES)):
                raise EOFError
            piece = member.decompress(data, PIECE_BYTES)
            data = b""
            if piece:
                yield piece
        # Members may be padded with zeros.
        data = member.unused_data.lstrip(b"\0")
        while not data and (more := file.read(PIECE_BYTES)):
            data = more.lstrip(b"\0")


class _Input:
    """A file's decompressed bytes; damage to the gzip stream ends them and is kept in `error`."""

    def __init__(self, file: IO[bytes], uri: str) -> None:
        self._uri = uri
        self.error = ""
        magic = file.read(len(_GZIP))
        compressed = magic != b"" and _GZIP.startswith(magic)
        file.seek(0)
        self._pieces = _gunzipped(file) if compressed else iter(lambda: file.read(PIECE_BYTES), b"")
        self._rest = b""
        self.head = self.read(HEAD_BYTES)
        self._rest = self.head + self._rest

    def read(self, num_bytes: int, after: bytes = b"") -> bytes:
        """`after` and the next `num_bytes`, fewer only at the end."""
        pieces = [after, self._rest]
        missing = num_bytes - len(self._rest)
        while missing > 0 and (piece := self._next()):
            pieces.append(piece)
            missing -= len(piece)
        last = pieces.pop()
        kept = len(last) + min(0, missing)
        self._rest = last[kept:]
        # Joined once: a further copy of every block takes a fifth of the time of decompressing it.
        return b"".join([*pieces, last[:kept]])

    def _next(self) -> bytes:
        """The next piece; nothing at the end and after damage."""
        try:
            return next(self._pieces, b"")
        except EOFError:
            self.error = "truncated gzip"
        except IsalError:  # pyright: ignore[reportGeneralTypeIssues]
            self.error = "damaged gzip"
        except OSError as error:
            raise DataError(f"{self._uri}: reading failed: {error}; try again") from error
        return b""


def detect_format(name: str, head: bytes) -> str:
    """The format of a file, from its content and, failing that, its name.

    Args:
        name: File name or URI.
        head: First bytes of the file, compressed or not.

    Returns:
        A key of `SOURCES`.

    Raises:
        DataError: Neither tells.
    """
    if head.startswith(_GZIP):
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, HEAD_BYTES)
        except zlib.error:
            head = b""
    head = head.removeprefix(_BOM).lstrip()
    if head.startswith((b"ID   ", b"//")):
        return "flat"
    if head.startswith(b"<"):
        return "xml"
    if head.startswith((b"{", b"[")):
        if re.match(rb'\{\s*"(?:seq|text)"\s*:\s*"', head):
            return "protanno"
        return "json_lines" if rest_json.is_lines(head) else "json"
    by_name = _SUFFIXES.get("." + name.lower().removesuffix(".gz").rpartition(".")[2])
    if by_name:
        return by_name
    if b"\t" in head.partition(b"\n")[0]:
        return "tsv"
    raise DataError(
        f"{name}: no known format in its first bytes or its name; set format to one of "
        "flat, xml, tsv, json, protanno"
    )


def read_blocks(uri: str, format: str = "auto", block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:  # noqa: A002
    """Cuts a file into blocks of whole records.

    Args:
        uri: Local path or s3:// URI; gzip (also of several members) is recognised by its content.
        format: Key of `SOURCES`, or "auto".
        block_bytes: Rough size of a block. It has no influence on the records.

    Yields:
        Blocks in file order. A stretch that cannot be records (the rest of a truncated file, a record
        beyond `MAX_RECORD_BYTES`) comes as a block with `error`, cut to `MAX_REJECTED_BYTES`. What
        follows such a long record inside a JSON array belongs to the same stretch.

    Raises:
        DataError: The file is missing or unreadable, its format is unknown, or a table lacks a column.
    """
    with storage.open_input(uri) as file:
        source_bytes = _Input(file, uri)
        blank = _begin(source_bytes, uri, format)
        if blank.error:
            yield blank
            return
        source_bytes.read(blank.offset)
        yield from _cut(source_bytes, blank, block_bytes)


def format_of(uri: str, wanted: str = "auto") -> str:
    """The format of a file, once its beginning is known to be readable as such.

    Args:
        uri: As for `read_blocks`.
        wanted: Key of `SOURCES`, or "auto".

    Raises:
        DataError: As `read_blocks`.
    """
    with storage.open_input(uri) as file:
        return _begin(_Input(file, uri), uri, wanted).format


def _begin(source_bytes: _Input, uri: str, format: str) -> Block:  # noqa: A002
    """An empty block where the entries begin; one with an error when the file is damaged before that."""
    head = source_bytes.head.removeprefix(_BOM)
    if not head:
        return Block(0, b"", format, error=source_bytes.error or "empty file")
    if format == "auto":
        format = detect_format(uri, head)  # noqa: A001
    elif format == "json" and rest_json.is_lines(head):
        format = "json_lines"  # noqa: A001
    try:
        header, start = SOURCES[format].start(head)
    except DataError as error:
        if source_bytes.error:
            return Block(0, head[:MAX_REJECTED_BYTES], format, error=source_bytes.error)
        raise DataError(f"{uri}: {error}") from error
    return Block(start + len(source_bytes.head) - len(head), b"", format, header)


def _cut(source_bytes: _Input, blank: Block, block_bytes: int) -> Iterator[Block]:
    """Blocks like `blank` from its offset to the end of the file."""
    source = SOURCES[blank.format]
    offset, pending, skipping = blank.offset, b"", False
    ended = False
    while not ended:
        # Doubling keeps a record of many blocks from being searched over and over.
        known = len(pending)
        pending = source_bytes.read(max(block_bytes, known), pending)
        ended = len(pending) == known
        if skipping and (end := source.first_end(pending)):
            offset, pending, skipping = offset + end, pending[end:], False
        if not skipping and (end := source.last_end(pending)):
            yield replace(blank, offset=offset, data=pending[:end])
            offset, pending = offset + end, pending[end:]
        if len(pending) > MAX_RECORD_BYTES and not skipping:
            text = pending.lstrip()
            start = offset + len(pending) - len(text)
            yield replace(blank, offset=start, data=text[:MAX_REJECTED_BYTES], error="record too long")
            skipping = True
        if skipping:
            offset, pending = offset + len(pending[:-TAIL_BYTES]), pending[-TAIL_BYTES:]

    if source_bytes.error:
        yield replace(blank, offset=offset, data=pending[:MAX_REJECTED_BYTES], error=source_bytes.error)
    elif source.leftover is None:
        if pending.strip() and not skipping:
            yield replace(blank, offset=offset, data=pending)
    elif not skipping and (reason := source.leftover(pending, blank.header)):
        yield replace(blank, offset=offset, data=pending[:MAX_REJECTED_BYTES], error=reason)


def parse_block(block: Block) -> Iterator[tuple[int, ProteinRecord | Rejection]]:
    """Everything a block holds.

    Yields:
        (offset in the decompressed file, record or rejection), in file order.
    """
    if block.error:
        yield block.offset, _rejection(BadRecord(block.error), block.data)
        return
    for start, end, outcome in SOURCES[block.format].records(block.data, block.header):
        if end - start > MAX_RECORD_BYTES:
            outcome = BadRecord("record too long")
        if isinstance(outcome, BadRecord):
            outcome = _rejection(outcome, block.data[start : min(end, start + MAX_REJECTED_BYTES)])
        yield block.offset + start, outcome


def parse_columns(block: Block) -> tuple[pa.Table, list[tuple[int, ProteinRecord | Rejection]]]:
    """As `parse_block`, with as many records as possible in columns.

    Returns:
        A table of `RECORD_SCHEMA`, and what the block holds besides, in file order.
    """
    columns = SOURCES[block.format].columns
    if block.error or columns is None or len(block.data) > MAX_RECORD_BYTES:
        return RECORD_SCHEMA.empty_table(), list(parse_block(block))
    table, rest = columns(block.data)
    offsets = pa.array(table["offset"].to_numpy() + block.offset)
    others = [
        replace(block, offset=block.offset + start, data=block.data[start:stop]) for start, stop in rest
    ]
    return (
        table.set_column(RECORD_SCHEMA.get_field_index("offset"), "offset", offsets),
        [item for other in others for item in parse_block(other)],
    )


def _rejection(error: BadRecord, raw: bytes) -> Rejection:
    """A rejection with the accession that the parser or a look at the bytes gives."""
    found = _ACCESSION.search(raw)
    return Rejection(error.reason, error.accession or (found[1].decode() if found else None), raw)


def read_records(uri: str, format: str = "auto") -> Iterator[ProteinRecord | Rejection]:  # noqa: A002
    """All records and rejections of one file, in file order.

    Args:
        uri: Local path or s3:// URI, also compressed with gzip.
        format: Key of `SOURCES`, or "auto".

    Raises:
        DataError: As `read_blocks`.
    """
    for block in read_blocks(uri, format):
        for _, item in parse_block(block):
            yield item
