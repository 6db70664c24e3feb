"""One rank of a training: the loop, with signs of life and its share of the reports."""

import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import ray
import ray.train
import torch

from protclip import parallel, storage
from protclip.cluster.board import BEAT_S, Forward
from protclip.cluster.claim import CLAIM_NAME, Owner
from protclip.cluster.hang import Beat
from protclip.cluster.process import THIS
from protclip.config.schema import PretrainConfig
from protclip.errors import ConfigError
from protclip.training.loop import train
from protclip.training.notice import Notice
from protclip.training.store import CheckpointStore

DRAIN_POLL_S = 2.0
WAITING_FILES = ("/torch/", "/protclip/parallel.py", "/protclip/training/notice.py")
"""Where a rank may wait for the others."""


def run_rank(given: dict[str, Any]) -> int:
    """One rank: the loop from the newest checkpoint on; returns the steps done."""
    config: PretrainConfig = given["config"]
    if given["use_gpu"]:
        device = torch.device("cuda", torch.cuda.current_device())
    else:
        device = torch.device("cpu")
        torch.set_num_threads(max(1, int(config.scaling.cpus_per_worker)))
    run_uri = storage.join(config.run.storage, config.run.name)
    _check_shared(run_uri, given["job"])
    settings = config.train
    store = CheckpointStore(run_uri, settings.keep_checkpoints, settings.keep_best, settings.best_metric)
    with reporting(given["board"]) as reporter, store:
        return train(config, reporter, device, store=store, run_id=given["run_id"]).step


def _check_shared(run_uri: str, job: str) -> None:
    """Refuses a local directory that is not the driver's.

    Raises:
        ConfigError: It is another machine's.
    """
    if storage.is_local(run_uri):
        owner = Owner.read(storage.join(run_uri, CLAIM_NAME))
        if owner is None or owner.job != job:
            raise ConfigError(
                f"run.storage: the worker on {socket.gethostname()} does not see in {run_uri} what the "
                "driver wrote there; give object storage (s3://…) or a directory that all nodes share"
            )


class RayReporter:
    """Sends what the loop says to the board; only rank 0's numbers count."""

    def __init__(self, board: Any) -> None:
        self._board = board
        self._first = parallel.rank() == 0
        self.step, self.phase, self.moves = 0, "start", 0

    def metrics(self, metrics: dict[str, float], step: int) -> None:
        """Numbers for the tracker."""
        if self._first:
            self._board.metrics.remote(metrics, step)

    def progress(self, step: int, text: str) -> None:
        """Moves the driver's progress line."""
        if self._first:
            self._board.line.remote(step, text)

    def at(self, step: int, phase: str) -> None:
        """Remembers where the loop is, for the next sign of life."""
        self.step, self.phase, self.moves = step, phase, self.moves + 1

    def notice(self) -> Notice:
        """What this process is asked to do."""
        return THIS.take()


@contextmanager
def reporting(board: Any) -> Iterator[RayReporter]:
    """While the block runs this rank gives signs of life and hears what it is asked to do."""
    reporter = RayReporter(board)
    loop = threading.get_ident()
    # What one rank has to say all others mostly have, too.
    handler = Forward(board, logging.ERROR if parallel.rank() else logging.INFO)
    package = logging.getLogger("protclip")
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    ended = threading.Event()

    def beat() -> None:
        node_id = ray.get_runtime_context().get_node_id()
        me = {"group": THIS.group, "rank": parallel.rank(), "host": socket.gethostname()}
        while True:
            place, waiting = _where(loop)
            said = Beat(
                **me,
                node_id=node_id,
                pid=os.getpid(),
                step=reporter.step,
                phase=reporter.phase,
                moves=reporter.moves,
                where=place,
                waiting=waiting,
            )
            if ray.get(board.beat.remote(said)):
                THIS.ask(Notice.STOP)
            if ended.wait(BEAT_S):
                return

    def hear_of_drains() -> None:
        # A collective of Ray Train: every rank asks, and all get rank 0's answer.
        while ray.train.get_preemption_info() is None:
            if ended.wait(DRAIN_POLL_S):
                return
        if parallel.rank() == 0:
            THIS.ask(Notice.SAVE)

    threads = [threading.Thread(target=run, name=run.__name__, daemon=True) for run in (beat, hear_of_drains)]
    for thread in threads:
        thread.start()
    try:
        yield reporter
    finally:
        ended.set()
        threads[0].join()
        package.removeHandler(handler)
        ray.get(board.leave.remote(THIS.group, parallel.rank()))
        THIS.done.set()


def _where(thread_id: int) -> tuple[str, bool]:
    """Innermost line of this package that a thread is in, and whether it may be waiting for another rank."""
    frame: FrameType | None = sys._current_frames().get(thread_id)
    waiting = frame is not None and any(place in frame.f_code.co_filename for place in WAITING_FILES)
    while frame is not None:
        _, package, file = frame.f_code.co_filename.rpartition("/protclip/")
        if package:
            return f"{file}:{frame.f_lineno}", waiting
        frame = frame.f_back
    return "?", waiting
