"""What suites keep and find again: results of finished runs, leak shares, and vectors.

    <root>/<key of the trial>.npz, .json                    units and ids of a run; all else, written last
    <root>/leaks-<id>.json                                  share of test proteins seen in pre-training
    <root>/vectors/<model digest>/<what>-<id>.npy, .keys.npy   vectors; whose they are, written last

Several suites may read and write at the same time: a file appears whole, and the same name holds the same.
"""

import hashlib
import io
import logging
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from protclip import storage
from protclip.data.families import content_ids
from protclip.errors import DataError
from protclip.evaluation.kind import Wanted
from protclip.evaluation.trial import Result, Trial

log = logging.getLogger(__name__)

IDS, UNIT = "ids", "unit-"
KEYS_SUFFIX, VECTORS_SUFFIX = ".keys.npy", ".npy"


class _Kept(BaseModel):
    """The JSON beside a result's arrays; unlike in configurations, a metric may be NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trial: dict[str, str | int]
    metrics: dict[str, float]
    counts: dict[str, int]
    notes: tuple[str, ...]
    seconds: float
    device: str
    sha256: str


class _Share(BaseModel):
    """A leak share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float


class ResultStore:
    """Finished runs and leak shares.

    Args:
        uri: Its root, local or `s3://`.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def find(self, trial: Trial) -> Result | None:
        """The result of a trial; None when there is none or, with a warning, when it is damaged."""
        uri = self._uri(trial, "json")
        if not storage.exists(uri):
            return None
        try:
            kept = _Kept.model_validate(storage.read_json(uri))
            arrays = storage.read_bytes(self._uri(trial, "npz"))
            if hashlib.sha256(arrays).hexdigest() != kept.sha256:
                raise DataError(f"{self._uri(trial, 'npz')}: not the file that belongs to {uri}")
        except (DataError, ValidationError) as error:
            log.warning("a kept result is damaged, the run is repeated: %s", error)
            return None
        with np.load(io.BytesIO(arrays), allow_pickle=False) as named:
            units = {name.removeprefix(UNIT): named[name] for name in named.files if name != IDS}
            ids = named[IDS].tolist()
        return Result(
            trial=trial,
            metrics=kept.metrics,
            units=units,
            ids=ids,
            counts=kept.counts,
            notes=kept.notes,
            seconds=kept.seconds,
            device=kept.device,
        )

    def add(self, result: Result) -> None:
        """Keeps the result of a trial that did not fail.

        Raises:
            DataError: The store cannot be written.
        """
        assert result.error is None
        buffer = io.BytesIO()
        units = {UNIT + name: values for name, values in result.units.items()}
        np.savez_compressed(buffer, allow_pickle=False, **{IDS: np.array(result.ids, np.str_), **units})
        stored = storage.write_bytes(self._uri(result.trial, "npz"), buffer.getvalue())
        kept = _Kept(
            trial=asdict(result.trial),
            metrics=dict(result.metrics),
            counts=dict(result.counts),
            notes=tuple(result.notes),
            seconds=result.seconds,
            device=result.device,
            sha256=stored.sha256,
        )
        storage.write_json(self._uri(result.trial, "json"), kept.model_dump())

    def find_share(self, key: str) -> float | None:
        """A leak share; None when it is not kept or, with a warning, when it is damaged."""
        uri = storage.join(self.uri, f"leaks-{key}.json")
        if not storage.exists(uri):
            return None
        try:
            return _Share.model_validate(storage.read_json(uri)).share
        except (DataError, ValidationError) as error:
            log.warning("a kept share of leaks is damaged and counted again: %s", error)
            return None

    def add_share(self, key: str, share: float) -> None:
        """Keeps a leak share.

        Raises:
            DataError: The store cannot be written.
        """
        storage.write_json(storage.join(self.uri, f"leaks-{key}.json"), _Share(share=share).model_dump())

    def _uri(self, trial: Trial, suffix: str) -> str:
        """One of a trial's two files."""
        return storage.join(self.uri, f"{trial.key}.{suffix}")


class VectorStore:
    """Vectors of sequences and texts by one model, as they were when first asked for.

    Args:
        uri: Root of the results.
        model_digest: What identifies the model.
    """

    def __init__(self, uri: str, model_digest: str) -> None:
        self._folder = storage.join(uri, "vectors", model_digest)
        self._shelves: dict[Wanted, _Shelf] = {}

    def missing(self, what: Wanted, items: Sequence[str]) -> list[str]:
        """The items without a vector, each once, shortest first."""
        distinct = sorted(set(items), key=lambda item: (len(item), item))
        found_N = self._shelf(what).places(identities(distinct))[1]
        return [item for item, found in zip(distinct, found_N, strict=True) if not found]

    def find(self, what: Wanted, items: Sequence[str]) -> tuple[np.ndarray | None, np.ndarray]:
        """Vectors of items.

        Returns:
            (N, D) float32, rows of zeros for items without one, None when no item has one; and bool (N,),
            whether an item has one.

        Raises:
            DataError: A file is gone or cannot be read.
        """
        shelf = self._shelf(what)
        place_N, found_N = shelf.places(identities(items))
        return (shelf.take(place_N, found_N) if found_N.any() else None), found_N

    def add(self, what: Wanted, items: Sequence[str], vectors_ND: np.ndarray) -> None:
        """Keeps vectors of distinct items; who looked before does not see them.

        Raises:
            DataError: The store cannot be written.
        """
        keys_N = identities(items)
        name = storage.join(self._folder, f"{what}-{hashlib.sha256(keys_N.tobytes()).hexdigest()[:16]}")
        _save(name + VECTORS_SUFFIX, vectors_ND.astype(np.float32))
        _save(name + KEYS_SUFFIX, keys_N)

    def _shelf(self, what: Wanted) -> "_Shelf":
        """All vectors of a sort that are there when it is first asked for."""
        if what not in self._shelves:
            self._shelves[what] = _Shelf(self._folder, what)
        return self._shelves[what]


class _Shelf:
    """The vectors of one sort, mapped into memory when they are taken."""

    def __init__(self, folder: str, what: str) -> None:
        files = storage.list_files(folder, KEYS_SUFFIX) if storage.exists(folder) else []
        keys = [np.empty(0, np.uint64)]
        self._uris: list[str] = []
        for file in files:
            if storage.basename(file.uri).startswith(f"{what}-"):
                self._uris.append(file.uri.removesuffix(KEYS_SUFFIX) + VECTORS_SUFFIX)
                keys.append(np.load(io.BytesIO(storage.read_bytes(file.uri)), allow_pickle=False))
        self._starts = np.cumsum([len(part) for part in keys])
        together = np.concatenate(keys)
        self._order = np.argsort(together, kind="stable")
        self._sorted = together[self._order]

    def places(self, keys_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where each key stands among all vectors, and whether it does."""
        if not len(self._sorted):
            return np.zeros(len(keys_N), np.int64), np.zeros(len(keys_N), bool)
        at_N = np.minimum(np.searchsorted(self._sorted, keys_N), len(self._sorted) - 1)
        return self._order[at_N], self._sorted[at_N] == keys_N

    def take(self, place_N: np.ndarray, found_N: np.ndarray) -> np.ndarray:
        """The vectors at these places."""
        file_N = np.searchsorted(self._starts, place_N, side="right") - 1
        vectors_ND: np.ndarray | None = None
        for number in np.unique(file_N[found_N]):
            mapped = np.load(storage.cached(self._uris[number]), mmap_mode="r", allow_pickle=False)
            if vectors_ND is None:
                vectors_ND = np.zeros((len(place_N), mapped.shape[1]), np.float32)
            rows = found_N & (file_N == number)
            vectors_ND[rows] = mapped[place_N[rows] - self._starts[number]]
        assert vectors_ND is not None
        return vectors_ND


def identities(items: Sequence[str]) -> np.ndarray:
    """uint64 identity of each sequence or text."""
    return content_ids(pa.array(items, pa.large_string()))


def _save(uri: str, array: np.ndarray) -> None:
    """Writes an array atomically."""
    with storage.atomic_writer(uri) as sink:
        np.lib.format.write_array(sink, np.ascontiguousarray(array), allow_pickle=False)
