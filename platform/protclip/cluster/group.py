"""A training's worker group on Ray Train: how it begins, is resized and stopped, and what is not retried."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar

import ray
import ray.train
from ray.exceptions import RayActorError
from ray.train.torch import TorchConfig
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback

from protclip.cluster.errors import user_error
from protclip.cluster.process import join_group, leave_group
from protclip.cluster.room import POLL_S, Need, explain
from protclip.errors import DataError, StoppedError, TrainingError

log = logging.getLogger(__name__)

T = TypeVar("T")

# Ray Train asks for places again and again, and hears nothing in between.
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "15")


@dataclass
class GroupConfig(TorchConfig):
    """Process group of the workers, and the board they use.

    Attributes:
        board: See `cluster.board`.
        leave_s: Seconds a healthy group has to write a checkpoint before it is resized.
    """

    board: Any = None
    leave_s: float = 0.0

    @property
    def backend_cls(self) -> type:
        """What Ray Train calls when groups begin and end."""
        return _Group


class _Group(TorchConfig().backend_cls):
    """Torch's process group with a number, and a checkpoint before a healthy group is taken apart."""

    def on_training_start(self, worker_group: Any, backend_config: Any) -> None:
        """Every worker learns the group's number and to take SIGTERM as a wish."""
        super().on_training_start(worker_group, backend_config)
        worker_group.execute(join_group, ray.get(backend_config.board.begin.remote(len(worker_group))))

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """Ends the group; one that is only resized, or about to lose a node, writes a checkpoint first."""
        ray.get(backend_config.board.begin.remote(0))
        status = worker_group.get_latest_poll_status()
        if status is not None and not status.errors and not status.finished:
            worker_group.execute(leave_group, backend_config.leave_s)
        super().on_shutdown(worker_group, backend_config)


class NoRetry(ray.train.UserCallback):
    """Ends the run at an error that would come again: any of the project's, unless it is of storage."""

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
        """Raises the error, which Ray Train takes for the controller's own."""
        for exception in worker_exceptions.values():
            error = user_error(exception)
            if error is not None and not isinstance(error, DataError):
                raise error


class StartLimit(ControllerCallback, WorkerGroupCallback):
    """Ends a run whose workers find no room for too long, or that is asked to stop while it has none.

    Args:
        need: The workers.
        limit_s: Seconds they may take to start, at first and after each failure.
        board: Where the wish to stop is.
    """

    def __init__(self, need: Need, limit_s: float, board: Any) -> None:
        self._need, self._limit_s, self._board = need, limit_s, board
        self._since: float | None = None

    def after_controller_start(self, train_run_context: object) -> None:
        """There are no workers yet."""
        self._since = time.monotonic()

    def after_worker_group_start(self, worker_group: object) -> None:
        """There are workers."""
        self._since = None

    def after_worker_group_shutdown(self, worker_group_context: object) -> None:
        """There are none any more."""
        self._since = time.monotonic()

    def after_controller_state_update(self, previous_state: object, current_state: Any) -> None:
        """Raises what ends the run, unless it has ended; called again and again."""
        if self._since is None or current_state.is_terminal():
            return
        if ray.get(self._board.stopped.remote()):
            raise StoppedError(
                "stopped while no worker was at work; submit the same command again to continue"
            )
        if time.monotonic() - self._since > self._limit_s:
            raise TrainingError(
                f"no room for the workers within scaling.start_timeout_s={self._limit_s:g} s: "
                f"{explain(self._need)}; then submit the same command again"
            )
        if current_state is previous_state:
            # An elastic group is waiting, which Ray Train does without a pause.
            time.sleep(POLL_S)


def in_thread(run: Callable[[], T]) -> T:
    """Runs beside the main thread, where Ray Train would replace the handler of Ctrl-C by its own."""
    future: Future[T] = Future()

    def target() -> None:
        try:
            future.set_result(run())
        except BaseException as error:  # noqa: BLE001  raised again where it is waited for
            future.set_exception(error)

    threading.Thread(target=target, name="ray-train", daemon=True).start()
    return future.result()


@contextmanager
def signals_to(stop: threading.Event) -> Iterator[None]:
    """While the block runs, SIGTERM or Ctrl-C sets `stop`; a second one raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        name = signal.Signals(number).name
        log.warning("%s: stopping behind a checkpoint; once more to stop without one", name)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def died(error: ray.train.WorkerGroupError) -> str:
    """How the processes of a failed group died, in a line each; empty when an exception ended one."""
    failures = error.worker_failures
    causes = {rank: getattr(e, "health_check_failure", None) for rank, e in failures.items()}
    if not any(isinstance(cause, RayActorError) for cause in causes.values()):
        return ""
    return "; ".join(
        f"rank {rank}: {' '.join(str(cause).split())[:300]}" for rank, cause in causes.items() if cause
    )
