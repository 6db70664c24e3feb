"""MLflow as k8s/ runs it: the containers' own commands and environment, with PostgreSQL and an S3 server."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
import s3fs
from mlflow import MlflowClient

from manifests import containers, name_of, objects, pod_templates
from protclip.config.base import TrackingConfig
from protclip.errors import TrackingError
from protclip.tracking.mlflow import open_run
from protclip.tracking.models import register

pytestmark = [pytest.mark.slow, pytest.mark.servers]

JOBS = {"MLFLOW_TRACKING_USERNAME": "jobs", "MLFLOW_TRACKING_PASSWORD": "jobs-of-the-test"}
SECRETS = {
    "postgres": {"password": "p:a/s's@w%rd 1", "optuna-password": "o'ptuna"},
    "mlflow-server": {"MLFLOW_FLASK_SERVER_SECRET_KEY": "made", "admin-password": "admin-of-the-test"},
    "protclip-mlflow": JOBS,
    "protclip-s3": {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"},
}
PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
if PROGRAMS is None:
    pytest.skip("PostgreSQL is not installed in /usr/lib/postgresql", allow_module_level=True)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Pods:
    """Runs containers of the manifests as processes; volumes are folders, Services ports of this machine."""

    def __init__(self, place: Path, endpoint: str) -> None:
        self._place = place
        self._objects = {name_of(thing): thing for thing in objects("base", "backups")}
        self._objects["ConfigMap/protclip-env"]["data"]["AWS_ENDPOINT_URL_S3"] = endpoint
        self.postgres_port, self.mlflow_port = free_port(), free_port()
        self._here = {
            "PATH": f"{Path(sys.executable).parent}:{PROGRAMS}:{os.environ['PATH']}",
            # libpq takes these where a URL is silent, so that `postgres` is this machine.
            "PGHOSTADDR": "127.0.0.1",
            "PGPORT": str(self.postgres_port),
        }

    def container(self, thing: str, name: str) -> tuple[dict[str, Any], dict[str, str]]:
        """A container and where its volumes lie."""
        ((_, template),) = pod_templates(self._objects[thing])
        (found,) = (c for c in containers(template) if c["name"] == name)
        folders = {}
        for volume in template["spec"]["volumes"]:
            folder = self._place / thing.replace("/", "-") / volume["name"]
            folder.mkdir(parents=True, exist_ok=True)
            if "configMap" in volume:
                for file, text in self._objects[f"ConfigMap/{volume['configMap']['name']}"]["data"].items():
                    (folder / file).write_text(text)
            folders[volume["name"]] = str(folder)
        mounts = {m["mountPath"]: folders[m["name"]] for m in found["volumeMounts"] if m["name"] in folders}
        return found, mounts

    def command(self, thing: str, name: str) -> tuple[list[str], dict[str, str]]:
        """What a container runs and in which environment."""
        found, mounts = self.container(thing, name)
        environment = {}
        for source in found.get("envFrom", []):
            if "secretRef" in source:
                environment |= SECRETS[source["secretRef"]["name"]]
            else:
                environment |= self._objects[f"ConfigMap/{source['configMapRef']['name']}"]["data"]
        for variable in found.get("env", []):
            environment[variable["name"]] = self._value(variable)
        words = [*found["command"], *found.get("args", [])]
        for key, value in environment.items():
            words = [word.replace(f"$({key})", value) for word in words]
        path = re.compile(rf"(?<![\w/])({'|'.join(mounts)})(?=/|$)")
        words = [path.sub(lambda found: mounts[found[0]], word) for word in words]
        environment = {
            key: path.sub(lambda found: mounts[found[0]], value) for key, value in environment.items()
        }
        words[0] = shutil.which(words[0], path=self._here["PATH"]) or words[0]
        return words, self._here | environment

    def _value(self, variable: Mapping[str, Any]) -> str:
        if "value" in variable:
            return variable["value"]
        if "secretKeyRef" in variable["valueFrom"]:
            source = variable["valueFrom"]["secretKeyRef"]
            return SECRETS[source["name"]][source["key"]]
        source = variable["valueFrom"]["configMapKeyRef"]
        return self._objects[f"ConfigMap/{source['name']}"]["data"][source["key"]]

    def run(self, thing: str, name: str) -> None:
        """Runs a container to its end."""
        self._finished(*self.command(thing, name))

    def _finished(self, words: list[str], environment: dict[str, str], text: str = "") -> str:
        """What a process prints that is expected to succeed."""
        done = subprocess.run(
            words, input=text, env=environment, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stderr[-3000:]}"
        return done.stdout

    def sql(
        self,
        database: str,
        text: str,
        user: str = "mlflow",
        password: str = SECRETS["postgres"]["password"],
        **environment: str,
    ) -> str:
        """What psql prints."""
        psql = ["psql", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", "--host=postgres"]
        return self._finished(
            [*psql, f"--username={user}", f"--dbname={database}"],
            {**self._here, "PGPASSWORD": password, **environment},
            text,
        ).strip()

    @contextmanager
    def postgres(self) -> Iterator[None]:
        """A new PostgreSQL, prepared as the entry point of its image does it."""
        found, mounts = self.container("StatefulSet/postgres", "postgres")
        given = {variable["name"]: self._value(variable) for variable in found["env"]}
        owner = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
            place = Path(folder)
            (place / "password").write_text(given["POSTGRES_PASSWORD"])
            if owner:
                shutil.chown(place, "postgres")
            data = f"--pgdata={place}/data"
            initdb = [f"{PROGRAMS}/initdb", data, "--no-sync", "--auth=scram-sha-256"]
            control = [*owner, f"{PROGRAMS}/pg_ctl", data, "--wait", "--silent"]
            options = [
                *found["args"][1:],
                *("-p", self.postgres_port, "-c", "listen_addresses=127.0.0.1"),
                *("-c", f"unix_socket_directories={place}", "-c", "fsync=off"),
            ]
            run = partial(subprocess.run, check=True, cwd="/", stdout=subprocess.DEVNULL)
            run([*owner, *initdb, f"--username={given['POSTGRES_USER']}", f"--pwfile={place}/password"])
            run([*control, f"--log={place}/log", f"--options={shlex.join(map(str, options))}", "start"])
            try:
                self.sql("postgres", "CREATE DATABASE mlflow")
                script = Path(mounts["/docker-entrypoint-initdb.d"], "databases.sql").read_text()
                self.sql("postgres", script, OPTUNA_PASSWORD=given["OPTUNA_PASSWORD"])
                yield
            finally:
                run([*control, "--mode=immediate", "stop"])

    @contextmanager
    def mlflow(self) -> Iterator[str]:
        """The server."""
        words, given = self.command("Deployment/mlflow", "mlflow")
        # One worker is enough here, and starts sooner.
        ours = {"--port=5000": f"--port={self.mlflow_port}", "--workers=2": "--workers=1"}
        words = [ours.get(word, word) for word in words]
        with (self._place / "mlflow.log").open("ab") as log:
            process = subprocess.Popen(words, env=given, stdout=log, stderr=log, start_new_session=True)
        uri = f"http://127.0.0.1:{self.mlflow_port}"
        try:
            end = time.monotonic() + 120
            while True:
                with suppress(requests.ConnectionError):
                    if requests.get(f"{uri}/health", timeout=5).ok:
                        break
                assert process.poll() is None, (self._place / "mlflow.log").read_text()
                assert time.monotonic() < end
                time.sleep(0.1)
            yield uri
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


@pytest.fixture
def pods(tmp_path: Path, moto_server: str, monkeypatch: pytest.MonkeyPatch) -> Pods:
    """With an empty bucket; the test itself has no way to it, like a job that only knows MLflow."""
    made = Pods(tmp_path, moto_server)
    store = s3fs.S3FileSystem(endpoint_url=moto_server, key="testing", secret="testing")
    if store.exists("protclip"):
        store.rm("protclip", recursive=True)
    store.mkdir("protclip")
    monkeypatch.chdir(tmp_path)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    for name, value in JOBS.items():
        monkeypatch.setenv(name, value)
    return made


def test_server_of_the_manifests_and_its_back_up(
    pods: Pods, moto_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pods.postgres():
        pods.run("Deployment/mlflow", "migrate-runs")
        pods.run("Deployment/mlflow", "accounts")
        with pods.mlflow() as uri:
            config = TrackingConfig(uri=uri, experiment="studies", wait_s=1)
            run = open_run(config, "first")
            run.log_metrics({"m": 0.5}, 1)
            run.log_text("a: 1", "config.yaml")
            client = MlflowClient(uri)
            experiment_id = client.get_run(str(run.run_id)).info.experiment_id
            model = client.create_logged_model(experiment_id, "protclip", run.run_id)
            assert register(run, f"models:/{model.model_id}", "protclip", "best", {}) == "models:/protclip/1"
            run.close()
            assert [file.path for file in client.list_artifacts(str(run.run_id))] == ["config.yaml"]
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong-password")
            with pytest.raises(TrackingError, match="401"):
                open_run(config, "stranger")
            stranger = requests.get(
                f"{uri}/api/2.0/mlflow/experiments/search", {"max_results": 1}, timeout=60
            )
            assert stranger.status_code == 401
            misled = requests.get(uri, headers={"Host": "elsewhere.example.com"}, timeout=60)
            assert (misled.status_code, "rebinding" in misled.text) == (403, True)
        store = s3fs.S3FileSystem(endpoint_url=moto_server, key="testing", secret="testing")
        (stored,) = store.glob(f"protclip/mlflow/*/{run.run_id}/artifacts/config.yaml")
        assert store.cat(stored) == b"a: 1"

        pods.run("CronJob/postgres-backup", "dump")
        pods.run("CronJob/postgres-backup", "store")
        pods.sql("mlflow", "DELETE FROM metrics")
        pods.run("CronJob/postgres-restore", "fetch")
        pods.run("CronJob/postgres-restore", "restore")
        assert pods.sql("mlflow", "SELECT key, value, step FROM metrics") == "m|0.5|1"
        assert pods.sql("mlflow_auth", "SELECT username FROM users ORDER BY id") == "admin\njobs"
        # Who runs sweeps reads studies, and nothing else, also in databases that were restored.
        sweeps = ("optuna", SECRETS["postgres"]["optuna-password"])
        assert pods.sql("optuna", "SELECT current_user", *sweeps) == "optuna"
        with pytest.raises(AssertionError, match="permission denied for database"):
            pods.sql("mlflow_auth", "SELECT * FROM users", *sweeps)
