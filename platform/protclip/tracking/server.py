"""Where runs are remembered: at which address, how it is reached, and what its failures mean."""

import logging
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from protclip.config.places import IN_JOB
from protclip.errors import TrackingError
from protclip.tracking.params import masked

log = logging.getLogger(__name__)

T = TypeVar("T")

OUTPUTS = Path("outputs")
SQLITE = "sqlite:///"
RETRY_FIRST_S, RETRY_MOST_S = 1.0, 60.0
LOCKED_S = 60.0
"""How long other processes that write to the same SQLite file are waited for at least."""

FAILURES = (MlflowException, SQLAlchemyError, sqlite3.Error, OSError)
"""What MLflow raises when a server or a database does not do what it is asked."""

_AWAY = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED"}
_STRANGER = {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"}


def tracking_uri(given: str | None) -> str:
    """The URI that is meant: the one given, MLFLOW_TRACKING_URI, or a SQLite file in `outputs/`.

    Raises:
        TrackingError: It is that file, in a submitted job.
    """
    uri = given or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri and IN_JOB in os.environ:
        raise TrackingError(
            "no tracking server is named: the default, a SQLite file in outputs/, would go with this job's "
            "upload; set MLFLOW_TRACKING_URI where the cluster's nodes start, give tracking.uri=…, or go "
            "without by tracking.enabled=false"
        )
    uri = uri or f"{SQLITE}{OUTPUTS / 'mlflow.db'}"
    return f"{SQLITE}{Path(uri.removeprefix(SQLITE)).absolute()}" if uri.startswith(SQLITE) else uri


def connect(uri: str) -> MlflowClient:
    """A client, which for a SQLite file makes the folder, the file and its tables.

    Raises:
        MlflowException, SQLAlchemyError, sqlite3.Error, OSError: It cannot be used.
    """
    if not uri.startswith(SQLITE):
        return MlflowClient(uri)
    path = Path(uri.removeprefix(SQLITE))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two processes that make the tables at once leave a database that neither can use.
    with FileLock(f"{path}.lock"):
        # On a file that cannot be opened MLflow itself tries for minutes.
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA schema_version")
        return MlflowClient(uri)


def patiently(action: Callable[[], T], uri: str, wait_s: float) -> T:
    """Does something that needs the server, again and again while it is away, and says so once.

    Args:
        action: What fails when the server is away, and may be done again after it has failed.
        uri: The server.
        wait_s: For how long; then, and when the server refuses, the failure is raised.
    """
    sqlite = uri.startswith(SQLITE)
    end = time.monotonic() + (max(wait_s, LOCKED_S) if sqlite else wait_s)
    pause_s, waiting = RETRY_FIRST_S, False
    while True:
        try:
            result = action()
        except FAILURES as error:
            left_s = end - time.monotonic()
            if left_s <= 0 or not (_is_locked(error) if sqlite else _is_away(error)):
                raise
            if not waiting:
                log.warning(
                    "tracking server %s is away (%s); waiting up to %.0f s for it",
                    masked(uri),
                    reason(error),
                    left_s,
                )
            waiting = True
            time.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, RETRY_MOST_S)
            continue
        if waiting:
            log.info("tracking server %s is back", masked(uri))
        return result


def remedy(error: BaseException) -> str:
    """What the user can do about a failure to begin."""
    if isinstance(error, MlflowException) and error.error_code in _STRANGER:
        return "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to an account that may do this"
    return "start the server, give another tracking.uri"


def reason(error: BaseException) -> str:
    """Why, on one line without secrets: the system's own words when it was the network or the disk."""
    root: BaseException = error
    while (inner := root.__cause__ or root.__context__) is not None:
        root = inner
    error = root if isinstance(root, OSError) else error
    line = masked((str(error).strip().splitlines() or [type(error).__name__])[0])
    return line if len(line) <= 200 else line[:199] + "…"


def quiet() -> None:
    """Keeps migrations, progress and retries out of the log; what matters of them is said here."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def _is_away(error: BaseException) -> bool:
    """False for a refusal, which waiting does not change."""
    return isinstance(error, OperationalError) or (
        isinstance(error, MlflowException) and error.error_code in _AWAY
    )


def _is_locked(error: BaseException) -> bool:
    """True when another process was writing to the SQLite file."""
    return "database is locked" in str(error)
