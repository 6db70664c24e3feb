"""The trials of a suite as Ray tasks, after a pass that computes their vectors once for all of them.

What is finished is kept as soon as it is, and found again by the same or another suite. A task that fails
stops no other.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, groupby
from typing import Any

import ray
import torch
from ray.exceptions import RayError

from protclip.cluster.errors import user_error
from protclip.cluster.room import Need, await_room
from protclip.cluster.session import has_gpu
from protclip.config.benchmarks import SuiteConfig
from protclip.evaluation.embed import Embedder
from protclip.evaluation.encoders import COMPUTE, ModelEncoder, load_embedder
from protclip.evaluation.kind import Wanted
from protclip.evaluation.prepared import Prepared
from protclip.evaluation.runner import Spec, run_trial, wanted_vectors
from protclip.evaluation.store import ResultStore, VectorStore
from protclip.evaluation.trial import Result, Trial
from protclip.progress import progress

log = logging.getLogger(__name__)

SHARE_OF_GPU = 0.25
"""What a run takes of a GPU where nothing else is asked for."""

CHUNK_LETTERS, GPU_CHUNK_LETTERS = 2**18, 2**22
"""Letters of the sequences or texts that a task embeds: enough that the model is worth loading, and no more,
for what a task that is interrupted did is lost."""


@dataclass(frozen=True, slots=True)
class Place:
    """What every task must know.

    Attributes:
        checkpoint: URI of the checkpoint.
        results: URI of what is kept.
        batch_size: Sequences embedded at once.
        cpus: Held by a task; that many threads has torch, at least one.
        gpus: Share of a GPU held by a trial; 0 where the cluster has none.
    """

    checkpoint: str
    results: str
    batch_size: int
    cpus: float
    gpus: float

    @classmethod
    def of(cls, config: SuiteConfig, checkpoint: str, results: str) -> "Place":
        """That of a suite on the connected cluster.

        Raises:
            ConfigError: The cluster has no room for a task.
        """
        gpus = config.gpus_per_run
        if gpus is None:
            gpus = SHARE_OF_GPU * has_gpu()
        await_room(Need(1, {"CPU": config.cpus_per_run, "GPU": gpus}, "lower cpus_per_run"))
        return cls(checkpoint, results, config.batch_size, config.cpus_per_run, gpus)

    def limit_threads(self) -> None:
        """Gives torch as many threads as this process may use."""
        torch.set_num_threads(max(1, int(self.cpus)))

    def embedder(self, model: str) -> Embedder:
        """The model of one of the suite's encoders, kept by the process."""
        return load_embedder(model, self.checkpoint, self.batch_size)


def run_trials(
    trials: Sequence[Trial], specs: Mapping[str, Spec], data: Mapping[str, Prepared], place: Place
) -> list[Result]:
    """Results of all trials in their order: kept ones, and those of a task for each that is left.

    A trial that fails has a result that says why, which is not kept.

    Args:
        trials: What is run.
        specs: Their benchmarks by name.
        data: The data of these.
        place: What every task must know.
    """
    store = ResultStore(place.results)
    found = {trial: store.find(trial) for trial in trials}
    left = [trial for trial, result in found.items() if result is None]
    finished = len(trials) - len(left)
    if finished:
        log.info("%d of %d runs are finished already, in %s", finished, len(trials), store.uri)
    digest_of = {trial.model: trial.model_digest for trial in left}
    _embed_all(wanted_vectors(left, specs, data), digest_of, place)
    task = _task(_run, place, place.gpus)
    shared = {name: ray.put(data[name]) for name in dict.fromkeys(trial.benchmark for trial in left)}
    pending = {task.remote(t, specs[t.benchmark], shared[t.benchmark], place): t for t in left}
    with progress("benchmarks", "run", len(trials), initial=finished) as bar:
        for trial, get in _finished(pending):
            try:
                result = get()
            except RayError as error:
                log.debug("%s", trial, exc_info=error)
                result = Result(trial, error=_reason(error))
                log.warning("%s failed: %s", trial.label, result.error)
            found[trial] = result
            bar.set_postfix_str(trial.label, refresh=False)
            bar.update()
    return [result for result in found.values() if result is not None]


def _run(trial: Trial, spec: Spec, data: Prepared, place: Place) -> Result:
    """A trial in a process of its own."""
    place.limit_threads()
    kept = VectorStore(place.results, trial.model_digest)
    encoder = ModelEncoder(trial.model, partial(place.embedder, trial.model), kept)
    result = run_trial(trial, spec, data, encoder)
    ResultStore(place.results).add(result)
    return result


def _embed_all(
    wanted: Mapping[str, Mapping[Wanted, Sequence[str]]], digest_of: Mapping[str, str], place: Place
) -> None:
    """Computes and keeps the vectors that are wanted and not kept yet, a task for each chunk of them.

    Of a chunk that fails only a warning tells: who needs it fails with it, and says why.
    """
    task = _task(_embed, place, 1 if place.gpus else 0)
    letters = GPU_CHUNK_LETTERS if place.gpus else CHUNK_LETTERS
    chunks: list[tuple[str, Wanted, list[str]]] = []
    for model, by in wanted.items():
        kept = VectorStore(place.results, digest_of[model])
        for what, items in by.items():
            chunks.extend((model, what, chunk) for chunk in _chunks(kept.missing(what, items), letters))
    if not chunks:
        return
    # The longest first, so that memory runs out at once or never.
    chunks.sort(key=lambda chunk: -len(chunk[2][-1]))
    pending = {task.remote(m, digest_of[m], what, items, place): len(items) for m, what, items in chunks}
    with progress("embedding", " items", sum(pending.values()), unit_scale=True) as bar:
        for count, get in _finished(pending):
            try:
                get()
            except RayError as error:
                log.debug("embedding %d items", count, exc_info=error)
                log.warning("%d vectors could not be computed: %s", count, _reason(error))
            bar.update(count)


def _chunks(items: Sequence[str], letters: int) -> Iterator[list[str]]:
    """Neighbours together, about `letters` long."""
    ends = accumulate(len(item) for item in items)
    for _, chunk in groupby(zip(items, ends, strict=True), lambda pair: pair[1] // letters):
        yield [item for item, _ in chunk]


def _embed(model: str, digest: str, what: Wanted, items: list[str], place: Place) -> None:
    """Computes and keeps the vectors of some items."""
    place.limit_threads()
    VectorStore(place.results, digest).add(what, items, COMPUTE[what](place.embedder(model), items))


def _task(run: Callable[..., Any], place: Place, gpus: float) -> Any:
    """A function as a task."""
    # Given here, not by options(), the share of a GPU makes Ray end the process with the task, which else
    # would hold the GPU's memory, and take the same one again. Without max_retries=0 a task that needs more
    # memory than there is would be tried for ever. And DEFAULT, or the tasks of a suite that a study runs
    # would be confined to what Ray Tune has reserved for the process that drives it.
    options = {"num_cpus": place.cpus, "num_gpus": gpus, "max_retries": 0}
    return ray.remote(**options, scheduling_strategy="DEFAULT")(run)


def _finished(pending: Mapping[Any, Any]) -> Iterator[tuple[Any, Callable[[], Any]]]:
    """What belongs to each task, and how to get its result, as they end; those left are cancelled."""
    left = list(pending)
    try:
        while left:
            (done,), left = ray.wait(left)
            yield pending[done], partial(ray.get, done)
    finally:
        for ref in left:
            ray.cancel(ref)


def _reason(error: RayError) -> str:
    """Why a task failed, without its traceback."""
    known = user_error(error)
    if known is not None:
        return str(known)
    cause = getattr(error, "cause", None)
    if cause is not None:
        return f"{type(cause).__name__}: {cause} (--verbose shows where)"
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
