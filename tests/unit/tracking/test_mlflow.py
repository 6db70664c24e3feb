"""Delivery against a server that is made to fail; nothing here starts or needs one."""

import base64
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE

from protclip.config.base import TrackingConfig
from protclip.config.keys import flatten
from protclip.config.places import IN_JOB
from protclip.config.schema import PretrainConfig, RunConfig
from protclip.errors import TrackingError
from protclip.tracking import mlflow as tracking
from protclip.tracking.base import NullTracker
from protclip.tracking.mlflow import MlflowTracker, attach, open_run
from protclip.tracking.params import masked
from protclip.tracking.server import tracking_uri


class Server:
    """Stands in for `MlflowClient`: remembers what it accepts, fails while it is away."""

    def __init__(self) -> None:
        self.away = threading.Event()
        self.hold = threading.Event()
        self.hold.set()
        self.refused_keys: set[str] = set()
        self.entries: list[tuple[object, ...]] = []
        self.batches: list[int] = []
        self.tries = 0
        self.runs: dict[str, str] = {}

    def __call__(self, uri: str) -> "Server":
        return self

    def _answer(self) -> None:
        self.tries += 1
        self.hold.wait(20)
        if self.away.is_set():
            raise MlflowException("no answer\nfrom http://user:secret@host", error_code=INTERNAL_ERROR)

    def log_batch(self, run_id: str, metrics: list, params: list, tags: list) -> None:
        self._answer()
        if self.refused_keys & {e.key for e in (*metrics, *params, *tags)}:
            raise MlflowException("will not change", error_code=INVALID_PARAMETER_VALUE)
        self.batches.append(len(metrics) + len(params) + len(tags))
        self.entries += [(m.key, m.value, m.step) for m in metrics]
        self.entries += [(e.key, e.value) for e in (*params, *tags)]

    def log_artifact(self, run_id: str, path: str, folder: str | None) -> None:
        self._answer()
        self.entries.append((Path(path).name, folder, Path(path).read_bytes()))

    def get_run(self, run_id: str) -> SimpleNamespace:
        self._answer()
        return SimpleNamespace(info=SimpleNamespace(lifecycle_stage=self.runs.get(run_id, "deleted")))

    def set_terminated(self, run_id: str, status: str) -> None:
        self._answer()
        self.entries.append((status,))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server()
    monkeypatch.setattr(tracking, "MlflowClient", made)
    monkeypatch.setattr(tracking, "RETRY_FIRST_S", 0.02)
    monkeypatch.setattr(tracking, "RETRY_MOST_S", 0.05)
    yield made
    made.hold.set()


def until(condition: object) -> None:
    """Waits for a condition, at most ten seconds."""
    end = time.monotonic() + 10
    while not condition():  # pyright: ignore[reportCallIssue]
        assert time.monotonic() < end
        time.sleep(0.005)


def test_tracker_delivers_everything_in_order(server: Server, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_bytes(b"<p>")
    tracker = MlflowTracker("http://host", "run", tmp_path / "spool")
    tracker.log_params({"a": 1, "b": None, "c": True, "d": 1e-5, "e": "x" * 600})
    tracker.set_tags({"data": "s3://key:secret@bucket/x"})
    tracker.log_metrics({"train/loss/gc": 0.5, "train/loss/bsr": 2}, 7)
    tracker.log_file(tmp_path / "report.html", "results")
    tracker.log_text("hällo", "data/notes.txt")
    tracker.close("FAILED")
    assert server.entries == [
        ("a", "1"), ("b", "null"), ("c", "true"), ("d", "1e-05"), ("e", "x" * 500),
        ("data", "s3://***@bucket/x"),
        ("train/loss/gc", 0.5, 7), ("train/loss/bsr", 2.0, 7),
        ("report.html", "results", b"<p>"),
        ("notes.txt", "data", "hällo".encode()),
        ("FAILED",),
    ]  # fmt: skip
    assert list((tmp_path / "spool").iterdir()) == []
    tracker.close()
    assert server.entries[-1] == ("FAILED",)


def test_tracker_replays_in_order_after_an_absence(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "protclip")
    tracker = MlflowTracker("http://user:secret@host", "run", tmp_path)
    tracker.log_metrics({"m": 0.0}, 0)
    until(lambda: server.entries)
    server.away.set()
    for step in range(1, 1500):
        tracker.log_metrics({"m": float(step)}, step)
    until(lambda: server.tries > 4)
    (spooled,) = tmp_path.glob("run.*.jsonl")
    assert spooled.read_text().count("\n") == 1499
    server.away.clear()
    until(lambda: len(server.entries) == 1500)
    tracker.close()
    assert server.entries == [*(("m", float(s), s) for s in range(1500)), ("FINISHED",)]
    assert max(server.batches) <= 1000
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warnings == [f"tracking server http://***@host is away (no answer); spooling to {spooled}"]
    assert "tracking server http://***@host is back" in caplog.text


def test_tracker_never_waits_for_a_server(server: Server, tmp_path: Path) -> None:
    server.hold.clear()
    tracker = MlflowTracker("http://host", "run", tmp_path)
    slowest = 0.0
    for step in range(200):
        begun = time.perf_counter()
        tracker.log_metrics({f"m{i}": 1.0 for i in range(10)}, step)
        tracker.set_tags({"t": "x"})
        slowest = max(slowest, time.perf_counter() - begun)
    assert slowest < 0.05
    server.hold.set()
    tracker.close()
    assert len(server.entries) == 200 * 11 + 1


def test_tracker_keeps_what_is_left_at_the_end_for_the_next_process(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.away.set()
    tracker = MlflowTracker("http://host", "run", tmp_path)
    tracker.log_metrics({"m": 1.0}, 1)
    begun = time.monotonic()
    tracker.close()
    assert time.monotonic() - begun < 5
    (left,) = tmp_path.iterdir()
    assert f"2 records of run run did not reach http://host and stay in {left}" in caplog.text
    server.away.clear()
    MlflowTracker("http://host", "run", tmp_path).close()
    assert server.entries == [("m", 1.0, 1), ("FINISHED",), ("FINISHED",)]
    assert list(tmp_path.iterdir()) == []


def test_tracker_delivers_at_its_end_what_others_could_not(server: Server, tmp_path: Path) -> None:
    server.runs = {"first": "active", "living": "active"}
    server.away.set()
    for name in ("first", "elsewhere"):
        tracker = MlflowTracker("http://host", name, tmp_path)
        tracker.log_metrics({name: 1.0}, 1)
        tracker.close()
    living = MlflowTracker("http://host", "living", tmp_path)
    living.log_metrics({"living": 1.0}, 1)
    living.flush()
    last = MlflowTracker("http://host", "last", tmp_path)
    server.away.clear()
    last.close()
    until(lambda: ("living", 1.0, 1) in server.entries)
    assert [e for e in server.entries if "living" not in e] == [
        ("FINISHED",),
        ("first", 1.0, 1),
        ("FINISHED",),
    ]
    living.close()
    # Another server's run: its records wait for that server.
    assert [left.name.partition(".")[0] for left in tmp_path.iterdir()] == ["elsewhere"]


def test_tracker_flush_leaves_the_run_open(server: Server, tmp_path: Path) -> None:
    tracker = MlflowTracker("http://host", "run", tmp_path)
    tracker.log_metrics({"m": 1.0}, 1)
    tracker.flush()
    assert server.entries == [("m", 1.0, 1)]
    tracker.log_metrics({"m": 2.0}, 2)
    tracker.flush()
    assert server.entries[-1] == ("m", 2.0, 2)
    tracker.close()


def test_tracker_drops_only_what_is_refused(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.refused_keys = {"b"}
    tracker = MlflowTracker("http://host", "run", tmp_path)
    tracker.log_params({"a": 1, "b": 2, "c": 3})
    tracker.close()
    assert server.entries == [("a", "1"), ("c", "3"), ("FINISHED",)]
    assert "tracking refuses param b: will not change" in caplog.text


def test_tracker_survives_a_full_disk(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = MlflowTracker("http://host", "run", tmp_path)

    def full(records: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(tracker._spool, "append", full)
        tracker.log_metrics({"m": 1.0})
        tracker.log_metrics({"m": 1.0})
    tracker.close()
    assert caplog.text.count("tracking records are lost") == 1
    assert server.entries == [("FINISHED",)]


def test_open_run_refuses_a_file_that_goes_with_a_submitted_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv(IN_JOB, "{}")
    with pytest.raises(TrackingError, match="no tracking server is named"):
        open_run(TrackingConfig(), "run")
    assert list(tmp_path.iterdir()) == []


def test_open_run_is_null_when_disabled() -> None:
    off = TrackingConfig(enabled=False)
    assert isinstance(open_run(off, "name"), NullTracker)
    assert isinstance(attach(off, "run"), NullTracker)
    assert isinstance(attach(TrackingConfig(), None), NullTracker)
    assert NullTracker().run_id is None


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (
            "http://user:secret@127.0.0.1:9",
            "http://***@127.0.0.1:9: tracking cannot begin: [Errno 111] Connection refused;",
        ),
        ("ftp://host", "ftp://host: tracking cannot begin: "),
        ("sqlite:///{folder}", "unable to open database file"),
        ("sqlite:///{file}/x.db", "File exists"),
        ("sqlite:///{file}", "file is not a database"),
    ],
)
def test_open_run_says_what_to_do_without_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, expected: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "file").write_text("no database, and long enough to be read as the header of one" * 9)
    uri = uri.format(folder=tmp_path, file=tmp_path / "file")
    with pytest.raises(TrackingError) as caught:
        open_run(TrackingConfig(uri=uri), "name")
    text = str(caught.value)
    assert expected in text
    assert "tracking.enabled=false" in text
    assert "secret" not in text


def test_tracking_uri_is_the_given_then_the_environment_then_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(None) == f"sqlite:///{tmp_path}/outputs/mlflow.db"
    assert tracking_uri("sqlite:///a/b.db") == f"sqlite:///{tmp_path}/a/b.db"
    assert tracking_uri("sqlite:////a/b.db") == "sqlite:////a/b.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host")
    assert tracking_uri(None) == "http://host"
    assert tracking_uri("http://other") == "http://other"


def test_flatten_gives_dotted_plain_values() -> None:
    config = PretrainConfig(data="s3://pairs", run=RunConfig(name="first"))
    flat = flatten(config)
    assert flat["optim.betas"] == "0.9,0.999"
    assert flat["loss.pda.theta"] == 0.3
    assert flat["scaling.use_gpu"] is None
    assert flat["run.name"] == "first"
    assert all(value is None or isinstance(value, str | int | float) for value in flat.values())


def test_masked_hides_credentials_only() -> None:
    assert masked("postgresql://user:pass@host/db s3://k@b") == "postgresql://***@host/db s3://***@b"
    assert masked("s3://bucket/a@b http://host:5000/x me@example.org") == (
        "s3://bucket/a@b http://host:5000/x me@example.org"
    )


def test_spooled_files_are_plain_base64(server: Server, tmp_path: Path) -> None:
    server.away.set()
    tracker = MlflowTracker("http://host", "run", tmp_path)
    tracker.log_text("x", "a.txt")
    (spooled,) = tmp_path.iterdir()
    assert base64.b64encode(b"x").decode() in spooled.read_text()
    server.away.clear()
    tracker.close()
