"""Runs in MLflow, written by a thread of their own so that training never waits for a server."""

import base64
import json
import logging
import re
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag
from mlflow.entities import Param as MlflowParam
from mlflow.exceptions import MlflowException

from protclip import __version__
from protclip.config.base import TrackingConfig
from protclip.config.keys import show
from protclip.errors import TrackingError
from protclip.provenance import git_sha
from protclip.tracking.base import NullTracker, Param, Row, Status, Tracker
from protclip.tracking.ending import ERROR_TAG
from protclip.tracking.params import masked
from protclip.tracking.server import (
    FAILURES,
    OUTPUTS,
    RETRY_FIRST_S,
    RETRY_MOST_S,
    SQLITE,
    connect,
    patiently,
    quiet,
    reason,
    remedy,
    tracking_uri,
)
from protclip.tracking.spool import Record, Spool, left_behind

log = logging.getLogger(__name__)

MAX_VALUE_CHARS = 500
BATCH_LIMITS = {"metric": 1000, "param": 100, "tag": 100, "file": 1, "status": 1}
"""Most records of one kind that MLflow takes in one request."""
FLUSH_LIMIT_S = 30.0

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Has the UI open on training runs and charts; without it MLflow 3 guesses, often wrongly."""

DESCRIPTION_TAG = "mlflow.note.content"
"""What the UI shows as a run's description, Markdown."""

PARENT_TAG = "mlflow.parentRunId"
"""Names the run that a run is nested under."""

_REFUSALS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST", "INVALID_STATE"}


def open_run(
    config: TrackingConfig,
    run_name: str,
    *,
    run_id: str | None = None,
    parent_id: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Tracker:
    """Begins a run, or continues one; call it on the driver, before the work.

    Args:
        config: Where to, and how long a server that is away is waited for; a tracker that remembers nothing
            when disabled.
        run_name: Shown in MLflow.
        run_id: Run to continue; another is taken when the server does not have it.
        parent_id: Run to nest under; one of the same name that is nested there and not FINISHED is
            continued, because its job was killed before it could keep the run's identifier.
        tags: Added to the tags that name the code.

    Raises:
        TrackingError: The server does not answer or refuses.
    """
    if not config.enabled:
        return NullTracker()
    uri = tracking_uri(config.uri)
    quiet()
    try:
        found = patiently(lambda: _begin(config, uri, run_name, run_id, parent_id), uri, config.wait_s)
        tracker = attach(config, found)
    except FAILURES as error:
        raise TrackingError(
            f"{masked(uri)}: tracking cannot begin: {reason(error)}; {remedy(error)}, or go without by "
            "tracking.enabled=false"
        ) from error
    code = {"protclip_version": __version__, "git_sha": git_sha() or "unknown"}
    tracker.set_tags({**code, **(tags or {})})
    return tracker


def attach(config: TrackingConfig, run_id: str | None) -> Tracker:
    """Joins a run that the driver has opened, without asking the server; for workers.

    Args:
        config: The driver's.
        run_id: The driver's run; None gives a tracker that remembers nothing.
    """
    if not config.enabled or run_id is None:
        return NullTracker()
    quiet()
    return MlflowTracker(tracking_uri(config.uri), run_id, OUTPUTS.absolute() / "spool")


def join(config: TrackingConfig, run_id: str | None) -> Tracker:
    """Joins a run, ended or not, to add to it; its status stays as it is.

    Args:
        config: Where it is.
        run_id: The run; a tracker that remembers nothing when the server does not have it.
    """
    if not config.enabled or run_id is None:
        return NullTracker()
    quiet()
    uri = tracking_uri(config.uri)
    try:
        if not _is_there(connect(uri), run_id):
            log.warning("%s has no run %s; nothing is added to it", masked(uri), run_id)
            return NullTracker()
    except FAILURES as error:
        log.warning("%s: whether run %s is there is not known (%s)", masked(uri), run_id, reason(error))
    return attach(config, run_id)


def _begin(config: TrackingConfig, uri: str, run_name: str, run_id: str | None, parent_id: str | None) -> str:
    """The identifier of a run that is begun or continued."""
    client = connect(uri)
    if run_id is not None and not _is_there(client, run_id):
        log.warning("%s has no run %s; a new run is begun", masked(uri), run_id)
        run_id = None
    if run_id is None:
        experiment_id = find_experiment(client, uri, config.experiment)
        run_id = parent_id and _unfinished_child(client, experiment_id, run_name, parent_id)
        if run_id is None:
            parent = {} if parent_id is None else {PARENT_TAG: parent_id}
            return client.create_run(experiment_id, run_name=run_name, tags=parent).info.run_id
    client.update_run(run_id, status="RUNNING")
    if ERROR_TAG in client.get_run(run_id).data.tags:
        client.delete_tag(run_id, ERROR_TAG)
    return run_id


def _unfinished_child(client: MlflowClient, experiment_id: str, run_name: str, parent_id: str) -> str | None:
    """The newest run of that name nested under the parent that is not FINISHED."""
    # MLflow's filters know no escapes: a pattern that may find too much, then the name itself.
    pattern = re.sub(r"['\\]", "_", run_name)
    found = client.search_runs(
        [experiment_id],
        f"tags.`{PARENT_TAG}` = '{parent_id}' AND attributes.run_name LIKE '{pattern}' "
        "AND attributes.status != 'FINISHED'",
        order_by=["attributes.start_time DESC"],
    )
    return next((run.info.run_id for run in found if run.info.run_name == run_name), None)


def _is_there(client: MlflowClient, run_id: str) -> bool:
    """True when the run can be continued."""
    try:
        return client.get_run(run_id).info.lifecycle_stage == "active"
    except MlflowException as error:
        if error.error_code in _REFUSALS:
            return False
        raise


def find_experiment(client: MlflowClient, uri: str, name: str) -> str:
    """The experiment's identifier; a SQLite file keeps its artifacts in `mlartifacts` beside it."""
    if (found := client.get_experiment_by_name(name)) is not None:
        return found.experiment_id
    beside = Path(uri.removeprefix(SQLITE)).parent / "mlartifacts"
    try:
        place = beside.as_uri() if uri.startswith(SQLITE) else None
        return client.create_experiment(name, place, tags=EXPERIMENT_TAGS)
    except MlflowException:
        # Another job may have made it since.
        if (found := client.get_experiment_by_name(name)) is None:
            raise
        return found.experiment_id


class MlflowTracker:
    """A `Tracker` whose calls go to a spool on disk, from which a thread delivers them in order.

    Attributes:
        run_id: The run.
        uri: The tracking URI.
    """

    def __init__(self, uri: str, run_id: str, spool_directory: Path) -> None:
        """Starts delivering, at first what an earlier process of the run left behind.

        Raises:
            OSError: The spool cannot be written.
        """
        self.run_id = run_id
        self.uri = uri
        self._spool = Spool(spool_directory, run_id)
        self._closed = self._disk_failed = False
        threading.Thread(target=self._deliver_all, name="tracking", daemon=True).start()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds a point to each metric's curve."""
        now = int(time.time() * 1000)
        self._put(
            [
                {"kind": "metric", "key": key, "value": float(value), "time": now, "step": step or 0}
                for key, value in metrics.items()
            ]
        )

    def log_params(self, params: Mapping[str, Param]) -> None:
        """Records values, long ones cut; MLflow refuses to change one, which is only a warning."""
        self._put(
            [
                {"kind": "param", "key": key, "value": masked(show(value))[:MAX_VALUE_CHARS]}
                for key, value in params.items()
            ]
        )

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets or replaces tags."""
        self._put([{"kind": "tag", "key": key, "value": masked(value)} for key, value in tags.items()])

    def log_file(self, path: Path, folder: str = "") -> None:
        """Stores a copy of a small file, read now."""
        self._put_file(path.read_bytes(), folder, path.name)

    def log_text(self, text: str, name: str) -> None:
        """Stores text as the file `name`, which may contain folders."""
        folder, _, base = name.rpartition("/")
        self._put_file(text.encode(), folder, base)

    def log_table(self, columns: Sequence[str], rows: Sequence[Row], name: str) -> None:
        """Stores a table as `mlflow.log_table` does; MLflow's pages then show it, and compare runs by it."""
        self.log_text(json.dumps({"columns": columns, "data": rows}), name)
        self.set_tags({"mlflow.loggedArtifacts": json.dumps([{"path": name, "type": "table"}])})

    def flush(self) -> None:
        """Waits up to `FLUSH_LIMIT_S` for the server, less when it is known to be away."""
        self._flush()

    def close(self, status: Status = "FINISHED") -> None:
        """Ends the run; a second call does nothing.

        What other runs of this directory could not deliver at their own end is delivered now.
        """
        if self._closed:
            return
        self._closed = True
        self._put([{"kind": "status", "status": status}])
        if self._flush():
            self._deliver_left()
        self._spool.close()

    def _flush(self) -> bool:
        """True when everything is delivered."""
        left = self._spool.drain(FLUSH_LIMIT_S)
        if left:
            log.warning(
                "%d records of run %s did not reach %s and stay in %s; continuing the run, or the end of "
                "another one in the same directory, delivers them",
                *(left, self.run_id, masked(self.uri), self._spool.path),
            )
        return not left

    def _deliver_left(self) -> None:
        """Delivers what no process is about to, as far as it belongs to this server's runs."""
        client, directory = MlflowClient(self.uri), self._spool.directory
        try:
            for run_id in left_behind(directory):
                if _is_there(client, run_id):
                    late = MlflowTracker(self.uri, run_id, directory)
                    late._flush()
                    late._spool.close()
        except FAILURES as error:
            log.warning("records of other runs stay in %s: %s", directory, reason(error))

    def _put_file(self, data: bytes, folder: str, name: str) -> None:
        encoded = base64.b64encode(data).decode()
        self._put([{"kind": "file", "folder": folder, "name": name, "data": encoded}])

    def _put(self, records: list[Record]) -> None:
        """Spools records; a full disk costs them, not the training."""
        try:
            self._spool.append(records)
        except OSError as error:
            if not self._disk_failed:
                log.warning("tracking records are lost: %s", error)
            self._disk_failed = True

    def _deliver_all(self) -> None:
        """The thread: delivers until the spool is closed."""
        pause_s, away = RETRY_FIRST_S, False
        while records := self._spool.peek(BATCH_LIMITS["metric"]):
            batch = _batch(records)
            try:
                self._deliver(batch)
            except Exception as error:  # noqa: BLE001  whatever it is, the records stay for the next try
                if not away:
                    where = (masked(self.uri), reason(error), self._spool.path)
                    log.warning("tracking server %s is away (%s); spooling to %s", *where)
                away = True
                self._spool.failed(pause_s)
                pause_s = min(2 * pause_s, RETRY_MOST_S)
                continue
            self._spool.delivered(len(batch))
            if away:
                log.info("tracking server %s is back", masked(self.uri))
            pause_s, away = RETRY_FIRST_S, False

    def _deliver(self, batch: list[Record]) -> None:
        """Sends a batch; a record that the server refuses for good is dropped with a warning."""
        try:
            self._send(batch)
        except MlflowException as error:
            if error.error_code not in _REFUSALS:
                raise
            if len(batch) == 1:
                name = batch[0].get("key") or batch[0].get("name") or batch[0]["kind"]
                log.warning("tracking refuses %s %s: %s", batch[0]["kind"], name, reason(error))
                return
            for record in batch:
                self._deliver([record])

    def _send(self, batch: list[Record]) -> None:
        """One request to the server; all records of the batch are entries, or it is one other record."""
        client, first = MlflowClient(self.uri), batch[0]
        if first["kind"] == "file":
            with tempfile.TemporaryDirectory(prefix="protclip-") as directory:
                path = Path(directory) / str(first["name"])
                path.write_bytes(base64.b64decode(str(first["data"])))
                client.log_artifact(self.run_id, str(path), str(first["folder"]) or None)
        elif first["kind"] == "status":
            client.set_terminated(self.run_id, str(first["status"]))
        else:
            client.log_batch(
                self.run_id,
                metrics=[
                    Metric(str(r["key"]), float(r["value"]), int(r["time"]), int(r["step"]))
                    for r in batch
                    if r["kind"] == "metric"
                ],
                params=[MlflowParam(str(r["key"]), str(r["value"])) for r in batch if r["kind"] == "param"],
                tags=[RunTag(str(r["key"]), str(r["value"])) for r in batch if r["kind"] == "tag"],
            )


def _batch(records: list[Record]) -> list[Record]:
    """The longest beginning that goes into one request: records of one kind, as many as are allowed."""
    kind = records[0]["kind"]
    count = next((i for i, r in enumerate(records) if r["kind"] != kind), len(records))
    return records[: min(count, BATCH_LIMITS[str(kind)])]
