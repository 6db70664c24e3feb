"""Submitting a job to a Ray cluster over HTTP: checked here, once at a time, followed to its end."""

import contextlib
import hashlib
import itertools
import logging
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import ray
import yaml
from pydantic import BaseModel
from ray._private import ray_constants
from ray._private.runtime_env.packaging import create_package
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from protclip.cluster.follow import Follower
from protclip.cluster.session import AUTH_REMEDY, PROBE_S, VERSION_REMEDY, probe
from protclip.config.keys import flatten
from protclip.config.load import load_config
from protclip.config.places import check_places
from protclip.errors import ConfigError, ProtclipError, StoppedError
from protclip.provenance import GIT_SHA, git_sha
from protclip.tracking.params import masked

log = logging.getLogger(__name__)

CHATTY = ("ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk")
"""What Ray gives a level of its own, so that the level of "ray" says nothing to them."""
ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Variables that name the cluster, in the order in which Ray heeds them."""
ANSWER_S = 120.0
"""How long a request may take; Ray's own client waits for ever."""
SECRET = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN(?!IZER)|CREDENTIAL|API_?KEY|ACCESS_?KEY", re.IGNORECASE)
PASSWORD = re.compile(r"://[^/@\s:]*:[^/@\s]+@")
"""In a URI; a user name alone is no secret."""

Env = dict[str, Any]
"""A runtime environment, as Ray takes it."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it was asked for.

    Attributes:
        script: Its script in `jobs/`, without `.py`.
        schema: Its configuration's.
        file: Its configuration file.
        overrides: Its keys.
        flags: Its further options.
    """

    script: str
    schema: type[BaseModel]
    file: Path | None
    overrides: Sequence[str]
    flags: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """Where it shall run.

    Attributes:
        address: Of the cluster's dashboard; None takes that of the environment.
        working_dir: What is uploaded.
        runtime_env: The file that says what of it, and which variables the job has.
        job_id: The submission id; None derives it.
        wait: Whether the job is followed to its end.
    """

    address: str | None = None
    working_dir: Path = Path()
    runtime_env: Path = Path("k8s/runtime_env.yaml")
    job_id: str | None = None
    wait: bool = True


def submission_id(job: Job) -> str:
    """The name under which a cluster knows the job: the same for the same run, study or output.

    Raises:
        ConfigError: The job's configuration is wrong.
    """
    values = flatten(load_config(job.schema, job.file, job.overrides))
    name = values.get("run.name") or values.get("name")
    if not name:
        place = str(values.get("output", sorted(values.items()))).rstrip("/")
        last = place.rpartition("/")[2] if "output" in values else ""
        name = f"{last}-{hashlib.sha256(place.encode()).hexdigest()[:6]}".lstrip("-")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{job.script.replace('_', '-')}-{name}")


def submit(job: Job, target: Target) -> tuple[int, dict[str, Any]]:
    """Submits a job, or finds it running, and follows its log on stderr.

    Returns:
        The job's exit code, and its id, address, status and result.

    Raises:
        ConfigError: The configuration or the upload is wrong, or there is no such cluster.
        ProtclipError: The cluster went away for good.
    """
    first_id = target.job_id or submission_id(job)
    secrets = [override for override in job.overrides if PASSWORD.search(override)]
    if secrets:
        raise ConfigError(
            f"{masked(secrets[0])}: all who see the cluster's dashboard could read the password there; give "
            "it to the cluster's pods as a Kubernetes secret, MLFLOW_TRACKING_PASSWORD for example"
        )
    env = read_runtime_env(target.runtime_env)
    client = connect_jobs(target.address)
    with packaged(target.working_dir, env.pop("excludes", [])) as archive:
        file = check_upload(job, target.working_dir, archive)
        options = ["--config", str(file)] if file else []
        entrypoint = shlex.join(["python", f"jobs/{job.script}.py", *options, *job.flags, *job.overrides])
        job_id = _launch(client, first_id, entrypoint, {**env, "working_dir": str(archive)})
    found = {"id": job_id, "address": client.get_address()}
    at = f"--address {client.get_address()}"
    hints = f"log: ray job logs {at} --follow {job_id}; stop: ray job stop {at} {job_id}"
    if not target.wait:
        log.info("%s", hints)
        return 0, {**found, "status": str(client.get_job_status(job_id))}
    follower = Follower(client, job_id, sys.stderr)
    try:
        details = follower.follow()
    except KeyboardInterrupt:
        log.warning("detached; %s goes on; follow: the same command again; %s", job_id, hints)
        raise
    code = exit_code(details)
    return code, {**found, "status": str(details.status), "exit_code": code, "result": follower.result}


def exit_code(details: JobDetails) -> int:
    """The exit code of an ended job, and a word on stderr about what the log does not tell."""
    job_id, code = details.submission_id, details.driver_exit_code
    if details.status == JobStatus.STOPPED:
        # Ray does not keep the code of a job it was asked to stop.
        log.warning("%s was stopped; submit the same command again to continue", job_id)
        return StoppedError.exit_code
    if code is None:
        log.error("%s failed to begin, or its node was lost: %s", job_id, readable(details.message or ""))
        return ProtclipError.exit_code
    if code:
        code = code if code > 0 else 128 - code
        log.error("%s ended with exit code %d", job_id, code)
    return code


def readable(message: str) -> str:
    """What Ray says about a failure, without the frames of tracebacks and colours."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", message)
    plain = re.sub(r"Traceback \(most recent call last\):\n(?:[ \t]+.*\n)*", "", plain)
    return "\n".join(line for line in map(str.rstrip, plain.splitlines()) if line)


def read_runtime_env(file: Path) -> Env:
    """The runtime environment of a file.

    Raises:
        ConfigError: There is none, or it holds what everybody could read who sees the cluster's dashboard.
    """
    try:
        env = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}; check --runtime-env") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not valid YAML: {error}") from error
    if not isinstance(env, dict):
        raise ConfigError(f"{file}: expected keys such as env_vars and excludes at the top level")
    secrets = [name for name in env.get("env_vars") or {} if SECRET.search(name)]
    if secrets:
        raise ConfigError(
            f"{file}: env_vars holds {', '.join(secrets)}: all who see the dashboard could read it there; "
            "give it to the cluster's pods as a Kubernetes secret"
        )
    env.pop("working_dir", None)
    # Nothing of git travels, but a result must name its code.
    env["env_vars"] = {**(env.get("env_vars") or {}), GIT_SHA: git_sha() or ""}
    return env


@contextlib.contextmanager
def packaged(working_dir: Path, excludes: Sequence[str]) -> Iterator[Path]:
    """The archive that Ray makes of a directory, for as long as the block lasts.

    Raises:
        ConfigError: There is no such directory.
    """
    if not working_dir.is_dir():
        raise ConfigError(f"{working_dir}: no such directory; check --working-dir")
    all_excludes = [*ray_constants.get_runtime_env_default_excludes(), *excludes]
    gitignore = os.environ.get(ray_constants.RAY_RUNTIME_ENV_IGNORE_GITIGNORE) != "1"
    with tempfile.TemporaryDirectory(prefix="protclip-") as folder:
        archive = Path(folder) / "upload.zip"
        create_package(
            str(working_dir.absolute()), archive, include_gitignore=gitignore, excludes=all_excludes
        )
        yield archive


def check_upload(job: Job, working_dir: Path, archive: Path) -> Path | None:
    """Reads the job's configuration as the job will, from the upload.

    Returns:
        The configuration file's path in it.

    Raises:
        ConfigError: It lacks the script or a configuration file, or keys name places that only this
            machine has.
    """
    file = None
    if job.file is not None:
        try:
            file = job.file.resolve().relative_to(working_dir.resolve())
        except ValueError as error:
            raise ConfigError(
                f"{job.file}: lies outside {working_dir.resolve()}, which is uploaded; the job would not "
                "find it: move it there, best into conf/, or change --working-dir"
            ) from error
    with tempfile.TemporaryDirectory(prefix="protclip-") as folder, ZipFile(archive) as content:
        content.extractall(folder)
        log.info("the upload has %d files, %.1f MB", len(content.namelist()), archive.stat().st_size / 1e6)
        with contextlib.chdir(folder):
            if not Path("jobs", f"{job.script}.py").is_file():
                raise ConfigError(
                    f"{working_dir.resolve()}: jobs/{job.script}.py is not in the upload; check "
                    "--working-dir and excludes in the runtime environment"
                )
            try:
                config = load_config(job.schema, file, job.overrides)
            except ConfigError as error:
                raise ConfigError(
                    f"{error}\n(read from the upload, as the job would; what it lacks is excluded there by "
                    ".gitignore or by excludes in the runtime environment)"
                ) from error
            check_places(config, Path.cwd())
    return file


class _Client(JobSubmissionClient):
    """Ray's, with a time-out."""

    def _do_request(self, *args: Any, **options: Any) -> Any:
        return super()._do_request(*args, timeout=(PROBE_S, ANSWER_S), **options)


def connect_jobs(address: str | None) -> JobSubmissionClient:
    """The jobs of a cluster.

    Args:
        address: Of its dashboard; None takes that of the environment.

    Raises:
        ConfigError: None is given, nothing answers there, or not to us, or it runs another version.
    """
    address = address or next((a for a in map(os.environ.get, ADDRESSES) if a), None)
    if address is None:
        raise ConfigError(f"no cluster is named; give --address http://HOST:8265 or set {ADDRESSES[1]}")
    if not address.startswith(("http://", "https://")):
        raise ConfigError(
            f"{address}: jobs are submitted to a cluster's dashboard; give --address http://HOST:8265"
        )
    # Ray prefers the variables to its argument.
    os.environ[ADDRESSES[0]] = address = address.rstrip("/")
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        probe(address)
        client = _Client(address)
    except AuthenticationError as error:
        raise ConfigError(
            f"{address}: {str(error).splitlines()[0].partition('. ')[0]}; {AUTH_REMEDY}"
        ) from error
    except (OSError, RuntimeError, KeyError) as error:
        raise ConfigError(
            f"{address}: no Ray dashboard answers there ({error}); start the cluster, mend the address, or "
            "forward the port: kubectl port-forward service/protclip-head-svc 8265"
        ) from error
    theirs = client._server_ray_version
    if theirs != ray.__version__:
        raise ConfigError(
            f"{address}: the cluster runs Ray {theirs}, this machine Ray {ray.__version__}; {VERSION_REMEDY}"
        )
    return client


def _launch(client: JobSubmissionClient, first_id: str, entrypoint: str, env: Mapping[str, Any]) -> str:
    """Submits under the first free id, unless the job runs; returns the id."""
    jobs = {details.submission_id: details for details in client.list_jobs()}
    for number in itertools.count(1):
        job_id = first_id if number == 1 else f"{first_id}-{number}"
        known = jobs.get(job_id)
        if known and known.status.is_terminal():
            continue
        if known is None:
            try:
                client.submit_job(entrypoint=entrypoint, submission_id=job_id, runtime_env=dict(env))
            except RuntimeError as error:
                if "already exists" not in str(error):
                    raise ConfigError(f"the cluster refused the job: {readable(str(error))}") from error
                known = client.get_job_info(job_id)
            else:
                log.info("submitted as %s: %s", job_id, entrypoint)
                return job_id
        log.info("%s is submitted already, its log follows", job_id)
        if known.entrypoint != entrypoint:
            log.warning("it was started by another command: %s", known.entrypoint)
        return job_id
    raise AssertionError("numbers do not end")
