"""What ends a training that has no workers."""

from types import SimpleNamespace
from typing import Any

import pytest

from protclip.cluster import group
from protclip.cluster.group import StartLimit
from protclip.cluster.room import Need
from protclip.errors import StoppedError, TrainingError

NEED = Need(2, {"CPU": 1}, "lower scaling.num_workers")
WAITING, ENDED = (SimpleNamespace(is_terminal=lambda end=end: end) for end in (False, True))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What the board was asked for; to hold "stop" is to be asked to stop."""
    monkeypatch.setattr(group, "POLL_S", 0.0)
    monkeypatch.setattr(group, "explain", str)
    monkeypatch.setattr(group.ray, "get", lambda answer: answer)
    return set()


def limit(asked: set[str], limit_s: float) -> StartLimit:
    board: Any = SimpleNamespace(stopped=SimpleNamespace(remote=lambda: "stop" in asked))
    made = StartLimit(NEED, limit_s, board)
    made.after_controller_start(None)
    return made


def test_start_limit_ends_with_the_start_of_workers_and_begins_anew_without_them(asked: set[str]) -> None:
    made = limit(asked, limit_s=0.0)
    made.after_worker_group_start(None)
    made.after_controller_state_update(WAITING, WAITING)
    made.after_worker_group_shutdown(None)
    with pytest.raises(TrainingError, match=r"start_timeout_s=0 s: 2 workers of 1 CPU"):
        made.after_controller_state_update(WAITING, WAITING)


def test_start_limit_hears_a_wish_to_stop_while_there_are_no_workers(asked: set[str]) -> None:
    made = limit(asked, limit_s=60.0)
    made.after_controller_state_update(WAITING, WAITING)
    asked.add("stop")
    with pytest.raises(StoppedError, match="no worker was at work"):
        made.after_controller_state_update(WAITING, WAITING)


def test_start_limit_leaves_a_run_that_has_ended_alone(asked: set[str]) -> None:
    made = limit(asked, limit_s=0.0)
    asked.add("stop")
    made.after_controller_state_update(WAITING, ENDED)
