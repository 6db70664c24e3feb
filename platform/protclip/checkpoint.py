"""Checkpoints: complete or absent, verified when read, never a pickle.

A checkpoint is a directory that holds `meta.json` and, below it, the files of one attempt to write it:

    meta.json                                      step, position in the data, run, sha256 of every file
    <attempt>/model-00000-of-00004.safetensors     parameters, each rank's share of whole tensors
    <attempt>/optimizer-00000-of-00004.safetensors Adam's moments and counts, `exp_avg/<parameter>` …
    <attempt>/config.json                          the run's configuration
    <attempt>/architecture.json                    sizes of both towers, to rebuild the model from
    <attempt>/tokenizer.json                       the text tokenizer

`meta.json` is written last and at once, so it names files that are all there: without it a directory is
no checkpoint, and a second attempt at the same step replaces the first whole or not at all. Tensors are
whole whatever the number of ranks and the strategy that wrote them.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import safe_open
from torch import Tensor

from protclip import storage
from protclip.config.schema import PretrainConfig
from protclip.errors import CheckpointError, DataError

log = logging.getLogger(__name__)

META, CONFIG, ARCHITECTURE, TOKENIZER = "meta.json", "config.json", "architecture.json", "tokenizer.json"
MODEL, OPTIMIZER = "model", "optimizer"
BLOCK_BYTES = 16 * 2**20

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Names of the safetensors format."""


class FileEntry(BaseModel):
    """Size and sha256 of a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_bytes: int
    sha256: str


class Meta(BaseModel):
    """What a checkpoint says of itself.

    Attributes:
        step: Optimisation steps done.
        epoch: Epoch of the next global batch.
        batch_index: Index of the next global batch within the epoch.
        skipped: Steps whose update was left out, since a gradient was not finite.
        run_id: MLflow run to continue, if any.
        data_manifest: sha256 of the pairs' manifest.
        git_sha: Commit of the code, when known.
        world_size: Ranks that wrote it.
        metrics: Validation at that step, if there was one.
        files: Size and sha256 by path inside the checkpoint.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int
    epoch: int
    batch_index: int
    skipped: int
    run_id: str | None
    data_manifest: str
    git_sha: str | None
    world_size: int
    metrics: dict[str, float]
    files: dict[str, FileEntry]

    def paths(self, role: str) -> list[str]:
        """Paths of the files of one role: `MODEL` or `OPTIMIZER`."""
        return sorted(path for path in self.files if storage.basename(path).startswith(f"{role}-"))

    def for_inference(self) -> "Meta":
        """The same without the optimizer's files."""
        optimizer = self.paths(OPTIMIZER)
        files = {path: entry for path, entry in self.files.items() if path not in optimizer}
        return self.model_copy(update={"files": files})


@dataclass(frozen=True, slots=True)
class LoadedCheckpoint:
    """A checkpoint in memory.

    Attributes:
        uri: The checkpoint's directory (not the run's).
        meta: Step, data position, digests.
        config: The run's configuration.
        architecture: Sizes of both towers (`model.protclip.Architecture` as a dict).
        tokenizer_json: The text tokenizer.
        weights: Parameters by name, on the CPU.
    """

    uri: str
    meta: Meta
    config: PretrainConfig
    architecture: dict[str, Any]
    tokenizer_json: str
    weights: dict[str, Tensor]


class Tensors(Mapping[str, Tensor]):
    """The tensors of one role of a local checkpoint by name, each read when it is asked for.

    Args:
        directory: The checkpoint, verified.
        meta: What it says of itself.
        role: `MODEL` or `OPTIMIZER`.
    """

    def __init__(self, directory: Path, meta: Meta, role: str) -> None:
        files = [safe_open(directory / path, "pt") for path in meta.paths(role)]
        self._file_of = {name: file for file in files for name in file.keys()}  # noqa: SIM118 - no mapping

    def __getitem__(self, name: str) -> Tensor:
        return self._file_of[name].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)


@dataclass(frozen=True, slots=True)
class Found:
    """A complete and verified checkpoint to continue from.

    Attributes:
        uri: Where it is.
        meta: What it says of itself.
        directory: Its files on this node.
    """

    uri: str
    meta: Meta
    directory: Path

    @property
    def architecture(self) -> dict[str, Any]:
        """Sizes of both towers, as `LoadedCheckpoint` has them."""
        return json.loads(read_text(str(self.directory), self.meta, ARCHITECTURE))

    @property
    def parameters(self) -> Tensors:
        """The model's parameters by name."""
        return Tensors(self.directory, self.meta, MODEL)

    @property
    def moments(self) -> Tensors:
        """The optimizer's state by `<what>/<parameter>`."""
        return Tensors(self.directory, self.meta, OPTIMIZER)


def file_name(role: str, rank: int, world_size: int) -> str:
    """Name of a rank's share of the tensors of one role."""
    return f"{role}-{rank:05}-of-{world_size:05}.safetensors"


def write_tensors(uri: str, tensors: Mapping[str, Tensor]) -> FileEntry:
    """Streams tensors of host memory to a safetensors file: nothing is held twice.

    The library's own writer wants a local file, or the whole content as one `bytes`.

    Raises:
        DataError: The target cannot be written.
    """
    # Wide types first, so that every tensor is aligned, as the library does it.
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    header: dict[str, dict[str, object]] = {}
    end = 0
    for name in names:
        start, end = end, end + tensors[name].nbytes
        shape = list(tensors[name].shape)
        header[name] = {"dtype": DTYPES[tensors[name].dtype], "shape": shape, "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with storage.atomic_writer(uri) as sink:
        sink.write(len(encoded).to_bytes(8, "little") + encoded)
        for name in names:
            content = tensors[name].reshape(-1).view(torch.uint8).numpy().data
            for start in range(0, len(content), BLOCK_BYTES):
                sink.write(content[start : start + BLOCK_BYTES])
    return entry(sink.stored)


def entry(stored: storage.StoredFile | None) -> FileEntry:
    """What `meta.json` says of a file that was written."""
    assert stored is not None
    return FileEntry(num_bytes=stored.num_bytes, sha256=stored.sha256)


def read_meta(uri: str) -> Meta:
    """What a checkpoint says of itself.

    Raises:
        CheckpointError: It is damaged, or from another version.
        DataError: It is not there or cannot be read.
    """
    try:
        return Meta.model_validate_json(storage.read_bytes(storage.join(uri, META)))
    except ValidationError as error:
        raise CheckpointError(
            f"{uri}: {META} is damaged or from another version ({error.error_count()} keys are wrong); use "
            "another checkpoint"
        ) from error


def complete(uri: str) -> list[tuple[str, Meta]]:
    """The complete checkpoints at or below a URI, newest first; damaged ones are passed over with a warning.

    Raises:
        DataError: The storage cannot be read.
    """
    found: list[tuple[str, Meta]] = []
    if not storage.exists(uri):
        return found
    for file in storage.list_files(uri, suffix="/" + META):
        directory = file.uri.removesuffix("/" + META)
        try:
            found.append((directory, read_meta(directory)))
        except CheckpointError as error:
            log.warning("%s", error)
    return sorted(found, key=lambda item: (item[1].step, item[0]), reverse=True)


def resolve(uri: str) -> str:
    """The checkpoint a URI means: itself, or the newest complete one below it.

    Raises:
        CheckpointError: There is none.
    """
    try:
        found = complete(uri)
    except DataError as error:
        raise CheckpointError(f"{uri}: no checkpoint here: {error}") from error
    if not found:
        raise CheckpointError(f"{uri}: no complete checkpoint here; give a run or checkpoint directory")
    return found[0][0]


def peek(uri: str) -> tuple[Meta, PretrainConfig]:
    """What a checkpoint says of itself and the configuration it was trained with, without weights.

    Raises:
        CheckpointError: It is damaged, or from another version.
        DataError: It cannot be read.
    """
    meta = read_meta(uri)
    return meta, _config(read_text(uri, meta, CONFIG), uri)


def read_text(uri: str, meta: Meta, name: str) -> str:
    """The content of `CONFIG`, `ARCHITECTURE` or `TOKENIZER` of a checkpoint, verified.

    Raises:
        CheckpointError: It is missing or damaged.
        DataError: The storage cannot be read.
    """
    path = next((path for path in meta.files if storage.basename(path) == name), None)
    if path is None:
        raise CheckpointError(f"{uri}: {META} names no {name}; use another checkpoint")
    place = storage.join(uri, path)
    content = storage.read_bytes(place) if storage.exists(place) else b""
    if hashlib.sha256(content).hexdigest() != meta.files[path].sha256:
        raise _damaged(place)
    return content.decode()


def fetch(uri: str, meta: Meta) -> Path:
    """A checkpoint on this node, every file that `meta` names verified: itself when local, else a kept copy.

    Raises:
        CheckpointError: A file is missing or damaged.
        DataError: The storage cannot be read.
    """
    try:
        return storage.cached_directory(uri, {path: file.sha256 for path, file in meta.files.items()})
    except DataError:
        # Whose fault it is decides what comes next: a damaged checkpoint is passed over for an older one,
        # a store that does not answer is not.
        there = {file.uri: file.num_bytes for file in storage.list_files(uri)}
        for path, file in meta.files.items():
            place = storage.join(uri, path)
            if there.get(place) != file.num_bytes or storage.sha256(place) != file.sha256:
                raise _damaged(place) from None
        raise


def load(uri: str) -> LoadedCheckpoint:
    """Reads a checkpoint for inference.

    Args:
        uri: A checkpoint directory, or a run's directory, whose newest checkpoint is taken.

    Raises:
        CheckpointError: None is there, or it is damaged.
        DataError: The storage cannot be read.
    """
    resolved = resolve(uri)
    meta = read_meta(resolved)
    directory = fetch(resolved, meta.for_inference())
    local = str(directory)
    return LoadedCheckpoint(
        uri=resolved,
        meta=meta,
        config=_config(read_text(local, meta, CONFIG), resolved),
        architecture=json.loads(read_text(local, meta, ARCHITECTURE)),
        tokenizer_json=read_text(local, meta, TOKENIZER),
        weights=dict(Tensors(directory, meta, MODEL)),
    )


def copy_for_inference(uri: str, directory: Path) -> None:
    """Copies a checkpoint without the optimizer; `load` takes the copy.

    Args:
        uri: The checkpoint, or a run, whose newest one is taken.
        directory: Where it is wanted; made when it is not there.

    Raises:
        CheckpointError: There is none, or it is damaged.
        DataError: It cannot be read or the copy not be written.
    """
    resolved = resolve(uri)
    meta = read_meta(resolved).for_inference()
    source = fetch(resolved, meta)
    for path in meta.files:
        storage.copy_to(source / path, str(directory / path))
    storage.write_json(str(directory / META), meta.model_dump(mode="json"))


def _damaged(place: str) -> CheckpointError:
    """The error of a file that is not what was written."""
    return CheckpointError(f"{place}: missing or damaged; use another checkpoint")


def _config(text: str, uri: str) -> PretrainConfig:
    """A run's configuration."""
    try:
        return PretrainConfig.model_validate_json(text)
    except ValidationError as error:
        raise CheckpointError(f"{uri}: {CONFIG} is from another version: {error}") from error
