import hashlib
import socket
import time
from pathlib import Path

import pyarrow as pa
import pytest

from protclip import storage
from protclip.errors import DataError


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else request.getfixturevalue("bucket")


def _fail_while_writing(uri: str) -> None:
    with storage.atomic_writer(uri) as sink:
        sink.write(b"new")
        raise KeyError


def test_write_reads_back_and_knows_its_digest(root: str) -> None:
    uri = storage.join(root, "a", "b.bin")
    assert not storage.exists(uri)
    stored = storage.write_bytes(uri, b"content")
    assert storage.read_bytes(uri) == b"content"
    assert stored == storage.StoredFile(uri, 7, hashlib.sha256(b"content").hexdigest())
    assert storage.sha256(uri) == stored.sha256
    storage.write_bytes(uri, b"new")
    assert storage.read_bytes(uri) == b"new"


def test_writer_leaves_nothing_after_an_error(root: str) -> None:
    uri = storage.join(root, "a.bin")
    storage.write_bytes(uri, b"old")
    with pytest.raises(KeyError):
        _fail_while_writing(uri)
    assert storage.read_bytes(uri) == b"old"
    assert [f.uri for f in storage.list_files(root)] == [uri]


def test_writer_leaves_no_hidden_file_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        _fail_while_writing(str(tmp_path / "a"))
    assert list(tmp_path.iterdir()) == []


def test_written_file_is_readable_by_others(tmp_path: Path) -> None:
    storage.write_bytes(str(tmp_path / "a"), b"x")
    plain = tmp_path / "plain"
    plain.touch()
    assert (tmp_path / "a").stat().st_mode == plain.stat().st_mode


def test_list_files_is_sorted_and_skips_hidden_ones(root: str) -> None:
    for name in ("b/2.txt", "b/1.txt", "a.txt", "c.bin", ".hidden/x.txt", "b/.partial.txt"):
        storage.write_bytes(storage.join(root, name), b"12345")
    found = storage.list_files(root, suffix=".txt")
    assert [f.uri for f in found] == [storage.join(root, n) for n in ("a.txt", "b/1.txt", "b/2.txt")]
    assert {f.num_bytes for f in found} == {5}
    assert storage.list_files(root + "/") == storage.list_files(root)
    assert storage.list_files(storage.join(root, "a.txt")) == [found[0]]


def test_list_files_below_a_hidden_folder_that_was_asked_for(root: str) -> None:
    storage.write_bytes(storage.join(root, ".hidden", "x"), b"")
    assert len(storage.list_files(storage.join(root, ".hidden"))) == 1


def test_remove_takes_files_and_folders(root: str) -> None:
    for name in ("d/1", "d/e/2", "f"):
        storage.write_bytes(storage.join(root, name), b"x")
    storage.remove(storage.join(root, "d"))
    storage.remove(storage.join(root, "never was"))
    assert [f.uri for f in storage.list_files(root)] == [storage.join(root, "f")]
    storage.remove(storage.join(root, "f"))
    assert not storage.exists(storage.join(root, "f"))


def test_missing_file_is_one_message(root: str) -> None:
    for read in (storage.read_bytes, storage.sha256, storage.list_files, storage.read_json):
        with pytest.raises(DataError, match="no such file or directory"):
            read(storage.join(root, "none"))


@pytest.mark.parametrize("random", [True, False])
def test_open_input_reads_anywhere(root: str, random: bool) -> None:
    uri = storage.join(root, "numbers")
    storage.write_bytes(uri, bytes(range(256)) * 100)
    with storage.open_input(uri, random=random) as file:
        assert file.read(3) == b"\0\1\2"
        file.seek(25_500)
        assert file.read(500) == bytes(range(156, 256))
        assert file.read(1) == b""


def test_parquet_has_the_same_bytes_however_it_is_chunked(tmp_path: Path) -> None:
    table = pa.table({"n": range(5000), "text": [f"text {i % 7}" for i in range(5000)]})
    pieces = pa.concat_tables([table.slice(0, 17), table.slice(17)])
    one = storage.write_parquet(str(tmp_path / "1"), table, 1000)
    two = storage.write_parquet(str(tmp_path / "2"), pieces, 1000)
    assert one.sha256 == two.sha256
    with storage.parquet_file(one.uri) as file:
        assert file.num_row_groups == 5
        assert file.read().equals(table)


def test_parquet_of_no_rows_is_readable(root: str) -> None:
    schema = pa.schema([("n", pa.int64())])
    uri = storage.join(root, "empty.parquet")
    with storage.parquet_writer(uri, schema):
        pass
    with storage.parquet_file(uri) as file:
        assert file.read().equals(schema.empty_table())


def test_parquet_damage_never_changes_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    table = pa.table({"n": range(40), "text": [f"text {i**5}" for i in range(40)]})
    storage.write_parquet(str(path), table, 1000)
    whole = path.read_bytes()
    end_of_data = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    noticed = 0
    for place in [*range(4, end_of_data), *range(len(whole) - 8, len(whole))]:
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        try:
            with storage.parquet_file(str(path)) as file:
                assert file.read().equals(table)
        except DataError as error:
            assert "x.parquet: cannot be read as Parquet" in str(error)  # noqa: PT017
            noticed += 1
    # The rest are bytes of page headers that say nothing about the data.
    assert noticed > (end_of_data - 4) / 2


@pytest.mark.parametrize("content", [b"", b"PAR1", b"text" * 100])
def test_parquet_file_refuses_another_format(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as Parquet"), storage.parquet_file(str(path)):
        pass


def test_read_json_names_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(DataError, match=r"x\.json: not valid JSON"):
        storage.read_json(str(tmp_path / "x.json"))


def test_large_object_is_uploaded_in_parts(bucket: str) -> None:
    uri = storage.join(bucket, "large")
    block = bytes(range(256)) * 2**12
    with storage.atomic_writer(uri) as sink:
        for _ in range(60):
            sink.write(block)
    assert sink.stored is not None
    assert sink.stored.num_bytes == 60 * 2**20
    assert storage.sha256(uri) == sink.stored.sha256


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("gs://bucket/x", "unknown storage scheme 'gs'"),
        ("s3://", "names no bucket"),
        ("s3:///key", "names no bucket"),
    ],
)
def test_filesystem_refuses_what_it_does_not_serve(uri: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        storage.filesystem(uri)


def test_unwritable_target_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="writing failed"):
        storage.write_bytes(str(tmp_path / "file" / "below"), b"x")


def test_missing_bucket_is_one_message(moto_server: str) -> None:
    for use in (storage.exists, storage.list_files, lambda uri: storage.write_bytes(uri, b"x")):
        with pytest.raises(DataError, match=f"s3://no-such-bucket: no such bucket .*{moto_server}"):
            use("s3://no-such-bucket/key")


def test_dead_endpoint_is_one_message_in_seconds(monkeypatch: pytest.MonkeyPatch, moto_server: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    start = time.monotonic()
    with pytest.raises(DataError, match=f"reaching the bucket failed: .*127.0.0.1:{port}"):
        storage.exists("s3://some-bucket/key")
    assert time.monotonic() - start < 10


def test_remove_partials_takes_what_killed_writers_left_and_nothing_else(tmp_path: Path) -> None:
    storage.write_bytes(str(tmp_path / "a" / "whole"), b"x")
    (tmp_path / "a" / ".whole.0123.partial").write_bytes(b"half")
    storage.remove_partials(str(tmp_path))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["whole"]
