"""Parquet files, written atomically and verified when read."""

import io
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from protclip.errors import DataError
from protclip.storage.failures import explained, first_line
from protclip.storage.files import HashingWriter, StoredFile, atomic_writer, open_input, read_range
from protclip.storage.filesystems import is_local

TRAILER_BYTES = 8
FOOTER_BYTES = 16 * 2**10
FOOTER_BYTES_PER_ROW_GROUP = 3 * 2**10


def write_parquet(uri: str, table: pa.Table, row_group_size: int) -> StoredFile:
    """Writes a Parquet file atomically; tables of equal rows give equal bytes, pages carry checksums."""
    with parquet_writer(uri, table.schema) as (writer, sink):
        writer.write_table(table.combine_chunks(), row_group_size)
    assert sink.stored is not None
    return sink.stored


@contextmanager
def parquet_writer(uri: str, schema: pa.Schema) -> Iterator[tuple[pq.ParquetWriter, HashingWriter]]:
    """A Parquet file written atomically piece by piece, one row group or more per piece.

    Yields:
        The writer of tables, and the file under it, whose `stored` names size and digest afterwards.

    Raises:
        DataError: The target cannot be written.
    """
    with atomic_writer(uri) as sink:
        target = pa.PythonFile(sink, mode="w")
        with pq.ParquetWriter(target, schema, compression="zstd", write_page_checksum=True) as writer:
            yield writer, sink


@contextmanager
def parquet_file(
    uri: str, num_bytes: int | None = None, row_groups: Sequence[int] | None = None
) -> Iterator[pq.ParquetFile]:
    """A Parquet file opened for reading; footer, and the checksum of each page read, are verified.

    An Arrow error or `OSError` that leaves the block is taken for damage of the file.

    Args:
        uri: The file.
        num_bytes: The size it must have, if that is known.
        row_groups: The rows its row groups must have, if that is known.

    Raises:
        DataError: It is missing, damaged, not Parquet, or not the one described.
    """
    with explained(uri, "reading"), open_input(uri, random=True) as file:
        if num_bytes is not None and file.size() != num_bytes:
            raise DataError(
                f"{uri}: {file.size():,} bytes, the manifest says {num_bytes:,}; make the data set again"
            )
        with _as_parquet(uri):
            opened = pq.ParquetFile(file, pre_buffer=not is_local(uri), page_checksum_verification=True)
            if row_groups is not None:
                _check_row_groups(uri, opened.metadata, row_groups)
            yield opened


class RowGroups:
    """The row groups of a Parquet file whose size is known, each read by one request for its bytes.

    The footer is fetched with the first row group and kept as it is stored: about 2 kB for a row group of
    ten columns, a fifth of what it takes when parsed. Several threads may read at the same time.

    Args:
        uri: The file.
        num_bytes: Its size.
        row_groups: Rows of each row group.
    """

    def __init__(self, uri: str, num_bytes: int, row_groups: Sequence[int]) -> None:
        self.uri = uri
        self._num_bytes = num_bytes
        self._row_groups = row_groups
        self._footer = b""
        self._lock = threading.Lock()

    def read(self, index: int, columns: Sequence[str]) -> pa.Table:
        """Some columns of a row group, the checksum of each page verified; no other thread is used.

        The request covers what lies between the first and the last of the columns, too.

        Raises:
            DataError: The file is missing, damaged, not Parquet, or not the one described.
        """
        with self._lock:
            footer = self._footer = self._footer or self._read_footer()
        # Damaged names and offsets of a footer, which has no checksum, give errors of Python's own.
        with _as_parquet(self.uri, ValueError):
            metadata = pq.read_metadata(pa.BufferReader(footer))
            start, stop = _byte_range(metadata.row_group(index), columns)
        if not 0 <= start < stop <= self._num_bytes:
            raise DataError(f"{self.uri}: its footer is damaged; make the data set again")
        window = _Window(read_range(self.uri, start, stop), start)
        with _as_parquet(self.uri, ValueError):
            file = pq.ParquetFile(window, metadata=metadata, page_checksum_verification=True)
            return file.read_row_group(index, columns=list(columns), use_threads=False)

    def _read_footer(self) -> bytes:
        """The end of the file from the footer on, by one request unless the footer is unusually large."""
        guess = FOOTER_BYTES + FOOTER_BYTES_PER_ROW_GROUP * len(self._row_groups)
        tail = read_range(self.uri, max(0, self._num_bytes - guess), self._num_bytes)
        size = TRAILER_BYTES + int.from_bytes(tail[-TRAILER_BYTES:-4], "little")
        if len(tail) < size <= self._num_bytes:
            tail = read_range(self.uri, self._num_bytes - size, self._num_bytes)
        with _as_parquet(self.uri):
            metadata = pq.read_metadata(pa.BufferReader(tail))
        _check_row_groups(self.uri, metadata, self._row_groups)
        return tail[-size:]


class _Window(io.BytesIO):
    """A stretch of a file, under the offsets it has there."""

    def __init__(self, data: bytes, start: int) -> None:
        super().__init__(data)
        self._start = start

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to an offset of the file."""
        return self._start + super().seek(offset - (0 if whence else self._start), whence)

    def tell(self) -> int:
        """The offset in the file."""
        return self._start + super().tell()


def _byte_range(row_group: pq.RowGroupMetaData, columns: Sequence[str]) -> tuple[int, int]:
    """Where the chunks of some columns begin and end."""
    chunks = [row_group.column(i) for i in range(row_group.num_columns)]
    wanted = [c for c in chunks if c.path_in_schema.partition(".")[0] in columns]
    starts = [c.dictionary_page_offset or c.data_page_offset for c in wanted]
    return min(starts), max(s + c.total_compressed_size for s, c in zip(starts, wanted, strict=True))


def _check_row_groups(uri: str, metadata: pq.FileMetaData, expected: Sequence[int]) -> None:
    """Refuses a file with other row groups than the manifest lists."""
    rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    if rows != list(expected):
        raise DataError(
            f"{uri}: {metadata.num_rows:,} rows in {len(rows)} row groups, the manifest says "
            f"{sum(expected):,} in {len(expected)} of other sizes; make the data set again"
        )


@contextmanager
def _as_parquet(uri: str, *further: type[Exception]) -> Iterator[None]:
    """Takes an Arrow error, an `OSError` or a further kind for damage of the file."""
    try:
        yield
    except (pa.ArrowException, OSError, *further) as error:
        message = f"{uri}: cannot be read as Parquet: {first_line(error)}"
        raise DataError(f"{message}; if the file is damaged, make the data set again") from error
