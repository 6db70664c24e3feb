"""Where a run's checkpoints are kept: written while training goes on, thinned out, found again.

A save copies this rank's share of the tensors to host memory and returns; a thread writes it. Rank 0
waits for a receipt of every rank, then writes `meta.json`, which makes the checkpoint complete, and only
then removes older ones. Every start of a run is an attempt with a name of its own, and writes to
directories of that name: what a killed or forgotten attempt left or still writes never mixes with it.
"""

import json
import logging
import math
import secrets
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

from torch import Tensor

from protclip import checkpoint, parallel, storage
from protclip.checkpoint import FileEntry, Found, Meta
from protclip.config.schema import PretrainConfig
from protclip.errors import CheckpointError, DataError, ProtclipError
from protclip.provenance import git_sha
from protclip.training.retention import attempts, kept, step_directory, sweep, thin_out
from protclip.training.snapshot import Share, Snapshots
from protclip.training.state import TrainState

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

RETRY_S = 900.0
"""How long a store may be away before a save has failed."""
RECEIPTS_S = 1800.0
"""How long rank 0 waits for the other ranks' shares: longer than they try."""
GRACE_S = 30.0
"""How long a save under way may go on after training has failed."""
FIRST_PAUSE_S, LONGEST_PAUSE_S, POLL_S = 1.0, 60.0, 0.5
NOTABLE_WAIT_S = 1.0

RECEIPTS = "receipts"


class GivenUpError(CheckpointError):
    """A checkpoint stays incomplete for reasons that need not stop the training of this rank."""


@dataclass(frozen=True, slots=True)
class _Job:
    """What one save has to write.

    Attributes:
        uri: The checkpoint.
        share: This rank's tensors.
        texts: Small files by name.
        meta: All of it but the files.
    """

    uri: str
    share: Share
    texts: dict[str, str]
    meta: Meta


class CheckpointStore:
    """Saves and finds a run's checkpoints; a context manager whose end waits for what is being written.

    Every rank makes one, at the same time, inside the process group. When the block ends with an error, a
    save under way gets a short while to finish.

    Args:
        run_uri: The run's directory, which all ranks reach.
        keep_last: Newest checkpoints kept.
        keep_best: Best checkpoints kept beside them.
        best_metric: What is best; lower is better for names with "loss" in them.
    """

    def __init__(self, run_uri: str, keep_last: int, keep_best: int, best_metric: str) -> None:
        self._run_uri = run_uri.rstrip("/")
        self._policy = keep_last, keep_best, best_metric
        # It begins with the time, so that a listing shows which attempt was the later one.
        self._attempt = parallel.from_rank_0(f"{int(time.time()):08x}{secrets.token_hex(2)}")
        self._git_sha = git_sha()
        self._snapshots = Snapshots()
        self._pool: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None
        self._stop = Event()
        self._measured: deque[tuple[str, float]] = deque()
        self._num_given_up = 0
        self._swept = False
        self._damaged: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.wait()
            return
        if self._pending:
            wait_for([self._pending], timeout=GRACE_S)
        self._stop.set()
        try:
            self.wait()
        except ProtclipError as failure:
            log.error("%s", failure)

    def save(
        self,
        state: TrainState,
        config: PretrainConfig,
        tokenizer_json: str,
        data_manifest: str,
        run_id: str | None,
        metrics: Mapping[str, float],
    ) -> None:
        """Copies the state to host memory and has it written; every rank calls it at the same step.

        Args:
            state: What is saved. It may change as soon as this returns.
            config: The run's configuration.
            tokenizer_json: The text tokenizer.
            data_manifest: sha256 of the pairs' manifest.
            run_id: Tracking run to continue.
            metrics: Validation of this state, if there was one; decides which checkpoint is best.

        Raises:
            CheckpointError: The save before this one failed.
        """
        started = time.perf_counter()
        try:
            self._finish()
        except GivenUpError as error:
            self._num_given_up += 1
            self._measured.append(("checkpoint/given_up", self._num_given_up))
            log.error("%s; training goes on without this checkpoint", error)
        waited_s = time.perf_counter() - started
        if waited_s > NOTABLE_WAIT_S:
            log.warning("step %d: the loop waited %.1f s for the save before to end", state.step, waited_s)
        job = _Job(
            uri=storage.join(self._run_uri, step_directory(state.step)),
            share=self._snapshots.take(state),
            texts={
                checkpoint.CONFIG: config.model_dump_json(indent=2),
                checkpoint.ARCHITECTURE: json.dumps(state.model.architecture.to_dict(), indent=2),
                checkpoint.TOKENIZER: tokenizer_json,
            },
            meta=Meta(
                step=state.step,
                epoch=state.position.epoch,
                batch_index=state.position.batch_index,
                skipped=state.skipped,
                run_id=run_id,
                data_manifest=data_manifest,
                git_sha=self._git_sha,
                world_size=parallel.world_size(),
                metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
                files={},
            ),
        )
        self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending = self._pool.submit(self._write, job, parallel.rank())
        self._measured.append(("checkpoint/wait_s", waited_s))
        self._measured.append(("checkpoint/hold_s", time.perf_counter() - started))

    def wait(self) -> None:
        """Waits for the save under way; no thread is left.

        Raises:
            CheckpointError: It failed.
        """
        try:
            self._finish()
        finally:
            if self._pool:
                self._pool.shutdown()
                self._pool = None

    def metrics(self) -> dict[str, float]:
        """What was measured since the last call.

        `checkpoint/`: `wait_s` the loop waited for the save before, `hold_s` it was held in all, `write_s`
        a save took in the background, `bytes` of the whole checkpoint (on rank 0), `given_up` so far.
        """
        return dict(self._measured.popleft() for _ in range(len(self._measured)))

    def newest(self) -> Found | None:
        """The newest checkpoint that is complete and intact, the same on every rank; None in a new run.

        Damaged ones are passed over with a warning, and removed once this attempt has written a good one.

        Raises:
            CheckpointError: There are checkpoints, and all are damaged.
            DataError: The storage cannot be read.
        """
        found: Found | ProtclipError | None = None
        if parallel.rank() == 0:
            try:
                found = self._newest()
            except ProtclipError as error:
                found = error
        found = parallel.from_rank_0(found)
        if isinstance(found, ProtclipError):
            raise found
        # A local checkpoint is one that all nodes share, and rank 0 has read it.
        if found is None or parallel.rank() == 0 or storage.is_local(found.uri):
            return found
        return Found(found.uri, found.meta, checkpoint.fetch(found.uri, found.meta))

    def _newest(self) -> Found | None:
        """What rank 0 finds."""
        for uri, meta in checkpoint.complete(self._run_uri):
            try:
                return Found(uri, meta, checkpoint.fetch(uri, meta))
            except CheckpointError as error:
                self._damaged.add(uri)
                log.warning("%s; the checkpoint before it is tried", error)
        if self._damaged:
            raise CheckpointError(
                f"{self._run_uri}: every checkpoint is damaged; repair one, or start under another run.name"
            )
        return None

    def _finish(self) -> None:
        """Waits for the save under way and raises what stopped it."""
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def _write(self, job: _Job, rank: int) -> None:
        """What the thread does: this rank's files; on rank 0 all that makes a checkpoint of them."""
        started = time.perf_counter()
        if job.share.copied:
            job.share.copied.synchronize()
        if rank == 0 and not self._swept:
            self._tidy(lambda: sweep(self._run_uri, self._attempt))
            self._swept = True
        files: dict[str, FileEntry] = {}
        for role, tensors in job.share.tensors.items():
            path = f"{self._attempt}/{checkpoint.file_name(role, rank, job.meta.world_size)}"
            files[path] = self._persist(_write_tensors, storage.join(job.uri, path), tensors)
        if rank:
            receipt = {path: file.model_dump() for path, file in files.items()}
            self._persist(storage.write_json, self._receipt(job.uri, rank), receipt)
        else:
            num_bytes = self._complete(job, files)
            self._measured.append(("checkpoint/bytes", num_bytes))
        self._measured.append(("checkpoint/write_s", time.perf_counter() - started))

    def _complete(self, job: _Job, files: dict[str, FileEntry]) -> int:
        """Rank 0: the small files, everybody's receipts, `meta.json`, then the policy; bytes in all."""
        for name, text in job.texts.items():
            path = f"{self._attempt}/{name}"
            stored = self._persist(storage.write_bytes, storage.join(job.uri, path), text.encode())
            files[path] = checkpoint.entry(stored)
        self._await_receipts(job)
        for rank in range(1, job.meta.world_size):
            receipt = self._persist(storage.read_json, self._receipt(job.uri, rank))
            files |= {path: FileEntry.model_validate(file) for path, file in receipt.items()}
        there = {file.uri: file.num_bytes for file in self._persist(storage.list_files, job.uri)}
        for path, file in files.items():
            if there.get(storage.join(job.uri, path)) != file.num_bytes:
                raise GivenUpError(f"{job.uri}: given up, since {path} vanished while the rest was written")
        replaced = self._replaced(job.uri)
        meta = job.meta.model_copy(update={"files": files})
        place = storage.join(job.uri, checkpoint.META)
        self._persist(storage.write_json, place, meta.model_dump(mode="json"))
        self._tidy(lambda: self._thin_out(job.uri, replaced))
        return sum(file.num_bytes for file in files.values())

    def _receipt(self, uri: str, rank: int) -> str:
        """Where a rank says that its share is there."""
        return storage.join(uri, self._attempt, RECEIPTS, f"{rank:05}.json")

    def _await_receipts(self, job: _Job) -> None:
        """Returns once the shares of all ranks are there."""
        missing = set(range(1, job.meta.world_size))
        deadline = time.monotonic() + RECEIPTS_S
        while missing:
            there = {file.uri for file in self._persist(storage.list_files, job.uri)}
            missing = {rank for rank in missing if self._receipt(job.uri, rank) not in there}
            if missing and (time.monotonic() > deadline or self._stop.wait(POLL_S)):
                raise GivenUpError(
                    f"{job.uri}: given up, since the shares of ranks {sorted(missing)} did not come in time "
                    f"({RECEIPTS_S:.0f} s); look at their logs, and if they write to disks of their own, let "
                    "run.storage name a place that all nodes share"
                )

    def _persist(self, act: Callable[Concatenate[str, P], T], uri: str, *args: P.args, **keys: P.kwargs) -> T:
        """Does something with the storage, again and again while that fails, for `RETRY_S`."""
        deadline: float | None = None
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return act(uri, *args, **keys)
            except DataError as error:
                deadline = deadline or time.monotonic() + RETRY_S
                if self._stop.is_set() or time.monotonic() + pause_s > deadline:
                    raise CheckpointError(
                        f"{error}. The checkpoint is given up after {RETRY_S:.0f} s of this; older ones are "
                        "untouched, and submitting the job again continues from the newest"
                    ) from error
                log.warning("%s; tried again in %.0f s, training goes on", error, pause_s)
            self._stop.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _replaced(self, uri: str) -> set[str]:
        """Other attempts whose checkpoint stands where this one is about to be."""
        try:
            return self._persist(attempts, uri) - {self._attempt}
        except CheckpointError as error:
            log.warning("%s; it is replaced", error)
            return set()

    def _thin_out(self, current: str, replaced: set[str]) -> None:
        """Applies the policy now that `current` is complete and has taken the place of others."""
        self._damaged.discard(current)
        intact = [item for item in checkpoint.complete(self._run_uri) if item[0] not in self._damaged]
        thin_out(self._run_uri, {current} | kept(intact, *self._policy))
        for attempt in replaced:
            storage.remove(storage.join(current, attempt))
        storage.remove(storage.join(current, self._attempt, RECEIPTS))

    def _tidy(self, remove: Callable[[], None]) -> None:
        """Removes what is not needed; what cannot be removed now is tried again after the next save."""
        try:
            remove()
        except DataError as error:
            log.warning("old checkpoints are not removed for now: %s", error)


def _write_tensors(uri: str, tensors: Mapping[str, Tensor]) -> FileEntry:
    """Writes tensors, if the disk has room for them."""
    if storage.is_local(uri):
        num_bytes = sum(tensor.nbytes for tensor in tensors.values())
        place = Path(storage.filesystem(uri)[1]).parent
        try:
            place.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(place).free
        except OSError as error:
            raise DataError(f"{uri}: its directory cannot be made: {error}; check run.storage") from error
        if free < num_bytes:
            raise DataError(f"{uri}: {num_bytes:,} bytes are needed and {free:,} are free; make room")
    return checkpoint.write_tensors(uri, tensors)
