import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from faulty_s3 import FaultyS3
from protclip import storage
from protclip.errors import DataError

pytestmark = pytest.mark.usefixtures("new_clients")

NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")


@pytest.fixture
def no_keys(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket, and an environment without credentials."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return bucket


class Giver:
    """A local endpoint that hands out keys `key-1`, `key-2`, …, each for a minute."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.url = ""

    def __call__(self, environ: dict[str, object], start_response: Callable[..., object]) -> object:
        request = Request(environ)
        if request.path == "/latest/api/token":
            return Response("token")(environ, start_response)
        if request.path.endswith("/security-credentials/"):
            return Response("role")(environ, start_response)
        self.tokens.append(request.headers.get("Authorization", ""))
        keys = {
            "Code": "Success",
            "AccessKeyId": f"key-{len(self.tokens)}",
            "SecretAccessKey": "secret",
            "Token": "session",
            "Expiration": (datetime.now(UTC) + timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        return Response(json.dumps(keys), mimetype="application/json")(environ, start_response)


@pytest.fixture
def giver() -> Iterator[Giver]:
    giver = Giver()
    server = make_server("127.0.0.1", 0, giver, threaded=True)
    giver.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield giver
    server.shutdown()
    thread.join()
    server.server_close()


def users(faults: FaultyS3, bucket: str) -> list[str]:
    """Who wrote to a bucket, in order."""
    name = bucket.removeprefix("s3://")
    return [request.user for request in faults.requests if request.line.startswith(f"PUT {name}/")]


def test_keys_of_a_container_are_renewed_while_the_job_runs(
    no_keys: str, giver: Giver, faults: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("of the pod")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", giver.url + "/v1/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
    for number in range(3):
        storage.write_bytes(storage.join(no_keys, str(number)), b"x")
    found = users(faults, no_keys)
    assert len(set(found)) == 3
    assert found == sorted(found)
    assert set(giver.tokens) == {"of the pod"}


def test_keys_of_the_instances_role(
    no_keys: str, giver: Giver, faults: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", giver.url)
    storage.write_bytes(storage.join(no_keys, "x"), b"x")
    assert users(faults, no_keys)[0].startswith("key-")


def test_keys_of_a_web_identity(
    no_keys: str, faults: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "identity").write_text("a token of the cluster")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/protclip")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "identity"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", faults.endpoint)
    storage.write_bytes(storage.join(no_keys, "x"), b"x")
    assert users(faults, no_keys)[0].startswith("ASIA")
    assert faults.count("^POST [?]") == 1


def test_keys_of_a_profile(
    no_keys: str, faults: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "AWS_SHARED_CREDENTIALS_FILE").write_text(
        "[mine]\naws_access_key_id = profiled\naws_secret_access_key = secret\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "mine")
    storage.write_bytes(storage.join(no_keys, "x"), b"x")
    assert users(faults, no_keys) == ["profiled"]


def test_no_credentials_are_one_message_that_says_what_was_looked_for(no_keys: str) -> None:
    for use in (storage.exists, storage.list_files):
        with pytest.raises(
            DataError, match=r"reaching the bucket failed: no credentials were found; looked for"
        ):
            use(storage.join(no_keys, "x"))
