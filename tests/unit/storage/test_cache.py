import hashlib
import logging
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from faulty_s3 import FaultyS3, Hold, cut, error, wait
from flaky_http import FlakyServer
from protclip import storage
from protclip.errors import DataError
from protclip.storage import cache

CONTENT = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "protclip"


@pytest.fixture
def remote(bucket: str, faults: FaultyS3) -> str:
    uri = f"{bucket}/models/weights.pt"
    storage.write_bytes(uri, CONTENT)
    faults.reset()
    return uri


def test_cached_gives_a_local_file_itself(tmp_path: Path, root: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(CONTENT)
    assert storage.cached(str(path)) == storage.cached(f"file://{path}", DIGEST) == path
    assert storage.cached_directory(str(tmp_path), {"weights.pt": DIGEST}) == tmp_path
    assert not root.exists()


def test_cached_refuses_a_local_file_that_is_not_there_or_another(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        storage.cached(str(tmp_path / "weights.pt"))
    with pytest.raises(DataError, match="no such directory"):
        storage.cached_directory(str(tmp_path / "nothing"))
    (tmp_path / "weights.pt").write_bytes(b"another")
    with pytest.raises(DataError, match="expected checksum"):
        storage.cached_directory(str(tmp_path), {"weights.pt": DIGEST})


def test_cached_reads_an_object_once(remote: str, faults: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "PIECE_BYTES", 100_000)
    path = storage.cached(remote)
    assert path.name == "weights.pt"
    assert path.read_bytes() == CONTENT
    pieces = -(-len(CONTENT) // 100_000)
    assert faults.count(r"GET .*weights\.pt") == pieces
    assert storage.cached(remote) == path
    assert faults.count(r"GET .*weights\.pt") == pieces


def test_cached_asks_the_store_for_nothing_when_it_knows_the_digest(remote: str, faults: FaultyS3) -> None:
    path = storage.cached(remote, DIGEST)
    faults.reset()
    assert storage.cached(remote, DIGEST) == path
    assert faults.seen == []


def test_cached_reads_an_object_once_for_all_processes_of_a_node(remote: str, faults: FaultyS3) -> None:
    faults.fail(r"GET .*weights\.pt", wait(0.5))
    code = f"from protclip import storage; print(storage.cached({remote!r}))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    while not faults.count(r"GET .*weights\.pt"):
        assert other.poll() is None
        time.sleep(0.01)
    with ThreadPoolExecutor(3) as pool:
        found = {str(path) for path in pool.map(storage.cached, [remote] * 3)}
    found.add(other.communicate(timeout=120)[0].decode().strip())
    assert [Path(path).read_bytes() for path in found] == [CONTENT]
    assert faults.count(r"GET .*weights\.pt") == 1


@pytest.mark.parametrize("damage", ["changed", "cut", "gone", "no note"])
def test_cached_fetches_a_damaged_copy_again(
    damage: str, remote: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = storage.cached(remote)
    if damage == "changed":
        path.write_bytes(CONTENT[:-1] + b"?")
    elif damage == "cut":
        path.write_bytes(CONTENT[:1000])
    elif damage == "gone":
        path.unlink()
    else:
        (path.parents[1] / cache.NOTE).unlink()
    assert storage.cached(remote).read_bytes() == CONTENT
    assert ("is damaged and fetched again" in caplog.text) == (damage != "no note")


def test_cached_follows_the_object_when_it_changes(remote: str) -> None:
    before = storage.cached(remote)
    storage.write_bytes(remote, b"newer")
    assert storage.cached(remote).read_bytes() == b"newer"
    assert before.read_bytes() == CONTENT


def test_cached_notices_an_object_that_changes_while_it_is_read(
    remote: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_and_replace(uri: str, start: int, stop: int) -> bytes:
        data = storage.read_range(uri, start, stop)
        storage.write_bytes(uri, b"newer")
        return data

    monkeypatch.setattr(cache, "read_range", read_and_replace)
    with pytest.raises(DataError, match="changed while it was read"):
        storage.cached(remote)
    assert not list(root.glob(f"*/{cache.NOTE}"))


def test_cached_refuses_content_that_is_not_what_the_store_or_the_caller_says(
    remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"weights\.pt.*expected checksum"):
        storage.cached(remote, "0" * 64)
    monkeypatch.setattr(cache, "read_range", lambda _, start, stop: bytes(stop - start))
    with pytest.raises(DataError, match=r"weights\.pt.*expected checksum"):
        storage.cached(remote)


def test_cached_goes_on_after_a_fetch_that_failed(remote: str, faults: FaultyS3, root: Path) -> None:
    rule = faults.fail(r"GET .*weights\.pt", error("403 Forbidden", "AccessDenied"))
    with pytest.raises(DataError, match=r"weights\.pt: reading is not permitted"):
        storage.cached(remote)
    rule.times = rule.done
    faults.fail(r"GET .*weights\.pt", cut, times=1)
    assert storage.cached(remote).read_bytes() == CONTENT
    assert not list(root.glob("*.partial"))


def test_cached_says_what_is_not_there(bucket: str) -> None:
    with pytest.raises(DataError, match="no such file or directory"):
        storage.cached(f"{bucket}/nothing.pt")
    with pytest.raises(DataError, match="no such file or directory"):
        storage.cached_directory(f"{bucket}/nothing")
    with pytest.raises(DataError, match="unknown storage scheme 'gs'"):
        storage.cached("gs://bucket/weights.pt")


def test_cached_says_where_it_cannot_be(remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match="set XDG_CACHE_HOME"):
        storage.cached(remote)


def test_cached_directory_has_all_files_or_those_asked_for(remote: str, faults: FaultyS3) -> None:
    folder = remote.rpartition("/")[0]
    storage.write_bytes(f"{folder}/more/config.json", b"{}")
    directory = storage.cached_directory(folder)
    assert {str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file()} == {
        "weights.pt",
        "more/config.json",
    }
    part = storage.cached_directory(folder, {"weights.pt": DIGEST})
    assert [p.name for p in part.iterdir()] == ["weights.pt"]
    faults.reset()
    assert storage.cached_directory(folder + "/", {"weights.pt": DIGEST}).name == part.name
    with pytest.raises(DataError, match="no such file"):
        storage.cached_directory(folder, {"absent": DIGEST})


def test_cached_reads_from_the_web(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with FlakyServer().running() as server:
        server.files["/weights.pt"] = CONTENT
        path = storage.cached(f"{server.url}/weights.pt")
        assert (path.name, path.read_bytes()) == ("weights.pt", CONTENT)
        with pytest.raises(DataError, match="lists no directory"):
            storage.cached_directory(server.url)


@pytest.fixture
def stay(remote: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Path]]:
    """Fetches entries of 100 kB that are of some age in hours, and used by no process any more."""

    def fetch(**ages_h: float) -> dict[str, Path]:
        entries = {}
        for name, age_h in ages_h.items():
            storage.write_bytes(f"{remote}-{name}", name[0].encode() * 100_000)
            entries[name] = storage.cached(f"{remote}-{name}").parents[1]
            os.utime(entries[name], (time.time(), time.time() - 3600 * age_h))
        for mark in cache._held.values():
            mark.close()
        monkeypatch.setattr(cache, "_held", {})
        return entries

    return fetch


def left(entries: dict[str, Path]) -> set[str]:
    return {name for name, entry in entries.items() if entry.exists()}


def test_cached_makes_room_on_a_full_disk_by_removing_what_is_long_unused(
    remote: str,
    stay: Callable[..., dict[str, Path]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    entries = stay(old=3, older=4, new=0)
    missing = 150_000
    disk = namedtuple("disk", "total used free")

    def usage(_: Path) -> disk:
        freed = 100_000 * (3 - len(left(entries)))
        return disk(10 * len(CONTENT), 0, 2 * len(CONTENT) - missing + freed)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with caplog.at_level(logging.INFO):
        assert storage.cached(remote).read_bytes() == CONTENT
    assert left(entries) == {"new"}
    assert caplog.text.count("unused for longest") == 2


def test_cached_stays_below_its_limit_and_keeps_what_is_in_use(
    remote: str, root: Path, stay: Callable[..., dict[str, Path]]
) -> None:
    entries = stay(used=5, old=3, older=4, new=0)
    (root / "max_gb").write_text("0.00132\n")
    storage.cached(f"{remote}-used")
    os.utime(entries["used"], (0, 0))
    storage.cached(remote)
    assert left(entries) == {"used", "new"}
    storage.cached(f"{remote}-new")
    storage.write_bytes(f"{remote}-more", bytes(200_000))
    with pytest.raises(
        DataError, match=r"-more: there is no room for its 200,000 bytes .* use 1,248,\d+ of 1,320"
    ):
        storage.cached(f"{remote}-more")


def test_cached_counts_what_others_are_fetching(remote: str, root: Path, faults: FaultyS3) -> None:
    storage.write_bytes(f"{remote}-other", bytes(300_000))
    storage.cached(f"{remote}-other")
    (root / "max_gb").write_text("0.0018")
    held = Hold()
    faults.fail(r"GET .*weights\.pt\?", held, times=1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(storage.cached, remote)
        assert held.reached.wait(30)
        storage.write_bytes(f"{remote}-late", bytes(500_000))
        with pytest.raises(DataError, match="-late: there is no room"):
            storage.cached(f"{remote}-late")
        held.release()
        assert first.result().read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("0.001", r"1,048,576 bytes are more than .* may hold; raise .*max_gb"),
        ("much", "max_gb: not a number"),
    ],
)
def test_cached_says_what_its_limit_does_not_allow(remote: str, root: Path, limit: str, message: str) -> None:
    root.mkdir(parents=True)
    (root / "max_gb").write_text(limit)
    with pytest.raises(DataError, match=message):
        storage.cached(remote)
    assert not list(root.glob("*.partial"))
