"""Sorting more rows than memory holds: sorted runs in a staging folder, merged range by range.

A run is an Arrow IPC file of rows sorted by a uint64 key. Its record batch i holds the rows of cell i,
one of `cells` equal parts of the key space, so that whoever merges a range of keys reads only the cells
the range touches. A cell is compressed as a whole, since Arrow's own compression works buffer by buffer and
costs many times the parsing when cells have few rows. Ranges depend on the data alone, cells are only
layout: the merged result is the same however the rows came into runs.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import pyarrow as pa

from protclip import storage
from protclip.errors import DataError

KEY_SPACE = 2**64
MAX_CELLS = 1024
READERS = 16
CODEC = "zstd"

_CELLS = pa.schema([("rows", pa.large_binary()), ("num_bytes", pa.int64())])
"""One cell: its rows as a compressed record batch, and the size of that uncompressed."""


@dataclass(frozen=True, slots=True)
class KeyRange:
    """Keys from `start` to `stop`, the latter excluded; the index-th of its kind."""

    index: int
    start: int
    stop: int


def key_ranges(count: int) -> list[KeyRange]:
    """The key space in equal parts: key k lies in part k · count // 2^64."""
    bounds = [-(-KEY_SPACE * i // count) for i in range(count + 1)]
    return [KeyRange(i, start, stop) for i, (start, stop) in enumerate(pairwise(bounds))]


def ranges_for(rows: int, rows_per_range: int) -> list[KeyRange]:
    """As many ranges as make them hold `rows_per_range` uniformly spread rows on average, or less."""
    return key_ranges(max(1, -(-rows // rows_per_range)))


def write_run(uri: str, table: pa.Table, key: str, cells: int) -> tuple[int, ...]:
    """Sorts a table by a uint64 column and stores it as a run.

    Returns:
        The rows of each cell.

    Raises:
        DataError: It cannot be written.
    """
    keys = table[key].to_numpy()
    order = np.argsort(keys, kind="stable")
    rows = table.take(pa.array(order)).combine_chunks()
    starts = np.array([r.start for r in key_ranges(cells)], dtype=np.uint64)
    bounds = [*np.searchsorted(keys[order], starts).tolist(), len(rows)]
    (batch,) = rows.to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
    with storage.atomic_writer(uri) as sink:
        with pa.ipc.new_file(pa.PythonFile(sink, mode="w"), _CELLS) as writer:
            for start, stop in pairwise(bounds):
                cell = batch.slice(start, stop - start).serialize()
                packed = pa.compress(cell, CODEC, asbytes=True)
                writer.write_batch(pa.record_batch([[packed], [cell.size]], schema=_CELLS))
    return tuple(stop - start for start, stop in pairwise(bounds))


def read_range(runs: Sequence[str], keys: KeyRange, key: str, schema: pa.Schema) -> pa.Table:
    """The rows of all runs whose key lies in a range, run after run.

    Raises:
        DataError: A run cannot be read.
    """
    with ThreadPoolExecutor(READERS) as pool:
        pieces = list(pool.map(partial(_read_cells, keys=keys, key=key, schema=schema), runs))
    return pa.concat_tables([schema.empty_table(), *pieces]).combine_chunks()


def _read_cells(uri: str, keys: KeyRange, key: str, schema: pa.Schema) -> pa.Table:
    """One run's rows in a range."""
    try:
        with storage.open_input(uri, random=True) as file:
            reader = pa.ipc.open_file(file)
            cells = reader.num_record_batches
            first, last = keys.start * cells // KEY_SPACE, (keys.stop - 1) * cells // KEY_SPACE
            batches = [_unpacked(reader.get_batch(i), schema) for i in range(first, last + 1)]
        table = pa.Table.from_batches(batches, schema)
    except (DataError, pa.ArrowException, OSError) as error:
        raise DataError(
            f"{uri}: this intermediate file cannot be read: {error}; run the job again, and if that does "
            "not help, remove the folder of intermediate files before"
        ) from error
    values = table[key].to_numpy()
    start = int(np.searchsorted(values, np.uint64(keys.start)))
    stop = int(np.searchsorted(values, np.uint64(keys.stop - 1), side="right"))
    return table.slice(start, stop - start)


def _unpacked(cell: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The rows of a cell."""
    rows, num_bytes = cell["rows"][0].as_buffer(), cell["num_bytes"][0].as_py()
    return pa.ipc.read_record_batch(pa.decompress(rows, num_bytes, CODEC), schema)
