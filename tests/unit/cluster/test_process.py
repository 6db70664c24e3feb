"""What a rank's process is asked to do."""

import os
import signal
from collections.abc import Iterator

import pytest

from protclip.cluster.process import THIS, Process, join_group
from protclip.training.notice import Notice


def test_process_saves_once_and_stops_for_good() -> None:
    process = Process()
    process.ask(Notice.SAVE)
    assert [process.take() for _ in range(2)] == [Notice.SAVE, Notice.NONE]
    process.ask(Notice.STOP)
    process.ask(Notice.SAVE)
    assert [process.take() for _ in range(2)] == [Notice.STOP] * 2


@pytest.fixture
def handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
    THIS.asked = Notice.NONE


@pytest.mark.usefixtures("handler")
def test_join_group_takes_sigterm_for_a_wish_to_stop() -> None:
    join_group(1)
    os.kill(os.getpid(), signal.SIGTERM)
    assert THIS.take() is Notice.STOP
