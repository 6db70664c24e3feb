"""The training data in a fixed order: every rank reads its own rows, nothing is coordinated.

The order of an epoch is a function of (seed, epoch): row groups are permuted, then the rows inside
each. Global batch g is rows [g·G, (g+1)·G) of that order and rank r takes its r-th slice. The whole
state is therefore (epoch, g); resuming is exact, costs nothing, and works in the middle of an epoch
and with another number of workers.
"""

import queue
import threading
from collections import OrderedDict
from collections.abc import Generator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from protclip import storage
from protclip.data.collate import Collator
from protclip.data.manifest import PairsManifest
from protclip.errors import DataError
from protclip.tensors import Batch

CACHED_ROW_GROUPS = 4
PREFETCHED_BATCHES = 2


class Position(NamedTuple):
    """Where the data stands: the next global batch."""

    epoch: int = 0
    batch_index: int = 0


@dataclass(frozen=True, slots=True)
class _RowGroup:
    """One row group of one shard."""

    uri: str
    index: int
    rows: int


class PairsDataset:
    """Rows of one split, addressed by their position in an epoch's order.

    Args:
        uri: Data set written by `sample_data`.
        split: "train", "valid" or "test".
        seed: Seed of the epoch orders.

    Raises:
        DataError: There is no such data set or split.
    """

    def __init__(self, uri: str, split: str, seed: int) -> None:
        manifest = PairsManifest.load(uri)
        if split not in manifest.splits:
            raise DataError(f"{uri}: no split {split!r}; it has {', '.join(manifest.splits)}")
        self.uri = uri
        self.split = split
        self._seed = seed
        self._groups = [
            _RowGroup(storage.join(uri, file.path), index, rows)
            for file in manifest.splits[split].files
            for index, rows in enumerate(file.row_groups)
        ]
        self._cache: OrderedDict[_RowGroup, pa.Table] = OrderedDict()
        self._order: tuple[int, np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        """Number of pairs."""
        return sum(group.rows for group in self._groups)

    def rows(self, epoch: int, start: int, stop: int) -> pa.Table:
        """Rows [start, stop) of the epoch's order."""
        order, starts = self._epoch_order(epoch)
        pieces = []
        for place in range(int(np.searchsorted(starts, start, "right")) - 1, len(order)):
            first = int(starts[place])
            if first >= stop:
                break
            index = int(order[place])
            group = self._groups[index]
            within = np.random.default_rng([self._seed, epoch, index]).permutation(group.rows)
            taken = within[max(start - first, 0) : stop - first]
            pieces.append(self._read(group).take(pa.array(taken)))
        return pa.concat_tables(pieces)

    def _epoch_order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Permutation of the row groups, and the position at which each begins."""
        if self._order is None or self._order[0] != epoch:
            order = np.random.default_rng([self._seed, epoch]).permutation(len(self._groups))
            sizes = np.array([self._groups[i].rows for i in order], dtype=np.int64)
            self._order = epoch, order, np.cumsum(sizes) - sizes
        return self._order[1], self._order[2]

    def _read(self, group: _RowGroup) -> pa.Table:
        """One row group, from the cache when it was read lately."""
        if group not in self._cache:
            with storage.parquet_file(group.uri) as file:
                self._cache[group] = file.read_row_group(group.index)
            if len(self._cache) > CACHED_ROW_GROUPS:
                self._cache.popitem(last=False)
        self._cache.move_to_end(group)
        return self._cache[group]


@dataclass(frozen=True, slots=True)
class LoadedBatch:
    """A batch with what the loop reports about it.

    Attributes:
        batch: This rank's slice of the global batch.
        after: Position once this batch has been used.
        num_residues: Residues in the slice.
        padding_share: Share of the residue tensor that is padding.
    """

    batch: Batch
    after: Position
    num_residues: int
    padding_share: float


class BatchIterator:
    """Endless batches of one rank from a position on, read and masked ahead by a thread.

    Args:
        dataset: The split.
        collate: Makes tensors.
        global_batch: Pairs per step over all ranks (G).
        rank: This rank.
        world_size: Number of ranks; divides `global_batch`.
        start: First global batch.
        pin_memory: Whether batches go to page-locked memory.

    Raises:
        DataError: The split has less than one global batch.
    """

    def __init__(
        self,
        dataset: PairsDataset,
        collate: Collator,
        global_batch: int,
        rank: int,
        world_size: int,
        start: Position,
        pin_memory: bool = False,
    ) -> None:
        self._batches_per_epoch = len(dataset) // global_batch
        if not self._batches_per_epoch:
            raise DataError(
                f"{dataset.uri}: {len(dataset)} {dataset.split} pairs are fewer than one global batch of "
                f"{global_batch}; lower train.global_batch or sample more pairs"
            )
        assert global_batch % world_size == 0, "checked by PretrainConfig"
        self._dataset = dataset
        self._collate = collate
        self._global_batch = global_batch
        self._rank = rank
        self._per_rank = global_batch // world_size
        self._start = start
        self._pin_memory = pin_memory

    def __iter__(self) -> Generator[LoadedBatch, None, None]:
        """Yields batches in order; the reading thread ends when the iterator is closed."""
        ready: queue.Queue[LoadedBatch | BaseException] = queue.Queue(PREFETCHED_BATCHES)
        stop = threading.Event()
        thread = threading.Thread(target=self._fill, args=(ready, stop), name="batches", daemon=True)
        thread.start()
        try:
            while True:
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            while thread.is_alive():
                try:
                    ready.get(timeout=0.05)
                except queue.Empty:
                    continue
            thread.join()

    def _fill(self, ready: "queue.Queue[LoadedBatch | BaseException]", stop: threading.Event) -> None:
        """Loads batch after batch until told to stop; a failure is handed to the consumer."""
        position = self._start
        while not stop.is_set():
            try:
                loaded = self._load(position)
            except BaseException as error:  # noqa: BLE001 - it is raised again where the batch is awaited
                ready.put(error)
                return
            ready.put(loaded)
            position = loaded.after

    def _load(self, position: Position) -> LoadedBatch:
        """This rank's slice of one global batch."""
        epoch, index = position
        if index >= self._batches_per_epoch:
            epoch, index = epoch + 1, 0
        start = index * self._global_batch + self._rank * self._per_rank
        batch = self._collate(self._dataset.rows(epoch, start, start + self._per_rank), epoch)
        num_residues = batch.counts.residues
        return LoadedBatch(
            batch=batch.pin_memory() if self._pin_memory else batch,
            after=Position(epoch, index + 1),
            num_residues=num_residues,
            padding_share=1 - (num_residues + 2 * batch.num_pairs) / batch.tokens_BL.numel(),
        )
