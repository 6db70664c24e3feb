"""The database that remembers studies: SQLite for one machine, PostgreSQL for a team."""

from pathlib import Path
from types import TracebackType

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from protclip.errors import ConfigError, DataError

DEFAULT = "sqlite:///outputs/optuna.db"
SQLITE, POSTGRESQL = "sqlite", "postgresql"
LOCK_TIMEOUT_S = 60
"""How long a write waits for another program that uses the SQLite file, like optuna-dashboard."""

_REMEDIES = {
    SQLITE: "see that it can be written, has room, and is not held by another program",
    POSTGRESQL: "see that the server runs, has the database and lets you in (PGPASSWORD or ~/.pgpass)",
}


class Store:
    """Optuna's storage; as a context it gives the database's failures as errors of ours.

    Attributes:
        storage: What `optuna.create_study` takes.

    Args:
        url: SQLAlchemy URL; null: a SQLite file in outputs/. A relative file is made absolute, and its
            folder is created.

    Raises:
        ConfigError: The URL is wrong, holds a password, or needs what is not installed.
        DataError: The database cannot be used.
    """

    storage: RDBStorage

    def __init__(self, url: str | None) -> None:
        self._url = _checked(url or DEFAULT)
        self._kind = self._url.get_backend_name()
        sqlite = self._kind == SQLITE
        arguments = {"connect_args": {"timeout": LOCK_TIMEOUT_S}} if sqlite else {"pool_pre_ping": True}
        with self:
            if sqlite:
                Path(str(self._url.database)).parent.mkdir(parents=True, exist_ok=True)
            try:
                self.storage = RDBStorage(self._url.render_as_string(hide_password=False), arguments)
            except ImportError as error:
                raise ConfigError(
                    f"study={self} needs a driver that is not installed: pip install 'psycopg[binary]'"
                ) from error
            except RuntimeError as error:
                raise DataError(
                    f"{self}: the store is of another version of Optuna than {optuna.__version__}; give "
                    "another study=…, or a copy of it upgraded by `optuna storage upgrade`"
                ) from error

    def __str__(self) -> str:
        """The URL without its user."""
        return self._url._replace(username=None).render_as_string()

    def __enter__(self) -> None:
        """Begins."""

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        """Raises `DataError` for what the database or the file system says."""
        if isinstance(error, StorageInternalError | SQLAlchemyError | OSError):
            cause = error.__cause__ if isinstance(error, StorageInternalError) else error
            reason = str(getattr(cause, "orig", None) or cause).strip().partition("\n")[0]
            raise DataError(
                f"{self}: the sweep's store cannot be used: {reason}; {_REMEDIES[self._kind]}. What was "
                "written is kept: submit the same command again to continue"
            ) from error


def _checked(text: str) -> URL:
    """A URL that can be used, of a file an absolute one."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise ConfigError(
            "study: not a URL; give sqlite:///FILE or postgresql://USER@HOST/DATABASE"
        ) from error
    if url.password is not None or "password" in url.query:
        raise ConfigError(
            "study: a password does not belong in a configuration, which is shown and kept; leave it out and "
            "give it as PGPASSWORD or in ~/.pgpass"
        )
    name = url.drivername.partition("+")[0]
    if name not in _REMEDIES:
        raise ConfigError(
            f"study: {name!r} is no database for studies; give sqlite:///FILE or postgresql://USER@HOST/DATABASE"
        )
    if name == POSTGRESQL:
        return url
    if not url.database or url.database == ":memory:":
        raise ConfigError("study: a database in memory is gone with the sweep; give sqlite:///FILE")
    return url.set(database=str(Path(url.database).absolute()))
