"""A real MLflow server that asks for a password, goes away, and comes back."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Timer

import pytest
import requests
from mlflow import MlflowClient

from protclip.config.base import TrackingConfig
from protclip.errors import TrackingError
from protclip.tracking import server as waiting
from protclip.tracking.mlflow import join, open_run
from protclip.tracking.models import register

pytestmark = pytest.mark.slow

PASSWORD = "correct-horse-battery"


class Server:
    """`mlflow server` with basic auth on the loopback interface."""

    def __init__(self, place: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        (place / "auth.ini").write_text(
            f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{place}/auth.db\n"
            "admin_username = admin\nauth_cache_ttl_seconds = 600\n"
        )
        self._place = place
        self._environment = {
            "MLFLOW_AUTH_CONFIG_PATH": str(place / "auth.ini"),
            "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "test",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

    def start(self) -> None:
        """Starts it; `wait` says when it answers."""
        with (self._place / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth"),
                    *("--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"),
                    *("--backend-store-uri", f"sqlite:///{self._place}/mlflow.db"),
                    *("--artifacts-destination", str(self._place / "artifacts")),
                ],
                env=os.environ | self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Waits until it answers."""
        end = time.monotonic() + 120
        while True:
            with suppress(requests.ConnectionError):
                if requests.get(f"{self.uri}/health", timeout=5).ok:
                    return
            assert self._process.poll() is None, (self._place / "log.txt").read_text()
            assert time.monotonic() < end
            time.sleep(0.1)

    def kill(self) -> None:
        """Ends it and its workers at once."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    made.start()
    try:
        made.wait()
        yield made
    finally:
        made.kill()


@pytest.fixture(autouse=True)
def _signed_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)


def test_study_on_a_server_with_basic_auth(server: Server) -> None:
    config = TrackingConfig(uri=server.uri, experiment="studies")
    parent = open_run(config, "sweep")
    child = open_run(config, "trial-0", parent_id=parent.run_id)
    child.log_params({"varied/loss.bsr": 0.4})
    child.log_metrics({"valid/t2p_r10": 0.5}, 10)
    child.log_text("a: 1", "config.yaml")
    child.close("FAILED")
    again = open_run(config, "trial-0", parent_id=parent.run_id)
    assert again.run_id == child.run_id
    again.close()
    client = MlflowClient(server.uri)
    run = client.get_run(str(child.run_id))
    assert run.data.tags["mlflow.parentRunId"] == parent.run_id
    assert run.data.params == {"varied/loss.bsr": "0.4"}
    assert run.data.metrics == {"valid/t2p_r10": 0.5}
    assert run.info.status == "FINISHED"
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["config.yaml"]

    model = client.create_logged_model(run.info.experiment_id, "protclip", run.info.run_id)
    for _ in range(2):
        uri = register(parent, f"models:/{model.model_id}", "protclip", "best-sweep", {"study": "sweep"})
        assert uri == "models:/protclip/1"
    parent.close()
    version = client.get_model_version_by_alias("protclip", "best-sweep")
    assert (version.run_id, version.tags) == (run.info.run_id, {"study": "sweep"})


@pytest.mark.parametrize("password", ["not-my-secret", None])
def test_server_that_refuses_is_named_with_the_remedy(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    password: str | None,
) -> None:
    if password is None:
        monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    begun = time.monotonic()
    with pytest.raises(TrackingError) as caught:
        open_run(TrackingConfig(uri=server.uri, wait_s=600), "name")
    assert time.monotonic() - begun < 60
    assert "401" in str(caught.value)
    assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in str(caught.value)
    assert "not-my-secret" not in f"{caught.value} {caplog.text}"


def test_study_outlives_its_server(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(waiting, "RETRY_FIRST_S", 0.2)
    monkeypatch.setattr(waiting, "RETRY_MOST_S", 0.5)
    monkeypatch.setattr("protclip.tracking.mlflow.RETRY_FIRST_S", 0.2)
    monkeypatch.setattr("protclip.tracking.mlflow.RETRY_MOST_S", 0.5)
    config = TrackingConfig(uri=server.uri, experiment="studies")
    parent = open_run(config, "long-sweep")
    first = open_run(config, "trial-0", parent_id=parent.run_id)
    first.log_metrics({"m": 0.0}, 0)
    first.flush()
    server.kill()
    first.log_params({"a": 1})
    for step in range(1, 100):
        first.log_metrics({"m": float(step)}, step)
    first.log_text("best", "notes.txt")
    first.close()
    assert "records of run" in caplog.text
    late = join(config, first.run_id)
    late.log_metrics({"bench": 0.5})
    late.flush()
    # A trial that begins now waits until the server is there again.
    again = Timer(1.0, server.start)
    again.start()
    second = open_run(config.model_copy(update={"wait_s": 120}), "trial-1", parent_id=parent.run_id)
    again.join()
    second.log_metrics({"m": 1.0}, 1)
    second.close("KILLED")
    late.flush()
    parent.log_metrics({"best": 1.0})
    parent.close()

    client = MlflowClient(server.uri)
    found = client.search_runs(
        [client.get_run(str(parent.run_id)).info.experiment_id],
        f"tags.`mlflow.parentRunId` = '{parent.run_id}'",
        order_by=["attributes.start_time"],
    )
    assert [(run.info.run_name, run.info.status) for run in found] == [
        ("trial-0", "FINISHED"),
        ("trial-1", "KILLED"),
    ]
    history = client.get_metric_history(str(first.run_id), "m")
    assert sorted((m.step, m.value) for m in history) == [(step, float(step)) for step in range(100)]
    assert found[0].data.params == {"a": "1"}
    assert found[0].data.metrics["bench"] == 0.5
    assert [file.path for file in client.list_artifacts(str(first.run_id))] == ["notes.txt"]
    assert client.get_run(str(parent.run_id)).info.status == "FINISHED"
    assert list((tmp_path / "outputs" / "spool").iterdir()) == []
    assert caplog.text.count("waiting up to") == 1
