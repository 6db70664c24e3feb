"""What is looked at while training: speed, memory, norms, updates left out, losses that jump.

Every step leaves a few numbers on the device. They are read at log time, all ranks together, by one
all-reduce and one wait for the device; between two logs the host waits for nothing. What each metric
means, and what to do when one is not as it should be, is in `docs/watching.md`.
"""

import logging
import math
import statistics
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from typing import Any

import psutil
import torch
from torch import Tensor

from protclip import parallel, storage
from protclip.config.schema import PretrainConfig
from protclip.data.dataset import LoadedBatch, PairsDataset, Position
from protclip.errors import DataError, TrainingError
from protclip.model.flops import training_flops
from protclip.tensors import uses_bf16
from protclip.training.optim import learning_rates
from protclip.training.sharding import whole
from protclip.training.state import TrainState
from protclip.training.step import StepResult

log = logging.getLogger(__name__)

PEAK_TFLOPS: dict[str, float] = {
    "B200": 2250,
    "H200": 989,
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "A10G": 70,
    "L4": 121,
}
"""Dense bf16 peak (data sheets) by what a GPU's name contains; the first that fits counts."""

SPIKE_WINDOW = 50
SPIKE_FEWEST = 20
SPIKE_DEVIATIONS = 6.0
SMALLEST_DEVIATION = 0.01
"""A spike's deviation is at least this share of the median: a loss that hardly moves has no spikes."""


def peak_tflops(config: PretrainConfig, device: torch.device) -> float | None:
    """Peak of one device in 10¹² FLOP/s: the configured one, else a known GPU's for bf16; None unknown."""
    if config.train.peak_tflops or device.type != "cuda" or not uses_bf16(config.train.precision, device):
        return config.train.peak_tflops
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in name), None)


@dataclass(slots=True)
class Spikes:
    """How far a loss lies above those of the last steps, and when to say so.

    Median and median absolute deviation, since mean and standard deviation would be moved by the very
    values to be found.
    """

    _last: deque[float] = field(default_factory=lambda: deque(maxlen=SPIKE_WINDOW))
    _quiet_until: int = 0

    def deviations(self, loss: float) -> float:
        """Robust deviations of a loss above the median of the last ones, which it then joins.

        0 while they are fewer than `SPIKE_FEWEST`.
        """
        deviations = 0.0
        if len(self._last) >= SPIKE_FEWEST:
            median = statistics.median(self._last)
            # 1.4826 makes the median absolute deviation the standard deviation of normal values.
            spread = 1.4826 * statistics.median(abs(value - median) for value in self._last)
            deviations = (loss - median) / max(spread, SMALLEST_DEVIATION * abs(median), 1e-12)
        self._last.append(loss)
        return deviations

    def worth_a_note(self, step: int, deviations: float) -> bool:
        """Whether to tell of this step; at most once in `SPIKE_WINDOW` steps."""
        if deviations < SPIKE_DEVIATIONS or step < self._quiet_until:
            return False
        self._quiet_until = step + SPIKE_WINDOW
        return True


@dataclass(frozen=True, slots=True)
class _Step:
    """What is kept of a step until the next log.

    Attributes:
        number: Updates done after it, those left out included.
        position: Its global batch.
        values: Losses, gradient norms, and whether the update was left out; on the device.
    """

    number: int
    position: Position
    values: dict[str, Tensor]


@dataclass(slots=True)
class _Host:
    """Sums since the last log of what the host knows by itself, over this rank's steps."""

    residues: float = 0.0
    padding: float = 0.0
    flops: float = 0.0
    pairs: float = 0.0
    cropped: float = 0.0
    cut_texts: float = 0.0


class Watch:
    """Gathers what steps leave behind and makes metrics, warnings and notes of it; one per rank.

    Args:
        config: The run.
        state: What is trained; its step and count of skipped updates are read and written.
        device: Where this rank computes.
    """

    def __init__(self, config: PretrainConfig, state: TrainState, device: torch.device) -> None:
        self._config = config
        self._state = state
        self._device = device
        self._peak = peak_tflops(config, device)
        self._spikes = Spikes()
        self._newest_skipped: _Step | None = None
        self._restart()

    def _restart(self) -> None:
        """Begins a new stretch of steps."""
        self._steps: list[_Step] = []
        self._host = _Host()
        self._waited_s = 0.0
        self._since = time.perf_counter()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def step(self, loaded: LoadedBatch, result: StepResult, waited_s: float) -> None:
        """Takes note of a step that is done, `state.step` counted up; never waits for the device.

        Args:
            loaded: What it was fed.
            result: What it left.
            waited_s: Seconds the loop waited for `loaded`.
        """
        losses = {"loss/total": result.losses.total}
        losses |= {f"loss/{term}": value for term, value in result.losses.terms.items()}
        norms = {"grad_norm": result.grad_norm}
        norms |= {f"grad_norm/{part}": norm for part, norm in result.part_norms.items()}
        position = Position(loaded.after.epoch, loaded.after.batch_index - 1)
        values = losses | norms | {"skipped": result.skipped}
        self._steps.append(_Step(self._state.step, position, values))
        host = self._host
        host.flops += training_flops(self._state.model, loaded.batches)
        host.residues += loaded.num_residues
        host.padding += loaded.padding_share
        for batch in loaded.batches:
            host.pairs += batch.num_pairs
            host.cropped += batch.counts.cropped
            host.cut_texts += batch.counts.cut_texts
        self._waited_s += waited_s

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time inside is no time of a step: validation, the snapshot of a checkpoint."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._since += time.perf_counter() - began

    def metrics(self) -> dict[str, float]:
        """Metrics of the steps since the last call, the same on every rank; all ranks call it.

        Losses and norms are means over the steps whose update was made. Updates left out are counted
        in the state, and their batches written beside the run, as are those of losses that jump.
        """
        ranks = parallel.world_size()
        by_rank = [0.0] * (2 * ranks)
        by_rank[parallel.rank()] = self._waited_s
        by_rank[ranks + parallel.rank()] = self._memory_bytes()
        rows, temperatures, summed = self._read([*astuple(self._host), *by_rank])
        elapsed_s, steps = time.perf_counter() - self._since, len(rows)
        total = _Host(*summed[: -2 * ranks])
        metrics = _means([row for row in rows if not row["skipped"]]) | temperatures
        metrics |= {
            "train/residues_per_s": total.residues / elapsed_s,
            "train/step_s": elapsed_s / steps,
            "train/data_wait": max(summed[-2 * ranks : -ranks]) / elapsed_s,
            "train/padding": total.padding / ranks / steps,
            "train/cropped": total.cropped / total.pairs,
            "train/cut_texts": total.cut_texts / total.pairs,
            "train/tflops": total.flops / ranks / elapsed_s / 1e12,
            "train/memory_gb": max(summed[-ranks:]) / 1e9,
            "train/epoch": float(self._steps[-1].position.epoch),
        }
        if self._peak:
            metrics["train/mfu"] = metrics["train/tflops"] / self._peak
        for name, rate in learning_rates(self._state.optimizer).items():
            metrics[f"train/lr/{name}"] = rate
        self._tell_skipped(rows)
        metrics["train/skipped"] = float(self._state.skipped)
        metrics["train/spike"] = self._tell_spikes(rows)
        self._restart()
        return metrics

    def check(self) -> None:
        """Gives up once too many updates have been left out; all ranks call it, after `metrics`.

        Raises:
            TrainingError: More than `train.nonfinite_limit`, one of them since the last call of `metrics`.
        """
        newest, limit = self._newest_skipped, self._config.train.nonfinite_limit
        if newest is None or self._state.skipped <= limit:
            return
        # Rank 0 may still be writing the note: whoever fails first ends all.
        parallel.sum_over_ranks(torch.zeros(1, device=self._device))
        run = storage.join(self._config.run.storage, self._config.run.name)
        raise TrainingError(
            f"{self._state.skipped} updates were left out because loss or gradient was not finite, "
            f"train.nonfinite_limit={limit}; the last one's batch: {self._note_uri('nonfinite', newest)}. "
            f"Look at it with: protclip replay run={run} step={newest.number}"
        )

    def _read(self, host: list[float]) -> tuple[list[dict[str, float]], dict[str, float], list[float]]:
        """What each step left, the temperatures, and the sums of `host` over ranks.

        The one exchange and the one wait for the device of a log.
        """
        temperatures = self._temperatures()
        left = [value for step in self._steps for value in step.values.values()]
        summed = parallel.sum_over_ranks(torch.tensor(host, dtype=torch.float64, device=self._device))
        scalars = [value.reshape(()).double() for value in (*left, *temperatures.values())]
        read = torch.cat((summed, torch.stack(scalars))).tolist()
        values = iter(read[len(host) :])
        rows = [{name: next(values) for name in step.values} for step in self._steps]
        return rows, dict(zip(temperatures, values, strict=True)), read[: len(host)]

    def _tell_skipped(self, rows: list[dict[str, float]]) -> None:
        """Counts the updates left out, warns of each and writes its batch down."""
        self._newest_skipped = None
        for step, row in zip(self._steps, rows, strict=True):
            if not row["skipped"]:
                continue
            self._state.skipped += 1
            self._newest_skipped = step
            bad = [name for name, value in row.items() if not math.isfinite(value)]
            self._note("nonfinite", step, row, f"update left out, not finite: {', '.join(bad)}")

    def _tell_spikes(self, rows: list[dict[str, float]]) -> float:
        """The most that a loss lay above those before it, in deviations; notes of what stands out."""
        highest = 0.0
        for step, row in zip(self._steps, rows, strict=True):
            if row["skipped"]:
                continue
            deviations = self._spikes.deviations(row["loss/total"])
            highest = max(highest, deviations)
            if self._spikes.worth_a_note(step.number, deviations):
                what = f"loss {row['loss/total']:.4g}, {deviations:.0f} deviations above the steps before it"
                self._note("spikes", step, row, what)
        return highest

    def _note(self, folder: str, step: _Step, row: dict[str, float], what: str) -> None:
        """Warns of a step, and writes it and the pairs of its global batch below the run; on rank 0."""
        if parallel.rank():
            return
        uri, train = self._note_uri(folder, step), self._config.train
        try:
            dataset = PairsDataset(self._config.data, "train", train.seed, ("accession", "sampling_key"))
            first = step.position.batch_index * train.global_batch
            pairs = dataset.rows(step.position.epoch, first, first + train.global_batch)
            note = {
                "step": step.number,
                "what": what,
                **step.position._asdict(),
                "seed": train.seed,
                "data": self._config.data,
                "world_size": parallel.world_size(),
                "values": row,
                **pairs.to_pydict(),
            }
            storage.write_json(uri, printable(note))
        except DataError as error:
            # The training is worth more than the note, and the step can be looked at without it.
            log.warning("step %d: %s; its batch could not be written down: %s", step.number, what, error)
        else:
            log.warning("step %d: %s; its batch is in %s", step.number, what, uri)

    def _note_uri(self, folder: str, step: _Step) -> str:
        """Where the note of a step is."""
        run = self._config.run
        return storage.join(run.storage, run.name, folder, f"step-{step.number:08d}.json")

    def _temperatures(self) -> dict[str, Tensor]:
        """Both temperatures as they are now, where they are trained."""
        model = self._state.model
        scales = {
            "gc": ("train/temperature", model.log_scale),
            "pda": ("train/pda_temperature", model.log_pda_scale),
        }
        return {
            name: whole(log_scale.detach()).neg().exp()
            for term, (name, log_scale) in scales.items()
            if term in model.terms
        }

    def _memory_bytes(self) -> float:
        """Peak of the device's memory since the last log; of the CPU's the process's present share."""
        if self._device.type == "cuda":
            return float(torch.cuda.max_memory_allocated(self._device))
        return float(psutil.Process().memory_info().rss)


def line(metrics: dict[str, float]) -> str:
    """Losses and speed in one short line."""
    losses = (
        f"{name.rpartition('/')[2]} {value:.3f}"
        for name, value in metrics.items()
        if name.startswith("train/loss/")
    )
    return f"{' '.join(losses)} | {metrics['train/residues_per_s']:,.0f} residues/s"


def printable(value: Any) -> Any:
    """The same with numbers that are not finite as text, which JSON knows no other way to write."""
    if isinstance(value, dict):
        return {key: printable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [printable(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Metric name to the mean over the steps that have it; nothing without steps."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "skipped":
                values.setdefault(f"train/{name}", []).append(value)
    return {name: statistics.fmean(of_steps) for name, of_steps in values.items()}
