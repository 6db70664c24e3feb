"""What this process may do on the tracking server, step by step, on a short fuse: for pre-flight checks."""

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from protclip.config.base import TrackingConfig
from protclip.storage.probe import Step
from protclip.tracking.mlflow import find_experiment
from protclip.tracking.params import masked
from protclip.tracking.server import FAILURES, SQLITE, connect, quiet, reason, tracking_uri

TIMEOUT_S = 5
RUN_NAME = "doctor"


class Session:
    """Steps on a server, up to the first that fails.

    Attributes:
        uri: The server, without passwords.
        steps: What was tried.
        version: The server's version of MLflow, empty when it was not asked or did not say.
    """

    def __init__(self, config: TrackingConfig) -> None:
        self._config = config
        self._uri = tracking_uri(config.uri)
        self.uri = masked(self._uri)
        self.steps: list[Step] = []
        self.version = ""
        quiet()

    @property
    def file(self) -> Path | None:
        """The SQLite file, if that is what the server is; a matter of one machine."""
        return Path(self._uri.removeprefix(SQLITE)) if self._uri.startswith(SQLITE) else None

    def reach(self) -> bool:
        """Asks the server for its version with this process's credentials, or opens the file."""
        if (file := self.file) is not None:
            return self._try("open", lambda: _open(file, self._uri))
        return self._try("reach", self._greet)

    def record(self) -> None:
        """Does what a job does: an experiment, a run, a metric, an artifact; and deletes the run again.

        Nothing is done where a job would make the file first.
        """
        if self.file and not self.file.exists():
            return
        client = MlflowClient(self._uri)
        made: dict[str, str] = {}

        def find() -> None:
            made["experiment"] = find_experiment(client, self._uri, self._config.experiment)

        def begin() -> None:
            run = client.create_run(made["experiment"], run_name=RUN_NAME)
            made.update(run=run.info.run_id, artifacts=str(run.info.artifact_uri))

        if not (
            self._try(f"experiment {self._config.experiment!r}", find) and self._try("create run", begin)
        ):
            return
        self._try("log metric", lambda: client.log_metric(made["run"], "doctor/checked", 1.0))
        if self._try("log artifact", lambda: _round_trip(client, made["run"])):
            self._try("delete artifact", lambda: _delete(made["artifacts"]))
        self._try("delete run", lambda: client.delete_run(made["run"]))

    def _greet(self) -> None:
        answer = http_request(
            get_default_host_creds(self._uri), "/version", "GET", max_retries=0, timeout=TIMEOUT_S
        )
        assert answer is not None
        if answer.status_code != 200:
            meaning = {401: "not signed in", 403: "signed in, but not allowed"}.get(answer.status_code, "")
            raise MlflowException(f"HTTP {answer.status_code} {meaning or answer.reason}")
        self.version = answer.text.strip()[:20]

    def _try(self, verb: str, action: Callable[[], object]) -> bool:
        """Notes whether it works."""
        try:
            action()
        except FAILURES as error:
            self.steps.append(Step(verb, reason(error)))
            return False
        self.steps.append(Step(verb))
        return True


def _open(file: Path, uri: str) -> None:
    """Opens a file that is there; looks where a job would make it."""
    if file.exists():
        with contextlib.closing(sqlite3.connect(file, timeout=TIMEOUT_S)) as database:
            database.execute("PRAGMA schema_version")
        connect(uri)
    elif not os.access(place := next(p for p in file.parents if p.is_dir()), os.W_OK):
        raise PermissionError(f"{place} cannot be written to")


def _round_trip(client: MlflowClient, run_id: str) -> None:
    """Stores a file with the run and reads it back."""
    with tempfile.TemporaryDirectory(prefix="protclip-") as directory:
        sent = Path(directory, "doctor.txt")
        sent.write_text(run_id)
        client.log_artifact(run_id, str(sent))
        back = client.download_artifacts(run_id, sent.name, tempfile.mkdtemp(dir=directory))
        if Path(back).read_text() != run_id:
            raise OSError("something else is read than was written")


def _delete(artifacts: str) -> None:
    """Deletes the run's files, which deleting the run leaves."""
    get_artifact_repository(artifacts).delete_artifacts()
