"""The candidates of a study side by side on Ray Tune.

Ray Tune starts them, and again when one's process dies. What is tried next, what is stopped and what is
remembered is the source's (`tuning`), so that a study goes on after its driver is gone. A candidate is an
actor that drives a training with workers of its own; it holds no CPU while these compute. It is stopped
by asking: the training then ends behind a checkpoint and gives back what it holds.
"""

import logging
import os
import queue
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.execution.placement_groups import PlacementGroupFactory
from ray.tune.search import Searcher

from protclip.cluster.board import beside_driver
from protclip.cluster.candidate import run_candidate
from protclip.cluster.group import in_thread, signals_to
from protclip.cluster.pretrain import workers
from protclip.cluster.room import check_room, grows, places, shortage
from protclip.cluster.session import connect
from protclip.config.schema import ScalingConfig
from protclip.config.study import StudyConfig
from protclip.errors import ConfigError, StoppedError, TrainingError
from protclip.progress import progress
from protclip.tracking.server import tracking_uri
from protclip.tuning.candidate import Candidate, Outcome, Source, Template

log = logging.getLogger(__name__)

POLL_S = 0.5
DRIVER_MEMORY = 2**29
"""Bytes reserved for the process that drives a candidate, its only claim: it computes nothing."""
MOST_WHY = 300
"""Characters of what Ray says of a process that ended."""
HOPELESS = 3
"""So many failures without a success end a study."""

os.environ |= {
    # A candidate's relative paths are the driver's.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # What is shown and kept is not Ray Tune's.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def run_candidates(
    source: Source, template: Template, config: StudyConfig, conf_dir: Path, parent_id: str | None
) -> None:
    """Runs what the source has until it has no more; what came of it is the source's to keep.

    Args:
        source: Gives candidates.
        template: Whose base tells how many find room.
        config: The study.
        conf_dir: Directory of `benchmarks/`.
        parent_id: MLflow run of the study.

    Raises:
        StoppedError: It was asked to stop, and every training has written a checkpoint.
        TrainingError: One after the other fails.
        ConfigError: The tracking file cannot be reached from all nodes, no training finds room, or the
            source refuses what a candidate reports.
    """
    scaling = template.base.pretrain.scaling
    connect(min_cpus=int(scaling.num_workers * scaling.cpus_per_worker))
    _check_tracking(config)
    at_once = room(scaling, config.concurrency)
    left = source.total - source.finished
    log.info("%d of %d trainings left, up to %d at a time", left, source.total, at_once)
    # It looks for files that it was told not to write.
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    stop = threading.Event()
    with (
        tempfile.TemporaryDirectory(prefix="protclip-") as place,
        progress(config.name, " trainings", source.total, initial=source.finished) as bar,
        _listening(stop) as board,
        signals_to(stop),
    ):
        referee = _Referee(source, stop, board, bar)
        tuner = tune.Tuner(
            tune.with_resources(_Driver, PlacementGroupFactory([{"memory": DRIVER_MEMORY}])),
            param_space={"conf_dir": conf_dir.absolute(), "parent_id": parent_id, "board": board},
            tune_config=tune.TuneConfig(
                search_alg=referee,
                num_samples=-1,
                max_concurrent_trials=at_once,
                trial_name_creator=_name,
                trial_dirname_creator=_name,
            ),
            run_config=tune.RunConfig(
                name=config.name,
                storage_path=place,
                callbacks=[_Failures(referee)],
                failure_config=tune.FailureConfig(max_failures=config.retries),
                # It would be looked for in a directory that other nodes do not see.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )
        in_thread(tuner.fit)
    referee.conclude()


def room(scaling: ScalingConfig, most: int | None = None) -> int:
    """How many trainings run at a time: as many as find room in the cluster as it is now, at least one.

    Their drivers hold no CPU, so that no training can wait for what the driver of another one has.

    Args:
        scaling: Of each.
        most: Bounds it, and tells for how many a cluster may grow that does so by itself.

    Raises:
        ConfigError: Not even one ever finds room.
    """
    need = workers(scaling)
    check_room(need)
    found = places(need.each)
    if found < need.count:
        log.warning("no training finds room as yet; waiting for nodes: %s", shortage(need))
    now = max(1, found // scaling.num_workers)
    if most is None:
        return now
    return most if grows() else min(most, now)


def _check_tracking(config: StudyConfig) -> None:
    """Refuses a tracking file of this machine where candidates run on others, too.

    Raises:
        ConfigError: It is one.
    """
    nodes = sum(node["Alive"] for node in ray.nodes())
    if config.tracking.enabled and nodes > 1 and tracking_uri(config.tracking.uri).startswith("sqlite:"):
        raise ConfigError(
            f"tracking.uri is a file of this machine, but the cluster has {nodes} nodes, each of which "
            "drives trainings; give the URI of an MLflow server, or tracking.enabled=false"
        )


def _name(trial: Any) -> str:
    """What Ray Tune calls a candidate."""
    return trial.config["candidate"].name


class _Referee(Searcher):
    """Ray Tune's view of a source; the source's first error ends the study."""

    def __init__(self, source: Source, stop: threading.Event, board: Any, bar: Any) -> None:
        super().__init__()
        self._source, self._stop, self._board, self._bar = source, stop, board, bar
        self._names: dict[str, str] = {}
        self._pruned: set[str] = set()
        self._failed: list[Outcome] = []
        self._succeeded = False
        self._error: Exception | None = None

    def suggest(self, trial_id: str) -> Any:
        """The next candidate, or that there is none."""
        if self._stop.is_set() or self._hopeless:
            return Searcher.FINISHED
        with self._guarded():
            candidate = self._source.next()
            if candidate is not None:
                self._names[trial_id] = candidate.name
                return {"candidate": candidate}
        return Searcher.FINISHED

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Shows a validation to the source, which may have the candidate stopped."""
        if result["done"]:
            return
        name, (metrics, step) = self._names[trial_id], result["validation"]
        with self._guarded():
            if name not in self._pruned and self._source.observe(name, metrics, step):
                self._pruned.add(name)
                self._board.stop.remote(name)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Takes what came of a candidate, unless its process failed (see `fail`)."""
        if error or result is None:
            return
        outcome: Outcome = result["outcome"]
        if outcome.state == "stopped" and outcome.name in self._pruned:
            outcome = replace(outcome, state="pruned")
        self._finish(outcome)

    def fail(self, trial_id: str, why: str) -> None:
        """Takes that a candidate's process failed and is not begun again."""
        self._finish(Outcome(self._names[trial_id], "failed", error=why))

    def conclude(self) -> None:
        """Raises what ended the study, if it was not that the source had no more."""
        if self._error is not None:
            raise self._error
        if self._stop.is_set():
            raise StoppedError(
                f"stopped with {self._source.finished} of {self._source.total} trainings finished; submit "
                "the same command again to continue"
            )
        if self._hopeless:
            lines = "".join(f"\n- {outcome.name}: {outcome.error}" for outcome in self._failed)
            raise TrainingError(f"{len(self._failed)} trainings failed and none has succeeded:{lines}")

    def __getstate__(self) -> dict[str, object]:
        """Nothing: Ray Tune stores a copy of all it is given, from which it is never restored."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the source keeps what matters."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing."""

    @property
    def _hopeless(self) -> bool:
        return len(self._failed) >= HOPELESS and not self._succeeded

    def _finish(self, outcome: Outcome) -> None:
        """Hands an outcome to the source and shows it."""
        if outcome.state == "failed":
            self._failed.append(outcome)
            log.warning("%s failed: %s", outcome.name, outcome.error)
        elif outcome.state != "stopped":
            self._succeeded = True
        with self._guarded():
            self._source.finish(outcome)
            self._bar.set_postfix_str(f"{outcome.name} {outcome.state}", refresh=False)
            self._bar.update(self._source.finished - self._bar.n)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Keeps an error of the source until all candidates have stopped, which it makes them do."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  raised by `conclude`
            self._error = self._error or error
            self._stop.set()


class _Failures(tune.Callback):
    """Tells the referee why a process failed; a searcher itself only hears that it did."""

    def __init__(self, referee: _Referee) -> None:
        self._referee = referee

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A candidate is given up."""
        # Ray Tune's own way to the error is a copy of this file, which may come later.
        lines = Path(trial.error_file).read_text().strip().splitlines()
        self._referee.fail(trial.trial_id, lines[-1][:MOST_WHY] if lines else "its process ended")


class _Driver(tune.Trainable):
    """Drives one candidate; a result is a validation of its training, the last one what came of it."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begins."""
        candidate: Candidate = config["candidate"]
        self._name, self._board = candidate.name, config["board"]
        self._news: queue.SimpleQueue[tuple[dict[str, float], int]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._records = _Records(logging.WARNING)
        logging.getLogger("protclip").addHandler(self._records)
        self._thread = ThreadPoolExecutor(1)
        self._outcome = self._thread.submit(
            run_candidate,
            candidate,
            config["conf_dir"],
            config["parent_id"],
            lambda metrics, step: self._news.put((dict(metrics), step)),
            self._stopping,
        )

    def step(self) -> dict[str, Any]:
        """Waits for the next validation or the end."""
        while True:
            ended = self._outcome.done()
            if ray.get(self._board.exchange.remote(self._name, self._records.take())):
                self._stopping.set()
            try:
                # A pair, because Ray Tune flattens mappings, and there are slashes in the names.
                return {"validation": self._news.get(timeout=POLL_S)}
            except queue.Empty:
                if ended:
                    return {"done": True, "outcome": self._outcome.result()}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Does nothing: the training writes its own."""

    def cleanup(self) -> None:
        """Has the training stop and waits for it, so that nothing is held any more."""
        self._stopping.set()
        self._thread.shutdown()


class _Records(logging.Handler):
    """Gathers log records until they are taken."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._records: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps logger, level and message."""
        self._records.append((record.name, record.levelno, record.getMessage()))

    def take(self) -> list[tuple[str, int, str]]:
        """What has come since the last call."""
        taken = self._records[:]
        del self._records[: len(taken)]
        return taken


class _Board:
    """The actor between the candidates and the driver of the study."""

    def __init__(self) -> None:
        self._records: list[tuple[str, int, str]] = []
        self._stopped: set[str] = set()
        self._all = False

    def exchange(self, name: str, records: list[tuple[str, int, str]]) -> bool:
        """Takes log records of a candidate; returns whether it shall stop."""
        self._records += [(logger, level, f"{name}: {message}") for logger, level, message in records]
        return self._all or name in self._stopped

    def stop(self, name: str) -> None:
        """Asks a candidate to stop."""
        self._stopped.add(name)

    def read(self, stop_all: bool) -> list[tuple[str, int, str]]:
        """Log records since the last call; `stop_all` asks all candidates to stop."""
        self._all = stop_all
        taken, self._records = self._records, []
        return taken


@contextmanager
def _listening(stop: threading.Event) -> Iterator[Any]:
    """A board; what candidates say there is logged while the block runs, and the wish to stop passed on."""
    board, done = beside_driver(_Board), threading.Event()

    def listen() -> None:
        while True:
            ended = done.wait(POLL_S)
            for name, level, message in ray.get(board.read.remote(stop.is_set())):
                logging.getLogger(name).log(level, "%s", message)
            if ended:
                return

    thread = threading.Thread(target=listen, name="study", daemon=True)
    thread.start()
    try:
        yield board
    finally:
        done.set()
        thread.join()
        ray.kill(board)
