"""Running one benchmark once: read the data, do what its kind says, time it."""

import functools
import time
from typing import Any

import torch

from protclip.evaluation.embed import Embedder
from protclip.evaluation.formats import FORMATS, Sources, Splits
from protclip.evaluation.registry import KINDS
from protclip.evaluation.results import Result
from protclip.evaluation.spec import BenchmarkSpec


def read_data(spec: BenchmarkSpec, sources: Sources) -> Splits[Any]:
    """The splits a benchmark works on.

    Raises:
        DataError: A file is missing or cannot be read.
        BenchmarkError: What is in it does not fit the benchmark.
    """
    return FORMATS[spec.data.format](spec.data, sources)


def seeds_of(spec: BenchmarkSpec, seeds: tuple[int, ...]) -> tuple[int, ...]:
    """The distinct seeds worth running: all, or one where nothing depends on it."""
    distinct = tuple(dict.fromkeys(seeds))
    return distinct if KINDS[spec.kind].seeded else distinct[:1]


def run_benchmark(spec: BenchmarkSpec, splits: Splits[Any], embedder: Embedder, seed: int) -> Result:
    """One run of one benchmark."""
    start = time.perf_counter()
    outcome = KINDS[spec.kind].run(spec, splits, embedder, seed)
    return Result(
        benchmark=spec.name,
        seed=seed,
        outcome=outcome,
        seconds=time.perf_counter() - start,
        device=torch.cuda.get_device_name(embedder.device) if embedder.device.type == "cuda" else "cpu",
    )


def run_on_checkpoint(
    spec: BenchmarkSpec, splits: Splits[Any], checkpoint_uri: str, batch_size: int, seed: int
) -> Result:
    """`run_benchmark` in a process of its own, which keeps the model for its next run."""
    return run_benchmark(spec, splits, _embedder(checkpoint_uri, batch_size), seed)


@functools.lru_cache(maxsize=1)
def _embedder(checkpoint_uri: str, batch_size: int) -> Embedder:
    """The model of the process."""
    return Embedder.from_checkpoint(checkpoint_uri, batch_size=batch_size)
