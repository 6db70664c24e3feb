"""Tracking against a real SQLite store and a small HTTP server that comes and goes."""

import json
import os
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from forked import forked
from protclip.config.base import TrackingConfig
from protclip.errors import DataError
from protclip.tracking.ending import closing
from protclip.tracking.mlflow import attach, open_run
from protclip.tracking.models import log_checkpoint_model, register


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory without tracking settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def test_run_in_sqlite_holds_everything(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = open_run(TrackingConfig(experiment="e"), "parent")
    tracker = open_run(TrackingConfig(experiment="e"), "child", parent_id=parent.run_id, tags={"job": "test"})
    tracker.log_params({"optim.lr": 1e-5})
    for step in range(1200):
        tracker.log_metrics({"train/loss/gc": step / 2, "train/nan": float("nan")}, step)
    tracker.log_text("table", "results/table.md")
    tracker.log_table(["name", "value"], [["a", 0.5], ["b", None]], "results/table.json")
    tracker.close()

    assert (workplace / "outputs" / "mlflow.db").is_file()
    assert list((workplace / "outputs" / "spool").iterdir()) == []
    client = MlflowClient(f"sqlite:///{workplace}/outputs/mlflow.db")
    run = client.get_run(str(tracker.run_id))
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "child"
    assert run.data.params == {"optim.lr": "1e-05"}
    assert run.data.metrics["train/loss/gc"] == 1199 / 2
    assert [m.step for m in client.get_metric_history(run.info.run_id, "train/nan")] == list(range(1200))
    tags = run.data.tags
    assert tags["mlflow.parentRunId"] == parent.run_id
    assert tags["job"] == "test"
    assert {"git_sha", "protclip_version"} <= tags.keys()
    stored = Path(urlparse(run.info.artifact_uri).path) / "results" / "table.md"
    assert stored.read_text() == "table"
    assert stored.is_relative_to(workplace / "outputs" / "mlartifacts")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workplace}/outputs/mlflow.db")
    table = client.load_table(run.info.experiment_id, "results/table.json", [run.info.run_id])
    assert table["name"].tolist() == ["a", "b"]
    assert table["value"].isna().tolist() == [False, True]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")

    # Continued: the run is open again, a changed value is refused, everything else is added.
    again = open_run(TrackingConfig(experiment="e"), "child", run_id=tracker.run_id)
    assert again.run_id == tracker.run_id
    assert client.get_run(run.info.run_id).info.status == "RUNNING"
    worker = attach(TrackingConfig(), again.run_id)
    again.log_params({"optim.lr": 2.0, "new": 1})
    worker.log_metrics({"train/loss/gc": 0.0}, 1200)
    worker.flush()
    again.close("FAILED")
    parent.close()
    run = client.get_run(run.info.run_id)
    assert run.info.status == "FAILED"
    assert run.data.params == {"optim.lr": "1e-05", "new": "1"}
    assert run.data.metrics["train/loss/gc"] == 0.0

    # A run that the server does not have does not stand in the way.
    other = open_run(TrackingConfig(experiment="e"), "other", run_id="0" * 32)
    assert other.run_id not in {None, "0" * 32}
    other.close()


def test_run_that_goes_on_forgets_why_it_failed(workplace: Path) -> None:
    first = open_run(TrackingConfig(experiment="e"), "run")
    with pytest.raises(DataError), closing(first):
        raise DataError("pairs: gone")
    client = MlflowClient(f"sqlite:///{workplace}/outputs/mlflow.db")
    failed = client.get_run(str(first.run_id))
    assert (failed.info.status, failed.data.tags["error"]) == (
        "FAILED",
        "protclip.errors.DataError: pairs: gone",
    )
    assert [file.path for file in client.list_artifacts(failed.info.run_id)] == ["error.txt"]
    with closing(open_run(TrackingConfig(experiment="e"), "run", run_id=first.run_id)):
        pass
    finished = client.get_run(failed.info.run_id)
    assert (finished.info.status, "error" in finished.data.tags) == ("FINISHED", False)


def test_run_of_an_interrupted_job_is_found_below_its_parent(workplace: Path) -> None:
    config = TrackingConfig(experiment="e")
    parent, other = open_run(config, "parent"), open_run(config, "other")
    name = "it's 100%_\\"
    killed = open_run(config, name, parent_id=parent.run_id)
    killed.flush()
    for left_out in (
        open_run(config, "it_s 100%_\\", parent_id=parent.run_id),
        open_run(config, name, parent_id=other.run_id),
        open_run(config, name),
    ):
        assert left_out.run_id != killed.run_id
        left_out.close()

    again = open_run(config, name, parent_id=parent.run_id)
    assert again.run_id == killed.run_id
    again.close("FAILED")
    assert open_run(config, name, parent_id=parent.run_id).run_id == killed.run_id
    by_id = open_run(config, name, parent_id=parent.run_id, run_id=other.run_id)
    assert by_id.run_id == other.run_id
    again = open_run(config, name, parent_id=parent.run_id)
    again.close()
    new = open_run(config, name, parent_id=parent.run_id)
    assert new.run_id != killed.run_id
    assert open_run(config, name, run_id="0" * 32, parent_id=parent.run_id).run_id == new.run_id
    for tracker in (new, other, parent):
        tracker.close()


def write_run(place: Path, number: int) -> None:
    """What a trial does, in a process of its own."""
    os.chdir(place)
    tracker = open_run(TrackingConfig(experiment="e"), f"trial-{number}")
    tracker.log_params({f"p{i}": i for i in range(150)})
    for step in range(200):
        tracker.log_metrics({"m": step + number / 10}, step)
        if step % 20 == 0:
            tracker.log_text(str(number), f"files/{step}.txt")
            tracker.set_tags({"at": str(step)})
    tracker.close()


@pytest.mark.slow
def test_processes_share_one_new_sqlite_file(workplace: Path) -> None:
    with forked([partial(write_run, workplace, number) for number in range(3)], workplace):
        pass
    assert list((workplace / "outputs" / "spool").iterdir()) == []
    client = MlflowClient(f"sqlite:///{workplace}/outputs/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'e'")
    runs = sorted(client.search_runs([experiment.experiment_id]), key=lambda run: str(run.info.run_name))
    assert [run.info.run_name for run in runs] == ["trial-0", "trial-1", "trial-2"]
    for number, run in enumerate(runs):
        assert run.info.status == "FINISHED"
        assert run.data.params == {f"p{i}": str(i) for i in range(150)}
        assert run.data.tags["at"] == "180"
        points = client.get_metric_history(run.info.run_id, "m")
        assert [(p.step, p.value) for p in points] == [(step, step + number / 10) for step in range(200)]
        files = Path(urlparse(run.info.artifact_uri).path) / "files"
        assert {file.name: file.read_text() for file in files.iterdir()} == {
            f"{step}.txt": str(number) for step in range(0, 200, 20)
        }


class Recorder(ThreadingHTTPServer):
    """Accepts MLflow's REST requests and keeps their bodies."""

    allow_reuse_address = True

    def __init__(self, port: int, seen: list[tuple[str, dict]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                info = {"run_id": "abc", "run_uuid": "abc", "experiment_id": "0", "status": "RUNNING"}
                self.answer({"run": {"info": info, "data": {}}})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                seen.append((self.path.rpartition("/mlflow/")[2], json.loads(body)))
                self.answer({})

            def answer(self, value: dict) -> None:
                data = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                """Says nothing."""

        super().__init__(("127.0.0.1", port), Handler)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


def test_run_outlives_an_absent_server(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("protclip.tracking.mlflow.RETRY_FIRST_S", 0.05)
    seen: list[tuple[str, dict]] = []
    server = Recorder(0, seen)
    port = server.server_address[1]
    tracker = attach(TrackingConfig(uri=f"http://127.0.0.1:{port}"), "abc")
    tracker.log_metrics({"m": 0.0}, 0)
    tracker.flush()
    server.stop()
    for step in range(1, 30):
        tracker.log_metrics({"m": float(step)}, step)
    tracker.flush()
    assert "29 records of run abc did not reach" in caplog.text
    server = Recorder(port, seen)
    tracker.close()
    server.stop()
    steps = [int(m["step"]) for path, body in seen if path == "runs/log-batch" for m in body["metrics"]]
    assert steps == list(range(30))
    assert seen[-1][0] == "runs/update"
    assert seen[-1][1]["status"] == "FINISHED"
    assert list((workplace / "outputs" / "spool").iterdir()) == []


def test_checkpoint_model_embeds_as_the_checkpoint_does(
    workplace: Path, tiny_checkpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    from protclip.evaluation.embed import Embedder

    tracker = open_run(TrackingConfig(), "train")
    uri = log_checkpoint_model(tracker, str(tiny_checkpoint))
    assert uri is not None
    place = f"sqlite:///{workplace}/outputs/mlflow.db"
    client = MlflowClient(place)
    experiment_id = client.get_run(str(tracker.run_id)).info.experiment_id
    other = client.create_logged_model(experiment_id, "other", tracker.run_id)
    versions = [
        register(tracker, model, "protclip", alias, {"score": score})
        for model, alias, score in (
            (uri, "best-a.b", "1"),
            (f"models:/{other.model_id}", "best-c", "2"),
            (uri, "best-c", "3"),
        )
    ]
    assert versions == ["models:/protclip/1", "models:/protclip/2", "models:/protclip/1"]
    assert register(tracker, "models:/m-" + "0" * 32, "protclip", "best-c") is None
    assert "mlflow.register_model('models:/m-000" in caplog.text
    tracker.close()
    version = client.get_model_version("protclip", "1")
    assert version.tags == {"score": "3"}
    assert version.run_id == tracker.run_id
    mlflow.set_tracking_uri(place)
    try:
        model = mlflow.pyfunc.load_model("models:/protclip@best-c")
        by_run = mlflow.pyfunc.load_model(f"runs:/{tracker.run_id}/protclip")
        stored = Path(mlflow.artifacts.download_artifacts(uri))
    finally:
        mlflow.set_tracking_uri(None)
    assert list(stored.rglob("model-*.safetensors"))
    assert not list(stored.rglob("optimizer-*"))
    embedder = Embedder.from_checkpoint(str(tiny_checkpoint))
    sequences, texts = ["MKTAYIAK", "MEEPQSDPSV"], ["FUNCTION: Binds DNA.", None]
    table = model.predict(pd.DataFrame({"sequence": sequences, "text": texts}))
    np.testing.assert_allclose(
        np.stack(table["protein_embedding"]), embedder.embed_proteins(sequences), atol=1e-6
    )
    np.testing.assert_allclose(table["text_embedding"][0], embedder.embed_texts(texts[:1])[0], atol=1e-6)
    assert table["text_embedding"][1] is None
    only = by_run.predict(pd.DataFrame({"sequence": sequences[:1]}))
    assert list(only) == ["protein_embedding"]
