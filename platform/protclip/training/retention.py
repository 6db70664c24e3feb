"""Which checkpoints of a run stay, and the removal of the others."""

import logging
import re
from collections.abc import Sequence

from protclip import storage
from protclip.checkpoint import META, Meta, read_meta
from protclip.errors import CheckpointError
from protclip.evaluation.metrics.validation import lower_is_better

log = logging.getLogger(__name__)

STEP_DIRECTORY = re.compile(r"step-\d{8,}")


def step_directory(step: int) -> str:
    """Name of the directory of a step's checkpoint."""
    return f"step-{step:08}"


def kept(
    checkpoints: Sequence[tuple[str, Meta]], keep_last: int, keep_best: int, best_metric: str
) -> set[str]:
    """Which checkpoints of a run stay: the newest, and the best among all that were measured.

    Args:
        checkpoints: URI and meta of each.
        keep_last: How many of the newest.
        keep_best: How many of the best; of equally good ones the newer.
        best_metric: What is best; by `lower_is_better`.
    """
    newest = sorted(checkpoints, key=lambda item: item[1].step, reverse=True)
    sign = 1 if lower_is_better(best_metric) else -1
    measured = [item for item in newest if best_metric in item[1].metrics]
    best = sorted(measured, key=lambda item: sign * item[1].metrics[best_metric])
    return {uri for uri, _ in newest[:keep_last] + best[:keep_best]}


def attempts(uri: str) -> set[str]:
    """Names of the attempts whose files a checkpoint consists of; none where no checkpoint is complete.

    Raises:
        CheckpointError: It is damaged.
        DataError: The storage fails.
    """
    if not storage.exists(storage.join(uri, META)):
        return set()
    return {path.partition("/")[0] for path in read_meta(uri).files}


def sweep(run_uri: str, attempt: str) -> None:
    """Removes what attempts before this one left of checkpoints that they did not complete.

    Args:
        run_uri: The run.
        attempt: Name of this attempt, which has begun to write.

    Raises:
        DataError: The storage fails.
    """
    for directory in _step_directories(run_uri):
        try:
            keep = {attempt} | attempts(directory)
        except CheckpointError:
            continue
        found = storage.list_directories(directory)
        left = [uri for uri in found if storage.basename(uri) not in keep]
        for uri in [directory] if left == found else left:
            log.info("removing %s, which an interrupted attempt left", uri)
            storage.remove(uri)


def thin_out(run_uri: str, keep: set[str]) -> None:
    """Removes all checkpoints but those to `keep`; what is not complete may be under way and stays.

    First goes what makes them checkpoints, so that an interrupted removal leaves none that is damaged.

    Raises:
        DataError: The storage fails.
    """
    for directory in _step_directories(run_uri):
        if directory not in keep and storage.exists(meta := storage.join(directory, META)):
            storage.remove(meta)
            storage.remove(directory)


def _step_directories(run_uri: str) -> list[str]:
    """Directories of a run's checkpoints, complete or not."""
    found = storage.list_directories(run_uri)
    return [uri for uri in found if STEP_DIRECTORY.fullmatch(storage.basename(uri))]
