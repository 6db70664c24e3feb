"""Parquet files, written atomically and verified when read."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from protclip.errors import DataError
from protclip.storage.files import HashingWriter, StoredFile, atomic_writer, open_input
from protclip.storage.filesystems import explained, first_line, is_local


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
def parquet_file(uri: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file opened for reading; footer, and the checksum of each page read, are verified.

    An Arrow error or `OSError` that leaves the block is taken for damage of the file.

    Raises:
        DataError: It is missing, damaged or not Parquet.
    """
    with explained(uri, "reading"), open_input(uri, random=True) as file:
        try:
            yield pq.ParquetFile(file, pre_buffer=not is_local(uri), page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            message = f"{uri}: cannot be read as Parquet: {first_line(error)}"
            raise DataError(f"{message}; if the file is damaged, make the data set again") from error
