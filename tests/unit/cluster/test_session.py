"""Joining a cluster that is not there."""

import socket
import time

import pytest
import ray

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
