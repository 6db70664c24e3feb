"""The training loop: load, step, log, validate, save. Knows neither Ray nor MLflow."""

import logging
import time
from typing import Protocol

import torch

from protclip import parallel, storage
from protclip.config.schema import PretrainConfig
from protclip.data.collate import Collator, TextTokens
from protclip.data.dataset import BatchIterator, PairsDataset
from protclip.data.manifest import TOKENIZER_NAME, PairsManifest
from protclip.data.tokenizer import TextTokenizer
from protclip.model.build import blank, build
from protclip.training import freezing
from protclip.training.notice import Agreement, Notice
from protclip.training.replica import Replica
from protclip.training.state import TrainState
from protclip.training.step import train_step
from protclip.training.store import CheckpointStore
from protclip.training.validate import Validation
from protclip.training.watch import Watch, line

log = logging.getLogger(__name__)


class Reporter(Protocol):
    """Where the loop's progress goes, and from where wishes come. Every rank calls it and never waits."""

    def metrics(self, metrics: dict[str, float], step: int) -> None:
        """Numbers of one step, the same on every rank."""
        ...

    def progress(self, step: int, text: str) -> None:
        """The line a person watches."""
        ...

    def at(self, step: int, phase: str) -> None:
        """Where this rank is; it is named when it gets no further."""
        ...

    def notice(self) -> Notice:
        """What is asked of this rank."""
        ...


def train(
    config: PretrainConfig,
    reporter: Reporter,
    device: torch.device,
    *,
    store: CheckpointStore,
    run_id: str | None = None,
) -> TrainState:
    """Trains to `max_steps`, or until asked to stop, from the newest checkpoint or from the start.

    Every rank calls it. What the model has seen at a step, and on the same number of ranks its weights,
    do not depend on interruptions.

    Args:
        config: The run.
        reporter: Receives metrics, the progress line and signs of life.
        device: Where this rank computes.
        store: The run's checkpoints; its owner waits for the last one to be written.
        run_id: Tracking run, remembered in checkpoints.

    Returns:
        The final state.

    Raises:
        ConfigError: The model cannot be made as configured.
        DataError: The pairs cannot be read or are too few.
        CheckpointError: The newest checkpoint does not fit, or checkpoints cannot be written.
        TrainingError: Too many updates were not finite.
    """
    settings = config.train
    reporter.at(0, "looking for a checkpoint")
    found = store.newest()
    reporter.at(found.meta.step if found else 0, "building the model")
    tokenizer_json = storage.read_bytes(storage.join(config.data, TOKENIZER_NAME)).decode()
    tokenizer = TextTokenizer.from_json(tokenizer_json)
    collate = Collator(
        masking=config.masking,
        text_tokens=TextTokens(tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id),
        max_protein_tokens=config.model.protein.max_tokens,
        max_text_tokens=config.model.text.max_tokens,
        seed=settings.seed,
    )
    if found:
        model = blank(found.architecture, config.model, config.loss, found.uri)
    else:
        model = build(config.model, config.loss, tokenizer.vocab_size, settings.seed, tokenizer_json)
    freezing.apply(model, config.model, found.meta.step if found else 0)
    replica = Replica(model, config, device)
    state = TrainState.create(replica, config)
    if found:
        state.restore(found)
        log.info("continuing %s at step %d", found.uri, state.step)
    model.train()
    validation = Validation(config, collate)
    batches = BatchIterator(
        PairsDataset(config.data, "train", settings.seed),
        collate,
        settings.global_batch,
        parallel.rank(),
        parallel.world_size(),
        start=state.position,
        micro_batch=settings.micro_batch,
        gpu=device.type == "cuda",
    )
    data_manifest = PairsManifest.digest(config.data)
    watch = Watch(config, state, device)
    agree = Agreement(2 * config.scaling.timeout_s)
    stream = iter(batches)
    try:
        while state.step < settings.max_steps:
            reporter.at(state.step, "waiting for data")
            waiting = time.perf_counter()
            loaded = next(stream)
            waited_s = time.perf_counter() - waiting
            reporter.at(state.step, "computing")
            if freezing.apply(model, config.model, state.step):
                state.optimizer.zero_grad(set_to_none=True)
                replica.rewrap()
                log.info("from step %d on other parameters are trained", state.step)
            result = train_step(
                replica,
                [batch.to(device) for batch in loaded.batches],
                state.optimizer,
                state.schedule,
                config.loss,
                global_batch=settings.global_batch,
                seed=settings.seed,
                step=state.step,
                clip_norm=config.optim.clip_norm,
            )
            state.step += 1
            state.position = loaded.after
            watch.step(loaded, result, waited_s)
            notice = agree(reporter.notice())
            last = state.step == settings.max_steps
            saving = state.step % settings.checkpoint_every == 0 or last or notice

            # A checkpoint counts the updates left out, which a log reads from the device.
            if state.step % settings.log_every == 0 or saving:
                metrics = watch.metrics()
                reporter.metrics(metrics | store.metrics(), state.step)
                reporter.progress(state.step, line(metrics))
                watch.check()
            measured: dict[str, float] = {}
            if state.step % settings.valid_every == 0 or last:
                reporter.at(state.step, "validating")
                with watch.paused():
                    measured = {f"valid/{name}": value for name, value in validation(replica).items()}
                reporter.metrics(measured, state.step)
            if saving:
                reporter.at(state.step, "saving")
                with watch.paused():
                    store.save(state, config, tokenizer_json, data_manifest, run_id, measured)
            if notice is Notice.STOP:
                break
    finally:
        stream.close()
    return state
