"""Jobs on a Ray head that is reached over HTTP alone, as on a cluster."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protclip import checkpoint
from protclip.cli import INTERRUPTED
from protclip.config.keys import flatten
from protclip.config.schema import PretrainConfig
from protclip.errors import ConfigError, StoppedError
from protclip.provenance import git_sha
from ray_head import ray_head
from tiny_runs import config

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

REPO = Path(__file__).resolve().parents[2]
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
STEPS = 400


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    with ray_head(env=TOKEN) as head:
        yield head


def environment(head: str, **variables: str) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return {**clean, "PYTHONPATH": "platform", "RAY_ADDRESS": head, **TOKEN, **variables}


def start(head: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    code = "import sys; from protclip.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", code, "submit", *arguments],
        cwd=REPO,
        env=environment(head, **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ray_job(head: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "ray"
    command = [str(program), "job", *arguments]
    return subprocess.run(
        command, cwd=REPO, env=environment(head), capture_output=True, text=True, timeout=120, check=False
    )


class Shown:
    """What a program says on stderr, as it says it."""

    def __init__(self, program: subprocess.Popen[str]) -> None:
        self.program = program
        self.text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.program.stderr or ():
            self.text += line

    def wait_for(self, text: str) -> None:
        end = time.monotonic() + 120
        while text not in self.text:
            assert self.program.poll() is None, self.text
            assert time.monotonic() < end, self.text
            time.sleep(0.1)

    def end(self) -> dict[str, Any]:
        """The JSON object on stdout, once the program has ended."""
        assert self.program.stdout is not None
        made = self.program.stdout.read()
        self.program.wait(60)
        self._reader.join(10)
        (line,) = made.splitlines() or [json.dumps({"said": self.text})]
        return json.loads(line)


def keys(config: PretrainConfig) -> list[str]:
    """What of a configuration is not at its default, as overrides."""
    default = flatten(PretrainConfig.model_validate({"data": "/", "run": {"name": "default"}}))
    return [
        f"{key}={str(value).lower() if isinstance(value, bool) else value}"
        for key, value in flatten(config).items()
        if default.get(key) != value
    ]


def test_a_training_is_followed_stopped_and_continued(head: str, tiny_pairs: Path, tmp_path: Path) -> None:
    train = {"max_steps": STEPS, "checkpoint_every": 10 * STEPS, "valid_every": 10 * STEPS}
    asked = keys(config(tiny_pairs, tmp_path, "long", train=train, scaling={"num_workers": 1}))
    command = ["pretrain", "--config", "conf/pretrain/quickstart.yaml", *asked]
    first = Shown(start(head, *command))
    first.wait_for(
        "submitted as pretrain-long: python jobs/pretrain.py --config conf/pretrain/quickstart.yaml"
    )
    second = Shown(start(head, *command))

    # Meanwhile, Ray's own command line: bad data, and a job that is seen to fail.
    script = [
        "python",
        "jobs/pretrain.py",
        f"data={tmp_path}/none",
        "run.name=bad",
        f"run.storage={tmp_path}",
    ]
    options = ["--submission-id", "bad", "--working-dir", ".", "--runtime-env", "k8s/runtime_env.yaml"]
    bad = ray_job(head, "submit", *options, "--", *script)
    assert bad.returncode == 1
    assert f"error: {tmp_path}/none: no manifest.json here" in bad.stdout
    assert "exit code 3" in bad.stdout

    first.wait_for("random weights")
    second.wait_for("Running entrypoint")
    second.program.send_signal(signal.SIGINT)
    assert second.program.wait(60) == INTERRUPTED
    assert "pretrain-long is submitted already" in second.text
    assert "detached; pretrain-long goes on; follow: the same command again; log: ray job logs" in second.text

    stopped = ray_job(head, "stop", "pretrain-long")
    assert "was stopped" in stopped.stdout
    result = first.end()
    assert (result["id"], result["status"], result["exit_code"]) == (
        "pretrain-long",
        "STOPPED",
        StoppedError.exit_code,
    )
    assert first.program.returncode == StoppedError.exit_code
    assert re.search(r"long: +\d+%.* 0/" + str(STEPS), first.text)
    assert first.text.count("Running entrypoint") == 1
    ((uri, meta),) = checkpoint.complete(str(tmp_path / "long"))
    assert 0 < meta.step < STEPS
    assert f"error: stopped at step {meta.step} of {STEPS}, checkpoint {uri}; submit the same" in first.text

    again = Shown(start(head, *command))
    result = again.end()
    assert again.program.returncode == 0
    assert (result["id"], result["status"]) == ("pretrain-long-2", "SUCCEEDED")
    assert result["result"]["steps"] == STEPS
    # The upload has no repository.
    assert (meta.git_sha is None) == (git_sha() is None)


@pytest.mark.parametrize(
    ("token", "message"), [("", "Authentication required"), ("wrong" * 8, "Authentication failed")]
)
def test_submit_needs_the_token(head: str, token: str, message: str) -> None:
    mode = "token" if token else "disabled"
    arguments = ("pretrain", "data=/d", "run.name=n", "run.storage=/r")
    refused = Shown(start(head, *arguments, RAY_AUTH_MODE=mode, RAY_AUTH_TOKEN=token))
    refused.program.wait(60)
    assert refused.program.returncode == ConfigError.exit_code
    assert f"error: {head}: {message}" in refused.text
