"""Pre-training on Ray Train: checks on the driver, workers around the Ray-free loop, one MLflow run.

What happens when a worker, the driver or a node goes away is told in `docs/resume.md`.
"""

import logging
import tempfile
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import ray
import ray.train
from ray.exceptions import RayActorError
from ray.train.torch import TorchTrainer

from protclip import checkpoint, storage
from protclip.cluster.board import Heed, Supervisor, supervising
from protclip.cluster.claim import claimed
from protclip.cluster.errors import user_error
from protclip.cluster.group import GroupConfig, NoRetry, StartLimit, died, in_thread, signals_to
from protclip.cluster.room import Need, check_room
from protclip.cluster.session import connect, has_gpu
from protclip.cluster.worker import run_rank
from protclip.config.keys import flatten
from protclip.config.load import dump_yaml
from protclip.config.schema import PretrainConfig, ScalingConfig
from protclip.data.manifest import MANIFEST_NAME, TOKENIZER_NAME, PairsManifest
from protclip.data.tokenizer import TextTokenizer
from protclip.errors import CheckpointError, ConfigError, DataError, StoppedError, TrainingError
from protclip.model.text import PRESETS as TEXT_PRESETS
from protclip.tracking.base import Param, Tracker
from protclip.tracking.ending import closing
from protclip.tracking.mlflow import open_run
from protclip.tracking.models import log_checkpoint_model
from protclip.tracking.params import masked
from protclip.training.optim import lr_factor

log = logging.getLogger(__name__)

RESUMABLE_KEYS = (
    "train.max_steps",
    "train.log_every",
    "train.valid_",
    "train.checkpoint_every",
    "train.keep_",
    "train.best_metric",
    "train.nonfinite_limit",
    "train.peak_tflops",
    "train.micro_batch",
    "train.compile",
    "model.protein.checkpointing",
    "model.text.checkpointing",
    "scaling.",
    "tracking.",
    "run.",
    "data",
)
"""Keys a continued run may change: they say how and where is computed, what is measured and kept.

`data` is held against the manifest's digest instead; `train.max_steps` is allowed with a warning.
"""


@dataclass(frozen=True, slots=True)
class Part:
    """What a training has to do with whoever runs several of them.

    Attributes:
        parent_id: MLflow run to nest a new run under.
        varied: What it differs by from the others, logged as parameters `varied/KEY`.
        heed: Is told the metrics that the run's tracker is told.
        stop: Set from outside when the training shall stop.
    """

    parent_id: str | None = None
    varied: Mapping[str, Param] = field(default_factory=dict)
    heed: Heed = lambda metrics, step: None
    stop: threading.Event = field(default_factory=threading.Event)


def pretrain(config: PretrainConfig, part: Part | None = None) -> dict[str, object]:
    """Trains ProtCLIP and remembers the run.

    Submitting the same `run.name` and `run.storage` again continues from the newest checkpoint.

    Args:
        config: The run.
        part: For one of several trainings.

    Returns:
        URIs of run, checkpoint and MLflow model, steps, final metrics and the MLflow run id.

    Raises:
        ConfigError: The configuration contradicts the data or the run to be continued.
        DataError: The pairs or the storage cannot be used, or another job writes to the run.
        CheckpointError: The newest checkpoint is from another version.
        TrainingError: The training cannot go on.
        StoppedError: It was asked to stop (SIGTERM, Ctrl-C), and has written a checkpoint.
    """
    part = part or Part()
    manifest = check_data(config)
    run_uri = storage.join(config.run.storage, config.run.name)
    with claimed(run_uri) as claim:
        previous = _newest(run_uri)
        if previous:
            check_resume(config, *previous)
        connect(min_cpus=int(config.scaling.num_workers * config.scaling.cpus_per_worker))
        check_room(workers(config.scaling))
        tracker = open_run(
            config.tracking,
            config.run.name,
            run_id=previous[0].run_id if previous else None,
            parent_id=part.parent_id,
            tags={"job": "pretrain", "data_manifest": PairsManifest.digest(config.data), "data": config.data},
        )
        with closing(tracker):
            tracker.log_params(flatten(config) | {f"varied/{key}": v for key, v in part.varied.items()})
            tracker.log_text(masked(dump_yaml(config)), "config.yaml")
            _log_data(tracker, config.data, manifest)
            steps = _fit(config, tracker, claim.job, part)
            uri, meta = checkpoint.complete(run_uri)[0]
            tracker.set_tags({"checkpoint": uri})
            if steps < config.train.max_steps:
                raise StoppedError(
                    f"stopped at step {meta.step} of {config.train.max_steps}, checkpoint {uri}; submit the "
                    "same command again to continue"
                )
            model = log_checkpoint_model(tracker, uri, wait_s=config.tracking.wait_s)
    return {
        "run": run_uri,
        "checkpoint": uri,
        "model": model,
        "steps": meta.step,
        "metrics": {name: value for name, value in meta.metrics.items() if name.startswith("valid/")},
        "run_id": tracker.run_id,
    }


def workers(scaling: ScalingConfig) -> Need:
    """The workers that a training on the connected cluster cannot begin without."""
    use_gpu = has_gpu() if scaling.use_gpu is None else scaling.use_gpu
    remedy = "lower scaling.num_workers or scaling.cpus_per_worker, or set scaling.min_workers"
    if scaling.min_workers:
        remedy = "lower scaling.min_workers or scaling.cpus_per_worker"
    return Need(
        scaling.min_workers or scaling.num_workers,
        {"CPU": scaling.cpus_per_worker} | ({"GPU": 1} if use_gpu else {}),
        remedy + (", or set scaling.use_gpu=false" if use_gpu else ""),
    )


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
        not config.model.init
        and source not in TEXT_PRESETS
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
        ConfigError: Keys differ that may not, the data is another, or the run is past `train.max_steps`.
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
    most, most_before = config.train.max_steps, previous.train.max_steps
    if meta.step > most:
        raise ConfigError(
            f"run {config.run.name!r} is at step {meta.step}, past train.max_steps={most}; raise it, or "
            "choose another run.name"
        )
    if most != most_before:
        log.warning(
            "train.max_steps: %d -> %d stretches the learning-rate schedule: at step %d the rate goes from "
            "%.3g to %.3g of its peak, so this is not the run that would have had %d steps from its start",
            most_before,
            most,
            meta.step,
            lr_factor(meta.step, most_before, previous.optim),
            lr_factor(meta.step, most, config.optim),
            most,
        )


def _newest(run_uri: str) -> tuple[checkpoint.Meta, PretrainConfig] | None:
    """What the newest checkpoint of a run says, None for a new run."""
    failure: CheckpointError | None = None
    for uri, _ in checkpoint.complete(run_uri):
        try:
            return checkpoint.peek(uri)
        except CheckpointError as error:  # The workers will pass over a damaged one, too.
            failure = failure or error
    if failure:
        raise failure
    return None


def _log_data(tracker: Tracker, data: str, manifest: PairsManifest) -> None:
    """Puts what the run is trained on beside its curves: the manifest, the sampling table and picture."""
    tracker.log_text(manifest.model_dump_json(indent=2), f"data/{MANIFEST_NAME}")
    with tempfile.TemporaryDirectory(prefix="protclip-") as directory:
        for name in ("sampling.png", "sampling.md"):
            if storage.exists(uri := storage.join(data, name)):
                copy = Path(directory, name)
                copy.write_bytes(storage.read_bytes(uri))
                tracker.log_file(copy, "data")


def _fit(config: PretrainConfig, tracker: Tracker, job: str, part: Part) -> int:
    """Runs the workers to the end, or until they are asked to stop; returns the steps done.

    Raises:
        TrainingError: Workers died or hung more often than `scaling.max_failures`.
    """
    scaling, run = config.scaling, config.run
    need = workers(scaling)
    use_gpu = "GPU" in need.each
    supervisor = Supervisor(
        tracker, config.train.max_steps, run.name, scaling.timeout_s, need, stop=part.stop, heed=part.heed
    )
    # Ray Train keeps nothing that matters, and what it keeps must not decide about the next attempt.
    with tempfile.TemporaryDirectory(prefix="protclip-") as place, supervising(supervisor):
        trainer = TorchTrainer(
            run_rank,
            train_loop_config={
                "config": config,
                "board": supervisor.board,
                "run_id": tracker.run_id,
                "job": job,
                "use_gpu": use_gpu,
            },
            scaling_config=ray.train.ScalingConfig(
                num_workers=(scaling.min_workers, scaling.num_workers)
                if scaling.min_workers
                else scaling.num_workers,
                use_gpu=use_gpu,
                resources_per_worker=dict(need.each),
            ),
            run_config=ray.train.RunConfig(
                name=f"{run.name}-{uuid.uuid4().hex[:8]}",
                storage_path=place,
                failure_config=ray.train.FailureConfig(max_failures=scaling.max_failures),
                callbacks=[
                    NoRetry(),
                    StartLimit(need, scaling.start_timeout_s, supervisor.board),  # pyright: ignore[reportArgumentType]
                ],
            ),
            # Twice the time-out, so that the rank which is behind is named before the others give up.
            torch_config=GroupConfig(
                backend="nccl" if use_gpu else "gloo",
                timeout_s=int(2 * scaling.timeout_s) + 1,
                board=supervisor.board,
                leave_s=scaling.timeout_s,
            ),
        )
        try:
            with signals_to(part.stop):
                return int(in_thread(trainer.fit).return_value)  # pyright: ignore[reportArgumentType]
        except ray.train.ControllerError as error:
            known = user_error(error)
            if known is None:
                raise
            raise known from None
        except RayActorError as error:
            raise TrainingError(
                "the process that leads the workers is gone, with its node or with the head; submit "
                "the same command again to continue from the newest checkpoint"
            ) from error
        except ray.train.WorkerGroupError as error:
            if not supervisor.hung and not died(error):
                raise
            raise TrainingError(
                f"workers died or hung more often than "
                f"scaling.max_failures={scaling.max_failures}; the last: "
                f"{supervisor.hung or died(error)}; submit the same command again to continue from the "
                "newest checkpoint"
            ) from error
