"""Processes forked from a server that has imported what takes seconds to import, alone or as ranks."""

import multiprocessing
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ray import cloudpickle

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["protclip.training.loop", "hypothesis", "ray.cloudpickle"])
TIMEOUT_S = 250


@contextmanager
def forked(acts: Sequence[Callable[[], Any]], folder: Path) -> Iterator[list[Any]]:
    """Runs functions in a process each, while the block runs; afterwards the list has what they gave."""
    results: list[Any] = []
    targets = [folder / f"{uuid.uuid4().hex}.pt" for _ in acts]
    processes = [
        FORKS.Process(target=_run, args=(_by_value(act), dict(os.environ), target))
        for act, target in zip(acts, targets, strict=True)
    ]
    for process in processes:
        process.start()
    try:
        yield results
        for process in processes:
            process.join(TIMEOUT_S)
        assert [process.exitcode for process in processes] == [0] * len(processes)
    finally:
        for process in processes:
            process.kill()
    results += [torch.load(target, weights_only=True) for target in targets]


@contextmanager
def ranks(act: Callable[..., Any], size: int, folder: Path, *args: Any) -> Iterator[list[Any]]:
    """Runs `act(*args)` on so many gloo ranks, like `forked`."""
    store = folder / f"store-{uuid.uuid4().hex}"
    with forked([partial(_as_rank, act, rank, size, store, args) for rank in range(size)], folder) as results:
        yield results


def _by_value(act: Callable[[], Any]) -> bytes:
    """Pickles a function of a test, which other processes cannot import."""
    inner: Any = act
    while isinstance(inner, partial):
        inner = inner.args[0] if inner.func is _as_rank else inner.func
    cloudpickle.register_pickle_by_value(sys.modules[inner.__module__])
    return cloudpickle.dumps(act)


def _run(act: bytes, environment: dict[str, str], target: Path) -> None:
    """What a process does."""
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    torch.save(cloudpickle.loads(act)(), target)


def _as_rank(act: Callable[..., Any], rank: int, size: int, store: Path, args: Sequence[Any]) -> Any:
    """What a rank does."""
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    result = act(*args)
    dist.destroy_process_group()
    return result
