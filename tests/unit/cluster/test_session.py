"""Joining a cluster that is not there, or not for us."""

import platform
import socket
import time
from collections.abc import Callable, Iterator

import pytest
import ray
from ray._private.utils import check_version_info

from protclip.cluster.session import connect
from protclip.errors import ConfigError


def test_connect_says_at_once_that_no_cluster_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    started = time.monotonic()
    with pytest.raises(ConfigError, match=rf"RAY_ADDRESS=127\.0\.0\.1:{port}: no Ray cluster answers there"):
        connect()
    assert time.monotonic() - started < 10


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Exception], None]]:
    """Something listens, and joining it fails as told."""

    def fail_with(error: Exception) -> None:
        def init(**_: object) -> None:
            raise error

        monkeypatch.setattr(ray, "init", init)

    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        yield fail_with


def test_connect_names_the_versions_that_differ(refused: Callable[[Exception], None]) -> None:
    with pytest.raises(RuntimeError) as caught:
        check_version_info({"ray_version": "2.9.0", "python_version": "3.9.1"}, "node")
    refused(caught.value)
    ours = f"Ray {ray.__version__} with Python {platform.python_version()}"
    with pytest.raises(
        ConfigError, match=rf"the cluster runs Ray 2\.9\.0 with Python 3\.9\.1, this process {ours}"
    ):
        connect()


def test_connect_says_what_a_token_is_set_by(refused: Callable[[Exception], None]) -> None:
    refused(ConnectionError("Failed to connect to Ray cluster at x. More."))
    with pytest.raises(ConfigError, match=r"cluster at x; if the cluster wants a token, set RAY_AUTH"):
        connect()


def test_connect_lets_a_bug_through(refused: Callable[[Exception], None]) -> None:
    refused(RuntimeError("bug"))
    with pytest.raises(RuntimeError, match="bug"):
        connect()
