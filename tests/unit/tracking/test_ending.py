"""What a run says of its end."""

import logging
from collections.abc import Mapping

import pytest

from protclip.errors import DataError, StoppedError
from protclip.tracking.base import NullTracker
from protclip.tracking.ending import closing


class Remembering(NullTracker):
    def __init__(self) -> None:
        self.tags: dict[str, str] = {}
        self.texts: dict[str, str] = {}
        self.status = ""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self.tags |= tags

    def log_text(self, text: str, name: str) -> None:
        assert not self.status
        self.texts[name] = text

    def close(self, status: str = "") -> None:
        self.status = status


class OfWorkerError(DataError):
    """As Ray brings it: the text is the worker's traceback."""

    cause = DataError("pairs: gone")


def test_closing_finishes_a_run_and_keeps_its_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    tracker = Remembering()
    with closing(tracker):
        logging.getLogger("protclip.test").info("reading %s", "s3://user:secret@host/pairs")
    logging.getLogger("protclip.test").info("afterwards")
    assert (tracker.status, tracker.tags, list(tracker.texts)) == ("FINISHED", {}, ["job.log"])
    assert tracker.texts["job.log"].endswith("INFO protclip.test: reading s3://***@host/pairs\n")
    assert not [h for h in logging.getLogger().handlers if type(h).__module__ == closing.__module__]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DataError("pairs: gone;\nlook there"), "protclip.errors.DataError: pairs: gone;"),
        (OfWorkerError("ray::task()\nTraceback …\nDataError: pairs: gone"), "DataError: pairs: gone"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero"),
        (SystemExit(3), "SystemExit: 3"),
    ],
    ids=["user", "worker", "bug", "exit"],
)
def test_closing_tells_why_a_run_failed(error: BaseException, message: str) -> None:
    tracker = Remembering()
    with pytest.raises(type(error)), closing(tracker):
        raise error
    assert (tracker.status, tracker.tags) == ("FAILED", {"error": message})
    assert tracker.texts["error.txt"].startswith("Traceback")
    assert message.rpartition(":")[2] in tracker.texts["error.txt"]


@pytest.mark.parametrize("error", [StoppedError("stopped at step 3"), KeyboardInterrupt()])
def test_closing_calls_a_stopped_run_killed(error: BaseException) -> None:
    tracker = Remembering()
    with pytest.raises(type(error)), closing(tracker):
        raise error
    assert (tracker.status, tracker.tags, "error.txt" in tracker.texts) == ("KILLED", {}, False)
