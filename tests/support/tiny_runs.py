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

import ray

from protclip.cluster import worker as worker_module
from protclip.cluster.board import BEAT_S
from protclip.config.schema import PretrainConfig

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


def assert_same_pairs(folder: Path, expected: Batches) -> None:
    """Every worker group saw of each batch what belongs to it, and each batch was seen in whole."""
    whole = set()
    for group in seen(folder):
        for batch, keys in group.items():
            assert set(keys) <= set(expected[batch]), batch
            if keys == expected[batch]:
                whole.add(batch)
    assert whole == expected.keys()
