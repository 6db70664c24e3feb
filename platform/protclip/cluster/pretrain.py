"""Pre-training on Ray Train: checks on the driver, workers around the Ray-free loop, one MLflow run."""

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import TorchConfig, TorchTrainer

from protclip import checkpoint, parallel, storage
from protclip.cluster.progress import Post, progress_line
from protclip.cluster.session import connect, has_gpu
from protclip.config.load import dump_yaml
from protclip.config.schema import PretrainConfig
from protclip.data.manifest import MANIFEST_NAME, TOKENIZER_NAME, PairsManifest
from protclip.data.tokenizer import TextTokenizer
from protclip.errors import CheckpointError, ConfigError, DataError
from protclip.model.text import PRESETS as TEXT_PRESETS
from protclip.tracking.base import NullTracker, Tracker
from protclip.tracking.mlflow import attach, log_checkpoint_model, open_run, tracking_uri
from protclip.tracking.params import flatten, masked
from protclip.training.loop import Resume, train

log = logging.getLogger(__name__)

RESUMABLE_KEYS = ("train.max_steps", "train.log_every", "train.valid_", "train.checkpoint_every")
RESUMABLE_KEYS += ("train.keep_checkpoints", "scaling.", "tracking.", "run.", "data")
"""Keys a continued run may change; `data` is held against the manifest's digest instead."""


def pretrain(config: PretrainConfig) -> dict[str, object]:
    """Trains ProtCLIP and remembers the run.

    Submitting the same `run.name` and `run.storage` again continues from the newest checkpoint.

    Returns:
        URIs of run, checkpoint and MLflow model, steps, final metrics and the MLflow run id.

    Raises:
        ConfigError: The configuration contradicts the data or the run to be continued.
        DataError: The pairs or the storage cannot be used.
        CheckpointError: The newest checkpoint is damaged.
    """
    manifest = check_data(config)
    run_uri = storage.join(config.run.storage, config.run.name)
    storage.write_bytes(storage.join(run_uri, ".writable"), b"")
    previous = _newest(run_uri)
    if previous:
        check_resume(config, *previous)
    connect(min_cpus=int(config.scaling.num_workers * config.scaling.cpus_per_worker))
    tracker = open_run(
        config.tracking,
        config.run.name,
        run_id=previous[0].run_id if previous else None,
        tags={"job": "pretrain", "data_manifest": PairsManifest.digest(config.data), "data": config.data},
    )
    status = "FAILED"
    try:
        tracker.log_params(flatten(config))
        tracker.log_text(masked(dump_yaml(config)), "config.yaml")
        _log_data(tracker, config.data, manifest)
        result = _fit(config, tracker.run_id)
        uri = checkpoint.resolve(run_uri)
        tracker.set_tags({"checkpoint": uri})
        model = log_checkpoint_model(tracker, uri)
        status = "FINISHED"
    finally:
        tracker.close(status)
    return {
        "run": run_uri,
        "checkpoint": uri,
        "model": model,
        "steps": config.train.max_steps,
        "metrics": {k: v for k, v in (result.metrics or {}).items() if k.startswith("valid/")},
        "run_id": tracker.run_id,
    }


def check_data(config: PretrainConfig) -> PairsManifest:
    """Holds the configuration against the pairs, before any worker starts.

    Raises:
        DataError: There are no such pairs, or too few.
        ConfigError: The text encoder reads another tokenizer's tokens.
    """
    manifest = PairsManifest.load(config.data)
    rows = min(split.rows for split in manifest.train_samples)
    if rows < config.train.global_batch:
        raise DataError(
            f"{config.data}: {rows} training pairs are fewer than train.global_batch="
            f"{config.train.global_batch}; lower it or sample more pairs"
        )
    source = config.model.text.source
    if (
        source not in TEXT_PRESETS
        and TextTokenizer.load(source).fingerprint != manifest.tokenizer.fingerprint
    ):
        raise ConfigError(
            f"{config.data} was tokenised with {manifest.tokenizer.source!r}, but "
            f"model.text.source={source!r} reads another vocabulary; run sample_data again with "
            f"tokenizer={source}"
        )
    made = TextTokenizer.from_json(storage.read_bytes(storage.join(config.data, TOKENIZER_NAME)).decode())
    if made.fingerprint != manifest.tokenizer.fingerprint:
        raise DataError(
            f"{config.data}: {TOKENIZER_NAME} is not the tokenizer the manifest names; run sample_data again"
        )
    return manifest


def check_resume(config: PretrainConfig, meta: checkpoint.Meta, previous: PretrainConfig) -> None:
    """Refuses to continue a run with settings that would make it another run.

    Raises:
        ConfigError: Keys differ that may not, or the data is another.
    """
    before, now = flatten(previous), flatten(config)
    differing = [
        f"{key}: {before.get(key)} -> {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(RESUMABLE_KEYS)
    ]
    if PairsManifest.digest(config.data) != meta.data_manifest:
        differing.append(f"data: the pairs at {config.data} are not those the run was trained on")
    if differing:
        raise ConfigError(
            f"run {config.run.name!r} exists with other settings; choose another run.name or undo: "
            + "; ".join(differing)
        )


def _newest(run_uri: str) -> tuple[checkpoint.Meta, PretrainConfig] | None:
    """What the newest checkpoint of a run says, None for a new run."""
    try:
        uri = checkpoint.resolve(run_uri)
    except CheckpointError:
        return None
    return checkpoint.peek(uri)


def _log_data(tracker: Tracker, data: str, manifest: PairsManifest) -> None:
    """Puts what the run is trained on beside its curves: the manifest, the sampling table and picture."""
    tracker.log_text(manifest.model_dump_json(indent=2), f"data/{MANIFEST_NAME}")
    with tempfile.TemporaryDirectory(prefix="protclip-") as directory:
        for name in ("sampling.png", "sampling.md"):
            if storage.exists(uri := storage.join(data, name)):
                copy = Path(directory, name)
                copy.write_bytes(storage.read_bytes(uri))
                tracker.log_file(copy, "data")


def _fit(config: PretrainConfig, run_id: str | None) -> ray.train.Result:
    """Runs the workers to the end."""
    scaling, run = config.scaling, config.run
    use_gpu = has_gpu() if scaling.use_gpu is None else scaling.use_gpu
    filesystem, path = storage.filesystem(run.storage)
    # Beside the configuration, which checkpoints keep: a tracking URI may hold a password.
    tracking = config.tracking.model_copy(update={"uri": tracking_uri(config.tracking.uri)})
    with progress_line(config.train.max_steps, run.name) as post:
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"config": config, "tracking": tracking, "run_id": run_id, "post": post},
            scaling_config=ray.train.ScalingConfig(
                num_workers=scaling.num_workers,
                use_gpu=use_gpu,
                resources_per_worker={"CPU": scaling.cpus_per_worker} | ({"GPU": 1} if use_gpu else {}),
            ),
            run_config=ray.train.RunConfig(
                name=run.name,
                storage_path=path,
                storage_filesystem=filesystem,
                failure_config=ray.train.FailureConfig(max_failures=scaling.max_failures),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=config.train.keep_checkpoints),
            ),
            torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        )
        return trainer.fit()


def _worker(given: dict[str, Any]) -> None:
    """One rank: resume if there is something to resume from, then the loop."""
    config: PretrainConfig = given["config"]
    use_gpu = torch.cuda.is_available()
    device = torch.device("cuda", torch.cuda.current_device()) if use_gpu else torch.device("cpu")
    if not use_gpu:
        torch.set_num_threads(max(1, int(config.scaling.cpus_per_worker)))
    tracker = NullTracker() if parallel.rank() else attach(given["tracking"], given["run_id"])
    try:
        with _resume() as resume:
            train(config, _Reporter(tracker, given["post"]), device, resume=resume, run_id=given["run_id"])
    finally:
        tracker.flush()


@contextmanager
def _resume() -> Iterator[Resume | None]:
    """The checkpoint Ray Train would have this worker continue from, as a local directory."""
    found = ray.train.get_checkpoint()
    if found is None:
        yield None
        return
    with found.as_directory() as directory:
        yield Resume(Path(directory), found.path)


class _Reporter:
    """Rank 0 tracks and shows; all ranks meet at checkpoints."""

    def __init__(self, tracker: Tracker, post: Post) -> None:
        self._tracker = tracker
        self._post = post

    def metrics(self, metrics: dict[str, float], step: int) -> None:
        """Sends numbers to the tracker."""
        self._tracker.log_metrics(metrics, step)

    def progress(self, step: int, text: str) -> None:
        """Moves the driver's progress line."""
        if parallel.rank() == 0:
            self._post(step, text)

    def save(self, write: Callable[[Path], None], metrics: dict[str, float], step: int) -> None:
        """Writes on rank 0 and hands the directory to Ray Train, which stores it under the run."""
        name = f"step-{step:08d}"
        if parallel.rank():
            ray.train.report(metrics, checkpoint_dir_name=name)
            return
        with tempfile.TemporaryDirectory(prefix="protclip-") as directory:
            write(Path(directory))
            stored = ray.train.Checkpoint.from_directory(directory)
            ray.train.report(metrics | {"step": step}, stored, checkpoint_dir_name=name)
