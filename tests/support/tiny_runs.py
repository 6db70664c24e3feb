"""Pre-training runs of the smallest size that write down what they see, and hurt themselves when told to."""

# Names in the annotations of a class inside a function do not travel with it to a worker.
from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import ray
import torch

from protclip import checkpoint
from protclip.cluster import worker as worker_module
from protclip.cluster.board import BEAT_S
from protclip.config.schema import PretrainConfig
from protclip.training.notice import Notice
from protclip.training.store import CheckpointStore

# Workers cannot import tests.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

Batches = dict[tuple[int, int], list[int]]


def config(pairs: Path, place: Path | str, name: str = "job", **sections: dict[str, Any]) -> PretrainConfig:
    """A run of six steps on two workers, with a checkpoint after every second one."""
    values: dict[str, Any] = {
        "data": str(pairs),
        "run": {"name": name, "storage": str(place)},
        "model": {
            "protein": {"source": "esm2-tiny", "max_tokens": 128},
            "text": {"source": "bert-tiny", "trainable": True, "max_tokens": 64},
            "projection_dim": 32,
            "num_prototypes": 16,
            "fusion_heads": 4,
        },
        "train": {"global_batch": 8, "max_steps": 6, "log_every": 1, "valid_every": 6, "checkpoint_every": 2},
        "scaling": {"num_workers": 2, "use_gpu": False},
        "tracking": {"enabled": False},
    }
    for section, keys in sections.items():
        values[section] = values.get(section, {}) | keys
    return PretrainConfig.model_validate(values)


def as_arguments(given: PretrainConfig) -> list[str]:
    """It on the command line."""
    flat = given.model_dump(mode="json", exclude_unset=True)
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in flat.items()]


def kill() -> None:
    """The process dies."""
    os.kill(os.getpid(), signal.SIGKILL)


def freeze() -> None:
    """The process stops without dying, once it has told where it is."""
    time.sleep(2 * BEAT_S)
    os.kill(os.getpid(), signal.SIGSTOP)


def wait() -> None:
    """The loop waits until something is asked of it."""
    from protclip.cluster.process import THIS

    while not THIS.asked:
        time.sleep(0.05)


def recorded(batches: type, folder: Path, faults: dict[int, Callable[[], None]]) -> type:
    """A `BatchIterator` that writes batches down; the last rank suffers faults before a step, each once."""

    class Recorded(batches):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.rank, self.ranks = args[3:5]

        def __iter__(self) -> Any:
            group = os.environ.get("MASTER_PORT", "bare")
            with closing(super().__iter__()) as inner, (folder / f"{group}-{self.rank}").open("a") as file:
                for loaded in inner:
                    after = loaded.after
                    file.write(json.dumps([after.epoch, after.batch_index, loaded.keys.tolist()]) + "\n")
                    file.flush()
                    marker = folder / f"fault-{after.batch_index}"
                    if self.rank == self.ranks - 1 and after.batch_index in faults and not marker.exists():
                        marker.touch()
                        faults[after.batch_index]()
                    yield loaded

    return Recorded


def recording_worker(folder: Path, faults: dict[int, Callable[[], None]]) -> Callable[[Any], Any]:
    """What a rank runs instead of `run_rank`."""
    work = worker_module.run_rank

    def worker(given: Any) -> Any:
        from protclip.training import loop

        loop.BatchIterator = recorded(loop.BatchIterator, folder, faults)
        return work(given)

    folder.mkdir(exist_ok=True)
    return worker


def seen(folder: Path) -> list[Batches]:
    """Sampling keys by global batch, for each worker group that ran."""
    groups: dict[str, Batches] = defaultdict(lambda: defaultdict(list))
    for path in sorted(folder.glob("*-*")):
        for line in path.read_text().splitlines():
            epoch, index, keys = json.loads(line)
            groups[path.name.partition("-")[0]][epoch, index] += keys
    groups.pop("fault", None)
    return [{batch: sorted(keys) for batch, keys in group.items()} for group in groups.values()]


class Silent:
    """A reporter that keeps nothing."""

    def metrics(self, metrics: dict[str, float], step: int) -> None:
        """Does nothing."""

    def progress(self, step: int, text: str) -> None:
        """Does nothing."""

    def at(self, step: int, phase: str) -> None:
        """Does nothing."""

    def notice(self) -> Notice:
        """Asks for nothing."""
        return Notice.NONE


def alone(pairs: Path, place: Path) -> Batches:
    """What the bare loop sees in six steps; the run is `job` in the place."""
    from protclip.training import loop

    folder = place / "seen"
    folder.mkdir()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with (
        mock.patch.object(loop, "BatchIterator", recorded(loop.BatchIterator, folder, {})),
        CheckpointStore(str(place / "job"), 1, 0, "none") as store,
    ):
        loop.train(config(pairs, place), Silent(), torch.device("cpu"), store=store)
    torch.set_num_threads(threads)
    (batches,) = seen(folder)
    return batches


def assert_same_weights(run: Path, whole: Path, tolerance: float = 0) -> None:
    """Two runs ended with the same weights."""
    one, two = checkpoint.load(str(whole)), checkpoint.load(str(run))
    assert (two.meta.step, two.meta.epoch, two.meta.batch_index) == (6, 0, 6)
    assert one.weights.keys() == two.weights.keys()
    for name, tensor in one.weights.items():
        torch.testing.assert_close(two.weights[name], tensor, rtol=tolerance, atol=tolerance, msg=name)


def assert_same_pairs(folder: Path, expected: Batches) -> None:
    """Every worker group saw of each batch what belongs to it, and each batch was seen in whole."""
    whole = set()
    for group in seen(folder):
        for batch, keys in group.items():
            assert set(keys) <= set(expected[batch]), batch
            if keys == expected[batch]:
                whole.add(batch)
    assert whole == expected.keys()
