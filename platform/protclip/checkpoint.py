"""Checkpoints on disk: complete or absent, verified when read, never a pickle.

A checkpoint is a directory:

    model.safetensors   parameters of the whole model
    state.pt            optimizer and schedule; tensors and plain containers only
    config.json         the run's configuration
    architecture.json   sizes of both towers, so that the model is rebuilt without any download
    tokenizer.json      the text tokenizer
    meta.json           step, position in the data, run id, sha256 of every other file; written last
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from protclip import storage
from protclip.config.schema import PretrainConfig
from protclip.errors import CheckpointError, DataError

log = logging.getLogger(__name__)

META, WEIGHTS, STATE = "meta.json", "model.safetensors", "state.pt"
CONFIG, ARCHITECTURE, TOKENIZER = "config.json", "architecture.json", "tokenizer.json"


class Meta(BaseModel):
    """What a checkpoint says of itself.

    Attributes:
        step: Optimisation steps done.
        epoch: Epoch of the next global batch.
        batch_index: Index of the next global batch within the epoch.
        run_id: MLflow run to continue, if any.
        data_manifest: sha256 of the pairs' manifest.
        git_sha: Commit of the code, when known.
        files: sha256 per file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int
    epoch: int
    batch_index: int
    run_id: str | None
    data_manifest: str
    git_sha: str | None
    files: dict[str, str]


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


def save(
    directory: Path,
    *,
    weights: dict[str, Tensor],
    state: dict[str, Any],
    config: PretrainConfig,
    architecture: dict[str, Any],
    tokenizer_json: str,
    step: int,
    epoch: int,
    batch_index: int,
    run_id: str | None,
    data_manifest: str,
    git_sha: str | None,
) -> Meta:
    """Writes a checkpoint into a local directory; `meta.json`, which makes it complete, comes last."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, directory / WEIGHTS
    )
    torch.save(state, directory / STATE)
    local = str(directory)
    storage.write_json(storage.join(local, CONFIG), config.model_dump(mode="json"))
    storage.write_json(storage.join(local, ARCHITECTURE), architecture)
    storage.write_bytes(storage.join(local, TOKENIZER), tokenizer_json.encode())
    names = (WEIGHTS, STATE, CONFIG, ARCHITECTURE, TOKENIZER)
    meta = Meta(
        step=step,
        epoch=epoch,
        batch_index=batch_index,
        run_id=run_id,
        data_manifest=data_manifest,
        git_sha=git_sha,
        files={name: storage.sha256(storage.join(local, name)) for name in names},
    )
    storage.write_json(storage.join(local, META), meta.model_dump(mode="json"))
    return meta


def resolve(uri: str) -> str:
    """The checkpoint a URI means: itself, or the newest complete one below it.

    Raises:
        CheckpointError: There is none.
    """
    try:
        found = [f.uri for f in storage.list_files(uri, suffix="/" + META)]
    except DataError as error:
        raise CheckpointError(f"{uri}: no checkpoint here: {error}") from error
    if not found:
        raise CheckpointError(f"{uri}: no complete checkpoint here; give a run or checkpoint directory")
    newest = max(found, key=lambda path: (int(storage.read_json(path).get("step", -1)), path))
    return newest.removesuffix("/" + META)


def read_meta(directory: Path, uri: str) -> Meta:
    """Reads and verifies a local checkpoint directory; `uri` is what messages name.

    Raises:
        CheckpointError: A file is missing or differs from its checksum.
    """
    if not (directory / META).is_file():
        raise CheckpointError(f"{uri}: incomplete checkpoint ({META} is missing); use an older one")
    try:
        meta = Meta.model_validate(storage.read_json(str(directory / META)))
    except (ValidationError, DataError) as error:
        raise CheckpointError(f"{uri}: {META} is damaged: {error}") from error
    for name, digest in meta.files.items():
        path = directory / name
        if not path.is_file() or storage.sha256(str(path)) != digest:
            raise CheckpointError(f"{uri}: {name} is missing or damaged; use another checkpoint")
    return meta


def peek(uri: str) -> tuple[Meta, PretrainConfig]:
    """What a checkpoint says of itself and the configuration it was trained with, without weights.

    Raises:
        CheckpointError: It is from another version.
    """
    try:
        meta = Meta.model_validate(storage.read_json(storage.join(uri, META)))
        return meta, PretrainConfig.model_validate(storage.read_json(storage.join(uri, CONFIG)))
    except ValidationError as error:
        raise CheckpointError(f"{uri}: {META} or {CONFIG} is from another version: {error}") from error


def load(uri: str) -> LoadedCheckpoint:
    """Reads a checkpoint for inference.

    Args:
        uri: A checkpoint directory, or a run's directory, whose newest checkpoint is taken.

    Raises:
        CheckpointError: None is there, or it is damaged.
    """
    resolved = resolve(uri)
    with storage.local_directory(resolved) as directory:
        meta = read_meta(directory, resolved)
        local = str(directory)
        try:
            config = PretrainConfig.model_validate(storage.read_json(storage.join(local, CONFIG)))
        except ValidationError as error:
            raise CheckpointError(f"{resolved}: {CONFIG} is from another version: {error}") from error
        return LoadedCheckpoint(
            uri=resolved,
            meta=meta,
            config=config,
            architecture=storage.read_json(storage.join(local, ARCHITECTURE)),
            tokenizer_json=(directory / TOKENIZER).read_text(),
            weights=load_weights(directory),
        )


def load_weights(directory: Path) -> dict[str, Tensor]:
    """Parameters of a local checkpoint by name, on the CPU."""
    return load_file(directory / WEIGHTS)


def load_state(directory: Path) -> dict[str, Any]:
    """Optimizer and schedule of a local checkpoint, without running any pickle."""
    return torch.load(directory / STATE, map_location="cpu", weights_only=True)
