"""What workers and the driver of a training tell each other, through an actor beside the driver.

Workers leave signs of life, numbers, log records and the line a person watches; the driver collects them
and leaves its wish that the training stop. Neither ever waits for the other.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from protclip.cluster.hang import Beat, Heard, behind
from protclip.cluster.room import SAY_S, Need, shortage
from protclip.progress import progress
from protclip.tracking.base import Tracker

log = logging.getLogger(__name__)

POLL_S = 0.5
BEAT_S = 1.0
AWAY_S = 20.0
"""A cluster that has not answered for so long is said to be away."""


@dataclass(slots=True)
class _News:
    """What has come since the driver last looked.

    Attributes:
        line: Step and text for the progress line.
        metrics: Numbers and their steps.
        records: Logger, level and message.
        group: The workers' latest beats, in rank order; none while a group is being started or ended.
    """

    line: tuple[int, str] = (0, "")
    metrics: list[tuple[dict[str, float], int]] = field(default_factory=list)
    records: list[tuple[str, int, str]] = field(default_factory=list)
    group: list[Heard] = field(default_factory=list)


class _Board:
    """The actor."""

    def __init__(self) -> None:
        self._news = _News()
        self._group = 0
        self._size = 0
        self._beats: dict[int, tuple[Beat, float, float]] = {}
        self._stop = False

    def begin(self, size: int) -> int:
        """A new worker group of so many ranks; returns its number, which its beats bear."""
        self._group, self._size = self._group + 1, size
        self._beats.clear()
        return self._group

    def beat(self, beat: Beat) -> bool:
        """Takes a sign of life; returns whether the training shall stop."""
        now = time.monotonic()
        if beat.group == self._group:
            before = self._beats.get(beat.rank)
            moved = now if before is None or before[0].moves != beat.moves else before[2]
            self._beats[beat.rank] = beat, now, moved
        return self._stop

    def line(self, step: int, text: str) -> None:
        """Replaces what is shown."""
        self._news.line = step, text

    def metrics(self, metrics: dict[str, float], step: int) -> None:
        """Keeps numbers for the tracker."""
        self._news.metrics.append((metrics, step))

    def record(self, name: str, level: int, message: str) -> None:
        """Keeps a log record for the driver's log."""
        self._news.records.append((name, level, message))

    def stopped(self) -> bool:
        """Whether the training shall stop."""
        return self._stop

    def leave(self, group: int, rank: int) -> None:
        """A rank is done; all that it has sent before is there, since calls arrive in order."""
        if group == self._group and self._beats.pop(rank, None):
            self._size -= 1

    def read(self, stop: bool) -> _News:
        """Everything since the last call; `stop` is what workers will be told."""
        self._stop = stop
        now = time.monotonic()
        news, self._news = self._news, _News(self._news.line)
        if len(self._beats) == self._size:
            news.group = [
                Heard(b, now - heard, now - moved) for _, (b, heard, moved) in sorted(self._beats.items())
            ]
        return news


def beside_driver(actor: type) -> Any:
    """Starts an actor on the node of this process, which outlives failures of its own."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    remote: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(actor)
    return remote.options(scheduling_strategy=here).remote()


Heed = Callable[[Mapping[str, float], int], None]
"""Takes the numbers of a step."""


class Supervisor:
    """The driver's end: shows, tracks, passes wishes on, and ends workers that hang.

    Args:
        tracker: The training's run.
        total: Its steps.
        description: What its progress line says.
        timeout_s: Seconds without a step after which a worker hangs.
        need: The workers, for what is said while there are none.
        stop: Set when the training shall stop.
        heed: Is told what the tracker is told.

    Attributes:
        board: What workers write to.
        hung: What was said of the workers that were ended, until a group moves that has come after theirs.
    """

    def __init__(
        self,
        tracker: Tracker,
        total: int,
        description: str,
        timeout_s: float,
        need: Need,
        *,
        stop: threading.Event,
        heed: Heed,
    ) -> None:
        self.board = beside_driver(_Board)
        self.hung = ""
        self._tracker, self._stop, self._heed = tracker, stop, heed
        self._timeout_s, self._need = timeout_s, need
        self._bar = progress(description, "step", total)
        self._seen = time.monotonic()
        self._hung_group = 0
        self._asked: Any = None

    def look(self) -> None:
        """Takes what has come."""
        self._asked = self._asked or self.board.read.remote(self._stop.is_set())
        if not ray.wait([self._asked], timeout=AWAY_S)[0]:
            log.error(
                "the Ray cluster has not answered for %g s; if its head is gone, Ray ends this process in "
                "a minute: start the head and submit the same command again to continue",
                AWAY_S,
            )
            return
        news: _News = ray.get(self._asked)
        self._asked = None
        for name, level, message in news.records:
            logging.getLogger(name).log(level, "%s", message)
        for metrics, step in news.metrics:
            self._tracker.log_metrics(metrics, step)
            self._heed(metrics, step)
        step, text = news.line
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(step - self._bar.n)
        self._say_waiting(bool(news.group))
        if news.group and news.group[0].beat.group > self._hung_group:
            self.hung = ""
        self._end_hanging(behind(news.group, self._timeout_s))

    def close(self) -> None:
        """Takes the last news and ends the board."""
        self.look()
        self._bar.close()
        ray.kill(self.board)

    def _end_hanging(self, hanging: list[Heard]) -> None:
        """Kills hanging processes, once per group; Ray Train then restarts the group or gives up."""
        if not hanging or hanging[0].beat.group == self._hung_group:
            return
        self._hung_group = hanging[0].beat.group
        self.hung = "; ".join(str(heard) for heard in hanging)
        log.error("no step for scaling.timeout_s=%g s; killing what hangs: %s", self._timeout_s, self.hung)
        for heard in hanging:
            there = NodeAffinitySchedulingStrategy(heard.beat.node_id, soft=False)
            kill: Any = ray.remote(num_cpus=0, max_retries=0)(_kill)
            kill.options(scheduling_strategy=there).remote(heard.beat.pid)

    def _say_waiting(self, training: bool) -> None:
        """Says now and then that no worker group is at work."""
        now = time.monotonic()
        if training:
            self._seen = now
        elif now - self._seen > SAY_S:
            self._seen = now
            log.info("waiting for workers to start: %s", shortage(self._need))


@contextmanager
def supervising(supervisor: Supervisor) -> Iterator[None]:
    """Looks at the board again and again while the block runs, and once more at its end."""
    done = threading.Event()

    def poll() -> None:
        while not done.wait(POLL_S):
            supervisor.look()

    thread = threading.Thread(target=poll, name="board", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        supervisor.close()


def _kill(pid: int) -> None:
    """Task: ends a process of this node that may not listen."""
    os.kill(pid, signal.SIGKILL)


class Forward(logging.Handler):
    """Sends a worker's log records to the driver."""

    def __init__(self, board: Any, level: int) -> None:
        super().__init__(level)
        self._board = board

    def emit(self, record: logging.LogRecord) -> None:
        """Leaves the record without waiting."""
        self._board.record.remote(record.name, record.levelno, record.getMessage())
