import os
from pathlib import Path

import pytest

from protclip import storage
from protclip.errors import DataError
from protclip.storage import resumable
from protclip.storage.resumable import MIN_PIECE_BYTES, Resumable, discard, kept_bytes

CONTENT = os.urandom(13 * 2**20)
HALF = 7 * 2**20


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(resumable, "PIECE_BYTES", MIN_PIECE_BYTES)
    return str(tmp_path) if request.param == "local" else request.getfixturevalue("bucket")


def hidden(root: str) -> list[str]:
    fs, path = storage.filesystem(root)
    if storage.is_local(root):
        return [str(p) for p in Path(path).rglob("*")]
    return fs.handler.fs.find(path)


def test_file_is_written_in_two_runs(root: str):
    uri = storage.join(root, "a", "b.gz")
    with Resumable(uri, "of 1") as sink:
        sink.write(CONTENT[:HALF])
    assert not storage.exists(uri)
    assert storage.list_files(root) == []
    kept = kept_bytes(uri)
    assert MIN_PIECE_BYTES <= kept <= HALF
    with Resumable(uri, "of 1") as sink:
        assert sink.num_bytes == kept
        assert b"".join(sink.kept()) == CONTENT[:kept]
        for start in range(kept, len(CONTENT), 2**20):
            sink.write(CONTENT[start : start + 2**20])
        assert sink.num_bytes == len(CONTENT)
        assert not storage.exists(uri)
        sink.commit()
    assert storage.read_bytes(uri) == CONTENT
    assert kept_bytes(uri) == 0
    assert [name for name in hidden(root) if ".partial" in name] == []


def test_file_of_another_source_begins_again(root: str):
    uri = storage.join(root, "b.gz")
    with Resumable(uri, "of 1") as sink:
        sink.write(CONTENT[:HALF])
    with Resumable(uri, "of 2") as sink:
        assert sink.num_bytes == 0
        sink.write(b"small")
        sink.commit()
    assert storage.read_bytes(uri) == b"small"


def test_file_can_be_empty_and_replaces_another(root: str):
    uri = storage.join(root, "b.gz")
    storage.write_bytes(uri, b"old")
    with Resumable(uri, "of 1") as sink:
        assert storage.read_bytes(uri) == b"old"
        sink.commit()
    assert storage.read_bytes(uri) == b""


def test_discard_leaves_nothing(root: str):
    uri = storage.join(root, "b.gz")
    with Resumable(uri, "of 1") as sink:
        sink.write(CONTENT[:HALF])
    discard(uri)
    assert kept_bytes(uri) == 0
    assert hidden(root) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_is_named_and_the_name_stays_free(tmp_path: Path):
    uri = str(tmp_path / "b.gz")
    with Resumable(uri, "of 1"):
        pass
    data = tmp_path / ".b.gz.partial" / "data"
    data.unlink()
    data.symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"b\.gz: writing failed: .*full"), Resumable(uri, "of 1") as sink:
        sink.write(b"x" * 100)
    assert not storage.exists(uri)
