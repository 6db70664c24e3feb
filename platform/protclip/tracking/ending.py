"""How a run ends: its status, its log, and why it failed."""

import logging
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from protclip.errors import StoppedError
from protclip.tracking.base import Status, Tracker
from protclip.tracking.params import masked

LOG_FILE, ERROR_FILE, ERROR_TAG = "job.log", "error.txt", "error"
LOG_LINES = 5000
TAG_CHARS = 500


class _Tail(logging.Handler):
    """Keeps the last lines of the log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=LOG_LINES)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a record."""
        self.lines.append(self.format(record))


@contextmanager
def closing(tracker: Tracker) -> Iterator[None]:
    """Closes a run when the block ends, so that it explains itself after the machines are gone.

    The run keeps the last lines of the log (`job.log`); of a failure also the message (tag `error`) and the
    traceback (`error.txt`). A job that was asked to stop is KILLED.

    Args:
        tracker: The run.
    """
    tail, status = _Tail(), "FAILED"
    root = logging.getLogger()
    root.addHandler(tail)
    try:
        yield
        status = "FINISHED"
    except (StoppedError, KeyboardInterrupt) as error:
        status = "KILLED"
        logging.getLogger(__name__).info("%s", error or "interrupted")
        raise
    except BaseException as error:
        _explain(tracker, error)
        raise
    finally:
        root.removeHandler(tail)
        _close(tracker, status, tail.lines)


def _explain(tracker: Tracker, error: BaseException) -> None:
    """Puts the message and the traceback into the run."""
    tracker.log_text(masked("".join(traceback.format_exception(error))), ERROR_FILE)
    lines = "".join(traceback.format_exception_only(error)).strip().splitlines()
    # The text of an error that Ray brings from a worker is the worker's traceback.
    message = lines[-1 if hasattr(error, "cause") else 0]
    tracker.set_tags({ERROR_TAG: masked(message)[:TAG_CHARS]})


def _close(tracker: Tracker, status: Status, lines: deque[str]) -> None:
    """Puts the log into the run and ends it."""
    if lines:
        tracker.log_text(masked("\n".join([*lines, ""])), LOG_FILE)
    tracker.close(status)
