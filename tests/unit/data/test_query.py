import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flaky_http import Fault, FlakyServer, Query
from protclip.config.data import DownloadConfig
from protclip.data.download import download
from protclip.data.query import FILE_NAME
from protclip.data.releases import release_of
from protclip.errors import DataError

ENTRIES = [f"ID   P{n:05}_HUMAN\nCC   A // in a line.\nSQ   x\n     MK\n//\n".encode() for n in range(1203)]
SEARCH = "/uniprotkb/search"


def serve_entries(
    server: FlakyServer, total: int = len(ENTRIES), releases: tuple[str, ...] = ("2026_03",) * 9
):
    """Answers a query in pages, as UniProt does."""

    def page(query: Query) -> tuple[dict[str, str], bytes]:
        start, size = int(query.get("cursor", ["0"])[0]), int(query["size"][0])
        assert query["query"][0] in {"reviewed:true AND a b", "other"}
        assert query["format"] == ["txt"]
        headers = {"X-Total-Results": str(total), "X-UniProt-Release": releases[start // 500]}
        if start + size < len(ENTRIES):
            following = f"{server.url}{SEARCH}?query=reviewed:true+AND+a+b&format=txt&size={size}"
            headers["Link"] = f'<{following}&cursor={start + size}>; rel="next"'
        return headers, b"".join(ENTRIES[start : start + size])

    server.routes[SEARCH] = page


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with FlakyServer().running() as server:
        yield server


def config(server: FlakyServer, output: Path, **more: Any) -> DownloadConfig:
    given = {"service": server.url, "query": "reviewed:true AND a b", "retries": 2, "backoff_s": 0.001}
    return DownloadConfig.model_validate({"output": str(output), **given, **more})


@pytest.mark.parametrize(("limit", "pages"), [(None, 3), (7, 1), (500, 1), (501, 2), (5000, 3)])
def test_query_takes_all_entries_or_the_first(
    server: FlakyServer, tmp_path: Path, limit: int | None, pages: int
):
    serve_entries(server)
    made = download(config(server, tmp_path, limit=limit))
    expected = ENTRIES[:limit]
    assert gzip.decompress((tmp_path / FILE_NAME).read_bytes()) == b"".join(expected)
    assert (made["entries"], made["release"]) == (len(expected), "2026_03")
    assert len(server.ranges[SEARCH]) == pages
    assert release_of(str(tmp_path / FILE_NAME)) == "2026_03"


def test_query_survives_failing_pages(server: FlakyServer, tmp_path: Path):
    serve_entries(server)
    faults = [Fault(), Fault(status=503), Fault(cut=1000), Fault(cut=30_000), Fault(status=429)]
    server.fail(SEARCH, *faults)
    download(config(server, tmp_path))
    assert gzip.decompress((tmp_path / FILE_NAME).read_bytes()) == b"".join(ENTRIES)


def test_query_again_keeps_the_file_and_another_is_refused(server: FlakyServer, tmp_path: Path):
    serve_entries(server)
    download(config(server, tmp_path, limit=600))
    assert download(config(server, tmp_path, limit=600))["kept"] == 1
    assert len(server.ranges[SEARCH]) == 3
    assert download(config(server, tmp_path, limit=10))["entries"] == 10
    with pytest.raises(DataError, match=r"holds release 2026_03, query 'rev.*; this is .*, query 'other'"):
        download(config(server, tmp_path, query="other"))


@pytest.mark.parametrize(
    ("faults", "serving", "message"),
    [
        ([Fault(), *[Fault(status=500)] * 9], {}, "status 500"),
        ([], {"total": 2000}, "1,203 of 2,000 entries came"),
        ([], {"total": 0}, "no such entry"),
        ([], {"releases": ("2026_03", "2026_04")}, "from release 2026_03 to 2026_04"),
        ([], {"total": "many"}, "states no number of entries"),
        ([Fault(status=400)], {}, "answers 400"),
    ],
)
def test_query_that_fails_leaves_nothing(
    server: FlakyServer, tmp_path: Path, faults: list[Fault], serving: dict[str, Any], message: str
):
    serve_entries(server, **serving)
    server.fail(SEARCH, *faults)
    with pytest.raises(DataError, match=message):
        download(config(server, tmp_path))
    assert list(tmp_path.iterdir()) == []
