"""A candidate of a study from its pairs to its benchmarks, wherever it runs."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import Any

from protclip import checkpoint, storage
from protclip.cluster.board import Heed
from protclip.cluster.claim import ClaimedError
from protclip.cluster.errors import user_error
from protclip.cluster.evaluate import run_benchmarks
from protclip.cluster.pretrain import Part, pretrain
from protclip.cluster.sample import sample
from protclip.config.data import SampleConfig
from protclip.data.manifest import MANIFEST_NAME
from protclip.errors import DataError, StoppedError
from protclip.evaluation.metrics.validation import lower_is_better
from protclip.tuning.candidate import Candidate, Outcome, State

log = logging.getLogger(__name__)

VALID = "valid/"
BUSY_POLL_S = 5.0


def run_candidate(
    candidate: Candidate, conf_dir: Path, parent_id: str | None, heed: Heed, stop: Event
) -> Outcome:
    """Draws a candidate's pairs, trains it and runs its suite, each as far as it is not done already.

    Args:
        candidate: What to run.
        conf_dir: Directory of `benchmarks/`.
        parent_id: MLflow run of the study.
        heed: Is told the metrics of every validation.
        stop: Set when the training shall stop.

    Returns:
        What came of it; one of the project's errors, which would come again, is an outcome too.
    """
    began = time.monotonic()
    seen = _Seen(heed)
    state: State = "failed"
    trained: Any = {}
    measured: dict[str, float] = {}
    error = ""
    try:
        if candidate.sample is not None:
            draw_pairs(candidate.sample, conf_dir)
        trained = pretrain(candidate.pretrain, Part(parent_id, candidate.varied, seen, stop))
        if candidate.suite is not None:
            results: Any = run_benchmarks(candidate.suite, conf_dir)["results"]
            measured = {f"bench/{b}/{m}": v for b, metrics in results.items() for m, v in metrics.items()}
        state = "complete"
    except StoppedError:
        state = "stopped"
    except Exception as raised:
        known = user_error(raised)
        if known is None:
            raise
        error = str(known)
    run = candidate.pretrain.run
    newest = next(iter(checkpoint.complete(storage.join(run.storage, run.name))), None)
    return Outcome(
        name=candidate.name,
        state=state,
        step=newest[1].step if newest else 0,
        metrics={**(trained.get("metrics") or seen.last), **measured},
        best=seen.best,
        checkpoint=newest[0] if newest else None,
        report=candidate.suite.output if measured and candidate.suite else None,
        model=trained.get("model"),
        run_id=newest[1].run_id if newest else None,
        seconds=time.monotonic() - began,
        error=error,
    )


def draw_pairs(config: SampleConfig, conf_dir: Path) -> None:
    """Draws pairs unless they are there; waits where another candidate is drawing the same ones.

    Raises:
        DataError: They cannot be drawn; further errors as of `sample`.
    """
    manifest = storage.join(config.output, MANIFEST_NAME)
    while not storage.exists(manifest):
        try:
            sample(config, conf_dir)
        except ClaimedError:
            time.sleep(BUSY_POLL_S)
        except DataError:
            if not storage.exists(manifest):
                raise


class _Seen:
    """Passes validations on, and remembers the last one and the best values."""

    def __init__(self, heed: Heed) -> None:
        self._heed = heed
        self.last: dict[str, float] = {}
        self.best: dict[str, tuple[float, int]] = {}

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Takes the metrics of a step."""
        measured = {name: value for name, value in metrics.items() if name.startswith(VALID)}
        if not measured:
            return
        self.last = measured
        for name, value in measured.items():
            sign = -1 if lower_is_better(name) else 1
            if name not in self.best or sign * value > sign * self.best[name][0]:
                self.best[name] = value, step
        self._heed(measured, step)
