"""Jobs on a Ray head that is reached over HTTP alone, as on a cluster."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from protclip import checkpoint
from protclip.cli import INTERRUPTED
from protclip.errors import ConfigError, StoppedError
from protclip.provenance import git_sha
from ray_head import ray_head
from tiny_runs import as_arguments, config

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

REPO = Path(__file__).resolve().parents[2]
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
STEPS, EVERY = 80, 20


@pytest.fixture(scope="module")
def head(forks: None) -> Iterator[str]:
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


def ray_job(head: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(Path(sys.executable).parent / "ray"), "job", *arguments],
        cwd=REPO,
        env=environment(head),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def stop(head: str, job: str) -> None:
    """What `ray job stop` asks for."""
    headers = {"Authorization": f"Bearer {TOKEN['RAY_AUTH_TOKEN']}"}
    requests.post(f"{head}/api/jobs/{job}/stop", headers=headers, timeout=60).raise_for_status()


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
        self.wait_until(lambda: text in self.text)

    def wait_until(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + 120
        while not done():
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


def test_a_training_is_followed_stopped_and_continued(head: str, tiny_pairs: Path, tmp_path: Path) -> None:
    train = {"max_steps": STEPS, "checkpoint_every": EVERY, "valid_every": 2 * STEPS}
    asked = as_arguments(config(tiny_pairs, tmp_path, "long", train=train, scaling={"num_workers": 1}))
    command = ["pretrain", "--config", "conf/pretrain/quickstart.yaml", *asked]
    first = Shown(start(head, *command))
    first.wait_for(
        "submitted as pretrain-long: python jobs/pretrain.py --config conf/pretrain/quickstart.yaml"
    )
    second = Shown(start(head, *command))

    # Meanwhile, Ray's own command line: bad data, and a job that is seen to fail.
    script = ["python", "jobs/sample_data.py", f"source={tmp_path}/none", f"output={tmp_path}/pairs"]
    options = ["--submission-id", "bad", "--working-dir", ".", "--runtime-env", "k8s/runtime_env.yaml"]
    bad = ray_job(head, "submit", *options, "--", *script)

    second.wait_for("Running entrypoint")
    second.program.send_signal(signal.SIGINT)
    assert second.program.wait(60) == INTERRUPTED
    assert "pretrain-long is submitted already" in second.text
    assert "detached; pretrain-long goes on; follow: the same command again; log: ray job logs" in second.text

    said, _ = bad.communicate(timeout=120)
    assert bad.returncode == 1
    assert f"error: {tmp_path}/none: no manifest.json here" in said
    assert "exit code 3" in said

    first.wait_until((tmp_path / f"long/step-{EVERY:08}/meta.json").exists)
    stop(head, "pretrain-long")
    result = first.end()
    assert (result["id"], result["status"], result["exit_code"]) == (
        "pretrain-long",
        "STOPPED",
        StoppedError.exit_code,
    )
    assert first.program.returncode == StoppedError.exit_code
    assert re.search(r"long: +\d+%.* 0/" + str(STEPS), first.text)
    assert first.text.count("Running entrypoint") == 1
    uri, meta = checkpoint.complete(str(tmp_path / "long"))[0]
    assert EVERY <= meta.step < STEPS
    assert f"error: stopped at step {meta.step} of {STEPS}, checkpoint {uri}; submit the same" in first.text

    again = Shown(start(head, *command))
    result = again.end()
    assert again.program.returncode == 0
    assert (result["id"], result["status"]) == ("pretrain-long-2", "SUCCEEDED")
    assert result["result"]["steps"] == STEPS
    assert f"continuing {uri} at step {meta.step}" in again.text
    # The upload has no repository.
    assert (meta.git_sha is None) == (git_sha() is None)


def test_submit_needs_the_token(head: str) -> None:
    said = {"": "Authentication required", "wrong" * 8: "Authentication failed"}
    arguments = ("pretrain", "data=/d", "run.name=n", "run.storage=/r")
    refused = [
        Shown(start(head, *arguments, RAY_AUTH_MODE="token" if token else "disabled", RAY_AUTH_TOKEN=token))
        for token in said
    ]
    for shown, message in zip(refused, said.values(), strict=True):
        assert f"error: {head}: {message}" in shown.end()["said"]
        assert shown.program.returncode == ConfigError.exit_code
