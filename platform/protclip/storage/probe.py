"""What this process may do at a place, verb by verb, on a short fuse: for pre-flight checks."""

import email.utils
import itertools
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protclip.errors import DataError
from protclip.storage.failures import answer_of, endpoint, explained
from protclip.storage.files import create, read_bytes, write_bytes
from protclip.storage.filesystems import client_options, filesystem, is_local

CONNECT_S, READ_S, ATTEMPTS = 3.0, 5.0, 2
PART_BYTES = 5 * 2**20
"""The least that S3 takes for any part of an upload but the last."""
SEEN_WITHIN_S = 3.0
MARK = "mark"
NOTHING_THERE = "mend the URI, or make the data set first"


@dataclass(frozen=True, slots=True)
class Step:
    """Something tried.

    Attributes:
        verb: What, in the words of the permission it needs.
        error: Why it could not be done; empty when it was.
        remedy: What to do about it, where that is known.
    """

    verb: str
    error: str = ""
    remedy: str = ""


@dataclass
class Trial:
    """What came of trying a place.

    Attributes:
        steps: In their order; the last one failed when the place did not answer.
        round_trip_s: Time of the quickest request, None when there was none.
        up_bytes_per_s: Speed of writing.
        down_bytes_per_s: Speed of reading.
        skew_s: How far this machine's clock is ahead of the store's, to about a second.
    """

    steps: list[Step] = field(default_factory=list)
    round_trip_s: float | None = None
    up_bytes_per_s: float | None = None
    down_bytes_per_s: float | None = None
    skew_s: float | None = None

    @property
    def failed(self) -> list[Step]:
        """The steps that could not be done."""
        return [step for step in self.steps if step.error]


def try_write(uri: str, token: str, name: str, *, first: bool) -> Trial:
    """Lists, writes, reads back, overwrites, creates, uploads in parts, gives up an upload, deletes.

    Args:
        uri: A directory that jobs write to; it need not be there.
        token: Names what all processes of a check leave there until `sweep`.
        name: Another for every process.
        first: Whether this process leaves the file by which others see that they see the same disk.
    """
    if is_local(uri):
        return _LocalTrial(_local_place(uri, token)).write(name, first=first)
    return _S3Trial(uri).write(f".doctor-{token}/{name}")


def try_read(uri: str) -> Trial:
    """Lists a directory and reads the beginning of a file in it."""
    if is_local(uri):
        return _LocalTrial(Path(filesystem(uri)[1])).read()
    return _S3Trial(uri).read()


def sweep(uri: str, token: str) -> None:
    """Removes what `try_write` left in any process, also one that was ended in the middle.

    Raises:
        DataError: It is still there.
    """
    if is_local(uri):
        shutil.rmtree(_local_place(uri, token), ignore_errors=True)
        return
    trial = _S3Trial(uri)
    trial.sweep(f".doctor-{token}/")
    if trial.failed:
        raise DataError("; ".join(f"{step.verb}: {step.error}" for step in trial.failed))


def _local_place(uri: str, token: str) -> Path:
    """A folder in the nearest directory that is there: a job would make the others."""
    path = Path(filesystem(uri)[1])
    return next(p for p in (path, *path.parents) if p.is_dir()) / f".doctor-{token}"


class _UnexpectedError(Exception):
    """Something is done, but not as it should be."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class _AwayError(Exception):
    """The place does not answer; there is no use in going on."""


class _LocalTrial(Trial):
    def __init__(self, place: Path) -> None:
        super().__init__()
        self._place = place

    def write(self, name: str, *, first: bool) -> Trial:
        """See `try_write`."""
        directory = self._place / name
        uri, data = str(directory / "file"), os.urandom(PART_BYTES)
        if not first:
            self._try("see the driver's files", self._see_mark)
        elif not self._try("write", lambda: write_bytes(str(self._place / MARK), b"")):
            return self
        begun = time.perf_counter()
        if self._try("write 5 MB", lambda: write_bytes(uri, data)):
            self.up_bytes_per_s = len(data) / (time.perf_counter() - begun)
            begun = time.perf_counter()
            self._try("read", lambda: _same(read_bytes(uri), data))
            self.down_bytes_per_s = len(data) / (time.perf_counter() - begun)
            self._try("list", lambda: _same([p.name for p in directory.iterdir()], ["file"]))
            self._try("overwrite", lambda: write_bytes(uri, b"new") and _same(read_bytes(uri), b"new"))
            self._try("create once", lambda: _same(create(uri, b"newer"), False))
            self._try("delete", lambda: shutil.rmtree(directory))
        return self

    def read(self) -> Trial:
        """See `try_read`."""
        files: list[Path] = []

        def find() -> None:
            found = (p for p in (self._place, *self._place.rglob("*")) if p.is_file())
            files.extend(itertools.islice(found, 1))
            if not files:
                raise _UnexpectedError(f"there are no files in {self._place}", NOTHING_THERE)

        def read() -> None:
            begun = time.perf_counter()
            with files[0].open("rb") as file:
                num_bytes = len(file.read(PART_BYTES))
            self.down_bytes_per_s = num_bytes / (time.perf_counter() - begun)

        if self._try("list", find):
            self._try("read", read)
        return self

    def _see_mark(self) -> None:
        """Looks for the driver's file, which may have to come over a network."""
        end = time.monotonic() + SEEN_WITHIN_S
        while not (self._place / MARK).exists():
            if time.monotonic() > end:
                raise _UnexpectedError(
                    "what the driver wrote is not there: it is another disk",
                    "give an s3:// URI, or mount a shared file system at this path on every node",
                )
            time.sleep(0.1)

    def _try(self, verb: str, action: Callable[[], object]) -> bool:
        """Notes whether it works."""
        try:
            with explained(str(self._place), verb):
                action()
        except _UnexpectedError as error:
            self.steps.append(Step(verb, str(error), error.remedy))
            return False
        except DataError as error:
            self.steps.append(Step(verb, *parted(str(error))))
            return False
        self.steps.append(Step(verb))
        return True


class _S3Trial(Trial):
    def __init__(self, uri: str) -> None:
        super().__init__()
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        self._uri = uri
        self._bucket = {"Bucket": bucket}
        self._prefix = f"{prefix.rstrip('/')}/" if prefix.rstrip("/") else ""

    def write(self, name: str) -> Trial:
        """See `try_write`."""
        place = self._prefix + name
        key = {"Key": f"{place}/file"}
        with suppress(_AwayError):
            self._try("ListBucket", lambda: self._list(self._prefix))
            if self._try("PutObject", lambda: self._call("put_object", **key, Body=b"old")):
                read = self._try("GetObject", lambda: _same(self._get(key), b"old"))
                self._try("PutObject over an object", lambda: self._overwrite(key, read=read))
                self._try("PutObject If-None-Match", lambda: self._create_once(key))
                self._try("PutObject in parts", lambda: self._upload({"Key": f"{place}/parts"}, read=read))
                self._try("AbortMultipartUpload", lambda: self._abandon({"Key": f"{place}/abandoned"}))
                self._try("DeleteObject", lambda: self._delete(key))
        return self

    def read(self) -> Trial:
        """See `try_read`."""
        found: list[dict[str, Any]] = []

        def find() -> None:
            found.extend(o for o in self._list(self._prefix, 1000) if o["Size"] and "/." not in o["Key"])
            if not found:
                raise _UnexpectedError("there are no objects under this name", NOTHING_THERE)

        def read() -> None:
            begun = time.perf_counter()
            data = self._get({"Key": found[0]["Key"]}, Range=f"bytes=0-{PART_BYTES - 1}")
            self.down_bytes_per_s = len(data) / (time.perf_counter() - begun)

        with suppress(_AwayError):
            if self._try("ListBucket", find):
                self._try("GetObject", read)
        return self

    def sweep(self, name: str) -> None:
        """Deletes all below a name and gives up uploads to it."""

        def delete() -> None:
            for found in self._list(self._prefix + name, 1000):
                self._delete({"Key": found["Key"]})

        def abort() -> None:
            listed = self._call("list_multipart_uploads", Prefix=self._prefix + name)
            for upload in listed.get("Uploads", ()):
                self._call("abort_multipart_upload", Key=upload["Key"], UploadId=upload["UploadId"])

        with suppress(_AwayError):
            self._try("DeleteObject", delete)
            self._try("AbortMultipartUpload", abort)

    def _overwrite(self, key: dict[str, str], *, read: bool) -> None:
        self._call("put_object", **key, Body=b"new")
        if read:
            _same(self._get(key), b"new")

    def _create_once(self, key: dict[str, str]) -> None:
        """An object that is there must not be created again; S3 says so by refusing."""
        from botocore.exceptions import ClientError

        try:
            self._call("put_object", **key, Body=b"newer", IfNoneMatch="*")
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] not in {409, 412}:
                raise
            return
        raise _UnexpectedError(
            "the condition is ignored: two jobs could claim one output",
            "use a store that knows conditional writes; until then never submit a job twice",
        )

    def _upload(self, key: dict[str, str], *, read: bool) -> None:
        parts = [os.urandom(PART_BYTES), b"end"]
        upload = {**key, "UploadId": self._call("create_multipart_upload", **key)["UploadId"]}
        begun = time.perf_counter()
        tags = [
            {"PartNumber": i, "ETag": self._call("upload_part", **upload, PartNumber=i, Body=part)["ETag"]}
            for i, part in enumerate(parts, start=1)
        ]
        self._call("complete_multipart_upload", **upload, MultipartUpload={"Parts": tags})
        self.up_bytes_per_s = PART_BYTES / (time.perf_counter() - begun)
        if read:
            begun = time.perf_counter()
            _same(self._get(key), b"".join(parts))
            self.down_bytes_per_s = PART_BYTES / (time.perf_counter() - begun)

    def _abandon(self, key: dict[str, str]) -> None:
        upload = self._call("create_multipart_upload", **key)
        self._call("abort_multipart_upload", **key, UploadId=upload["UploadId"])

    def _delete(self, key: dict[str, str]) -> None:
        self._call("delete_object", **key)

    def _get(self, key: dict[str, str], **options: str) -> bytes:
        return self._call("get_object", **key, **options)["Body"].read()

    def _list(self, prefix: str, most: int = 1) -> list[dict[str, Any]]:
        return self._call("list_objects_v2", Prefix=prefix, MaxKeys=most).get("Contents", [])

    def _call(self, name: str, **arguments: Any) -> Any:
        """A request; notes how long it took and what time the store has."""
        begun = time.perf_counter()
        answer = getattr(self._client, name)(**self._bucket, **arguments)
        took_s = time.perf_counter() - begun
        self.round_trip_s = min(took_s, self.round_trip_s or took_s)
        if date := answer["ResponseMetadata"]["HTTPHeaders"].get("date"):
            # The store cuts fractions off: half a second is what that costs on average.
            self.skew_s = time.time() - took_s / 2 - email.utils.parsedate_to_datetime(date).timestamp() - 0.5
        return answer

    @property
    def _client(self) -> Any:
        """A client of this thread, which repeats little and waits seconds."""
        from botocore.config import Config
        from botocore.session import get_session

        if "_made" not in self.__dict__:
            patience = Config(**client_options(CONNECT_S, READ_S, ATTEMPTS))
            self._made = get_session().create_client("s3", endpoint_url=endpoint(), config=patience)
        return self._made

    def _try(self, verb: str, action: Callable[[], object]) -> bool:
        """Notes whether it works.

        Raises:
            _AwayError: The store does not answer, or there is no such bucket.
        """
        try:
            with explained(self._uri, verb):
                action()
        except _UnexpectedError as error:
            self.steps.append(Step(verb, str(error), error.remedy))
            return False
        except DataError as error:
            said, answer = str(error).removeprefix(f"{self._uri}: "), answer_of(error)
            if answer is None:
                self.steps.append(Step(verb, *parted(said.removeprefix(f"{verb} failed: "))))
                raise _AwayError from error
            answered = answer.response.get("Error", {})
            code, message = answered.get("Code", ""), answered.get("Message", "")
            self.steps.append(Step(verb, f"{code}: {message}", said.partition(" (")[0]))
            if code == "NoSuchBucket":
                raise _AwayError from error
            return False
        self.steps.append(Step(verb))
        return True


def _same(found: object, expected: object) -> None:
    """Raises when something else came back than was put there."""
    if found != expected:
        raise _UnexpectedError("something else is read than was written", "use another store")


def parted(text: str) -> tuple[str, str]:
    """A message of ours, whose last clause is what to do, as what is wrong and that."""
    wrong, _, remedy = text.rpartition("; ")
    return wrong or text, remedy if wrong else ""
