import io
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaky_http import Fault, FlakyServer
from protclip import storage
from protclip.data.uniprot import read_records
from protclip.errors import DataError
from protclip.storage import http
from protclip.storage.http import HttpStream, Patience, fetch

CONTENT = bytes(range(256)) * 4096
PATH = "/a/file.dat"
QUICK = Patience(retries=3, backoff_s=0.001, timeout_s=5)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with FlakyServer().running() as server:
        server.files[PATH] = CONTENT
        yield server


def read(server: FlakyServer, patience: Patience = QUICK) -> bytes:
    return fetch(server.url + PATH, patience)[1]


def test_stream_reads_a_file_with_one_request(server: FlakyServer):
    headers, content = fetch(server.url + PATH, QUICK)
    assert content == CONTENT
    assert headers["content-length"] == str(len(CONTENT))
    assert server.ranges[PATH] == [0]


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(cut=300_000), Fault(cut=1), Fault(cut=200_000)],
        [Fault(status=500), Fault(status=503), Fault(status=429)],
        [Fault(cut=500_000), Fault(short=1000), Fault(short=0)],
        [Fault(cut=500_000), *[Fault(ignore_range=True, cut=n) for n in (400_000, 600_000)]],
        [Fault(cut=0), Fault(cut=0), Fault(cut=0)],
    ],
    ids=["cut", "status", "short", "ranges ignored", "nothing comes"],
)
def test_stream_goes_on_after_a_fault(server: FlakyServer, faults: list[Fault]):
    server.fail(PATH, *faults)
    assert read(server) == CONTENT
    assert len(server.ranges[PATH]) == len(faults) + 1


def test_stream_asks_only_for_what_is_missing(server: FlakyServer):
    server.fail(PATH, Fault(cut=300_000), Fault(cut=100_000))
    assert read(server) == CONTENT
    assert server.ranges[PATH][1:] == [
        pytest.approx(300_000, abs=http.READ_BYTES),
        pytest.approx(400_000, abs=2 * http.READ_BYTES),
    ]
    assert server.sent[PATH] < len(CONTENT) + 2 * http.READ_BYTES


@settings(max_examples=15, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 60_000), max_size=5),
    reads=st.lists(st.integers(1, 30_000), min_size=1, max_size=5),
    ignored=st.booleans(),
)
def test_stream_is_the_file_whatever_happens(cuts: list[int], reads: list[int], ignored: bool):
    with pytest.MonkeyPatch.context() as patch, FlakyServer().running() as server:
        patch.setenv("NO_PROXY", "127.0.0.1")
        server.files[PATH] = content = CONTENT[:50_000]
        server.fail(PATH, *(Fault(cut=cut, ignore_range=ignored) for cut in cuts))
        with HttpStream(server.url + PATH, Patience(retries=len(cuts), backoff_s=0)) as stream:
            sizes = itertools.cycle(reads)
            assert b"".join(iter(lambda: stream.read(next(sizes)) or b"", b"")) == content


def test_stream_goes_on_after_silence(server: FlakyServer):
    server.fail(PATH, Fault(cut=300_000, stall_s=1.0))
    assert read(server, Patience(retries=1, backoff_s=0, timeout_s=0.2)) == CONTENT


def test_stream_waits_longer_each_time_and_as_long_as_the_server_asks(server: FlakyServer):
    pauses: list[float] = []
    dated = Fault(status=503, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})
    server.fail(PATH, *[Fault(status=500)] * 2, dated, Fault(status=429, headers={"Retry-After": "120"}))
    with HttpStream(server.url + PATH, Patience(retries=4, backoff_s=1), pauses.append) as stream:
        assert stream.read() == CONTENT
    assert pauses == [1, 2, 4, 120]


def test_stream_gives_up_when_nothing_comes(server: FlakyServer, caplog: pytest.LogCaptureFixture):
    server.always[PATH] = Fault(status=503)
    with caplog.at_level(logging.WARNING), pytest.raises(DataError, match=r"file\.dat.*4 times.*byte 0.*503"):
        read(server)
    assert len(server.ranges[PATH]) == 4
    assert caplog.text.count("status 503") == 3


def test_stream_does_not_give_up_as_long_as_something_comes(server: FlakyServer):
    server.always[PATH] = Fault(cut=50_000)
    assert read(server, Patience(retries=1, backoff_s=0)) == CONTENT


def test_stream_notices_a_file_that_changes(server: FlakyServer):
    stream = HttpStream(server.url + PATH, QUICK)
    server.fail(PATH, Fault(cut=300_000))
    assert stream.read(1000) == CONTENT[:1000]
    server.files[PATH] = CONTENT[::-1]
    with stream, pytest.raises(DataError, match=r"has changed on the server.*ETag"):
        stream.read()


@pytest.mark.parametrize(
    ("status", "message"), [(404, "no such file"), (403, "answers 403"), (400, "answers 400")]
)
def test_stream_names_the_url_of_a_refusal(server: FlakyServer, status: int, message: str):
    server.fail(PATH, Fault(status=status))
    with pytest.raises(DataError, match=f"{server.url}{PATH}.*{message}"):
        read(server)
    assert len(server.ranges[PATH]) == 1


def test_stream_names_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9/x: reading failed 2 times"):
        fetch("http://127.0.0.1:9/x", Patience(retries=1, backoff_s=0))
    with pytest.raises(DataError, match="not an address of a file"):
        fetch("http://", Patience(retries=1, backoff_s=0))


def test_stream_goes_through_the_proxy_of_the_environment(
    server: FlakyServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", server.url)
    server.files["http://uniprot.invalid/x"] = b"by proxy"
    server.routes["/x"] = lambda _: ({}, b"by proxy")
    assert fetch("http://uniprot.invalid/x", QUICK)[1] == b"by proxy"


def test_stream_seeks(server: FlakyServer):
    with HttpStream(server.url + PATH, QUICK) as stream:
        assert stream.seek(-10, io.SEEK_END) == len(CONTENT) - 10
        assert stream.read() == CONTENT[-10:]
        assert stream.read() == b""
        assert stream.seek(5) == 5
        assert stream.read(3) == CONTENT[5:8]
        assert stream.seek(2, io.SEEK_CUR) == stream.tell() == 10
        stream.seek(len(CONTENT) + 7)
        assert stream.read() == b""


def test_stream_beyond_the_end_is_empty_from_the_first_request(server: FlakyServer):
    with HttpStream(server.url + PATH, QUICK) as stream:
        stream.seek(len(CONTENT))
        assert stream.read() == b""
        assert stream.size == len(CONTENT)


def test_storage_reads_urls(server: FlakyServer):
    url = server.url + PATH
    server.fail(PATH, Fault(cut=100_000))
    assert storage.read_bytes(url) == CONTENT
    assert storage.exists(url)
    assert not storage.exists(server.url + "/b")
    assert storage.list_files(url) == [storage.StoredFile(url, len(CONTENT))]
    before = storage.version(url)
    server.files[PATH] = CONTENT[:-1]
    assert storage.version(url) != before
    with storage.open_input(url, random=True) as file:
        file.seek(500)
        assert file.read(4) == CONTENT[500:504]
    with pytest.raises(DataError, match="no such file"):
        storage.list_files(server.url + "/b")
    with pytest.raises(DataError, match="local path or s3"):
        storage.write_bytes(url, b"")


def test_storage_says_when_a_server_states_no_size(server: FlakyServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(HttpStream, "size", None)
    with pytest.raises(DataError, match="does not state the size"):
        storage.list_files(server.url + PATH)


def test_records_are_read_from_a_url(server: FlakyServer, tmp_path: Path):
    from protclip.data.synthetic import write_sample

    write_sample(str(tmp_path), 50, 0, seed=0)
    made = tmp_path / "uniprot_sprot.dat.gz"
    server.files["/made.dat.gz"] = made.read_bytes()
    server.fail("/made.dat.gz", Fault(cut=10_000), Fault(status=503))
    assert list(read_records(server.url + "/made.dat.gz")) == list(read_records(str(made)))
