"""The training loop: load, step, log, validate, save. Knows neither Ray nor MLflow."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from protclip import parallel, storage
from protclip.config.schema import PretrainConfig
from protclip.data.collate import Collator, TextTokens
from protclip.data.dataset import BatchIterator, LoadedBatch, PairsDataset
from protclip.data.manifest import TOKENIZER_NAME, PairsManifest
from protclip.data.tokenizer import TextTokenizer
from protclip.model.protclip import build
from protclip.tensors import uses_bf16
from protclip.training.state import TrainState
from protclip.training.step import StepResult, train_step
from protclip.training.validate import validate

log = logging.getLogger(__name__)


class Reporter(Protocol):
    """Where the loop's progress goes. Every rank calls it; the receiver picks the ranks it needs."""

    def metrics(self, metrics: dict[str, float], step: int) -> None:
        """Numbers of one step."""
        ...

    def progress(self, step: int, text: str) -> None:
        """The line a person watches."""
        ...

    def save(self, write: Callable[[Path], None], metrics: dict[str, float], step: int) -> None:
        """Keeps a checkpoint; rank 0's `write` fills the directory it is given."""
        ...


@dataclass(frozen=True, slots=True)
class Resume:
    """A checkpoint to continue from.

    Attributes:
        directory: Local copy.
        uri: What messages call it.
    """

    directory: Path
    uri: str


@dataclass(slots=True)
class _Meter:
    """Rates and shares since the last log line."""

    started: float = field(default_factory=time.perf_counter)
    steps: int = 0
    residues: int = 0
    padding: float = 0.0
    waited_s: float = 0.0

    def add(self, loaded: LoadedBatch, waited_s: float) -> None:
        """Counts one step."""
        self.steps += 1
        self.residues += loaded.num_residues
        self.padding += loaded.padding_share
        self.waited_s += waited_s

    def metrics(self, device: torch.device) -> dict[str, float]:
        """Residues per second of all ranks together; mean shares of padding and of time waiting for data."""
        elapsed = time.perf_counter() - self.started
        counts = torch.tensor([self.residues, self.waited_s, self.padding], device=device)
        residues, waited_s, padding = parallel.mean_over_ranks(counts).tolist()
        return {
            "train/residues_per_s": residues * parallel.world_size() / elapsed,
            "train/data_wait": waited_s / elapsed,
            "train/padding": padding / self.steps,
            "train/step_s": elapsed / self.steps,
        }


def train(
    config: PretrainConfig,
    reporter: Reporter,
    device: torch.device,
    *,
    resume: Resume | None = None,
    run_id: str | None = None,
) -> TrainState:
    """Trains to `max_steps`, from the start or from a checkpoint.

    Args:
        config: The run.
        reporter: Receives metrics, the progress line and checkpoints.
        device: Where this rank computes.
        resume: Checkpoint to continue from.
        run_id: Tracking run, remembered in checkpoints.

    Returns:
        The final state.

    Raises:
        DataError: The pairs cannot be read or are too few.
        CheckpointError: The checkpoint does not fit.
    """
    settings = config.train
    tokenizer_json = storage.read_bytes(storage.join(config.data, TOKENIZER_NAME)).decode()
    tokenizer = TextTokenizer.from_json(tokenizer_json)
    collate = Collator(
        masking=config.masking,
        text_tokens=TextTokens(tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id),
        max_protein_tokens=config.model.protein.max_tokens,
        max_text_tokens=config.model.text.max_tokens,
        seed=settings.seed,
    )
    bare = build(config.model, config.loss, tokenizer.vocab_size, settings.seed).to(device)
    state = TrainState.create(bare, config)
    if resume:
        state.restore(resume.directory, resume.uri)
        log.info("continuing %s at step %d", resume.uri, state.step)
    model: nn.Module = DistributedDataParallel(bare) if parallel.is_distributed() else bare
    model.train()
    valid_set = PairsDataset(config.data, "valid", settings.seed)
    batches = BatchIterator(
        PairsDataset(config.data, "train", settings.seed),
        collate,
        settings.global_batch,
        parallel.rank(),
        parallel.world_size(),
        start=state.position,
        pin_memory=device.type == "cuda",
    )
    data_manifest = PairsManifest.digest(config.data)
    bf16 = uses_bf16(settings.precision, device)
    valid_metrics: dict[str, float] = {}
    meter = _Meter()
    stream = iter(batches)
    try:
        while state.step < settings.max_steps:
            waiting = time.perf_counter()
            loaded = next(stream)
            meter.add(loaded, time.perf_counter() - waiting)
            result = train_step(
                model,
                loaded.batch.to(device),
                state.optimizer,
                state.schedule,
                config.loss,
                seed=settings.seed,
                step=state.step,
                num_prototypes=config.model.num_prototypes,
                clip_norm=config.optim.clip_norm,
                bf16=bf16,
            )
            state.step += 1
            state.position = loaded.after
            last = state.step == settings.max_steps

            if state.step % settings.log_every == 0 or last:
                metrics = _step_metrics(result, state) | meter.metrics(device)
                reporter.metrics(metrics, state.step)
                reporter.progress(state.step, _line(metrics))
                meter = _Meter()
            if state.step % settings.valid_every == 0 or last:
                measured = validate(bare, valid_set, collate, settings)
                valid_metrics = {f"valid/{name}": value for name, value in measured.items()}
                reporter.metrics(valid_metrics, state.step)
                meter = _Meter()
            if state.step % settings.checkpoint_every == 0 or last:
                reporter.save(
                    lambda directory: state.save(directory, config, tokenizer_json, data_manifest, run_id),
                    valid_metrics,
                    state.step,
                )
                meter = _Meter()
    finally:
        stream.close()
    return state


def _step_metrics(result: StepResult, state: TrainState) -> dict[str, float]:
    """Losses of all ranks, gradient norm, rates; the only place where the host waits for the device."""
    losses = {"total": result.losses.total, **result.losses.terms}
    means = parallel.mean_over_ranks(torch.stack([v.float() for v in losses.values()])).tolist()
    metrics = {f"train/loss/{name}": value for name, value in zip(losses, means, strict=True)}
    metrics["train/grad_norm"] = result.grad_norm.item()
    metrics["train/temperature"] = 1 / state.model.scale().item()
    for group in state.optimizer.param_groups:
        metrics[f"train/lr/{group['name']}"] = group["lr"]
    metrics["train/epoch"] = float(state.position.epoch)
    return metrics


def _line(metrics: dict[str, float]) -> str:
    """Losses and speed in one short line."""
    losses = " ".join(
        f"{name.rpartition('/')[2]} {value:.3f}"
        for name, value in metrics.items()
        if name.startswith("train/loss/")
    )
    return f"{losses} | {metrics['train/residues_per_s']:,.0f} residues/s"
