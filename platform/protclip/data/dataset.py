"""The training data in a fixed order: every rank reads its own rows, nothing is coordinated.

The order of an epoch is a function of (seed, epoch): row groups are permuted, then the rows inside
each. Global batch g is rows [g·G, (g+1)·G) of that order and rank r takes its r-th slice. The whole
state is therefore (epoch, g); resuming is exact, costs nothing, and works in the middle of an epoch
and with another number of workers. Where further samples of the same law were drawn, epochs take
turns with them, so that one epoch may be longer than another.

What is read: a row group comes by one request and is decoded whole, since its rows are permuted, but
only in the columns training needs. With P = G / world_size pairs per rank and row groups of R rows, a
rank reads about min(G, P + R) rows for each step: every row group once per epoch when R is at least G,
else the P rows it needs and what else lies in the row groups at the ends of its slice.
"""

import functools
import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from protclip.data.collate import Collator
from protclip.data.lookahead import LookAhead
from protclip.data.manifest import PairsManifest, Split
from protclip.errors import DataError
from protclip.parallel import part
from protclip.records import PROPERTIES
from protclip.storage import RowGroups, join
from protclip.tensors import Batch

COLUMNS = ("sequence", *map(str, PROPERTIES), "sampling_key")
AHEAD_ROW_GROUPS = 16
AHEAD_BYTES = 32 * 2**20
"""Most row groups a rank holds or waits for, and their size in all, as stored; decoded they take two to
three times that."""
PREFETCHED_BATCHES = 4


class Position(NamedTuple):
    """Where the data stands: the next global batch."""

    epoch: int = 0
    batch_index: int = 0


class Place(NamedTuple):
    """The row group that is the `place`-th of an epoch's order."""

    epoch: int
    place: int


class Piece(NamedTuple):
    """Rows that follow each other in an epoch's order and lie in one row group.

    Attributes:
        where: Their row group.
        start: First of them in the order of the row group's rows.
        stop: Last of them, plus 1.
    """

    where: Place
    start: int
    stop: int


class _Sample:
    """The files of one sample, its row groups numbered through."""

    def __init__(self, uri: str, split: Split) -> None:
        self.files = [RowGroups(join(uri, f.path), f.num_bytes, f.row_groups) for f in split.files]
        self.bytes_per_row = [f.num_bytes / f.rows for f in split.files]
        counts = [len(f.row_groups) for f in split.files]
        self.rows = np.array([rows for f in split.files for rows in f.row_groups], dtype=np.int64)
        self.file_of = np.repeat(np.arange(len(counts)), counts)
        self.first_of = np.cumsum([0, *counts])


class PairsDataset:
    """Rows of one split, addressed by their position in an epoch's order.

    Args:
        uri: Data set written by `sample_data`.
        split: "train", "valid" or "test".
        seed: Seed of the epoch orders.
        columns: What is read of the rows; those training needs by default.

    Raises:
        DataError: There is no such data set or split.
    """

    def __init__(self, uri: str, split: str, seed: int, columns: tuple[str, ...] = COLUMNS) -> None:
        manifest = PairsManifest.load(uri)
        if split not in manifest.splits:
            raise DataError(f"{uri}: no split {split!r}; it has {', '.join(manifest.splits)}")
        self.uri = uri
        self.split = split
        self._seed = seed
        self._columns = columns
        splits = manifest.train_samples if split == "train" else (manifest.splits[split],)
        self._samples = [_Sample(uri, split) for split in splits]
        # Two, since reading ahead passes into the next epoch.
        self._order = functools.lru_cache(maxsize=2)(self._make_order)
        self._last: tuple[Place, pa.Table] | None = None

    @property
    def num_samples(self) -> int:
        """Number of epochs after which the same pairs come again."""
        return len(self._samples)

    def num_pairs(self, epoch: int) -> int:
        """Pairs of an epoch."""
        return int(self._sample(epoch).rows.sum())

    def __len__(self) -> int:
        """Pairs of the first epoch; of every epoch unless further samples were drawn."""
        return self.num_pairs(0)

    def rows(self, epoch: int, start: int, stop: int) -> pa.Table:
        """Rows [start, stop) of the epoch's order.

        The row group read last is kept, so that calls that go forward read each one once.

        Raises:
            DataError: A file is missing, damaged, or not the one in the manifest.
        """
        tables = []
        for piece in self.pieces(epoch, start, stop):
            if self._last is None or self._last[0] != piece.where:
                self._last = piece.where, self.read(piece.where)
            tables.append(self.select(piece, self._last[1]))
        return pa.concat_tables(tables)

    def pieces(self, epoch: int, start: int, stop: int) -> Iterator[Piece]:
        """Where rows [start, stop) of the epoch's order lie, in order."""
        order, starts = self._order(epoch)
        rows = self._sample(epoch).rows
        for place in range(int(np.searchsorted(starts, start, "right")) - 1, len(order)):
            first = int(starts[place])
            if first >= stop:
                break
            last = min(stop - first, int(rows[order[place]]))
            yield Piece(Place(epoch, place), max(start - first, 0), last)

    def read(self, where: Place) -> pa.Table:
        """A whole row group; several threads may read at the same time.

        Raises:
            DataError: Its file is missing, damaged, or not the one in the manifest.
        """
        sample, group = self._sample(where.epoch), self._group(where)
        file = int(sample.file_of[group])
        return sample.files[file].read(group - int(sample.first_of[file]), self._columns)

    def stored_bytes(self, where: Place) -> int:
        """What a row group takes in its file, about."""
        sample, group = self._sample(where.epoch), self._group(where)
        return int(sample.rows[group] * sample.bytes_per_row[sample.file_of[group]])

    def select(self, piece: Piece, table: pa.Table) -> pa.Table:
        """The rows of a piece, out of its row group."""
        rng = np.random.default_rng([self._seed, piece.where.epoch, self._group(piece.where)])
        return table.take(pa.array(rng.permutation(len(table))[piece.start : piece.stop]))

    def _sample(self, epoch: int) -> _Sample:
        """What an epoch reads."""
        return self._samples[epoch % len(self._samples)]

    def _group(self, where: Place) -> int:
        """Number of a row group in its sample."""
        return int(self._order(where.epoch)[0][where.place])

    def _make_order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Permutation of the row groups, and the position at which each begins."""
        rows = self._sample(epoch).rows
        order = np.random.default_rng([self._seed, epoch]).permutation(len(rows))
        sizes = rows[order]
        return order, np.cumsum(sizes) - sizes


@dataclass(frozen=True, slots=True)
class LoadedBatch:
    """A rank's share of one global batch, with what the loop reports about it.

    Attributes:
        batches: Its microbatches.
        after: Position once this batch has been used.
        keys: uint64 sampling keys of all its pairs, in the order of the microbatches.
        num_residues: Residues in the share.
        padding_share: Share of the residue tensors that is padding.
    """

    batches: tuple[Batch, ...]
    after: Position
    keys: np.ndarray
    num_residues: int
    padding_share: float


class BatchIterator:
    """Endless batches of one rank from a position on, made ahead by a thread.

    Row groups are fetched and decoded by threads of their own, up to `AHEAD_ROW_GROUPS` or `AHEAD_BYTES`
    ahead, also across the border of an epoch. That, `PREFETCHED_BATCHES` + 2 batches and the footers of
    the files (see `RowGroups`) are all the memory taken. Nothing is shared between ranks.

    Args:
        dataset: The split.
        collate: Makes tensors.
        global_batch: Pairs per step over all ranks (G).
        rank: This rank.
        world_size: Number of ranks, at most `global_batch`.
        start: First global batch.
        micro_batch: Most pairs of a microbatch; None for one microbatch, whose pairs keep their order.
            Several have their rank's pairs by length. There are equally many on every rank; where ranks
            share unevenly and this is 1, a rank may have two pairs in one.
        gpu: Whether batches are for a GPU: they go to page-locked memory, and pairs are dealt out in
            turn, so that microbatches weigh alike; else pairs of like length stay together.

    Raises:
        DataError: The split, in any epoch, has less than one global batch.
    """

    def __init__(
        self,
        dataset: PairsDataset,
        collate: Collator,
        global_batch: int,
        rank: int,
        world_size: int,
        start: Position,
        micro_batch: int | None = None,
        gpu: bool = False,
    ) -> None:
        fewest = min(map(dataset.num_pairs, range(dataset.num_samples)))
        if fewest < global_batch:
            raise DataError(
                f"{dataset.uri}: {fewest} {dataset.split} pairs are fewer than one global batch of "
                f"{global_batch}; lower train.global_batch or sample more pairs"
            )
        assert global_batch >= world_size, "checked by PretrainConfig"
        self._dataset = dataset
        self._collate = collate
        self._global_batch = global_batch
        self._share = part(global_batch, rank, world_size)
        most = -(-global_batch // world_size)
        self._num_micro = min(-(-most // (micro_batch or most)), global_batch // world_size)
        self._start = start
        self._gpu = gpu

    def batches_per_epoch(self, epoch: int) -> int:
        """Whole global batches of an epoch; the pairs left over are not seen in it."""
        return self._dataset.num_pairs(epoch) // self._global_batch

    def __iter__(self) -> Generator[LoadedBatch, None, None]:
        """Yields batches in order; the reading threads end when the iterator is closed.

        Raises:
            DataError: A file is missing, damaged, or not the one in the manifest; raised in place of the
                first batch that needs it.
        """
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
                    ready.get(timeout=0.01)
                except queue.Empty:
                    continue
            thread.join()

    def _fill(self, ready: "queue.Queue[LoadedBatch | BaseException]", stop: threading.Event) -> None:
        """Makes batch after batch until told to stop; a failure is handed to the consumer."""
        data = self._dataset
        try:
            with LookAhead(
                self._places(), data.read, data.stored_bytes, AHEAD_ROW_GROUPS, AHEAD_BYTES
            ) as ahead:
                for position in self._positions():
                    if stop.is_set():
                        return
                    ready.put(self._load(position, ahead))
        except BaseException as error:  # noqa: BLE001 - it is raised again where the batch is awaited
            ready.put(error)

    def _positions(self) -> Iterator[Position]:
        """The global batches from the start on, epoch after epoch."""
        first = self._start.batch_index
        for epoch in count(self._start.epoch):
            yield from (Position(epoch, i) for i in range(first, self.batches_per_epoch(epoch)))
            first = 0

    def _pieces(self, position: Position) -> Iterator[Piece]:
        """Where this rank's slice of a global batch lies."""
        first = position.batch_index * self._global_batch
        start, stop = self._share
        return self._dataset.pieces(position.epoch, first + start, first + stop)

    def _places(self) -> Iterator[Place]:
        """The row groups this rank needs, in order, each once."""
        last = None
        for position in self._positions():
            for piece in self._pieces(position):
                if piece.where != last:
                    yield piece.where
                last = piece.where

    def _load(self, position: Position, ahead: LookAhead[Place, pa.Table]) -> LoadedBatch:
        """This rank's slice of one global batch."""
        tables = [self._dataset.select(piece, ahead.get(piece.where)) for piece in self._pieces(position)]
        rows = pa.concat_tables(tables)
        batches = [self._collate(rows.take(pa.array(taken)), position.epoch) for taken in self._dealt(rows)]
        num_residues = sum(batch.counts.residues for batch in batches)
        num_tokens = sum(batch.tokens_BL.numel() for batch in batches)
        return LoadedBatch(
            batches=tuple(batch.pin_memory() if self._gpu else batch for batch in batches),
            after=Position(position.epoch, position.batch_index + 1),
            keys=np.concatenate([batch.keys_B.numpy() for batch in batches]).view(np.uint64),
            num_residues=num_residues,
            padding_share=1 - (num_residues + 2 * len(rows)) / num_tokens,
        )

    def _dealt(self, rows: pa.Table) -> Iterator[np.ndarray]:
        """Numbers of the rows of each microbatch."""
        order = np.arange(len(rows))
        if self._num_micro > 1:
            lengths = pc.binary_length(rows.column("sequence")).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
            # The longest first: memory runs out at once or never.
            order = np.argsort(-lengths, kind="stable")
        for index in range(self._num_micro):
            if self._gpu:
                yield order[index :: self._num_micro]
            else:
                yield order[slice(*part(len(order), index, self._num_micro))]
