"""What is checked before a job goes to a cluster, and what is made of its end."""

import json
import logging
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from zipfile import ZipFile

import pytest
import ray
import yaml
from ray.job_submission import JobDetails, JobStatus, JobType

from protclip.cluster.submit import (
    Job,
    Target,
    check_upload,
    connect_jobs,
    exit_code,
    packaged,
    read_runtime_env,
    readable,
    submission_id,
    submit,
)
from protclip.commands import COMMANDS
from protclip.errors import ConfigError

REPO = Path(__file__).resolve().parents[3]
LASTING = ("data=s3://b/pairs", "run.name=first", "run.storage=s3://b/runs")


def job(name: str, *overrides: str, file: Path | None = None) -> Job:
    command = COMMANDS[name]
    return Job(command.script, command.schema, file, overrides)


def test_submission_id_is_that_of_the_run() -> None:
    assert submission_id(job("pretrain", *LASTING)) == "pretrain-first"
    assert submission_id(job("pretrain", *LASTING, "train.max_steps=9")) == "pretrain-first"


def test_submission_id_is_that_of_the_study() -> None:
    asked = job("sweep", "name=lr_1", "data=s3://b/p", file=REPO / "conf/sweeps/optim.yaml")
    assert submission_id(asked) == "sweep-lr_1"


def test_submission_id_is_that_of_the_output() -> None:
    first, again, other, odd = (
        submission_id(job("prepare", f"inputs=s3://b/{name}", f"output={output}"))
        for name, output in (
            ("a", "s3://b/str"),
            ("b", "s3://b/str/"),
            ("a", "s3://c/str"),
            ("a", "s3://b/ä ö"),
        )
    )
    assert re.fullmatch(r"prepare-data-str-[0-9a-f]{6}", first)
    assert again == first
    assert re.fullmatch(r"prepare-data-str-[0-9a-f]{6}", other)
    assert other != first
    assert re.fullmatch(r"[A-Za-z0-9._-]+", odd)


def test_submit_says_that_the_configuration_is_wrong_before_it_asks_the_cluster() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'optim\.lrr'"):
        submit(job("pretrain", *LASTING, "optim.lrr=1"), Target("http://127.0.0.1:1"))


def test_submit_sends_no_password() -> None:
    asked = job("pretrain", *LASTING, "tracking.uri=http://me:pass@mlflow:5000")
    with pytest.raises(ConfigError, match=r"^tracking\.uri=http://\*\*\*@mlflow:5000: all who see") as caught:
        submit(asked, Target("http://127.0.0.1:1"))
    assert "pass@" not in str(caught.value)
    named = job("pretrain", *LASTING, "tracking.uri=http://me@mlflow:5000")
    with pytest.raises(ConfigError, match="no Ray dashboard answers"):
        submit(named, Target("http://127.0.0.1:1", REPO, REPO / "k8s/runtime_env.yaml"))


def test_runtime_env_uploads_what_jobs_read_and_nothing_else(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tracked = subprocess.run(["git", "-C", REPO, "ls-files"], capture_output=True, text=True, check=True)
    for name in tracked.stdout.splitlines():
        if (REPO / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO / name, tree / name)
    left = (
        *(".git/config", ".venv/bin/python", "outputs/mlflow.db", "data/pairs/x.parquet", "secrets.env"),
        *("platform/protclip.egg-info/PKG-INFO", "platform/protclip/__pycache__/cli.pyc", ".cache/x"),
        *("conf/__pycache__/x.pyc", "uniprot_sprot.dat.gz", "tests/x.py", "docs/x.md", "bench/x.py"),
    )
    for name in left:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(b"x" * 2**16)
    env = read_runtime_env(REPO / "k8s/runtime_env.yaml")
    with packaged(tree, env["excludes"]) as archive:
        names = set(ZipFile(archive).namelist())
        assert archive.stat().st_size < 5e6
    wanted = ("conf/", "jobs/", "platform/")
    assert names == {n for n in tracked.stdout.splitlines() if n.startswith(wanted)} | {"constraints.txt"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small working directory with a configuration that extends another."""
    root = tmp_path / "checkout"
    for name, text in {
        "jobs/pretrain.py": "",
        "conf/pretrain/base.yaml": "train: {max_steps: 5}",
        "conf/pretrain/mine.yaml": "extends: base.yaml",
        "conf/local/mine.yaml": "extends: ../pretrain/base.yaml",
        ".gitignore": "conf/local/",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def upload(root: Path, asked: Job, *excludes: str) -> Path | None:
    with packaged(root, excludes) as archive:
        return check_upload(asked, root, archive)


def test_check_upload_finds_the_file_where_the_job_will(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout / "conf")
    asked = job("pretrain", *LASTING, file=Path("pretrain/mine.yaml"))
    assert upload(Path(".."), asked) == Path("conf/pretrain/mine.yaml")
    assert Path.cwd() == checkout / "conf"


@pytest.mark.parametrize(
    ("file", "excludes", "message"),
    [
        (
            "../mine.yaml",
            (),
            r"mine\.yaml: lies outside .*checkout, which is uploaded; the job would",
        ),
        (
            "conf/pretrain/mine.yaml",
            ("base.yaml",),
            r"^conf/pretrain/base\.yaml: cannot(.|\n)*excluded",
        ),
        (
            "conf/pretrain/mine.yaml",
            ("/conf",),
            r"^conf/pretrain/mine\.yaml: cannot(.|\n)*excluded",
        ),
        ("conf/local/mine.yaml", (), r"^conf/local/mine\.yaml: cannot be read(.|\n)*\.gitignore"),
        (
            "conf/pretrain/mine.yaml",
            ("jobs",),
            r"jobs/pretrain\.py is not in the upload; check --working-dir",
        ),
    ],
)
def test_check_upload_says_what_it_lacks(
    checkout: Path, file: str, excludes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        upload(checkout, job("pretrain", *LASTING, file=checkout / file), *excludes)


def test_check_upload_refuses_places_that_go_with_the_job(checkout: Path, tmp_path: Path) -> None:
    asked = job("pretrain", "data=data/pairs", "run.name=first")
    with pytest.raises(ConfigError, match=r"^data=data/pairs, run\.storage=outputs/runs: a relative path"):
        upload(checkout, asked)
    assert (
        upload(checkout, job("pretrain", f"data={tmp_path}", "run.name=n", "run.storage=/mnt/runs")) is None
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file or directory; check --runtime-env"),
        ("a: [", "not valid YAML"),
        ("text", "expected keys such as env_vars"),
        ("env_vars: {AWS_SECRET_ACCESS_KEY: x, A: b}", "env_vars holds AWS_SECRET_ACCESS_KEY: all who see"),
    ],
)
def test_read_runtime_env_says_what_is_wrong(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "env.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_runtime_env(file)


def test_read_runtime_env_names_the_code(tmp_path: Path) -> None:
    file = tmp_path / "env.yaml"
    file.write_text(yaml.dump({"env_vars": {"TOKENIZERS_PARALLELISM": "b"}, "working_dir": "elsewhere"}))
    assert read_runtime_env(file).keys() == {"env_vars"}
    assert read_runtime_env(file)["env_vars"].keys() == {"TOKENIZERS_PARALLELISM", "PROTCLIP_GIT_SHA"}


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, object], str]]:
    """A web server that always answers the same, and its address."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    # `connect_jobs` sets it, and must not be heard of in other tests.
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    servers = []

    def serve(status: int, body: object) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: object) -> None: ...

        servers.append(server := HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.usefixtures("web")
def test_connect_jobs_asks_for_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"no cluster is named; give --address http://HOST:8265 or"):
        connect_jobs(None)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:6379: jobs are submitted to a cluster's dashboard"):
        connect_jobs(None)


@pytest.mark.usefixtures("web")
def test_connect_jobs_says_at_once_that_nothing_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    started = time.monotonic()
    with pytest.raises(ConfigError, match=rf"{address}: no Ray dashboard answers there"):
        connect_jobs(address)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (
            200,
            {"ray_version": "2.9.0"},
            rf"runs Ray 2\.9\.0, this machine Ray {ray.__version__};",
        ),
        (200, {"other": "service"}, "no Ray dashboard answers there"),
        (404, "", "no Ray dashboard answers there"),
        (503, "", "no Ray dashboard answers there"),
        (401, "Missing", r"Authentication required.*; set RAY_AUTH_MODE=token"),
        (403, "Invalid", r"Authentication failed.*; set RAY_AUTH_MODE=token"),
    ],
)
def test_connect_jobs_says_what_answers(
    web: Callable[[int, object], str],
    status: int,
    body: object,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://192.0.2.1:1")
    with pytest.raises(ConfigError, match=message):
        connect_jobs(web(status, body))


def ended(status: JobStatus, code: int | None = None, message: str = "") -> JobDetails:
    return JobDetails(
        type=JobType.SUBMISSION,
        submission_id="job",
        status=status,
        entrypoint="python",
        driver_exit_code=code,
        message=message,
    )


@pytest.mark.parametrize(
    ("details", "code", "said"),
    [
        (ended(JobStatus.SUCCEEDED, 0), 0, ""),
        (ended(JobStatus.FAILED, 3), 3, "job ended with exit code 3"),
        (ended(JobStatus.FAILED, -9), 137, "job ended with exit code 137"),
        (ended(JobStatus.STOPPED), 75, "job was stopped; submit the same command again to continue"),
        (ended(JobStatus.FAILED, None, "no disk"), 1, "job failed to begin, or its node was lost: no disk"),
    ],
)
def test_exit_code_is_the_jobs_own(
    details: JobDetails, code: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert exit_code(details) == code
    assert said in caplog.text
    assert bool(said) == bool(caplog.text)


def test_readable_keeps_the_words_of_a_traceback() -> None:
    message = """Failed to set up the environment.
Traceback (most recent call last):
  File "x.py", line 3, in f
    g()
\x1b[36mValueError\x1b[39m: no disk

"""
    assert readable(message) == "Failed to set up the environment.\nValueError: no disk"
