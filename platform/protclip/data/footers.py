"""What the footers of a data set's Parquet files say, held against its manifest; no row is read."""

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow.parquet as pq

from protclip import storage
from protclip.data.manifest import FileEntry
from protclip.errors import DataError
from protclip.progress import progress

READERS = 32
NAMED_PROBLEMS = 10
RANGED = ("length", "annotation_date")
"""Columns whose smallest and largest value is of interest."""


@dataclass(frozen=True, slots=True)
class Footers:
    """One footer, or several added up.

    Attributes:
        files: How many.
        rows: Rows of the files.
        row_groups: Row groups of the files.
        num_bytes: Size of the files.
        column_bytes: Compressed bytes by column.
        values: Values by column that are not null; of a list column the elements of all lists.
        ranges: Smallest and largest value of the columns of `RANGED`.
    """

    files: int = 0
    rows: int = 0
    row_groups: int = 0
    num_bytes: int = 0
    column_bytes: Counter[str] = field(default_factory=Counter)
    values: Counter[str] = field(default_factory=Counter)
    ranges: dict[str, tuple[Any, Any]] = field(default_factory=dict)


def add_footers(footers: Iterable[Footers]) -> Footers:
    """All of them as one."""
    footers = list(footers)
    column_bytes, values, ranges = Counter[str](), Counter[str](), {}
    for footer in footers:
        column_bytes.update(footer.column_bytes)
        values.update(footer.values)
        for name, (low, high) in footer.ranges.items():
            lowest, highest = ranges.get(name, (low, high))
            ranges[name] = min(low, lowest), max(high, highest)
    return Footers(
        files=sum(f.files for f in footers),
        rows=sum(f.rows for f in footers),
        row_groups=sum(f.row_groups for f in footers),
        num_bytes=sum(f.num_bytes for f in footers),
        column_bytes=column_bytes,
        values=values,
        ranges=ranges,
    )


def read_footers(uri: str, files: Sequence[FileEntry]) -> list[Footers]:
    """The footer of each file, several read at a time.

    Args:
        uri: The data set.
        files: Its files as the manifest lists them.

    Raises:
        DataError: Files are missing, damaged or not as the manifest says; it names them.
    """
    sizes = {file.uri: file.num_bytes for file in storage.list_files(uri)}
    read = partial(_read, uri, sizes)
    footers: list[Footers] = []
    problems: list[str] = []
    with ThreadPoolExecutor(READERS) as pool, progress("reading footers", " files", len(files)) as bar:
        for found in pool.map(read, files):
            if isinstance(found, str):
                problems.append(found)
            else:
                footers.append(found)
            bar.update()
    if problems:
        more = len(problems) - NAMED_PROBLEMS
        raise DataError(
            f"{uri}: {len(problems):,} of {len(files):,} files are not what the manifest says\n"
            + "\n".join(problems[:NAMED_PROBLEMS])
            + (f"\n… and {more:,} more" if more > 0 else "")
        )
    return footers


def _read(uri: str, sizes: dict[str, int], file: FileEntry) -> Footers | str:
    """A file's footer, or what is wrong with the file."""
    place = storage.join(uri, file.path)
    if place not in sizes:
        return f"{place}: there is no such file"
    try:
        with storage.parquet_file(place, file.num_bytes, file.row_groups) as opened:
            return _footers(opened.metadata, file.num_bytes)
    except DataError as error:
        return str(error)


def _footers(metadata: pq.FileMetaData, num_bytes: int) -> Footers:
    """Adds up a file's row groups."""
    found = Footers(1, metadata.num_rows, metadata.num_row_groups, num_bytes)
    for index in range(metadata.num_row_groups):
        row_group = metadata.row_group(index)
        for number in range(row_group.num_columns):
            column = row_group.column(number)
            name = column.path_in_schema.partition(".")[0]
            statistics = column.statistics
            found.column_bytes[name] += column.total_compressed_size
            found.values[name] += column.num_values - (statistics.null_count or 0 if statistics else 0)
            if name in RANGED and statistics is not None and statistics.has_min_max:
                low, high = statistics.min, statistics.max
                lowest, highest = found.ranges.get(name, (low, high))
                found.ranges[name] = min(low, lowest), max(high, highest)
    return found
