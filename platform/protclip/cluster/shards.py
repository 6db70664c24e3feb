"""The second half of sampling: sorted runs become shards of exactly equal size.

The global order of a split is (order hash, accession); shard i holds rows [i·S, (i+1)·S) of it, and only the
last shard, with its last row group, is smaller. How many rows each run has in each cell of the key space
tells where these rows lie, so that a task reads little more than its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from protclip import storage
from protclip.cluster.journal import Journal
from protclip.cluster.resume import run_kept
from protclip.cluster.shuffle import KeyRange, key_ranges, read_range
from protclip.config.data import SampleConfig
from protclip.data.manifest import FileEntry, Split
from protclip.data.sampling import SPLITS
from protclip.data.summary import count_pairs
from protclip.progress import progress
from protclip.records import PAIRS_SCHEMA

ORDER = "order"
RUN_SCHEMA = PAIRS_SCHEMA.append(pa.field(ORDER, pa.uint64(), nullable=False))


@dataclass(frozen=True, slots=True)
class Runs:
    """The sorted runs of one split.

    Attributes:
        uris: Where they are.
        cells: Rows per cell of the key space, of all runs together, int64.
    """

    uris: tuple[str, ...]
    cells: np.ndarray

    @property
    def rows(self) -> int:
        """Rows of all runs."""
        return int(self.cells.sum())


@dataclass(frozen=True, slots=True)
class Shard:
    """Rows of a split's order that become one file.

    Attributes:
        split: Which split.
        index: Which shard.
        keys: The cells that hold them.
        skip: Rows of these cells before the first.
        rows: How many.
    """

    split: str
    index: int
    keys: KeyRange
    skip: int
    rows: int


@dataclass(frozen=True, slots=True)
class WrittenShard:
    """A shard's file, and the URI of what its pairs are like (see `data.summary`)."""

    split: str
    file: FileEntry
    counts: str


def plan(split: str, cells: np.ndarray, rows_per_shard: int) -> list[Shard]:
    """The shards of a split.

    Args:
        split: Its name.
        cells: Rows per cell, equal parts of the key space.
        rows_per_shard: Rows of all shards but the last.
    """
    bounds = key_ranges(len(cells))
    before = np.concatenate([[0], np.cumsum(cells)])
    total = int(before[-1])
    shards = []
    for index, start in enumerate(range(0, total, rows_per_shard)):
        stop = min(start + rows_per_shard, total)
        first = int(np.searchsorted(before, start, side="right")) - 1
        last = int(np.searchsorted(before, stop, side="left")) - 1
        keys = KeyRange(index, bounds[first].start, bounds[last].stop)
        shards.append(Shard(split, index, keys, start - int(before[first]), stop - start))
    return shards


def write_shards(
    runs: Mapping[str, Runs], config: SampleConfig, journal: Journal
) -> tuple[dict[str, Split], list[str]]:
    """Writes the shards of all splits.

    Returns:
        Every split, an empty one without files, and the URIs of what the pairs of `SPLITS` are like.

    Raises:
        DataError: A run cannot be read or a shard cannot be written.
    """
    shards = [s for split, run in runs.items() for s in plan(split, run.cells, config.rows_per_shard)]
    write = partial(
        _write,
        runs={split: run.uris for split, run in runs.items()},
        output=config.output,
        row_group_rows=config.row_group_rows,
        folder=journal.folder,
    )
    files: dict[str, list[FileEntry]] = {split: [] for split in runs}
    counts: list[str] = []
    items = {f"{shard.split}-{shard.index:06d}": shard for shard in shards}
    with progress("writing pairs", " shards", len(shards)) as bar:
        for written in run_kept(journal, "shards", WrittenShard, items, write):
            files[written.split].append(written.file)
            if written.split in SPLITS:
                counts.append(written.counts)
            bar.update()
    splits = {
        split: Split(rows=sum(f.rows for f in found), files=tuple(sorted(found, key=lambda f: f.path)))
        for split, found in files.items()
    }
    return splits, counts


def _write(
    shard: Shard, *, runs: Mapping[str, Sequence[str]], output: str, row_group_rows: int, folder: str
) -> WrittenShard:
    """Task: one shard."""
    cells = read_range(runs[shard.split], shard.keys, ORDER, RUN_SCHEMA)
    cells = cells.sort_by([(ORDER, "ascending"), ("accession", "ascending")])
    pairs = cells.slice(shard.skip, shard.rows).drop_columns(ORDER).combine_chunks()
    assert len(pairs) == shard.rows, "the runs have the rows that were counted"
    path = f"{shard.split}/shard-{shard.index:05d}.parquet"
    stored = storage.write_parquet(storage.join(output, path), pairs, row_group_rows)
    counts = count_pairs(pairs, shard.split)
    uri = storage.join(folder, "pair-counts", f"{shard.split}-{shard.index:06d}.parquet")
    storage.write_parquet(uri, counts, max(1, len(counts)))
    return WrittenShard(shard.split, FileEntry.of(path, stored, len(pairs), row_group_rows), uri)
