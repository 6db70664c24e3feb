"""What an object store refuses, in words that its administrator can act on."""

import re
from collections.abc import Callable, Iterator

import pytest

from faulty_s3 import FaultyS3, error, haste, hasty_client, reply
from protclip import storage
from protclip.errors import DataError
from protclip.storage import objects

DENIED = error("403 Forbidden", "AccessDenied")


@pytest.fixture
def folder(bucket: str, faults: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder with one file, which is large when it is written in parts; nobody waits to try again."""
    monkeypatch.setattr(objects, "PART_BYTES", 5 * 2**20)
    uri = storage.join(bucket, "runs", "a")
    with haste(faults.endpoint):
        storage.write_bytes(storage.join(uri, "there"), b"old")
        faults.reset()
        yield uri


def _write_large(folder: str) -> None:
    with storage.atomic_writer(storage.join(folder, "there")) as sink:
        sink.write(bytes(12 * 2**20))


RIGHTS: dict[str, tuple[str, Callable[[str], object], str]] = {
    "GetObject": (
        r"^GET .*/there\?",
        lambda folder: storage.read_bytes(storage.join(folder, "there")),
        "reading is not permitted: the credentials lack s3:GetObject on {prefix}/*",
    ),
    "HeadObject": (
        r"^HEAD .*/there\?",
        lambda folder: storage.version(storage.join(folder, "there")),
        "looking up is not permitted: the credentials lack s3:GetObject on {prefix}/*, or s3:ListBucket on "
        "{bucket}, without which",
    ),
    "PutObject": (
        r"^PUT",
        lambda folder: storage.write_bytes(storage.join(folder, "there"), b"new"),
        "writing is not permitted: the credentials lack s3:PutObject on {prefix}/*",
    ),
    "CreateMultipartUpload": (
        r"^POST .*\?uploads",
        _write_large,
        "writing is not permitted: the credentials lack s3:PutObject on {prefix}/*",
    ),
    "UploadPart": (
        r"^PUT .*partNumber=2",
        _write_large,
        "writing is not permitted: the credentials lack s3:PutObject on {prefix}/*",
    ),
    "ListObjectsV2": (
        r"^GET .*list-type",
        storage.list_files,
        "listing is not permitted: the credentials lack s3:ListBucket on {bucket} (",
    ),
    "DeleteObject": (
        r"^DELETE",
        storage.remove,
        "deleting is not permitted: the credentials lack s3:DeleteObject on ",
    ),
}


@pytest.mark.parametrize("request_", RIGHTS)
def test_a_missing_right_is_named_and_nothing_is_left(faults: FaultyS3, folder: str, request_: str) -> None:
    pattern, act, message = RIGHTS[request_]
    faults.fail(pattern, DENIED)
    bucket = "arn:aws:s3:::" + folder.removeprefix("s3://").partition("/")[0]
    said = message.format(bucket=bucket, prefix=f"{bucket}/runs/a")
    with pytest.raises(DataError, match=re.escape(said)) as raised:
        act(folder)
    assert f"({request_}: " in str(raised.value)
    faults.reset()
    assert storage.read_bytes(storage.join(folder, "there")) == b"old"
    listed = hasty_client(faults.endpoint, read_timeout=60).call_s3(
        "list_multipart_uploads", Bucket=bucket.rpartition(":")[2]
    )
    assert not listed.get("Uploads")


def test_what_may_not_be_abandoned_is_named_beside_the_first_error(
    faults: FaultyS3, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    faults.fail(r"^PUT .*partNumber=2", error("403 Forbidden", "QuotaExceeded"))
    faults.fail(r"^DELETE", DENIED)
    with pytest.raises(DataError, match="quota is used up"):
        _write_large(folder)
    assert "the credentials lack s3:AbortMultipartUpload on arn:aws:s3:::" in caplog.text


def test_work_on_named_objects_needs_no_right_to_list(
    faults: FaultyS3, folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    faults.fail(r"^GET [^?]*\?.*list-type|^HEAD bucket-[^/]*\?", DENIED)
    uri = storage.join(folder, "there")
    storage.write_bytes(uri, b"new")
    assert storage.exists(uri)
    assert storage.read_bytes(uri) == storage.cached(uri).read_bytes() == b"new"


SKEWED = (
    "<Error><Code>RequestTimeTooSkewed</Code><Message>The difference is too large.</Message>"
    "<ServerTime>2026-11-22T10:00:00Z</ServerTime></Error>"
)
ELSEWHERE = (
    "<Error><Code>AuthorizationHeaderMalformed</Code><Message>no</Message><Region>garage</Region></Error>"
)
ANSWERS = {
    "expired": (error("400 Bad Request", "ExpiredToken"), "the credentials have expired"),
    "key": (error("403 Forbidden", "InvalidAccessKeyId"), "does not know this access key"),
    "secret": (error("403 Forbidden", "SignatureDoesNotMatch"), "the secret key is wrong"),
    "skew": (reply("403 Forbidden", SKEWED), "set this machine's clock"),
    "region": (reply("400 Bad Request", ELSEWHERE), "in region garage; set AWS_DEFAULT_REGION=garage"),
    "redirect": (error("301 Moved Permanently", "PermanentRedirect"), "in another region; set AWS_DEFAULT"),
    "minio full": (error("507 Insufficient Storage", "XMinioStorageFull"), "the store is full"),
    "full": (reply("507 Insufficient Storage", ""), "the store is full"),
    "quota": (error("403 Forbidden", "QuotaExceeded"), "the bucket's quota is used up"),
    "overload": (error("503 Slow Down", "SlowDown"), "the store is overloaded"),
    "unknown": (error("501 Not Implemented", "NotImplemented"), "this server does not know such a request"),
    "other": (
        error("418 Teapot", "Teapot"),
        r"the store refuses \(PutObject: Teapot: made fault; endpoint: http",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_explained_with_its_remedy(faults: FaultyS3, folder: str, name: str) -> None:
    fault, message = ANSWERS[name]
    faults.fail("^PUT", fault)
    with pytest.raises(DataError, match=rf"there: writing failed: .*{message}"):
        storage.write_bytes(storage.join(folder, "there"), b"new")


@pytest.mark.usefixtures("new_clients")
@pytest.mark.parametrize("name", ["expired", "key", "skew", "region"])
def test_a_bucket_that_refuses_everything_says_why_at_once(faults: FaultyS3, bucket: str, name: str) -> None:
    fault, message = ANSWERS[name]
    faults.fail("^(GET|HEAD)", fault)
    with pytest.raises(DataError, match=f"^{bucket}: reaching the bucket failed: .*{message}"):
        storage.exists(storage.join(bucket, "x"))


@pytest.mark.usefixtures("new_clients")
def test_a_name_that_is_not_known_is_one_message(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.invalid:9000")
    with pytest.raises(DataError, match=r"reaching the bucket failed: .*store\.invalid:9000"):
        storage.exists(bucket)
