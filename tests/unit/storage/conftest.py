"""Fixtures of the tests of S3 servers, credentials and refusals."""

import asyncio
from collections.abc import Iterator

import pytest

from protclip.storage import filesystems

CACHES = (filesystems._s3_client, filesystems._check_bucket, filesystems._session)


@pytest.fixture
def new_clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Settings are read once per process: the test has clients of its own, which hardly wait to try again."""
    sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda seconds, *rest: sleep(min(seconds, 0.001), *rest))
    for cache in CACHES:
        cache.cache_clear()
    yield
    for cache in CACHES:
        cache.cache_clear()
