"""Python functions as stages of a Ray Data stream.

The objects between stages cross as pickles in single-row blocks: each row is one task's work (a block
of a file, a range of keys) and its vectorised part happens inside the task. A `ProtclipError` of a task
travels like a result and is raised on the driver, so that neither Ray nor the user sees a traceback.
"""

import functools
import logging
import pickle
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.util.debug import log_once

from protclip.cluster.room import Need, await_room
from protclip.errors import ProtclipError

PAYLOAD = "payload"
RESULTS_PER_CPU = 4

Run = Callable[[Any], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a stream.

    Attributes:
        run: Makes any number of results of one item; pickled to the workers.
        num_cpus: CPUs a task holds; 0 for a task that mostly waits for files, of which there are then at
            most as many as the cluster has CPUs.
    """

    run: Run
    num_cpus: float = 1

    def apply(self, dataset: ray.data.Dataset, most: int) -> ray.data.Dataset:
        """The stream after this step; `most` tasks of those that hold no CPU at a time."""
        return dataset.map_batches(
            _task(self.run),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=self.num_cpus,
            compute=None if self.num_cpus else ray.data.TaskPoolStrategy(most),
        )


@dataclass(frozen=True, slots=True)
class Workers:
    """One step of a stream by workers that get ready once, with a model for example.

    Attributes:
        prepare: Makes what `Stage.run` would be; called once in each worker.
        count: How many workers; one takes one item at a time.
        num_cpus: CPUs a worker holds.
        num_gpus: GPUs a worker holds.
    """

    prepare: Callable[[], Run]
    count: int
    num_cpus: float = 1
    num_gpus: float = 0

    def apply(self, dataset: ray.data.Dataset, most: int) -> ray.data.Dataset:
        """The stream after this step."""
        return dataset.map_batches(
            _Worker,
            fn_constructor_args=(self.prepare,),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=self.num_cpus,
            num_gpus=self.num_gpus,
            compute=ray.data.ActorPoolStrategy(size=self.count, max_tasks_in_flight_per_actor=1),
        )


def run_stages(
    items: Iterable[Any], *stages: Stage | Workers, bytes_per_result: int | None = None
) -> Iterator[Any]:
    """Sends items through stages on the connected cluster; yields the last results as they come.

    Args:
        items: What the first stage gets.
        stages: The steps.
        bytes_per_result: About the size of what passes between stages, if it is large: then each CPU has at
            most `RESULTS_PER_CPU` of them under way, however much memory there is.

    Raises:
        ProtclipError: A task raised it.
        ConfigError: No node with a CPU comes.
    """
    rows = [{PAYLOAD: pickle.dumps(item)} for item in items]
    if not rows:
        return
    await_room(Need(1, {"CPU": 1}, "start a node that has a CPU"))
    # Ray Data would announce once that its progress bars are off, and each execution.
    log_once("ray_data_progress_manager_disabled")
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    # One row per block, so that a generator's results leave it one by one.
    context.target_max_block_size = 1
    most = max(1, min(len(rows), int(ray.cluster_resources().get("CPU", 1))))
    if bytes_per_result is not None:
        limit = RESULTS_PER_CPU * int(ray.cluster_resources().get("CPU", 1)) * bytes_per_result
        context.execution_options = copy(context.execution_options)
        context.execution_options.resource_limits = ray.data.ExecutionResources(object_store_memory=limit)
        # Without these two Ray Data lets producers of large blocks run ahead of the limit.
        context.output_backpressure_guard_release_interval_s = 1.0
        context.downstream_capacity_backpressure_ratio = 1.0
    with ray.data.DataContext.current(context):
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
        for stage in stages:
            dataset = stage.apply(dataset, most)
    for row in dataset.iter_rows():
        result = pickle.loads(row[PAYLOAD])  # noqa: S301 - our own tasks made it
        if isinstance(result, ProtclipError):
            raise result
        yield result


class _Worker:
    """An actor of Ray Data; what goes wrong while it gets ready fails its first task."""

    def __init__(self, prepare: Callable[[], Run]) -> None:
        self._prepared = functools.cache(prepare)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        yield from _task(lambda item: self._prepared()(item))(batch)


def _task(run: Run) -> Callable[[pa.Table], Iterator[pa.Table]]:
    """A stage as a function of single-row tables; an error passes through later stages."""

    def task(batch: pa.Table) -> Iterator[pa.Table]:
        (payload,) = batch[PAYLOAD]
        item = pickle.loads(payload.as_buffer())  # noqa: S301 - our own tasks made it
        if isinstance(item, ProtclipError):
            yield batch
            return
        try:
            for result in run(item):
                yield _row(result)
        except ProtclipError as error:
            yield _row(error)

    return task


def _row(value: object) -> pa.Table:
    """A pickle as a table of one row, without copying it."""
    data = pa.py_buffer(pickle.dumps(value, protocol=5))
    offsets = pa.array([0, len(data)], pa.int64()).buffers()[1]
    return pa.table({PAYLOAD: pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, data])})
