"""Every storage function under the failures of an object store and of a disk."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pytest
from s3fs import S3FileSystem

import faulty_s3
from faulty_s3 import Fault, FaultyS3, haste, hasty_client
from protclip import storage
from protclip.cluster.shuffle import KeyRange, read_range, write_run
from protclip.errors import DataError
from protclip.storage import filesystems, objects

SMALL = bytes(range(256)) * 400
TABLE = pa.table({"n": pa.array(range(20_000), pa.uint64()), "text": [str(i**5) for i in range(20_000)]})
EVERYTHING = KeyRange(0, 0, 2**64)
READ_FAULTS = {
    "500": faulty_s3.INTERNAL_ERROR,
    "503": faulty_s3.SLOW_DOWN,
    "dropped": faulty_s3.drop,
    "cut": faulty_s3.cut,
}
WRITE_FAULTS = {
    "500": faulty_s3.INTERNAL_ERROR,
    "503": faulty_s3.SLOW_DOWN,
    "dropped": faulty_s3.drop,
    "lost answer": faulty_s3.lose_answer,
}


def _sequential(folder: str) -> bytes:
    with storage.open_input(storage.join(folder, "small")) as file:
        return b"".join(iter(lambda: file.read(30_000), b""))


def _here_and_there(folder: str) -> bytes:
    with storage.open_input(storage.join(folder, "small"), random=True) as file:
        file.seek(70_000)
        end = file.read()
        file.seek(0)
        return end + file.read(70_000)


def _parquet(folder: str) -> pa.Table:
    with storage.parquet_file(storage.join(folder, "table.parquet")) as file:
        return file.read()


LOOK_UPS: dict[str, Callable[[str], object]] = {
    "exists": lambda folder: storage.exists(storage.join(folder, "small")),
    "exists folder": storage.exists,
    "version": lambda folder: storage.version(storage.join(folder, "small")),
    "list": storage.list_files,
}
READS: dict[str, Callable[[str], object]] = {
    "read_bytes": lambda folder: storage.read_bytes(storage.join(folder, "small")),
    "read_json": lambda folder: storage.read_json(storage.join(folder, "value.json")),
    "sha256": lambda folder: storage.sha256(storage.join(folder, "small")),
    "open_input": _sequential,
    "open_input random": _here_and_there,
    "parquet_file": _parquet,
    "run": lambda folder: read_range([storage.join(folder, "run")], EVERYTHING, "n", TABLE.schema),
}


@pytest.fixture(autouse=True)
def _hasty(s3_server: FaultyS3) -> Iterator[None]:
    with haste(s3_server.endpoint):
        yield


@pytest.fixture(scope="module")
def folder(s3_server: FaultyS3) -> str:
    S3FileSystem(endpoint_url=s3_server.endpoint).mkdir("faults")
    uri = "s3://faults/folder"
    storage.write_bytes(storage.join(uri, "small"), SMALL)
    storage.write_json(storage.join(uri, "value.json"), list(range(1000)))
    storage.write_parquet(storage.join(uri, "table.parquet"), TABLE, 5000)
    write_run(storage.join(uri, "run"), TABLE, "n", 4)
    return uri


def uploads(faults: FaultyS3, bucket: str) -> list[str]:
    """Uploads of a bucket that were neither completed nor abandoned."""
    found = hasty_client(faults.endpoint, read_timeout=60).call_s3(
        "list_multipart_uploads", Bucket=bucket.removeprefix("s3://")
    )
    return [upload["Key"] for upload in found.get("Uploads", [])]


@pytest.mark.parametrize("fault", READ_FAULTS)
@pytest.mark.parametrize("name", [*LOOK_UPS, *READS])
def test_reading_survives_what_passes_and_names_what_stays(
    faults: FaultyS3, folder: str, name: str, fault: str
) -> None:
    read = (LOOK_UPS | READS)[name]
    # An answer to HEAD has nothing that could be cut.
    requests = "^GET faults" if fault == "cut" else "^(GET|HEAD) faults"
    faults.reset()
    expected = read(folder)
    if not faults.count(requests):
        return
    rule = faults.fail(requests, READ_FAULTS[fault], times=2)
    assert read(folder) == expected
    assert rule.done == 2
    faults.fail(requests, READ_FAULTS[fault])
    failed = f"(reading|looking up|listing) failed: .*{faults.endpoint}"
    with pytest.raises(DataError, match=f"^{folder}.*: {failed}"):
        read(folder)


@pytest.mark.parametrize("name", READS)
def test_reading_survives_a_slow_store(
    faults: FaultyS3, folder: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = READS[name](folder)
    client = hasty_client(faults.endpoint, read_timeout=0.5)
    monkeypatch.setattr(filesystems, "_s3_client", lambda *_, **__: client)
    too_slow = faults.fail("^GET faults", faulty_s3.wait(1), times=1)
    faults.fail("^GET faults", faulty_s3.wait(0.05), times=3)
    assert READS[name](folder) == expected
    assert too_slow.done


@pytest.mark.parametrize("name", READS)
def test_reading_never_takes_a_short_answer_for_the_whole(faults: FaultyS3, folder: str, name: str) -> None:
    faults.fail("^GET faults/folder/", faulty_s3.short)
    with pytest.raises(DataError, match=rf"^{folder}/.*: (reading failed: )?[\d,]+ bytes came where [\d,]+"):
        READS[name](folder)


def test_reading_notices_that_the_object_was_replaced(bucket: str) -> None:
    uri = storage.join(bucket, "x")
    storage.write_bytes(uri, b"old" * 100)
    with storage.open_input(uri, random=True) as file:
        assert file.read(3) == b"old"
        storage.write_bytes(uri, b"new" * 100)
        with pytest.raises(DataError, match=f"^{uri}: reading failed: the object has changed"):
            file.read(3)


def test_reading_names_an_object_that_went_missing_after_it_was_listed(faults: FaultyS3, folder: str) -> None:
    for read in READS.values():
        faults.reset()
        faults.fail("^GET faults/folder/", faulty_s3.MISSING)
        with pytest.raises(DataError, match=rf"^{folder}/.*: no such file or directory"):
            read(folder)


def test_a_bucket_that_answers_with_an_error_is_given_time(faults: FaultyS3, bucket: str) -> None:
    rule = faults.fail("^HEAD bucket-[^/]+[?]", faulty_s3.INTERNAL_ERROR, times=3)
    assert not storage.exists(storage.join(bucket, "x"))
    assert rule.done == 3


def _write_large(uri: str) -> None:
    with storage.atomic_writer(uri) as sink:
        for _ in range(12):
            sink.write(bytes(2**20))


def _write_parquet(uri: str) -> None:
    storage.write_parquet(uri, TABLE, 1000)


def _write_run(uri: str) -> None:
    write_run(uri, TABLE, "n", 4)


def _copy(uri: str) -> None:
    storage.copy_to(Path(__file__), uri)


WRITES: dict[str, Callable[[str], object]] = {
    "bytes": lambda uri: storage.write_bytes(uri, SMALL),
    "nothing": lambda uri: storage.write_bytes(uri, b""),
    "create": lambda uri: storage.create(uri, SMALL),
    "large": _write_large,
    "parquet": _write_parquet,
    "run": _write_run,
    "copy": _copy,
}


@pytest.fixture
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PART_BYTES", 5 * 2**20)


@pytest.mark.usefixtures("_small_parts")
@pytest.mark.parametrize("fault", WRITE_FAULTS)
@pytest.mark.parametrize("name", WRITES)
def test_writing_survives_what_passes(faults: FaultyS3, bucket: str, name: str, fault: str) -> None:
    WRITES[name](storage.join(bucket, "expected"))
    rule = faults.fail("^(PUT|POST) bucket", WRITE_FAULTS[fault], times=2)
    WRITES[name](storage.join(bucket, "x"))
    assert rule.done == 2
    assert storage.sha256(storage.join(bucket, "x")) == storage.sha256(storage.join(bucket, "expected"))


@pytest.mark.usefixtures("_small_parts")
@pytest.mark.parametrize("fault", WRITE_FAULTS)
@pytest.mark.parametrize("name", WRITES)
def test_writing_leaves_nothing_when_it_fails(faults: FaultyS3, bucket: str, name: str, fault: str) -> None:
    uri = storage.join(bucket, "x")
    if fault == "lost answer":
        faults.fail("^(PUT|POST) bucket", faulty_s3.lose_answer)
        with pytest.raises(DataError, match=f"^{uri}: writing failed"):
            WRITES[name](uri)
        return
    faults.fail("^(PUT|POST) bucket", WRITE_FAULTS[fault])
    with pytest.raises(DataError, match=f"^{uri}: writing failed: .*{faults.endpoint}"):
        WRITES[name](uri)
    faults.reset()
    assert storage.list_files(bucket) == []
    assert uploads(faults, bucket) == []


@pytest.mark.usefixtures("_small_parts")
@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        (r"^POST .*\?uploads", faulty_s3.INTERNAL_ERROR),
        (r"^PUT .*partNumber=1", faulty_s3.drop),
        (r"^PUT .*partNumber=2", faulty_s3.INTERNAL_ERROR),
        (r"^PUT .*partNumber=3", faulty_s3.SLOW_DOWN),
        (r"^POST .*\?uploadId", faulty_s3.INTERNAL_ERROR),
        (r"^POST .*\?uploadId", faulty_s3.ERROR_IN_OK),
        (r"^POST .*\?uploadId", faulty_s3.MISSING),
    ],
)
def test_failed_upload_is_abandoned_and_the_old_object_stays(
    faults: FaultyS3, bucket: str, request_: str, fault: Fault
) -> None:
    uri = storage.join(bucket, "x")
    storage.write_bytes(uri, b"old")
    faults.fail(request_, fault)
    with pytest.raises(DataError, match=f"^{uri}: writing failed"):
        _write_large(uri)
    faults.reset()
    assert storage.read_bytes(uri) == b"old"
    assert uploads(faults, bucket) == []


@pytest.mark.usefixtures("_small_parts")
def test_upload_that_cannot_be_abandoned_is_reported_by_its_first_error(
    faults: FaultyS3, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    uri = storage.join(bucket, "x")
    faults.fail(r"^PUT .*partNumber=2", faulty_s3.INTERNAL_ERROR)
    faults.fail(r"^DELETE", faulty_s3.INTERNAL_ERROR)
    with pytest.raises(DataError, match=f"^{uri}: writing failed"):
        _write_large(uri)
    assert f"parts of it stay in the store: {uri}" in caplog.text
    assert not storage.exists(uri)


@pytest.mark.usefixtures("_small_parts")
def test_upload_completed_at_the_second_attempt_is_whole(faults: FaultyS3, bucket: str) -> None:
    rule = faults.fail(r"^POST .*\?uploadId", faulty_s3.ERROR_IN_OK, times=1)
    _write_large(storage.join(bucket, "x"))
    assert rule.done == 1
    assert storage.read_bytes(storage.join(bucket, "x")) == bytes(12 * 2**20)


@pytest.mark.usefixtures("_small_parts")
def test_upload_is_whole_when_the_answer_to_its_completion_was_lost(
    faults: FaultyS3, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    uri = storage.join(bucket, "x")
    _write_large(uri)
    rule = faults.fail(r"^POST .*\?uploadId", faulty_s3.lose_answer, times=1)
    # As MinIO does; others remember what they completed.
    faults.fail(r"^POST .*\?uploadId", faulty_s3.error("404 Not Found", "NoSuchUpload"))
    with storage.atomic_writer(uri) as sink:
        sink.write(b"new" * 2**22)
    assert rule.done == 1
    assert storage.read_bytes(uri) == b"new" * 2**22
    assert not caplog.text


@pytest.mark.usefixtures("_small_parts")
def test_upload_whose_abandonment_was_not_answered_is_gone(
    faults: FaultyS3, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    faults.fail(r"^PUT .*partNumber=2", faulty_s3.INTERNAL_ERROR)
    rule = faults.fail("^DELETE", faulty_s3.lose_answer, times=1)
    with pytest.raises(DataError, match="writing failed"):
        _write_large(storage.join(bucket, "x"))
    assert rule.done == 1
    assert not caplog.text
    assert uploads(faults, bucket) == []


@pytest.mark.usefixtures("_small_parts")
@pytest.mark.parametrize("request_", [r"^PUT [^?]*/x\?", r"^POST .*\?uploads", r"^PUT .*partNumber=2"])
def test_writing_never_takes_what_the_store_lost_for_a_wrong_path(
    faults: FaultyS3, bucket: str, request_: str
) -> None:
    uri = storage.join(bucket, "x")
    faults.fail(request_, faulty_s3.MISSING)
    with pytest.raises(DataError, match=f"^{uri}: writing failed: .*NoSuchKey.*{faults.endpoint}"):
        _write_large(uri)


def test_create_is_true_for_the_writer_whose_answer_was_lost(faults: FaultyS3, bucket: str) -> None:
    uri = storage.join(bucket, "x")
    faults.fail("^PUT", faulty_s3.lose_answer, times=1)
    assert storage.create(uri, b"mine")
    assert not storage.create(uri, b"yours")
    assert storage.read_bytes(uri) == b"mine"


@pytest.mark.parametrize("fault", WRITE_FAULTS)
def test_remove_survives_what_passes_and_names_what_stays(faults: FaultyS3, bucket: str, fault: str) -> None:
    place = storage.join(bucket, "d")
    for name in ("1", "e/2"):
        storage.write_bytes(storage.join(place, name), b"x")
    faults.fail("^(POST|DELETE)", WRITE_FAULTS[fault] if fault != "lost answer" else faulty_s3.drop)
    with pytest.raises(DataError, match=f"^{place}: deleting failed"):
        storage.remove(place)
    faults.reset()
    faults.fail("^(POST|DELETE)", WRITE_FAULTS[fault], times=2)
    storage.remove(place)
    assert storage.list_files(bucket) == []


def test_remove_notices_what_the_store_refused_to_delete(faults: FaultyS3, bucket: str) -> None:
    for name in ("d/1", "d/2"):
        storage.write_bytes(storage.join(bucket, name), b"x")
    faults.fail(r"^DELETE .*/d/1", faulty_s3.error("409 Conflict", "ObjectLocked"))
    for uri in (storage.join(bucket, "d"), storage.join(bucket, "d", "1")):
        with pytest.raises(
            DataError, match=f"^{uri}: deleting failed: .*DeleteObject: ObjectLocked: made fault"
        ):
            storage.remove(uri)


def _no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name", WRITES)
def test_full_disk_at_the_end_leaves_the_old_file_alone(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", _no_space)
    with pytest.raises(DataError, match=f"^{target}: writing failed: the disk is full"):
        WRITES[name](str(target))
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"old"


@pytest.fixture
def _full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file opened for writing is the device that has no room."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    open_ = Path.open

    def opened(path: Path, mode: str = "r", *rest: Any, **options: Any) -> IO[Any]:
        return open_(Path("/dev/full"), "wb") if mode in {"wb", "xb"} else open_(path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", opened)


@pytest.mark.usefixtures("_full_disk")
@pytest.mark.parametrize("name", [name for name in WRITES if name != "nothing"])
def test_full_disk_while_writing_is_one_message(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"^{tmp_path / 'x'}: writing failed: the disk is full"):
        WRITES[name](str(tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_full_disk")
def test_full_disk_is_not_blamed_on_the_object_that_is_copied_to_it(folder: str) -> None:
    with pytest.raises(DataError, match=r"^/.*: writing failed: the disk is full"):
        storage.cached(storage.join(folder, "small"))
