"""Waiting for a server: only while it is away, for so long, and without saying it twice."""

import time
from collections.abc import Callable

import pytest
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE, UNAUTHENTICATED, ErrorCode
from sqlalchemy.exc import OperationalError

from protclip.tracking import server
from protclip.tracking.server import patiently, remedy

HTTP, SQLITE = "http://user:secret@host", "sqlite:////x.db"


def failing(count: int, error: Exception) -> Callable[[], int]:
    """Fails so many times; then returns how often it was called."""
    calls = 0

    def action() -> int:
        nonlocal calls
        calls += 1
        if calls <= count:
            raise error
        return calls

    return action


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(server, "RETRY_MOST_S", 0.02)
    monkeypatch.setattr(server, "LOCKED_S", 5.0)


AWAY = MlflowException("no answer from http://user:secret@host")


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        (HTTP, AWAY),
        (HTTP, MlflowException("busy", error_code=TEMPORARILY_UNAVAILABLE)),
        ("postgresql://host/db", OperationalError("SELECT 1", {}, Exception("server closed the connection"))),
        (SQLITE, MlflowException("(sqlite3.OperationalError) database is locked")),
    ],
)
def test_patiently_waits_and_says_so_once(
    caplog: pytest.LogCaptureFixture, uri: str, error: Exception
) -> None:
    caplog.set_level("INFO", "protclip")
    assert patiently(failing(4, error), uri, 5.0) == 5
    waits, back = (r.getMessage() for r in caplog.records)
    assert "is away" in waits
    assert "waiting up to 5 s" in waits
    assert "is back" in back
    assert "secret" not in caplog.text


def test_patiently_waits_for_other_writers_of_a_file_unasked() -> None:
    assert patiently(failing(2, OperationalError("", {}, Exception("database is locked"))), SQLITE, 0.0) == 3


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        (HTTP, RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "no"})),
        (HTTP, MlflowException("no", error_code=UNAUTHENTICATED)),
        (HTTP, PermissionError("spool")),
        (SQLITE, MlflowException("Detected out-of-date database schema")),
    ],
)
def test_patiently_raises_a_refusal_at_once(uri: str, error: Exception) -> None:
    with pytest.raises(type(error)):
        patiently(failing(1, error), uri, 60.0)


def test_patiently_gives_up_when_the_time_is_over() -> None:
    begun = time.monotonic()
    with pytest.raises(MlflowException):
        patiently(failing(10**6, AWAY), HTTP, 0.1)
    assert 0.1 <= time.monotonic() - begun < 5
    with pytest.raises(MlflowException):
        patiently(failing(1, AWAY), HTTP, 0.0)


@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "PERMISSION_DENIED"])
def test_remedy_names_the_account(code: str) -> None:
    error = MlflowException("no", error_code=ErrorCode.Value(code))
    assert "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in remedy(error)
    assert "MLFLOW_TRACKING_USERNAME" not in remedy(AWAY)
