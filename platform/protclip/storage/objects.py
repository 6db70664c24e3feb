"""Objects of an S3 store as files: reads that are whole or fail, uploads that end whole or not at all."""

import asyncio
import functools
import logging
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import IO, Any, cast

from fsspec.asyn import sync
from s3fs import S3FileSystem
from s3fs.core import S3_RETRYABLE_ERRORS, S3File

from protclip.errors import DataError
from protclip.storage.failures import code_of, explained

log = logging.getLogger(__name__)

READ_AHEAD_BYTES = 16 * 2**20
PART_BYTES = 8 * 2**20
"""An object has at most 10,000 parts: 84 GB."""
PARTS_AT_ONCE = 8
REQUESTS_AT_ONCE = 16
MARK = "protclip-upload"
"""Metadata of an object made of parts: the name of its upload."""
BROKEN_S = 0.2
"""Wait after an answer that broke off."""
SETTLE_S = 3.0
"""How long a writer waits for others where the server honours no condition."""
TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "409", "412"}
UNKNOWN = {"NotImplemented", "InvalidArgument", "InvalidRequest", "501"}
"""Answers to a conditional write of servers that do not know it."""


class ObjectFile(S3File):
    """An object opened for reading; see `read_object`.

    Args:
        fs: The client.
        path: Bucket and key.
        random: Whether pieces of it are read here and there; the store is then asked for exactly these,
            otherwise for large pieces ahead.

    Raises:
        FileNotFoundError: There is no such object.
    """

    def __init__(self, fs: S3FileSystem, path: str, *, random: bool) -> None:
        super().__init__(
            fs, path, "rb", block_size=READ_AHEAD_BYTES, cache_type="none" if random else "readahead"
        )
        if self.details["type"] != "file":
            raise FileNotFoundError(path)

    def _fetch_range(self, start: int, end: int) -> bytes:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One piece; an answer of another size than asked for is a failure too."""
        wanted = min(end, self.size) - start
        if wanted <= 0:
            return b""
        with explained(f"s3://{self.path}", "reading"):
            data = read_object(
                self.fs, self.path, Range=f"bytes={start}-{start + wanted - 1}", **self.read_kw
            )
            if len(data) != wanted:
                raise OSError(f"{len(data):,} bytes came where {wanted:,} were asked for")
        return data


def read_object(fs: S3FileSystem, path: str, **options: str | None) -> bytes:
    """What the store answers to a request for an object; one that breaks off is asked for again.

    Only that: s3fs has repeated already what got no answer, and its own reading would do so again.

    Args:
        fs: The client.
        path: Bucket and key.
        options: Further parameters of `GetObject`, as `Range`.
    """
    bucket, _, key = path.partition("/")

    async def read() -> bytes:
        left = fs.retries
        while True:
            answer = await fs._call_s3("get_object", Bucket=bucket, Key=key, **options)
            try:
                async with answer["Body"] as body:
                    return await body.read()
            except S3_RETRYABLE_ERRORS as error:
                left -= 1
                if not left:
                    raise
                log.debug("s3://%s: %s", path, error)
                await asyncio.sleep(BROKEN_S)

    return cast("bytes", sync(fs.loop, read))


def create_object(fs: S3FileSystem, path: str, data: bytes) -> bool:
    """Stores a small object under a name that is free; returns whether this call did.

    Of several writers one succeeds where the server honours `If-None-Match: *`. One that does not (Google,
    SeaweedFS before 3.97, Garage) takes the last of those that find the name free within `SETTLE_S`.
    """
    bucket, _, key = path.partition("/")
    put = functools.partial(_call, fs, "put_object", Bucket=bucket, Key=key, Body=data)
    # Not left to the condition: a server that ignores it would replace what is there.
    if fs.exists(path):
        return _content(fs, path) == data
    try:
        put(IfNoneMatch="*")
        # By now the name is taken, if by the same content: a server that accepts this ignores the condition.
        put(IfNoneMatch="*")
    except OSError as error:
        if code_of(error) in TAKEN:
            # By another, or by this call, whose first answer was lost.
            return _content(fs, path) == data
        if code_of(error) not in UNKNOWN:
            raise
        put()
    log.warning(
        "s3://%s: this server does not honour conditional writes (If-None-Match); of two jobs with one "
        "output that start within %.0f s of each other, one may notice late",
        *(bucket, SETTLE_S),
    )
    time.sleep(SETTLE_S)
    return _content(fs, path) == data


def _content(fs: S3FileSystem, path: str) -> bytes | None:
    """The content of a small object; None when it is not there any more."""
    try:
        return read_object(fs, path)
    except FileNotFoundError:
        return None


def remove_objects(fs: S3FileSystem, path: str) -> None:
    """Deletes an object and all below it, one request for each: Google knows no other way.

    Raises:
        OSError: The store refused to delete one.
    """
    bucket, _, key = path.partition("/")
    first = _call(fs, "list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents", [])
    keys = [item["Key"] for item in first if item["Key"] == key]
    more: dict[str, str] = {}
    while True:
        page = _call(fs, "list_objects_v2", Bucket=bucket, Prefix=f"{key}/", **more)
        keys += [item["Key"] for item in page.get("Contents", [])]
        if not page.get("IsTruncated"):
            break
        more = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(key: str) -> None:
        # Google says so of an object that is gone, as after a repeated request.
        with suppress(FileNotFoundError):
            _call(fs, "delete_object", Bucket=bucket, Key=key)

    with ThreadPoolExecutor(min(REQUESTS_AT_ONCE, len(keys) or 1), "delete") as pool:
        list(pool.map(delete, keys))


class Upload:
    """A file whose content becomes an object when it is committed.

    What is larger than a part is sent in parts of equal size, several at once while more is written; memory
    holds `PARTS_AT_ONCE` of them and the one that is being filled.

    Args:
        fs: The client.
        path: Bucket and key.
    """

    def __init__(self, fs: S3FileSystem, path: str) -> None:
        self._fs = fs
        bucket, _, key = path.partition("/")
        self._target = {"Bucket": bucket, "Key": key}
        self._part = bytearray()
        self._mark = uuid.uuid4().hex
        self._id = ""
        self._sent: list[Future[dict[str, str]]] = []
        self.closed = False

    def write(self, data: bytes | memoryview) -> int:
        """Adds bytes; waits while as many parts as may be are under way."""
        view = memoryview(data)
        while view:
            room = PART_BYTES - len(self._part)
            self._part += view[:room]
            view = view[room:]
            if len(self._part) >= PART_BYTES:
                self._send()
        return len(data)

    def commit(self) -> None:
        """Makes the object appear."""
        if not self._id:
            _call(self._fs, "put_object", Body=bytes(self._part), **self._target)
            return
        if self._part:
            self._send()
        parts = [
            {"PartNumber": number, "ETag": part.result()["ETag"]} for number, part in enumerate(self._sent, 1)
        ]
        _complete(self._fs, self._target, self._id, self._mark, parts)

    def abandon(self) -> None:
        """Takes back what was sent."""
        for part in self._sent:
            part.cancel()
        if self._id:
            _abandon(self._fs, self._target, self._id)

    def _send(self) -> None:
        """Sends the part in memory, as soon as one of those under way is there."""
        self._id = self._id or _begin(self._fs, self._target, self._mark)
        if len(self._sent) >= PARTS_AT_ONCE:
            self._sent[-PARTS_AT_ONCE].result()
        self._sent.append(
            asyncio.run_coroutine_threadsafe(
                self._fs._call_s3(
                    "upload_part",
                    PartNumber=len(self._sent) + 1,
                    UploadId=self._id,
                    Body=bytes(self._part),
                    **self._target,
                ),
                cast("asyncio.AbstractEventLoop", self._fs.loop),
            )
        )
        self._part.clear()


@contextmanager
def upload(fs: S3FileSystem, path: str) -> Iterator[IO[bytes]]:
    """A file whose content becomes an object at the end of the block, and is abandoned after an error."""
    sink = Upload(fs, path)
    try:
        yield cast("IO[bytes]", sink)
        sink.commit()
    except BaseException:
        sink.abandon()
        raise
    finally:
        sink.closed = True


def join_objects(fs: S3FileSystem, path: str, sources: Sequence[str]) -> None:
    """Makes one object of several, each but the last of 5 MB or more, inside the store.

    Raises:
        OSError: It failed; Google's server, for one, answers that it cannot do this.
    """
    bucket, _, key = path.partition("/")
    target, mark = {"Bucket": bucket, "Key": key}, uuid.uuid4().hex
    upload_id = _begin(fs, target, mark)

    def copy(number: int, source: str) -> dict[str, object]:
        answer = _call(
            fs, "upload_part_copy", UploadId=upload_id, PartNumber=number, CopySource=source, **target
        )
        return {"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]}

    try:
        with ThreadPoolExecutor(REQUESTS_AT_ONCE, "join") as pool:
            parts = list(pool.map(copy, range(1, len(sources) + 1), sources))
        _complete(fs, target, upload_id, mark, parts)
    except BaseException:
        _abandon(fs, target, upload_id)
        raise


def _call(fs: S3FileSystem, request: str, **arguments: object) -> dict[str, Any]:
    """The store's answer to a request, which s3fs repeats when that may help."""
    return cast("dict[str, Any]", fs.call_s3(request, **arguments))


def _begin(fs: S3FileSystem, target: Mapping[str, str], mark: str) -> str:
    """The identifier of a new upload in parts."""
    return str(_call(fs, "create_multipart_upload", Metadata={MARK: mark}, **target)["UploadId"])


def _complete(
    fs: S3FileSystem,
    target: Mapping[str, str],
    upload_id: str,
    mark: str,
    parts: Sequence[Mapping[str, object]],
) -> None:
    """Makes an object of parts that are all there."""
    try:
        _call(
            fs,
            "complete_multipart_upload",
            UploadId=upload_id,
            MultipartUpload={"Parts": list(parts)},
            **target,
        )
    except FileNotFoundError:
        # So says a store of an upload that is complete, when the answer was lost and the request repeated.
        if _mark_of(fs, target) != mark:
            raise


def _mark_of(fs: S3FileSystem, target: Mapping[str, str]) -> str | None:
    """The name of the upload that made an object; None where there is none."""
    with suppress(FileNotFoundError):
        return cast("str | None", _call(fs, "head_object", **target)["Metadata"].get(MARK))
    return None


def _abandon(fs: S3FileSystem, target: Mapping[str, str], upload_id: str) -> None:
    """Takes back what was sent of an upload in parts, as far as the store lets us."""
    uri = f"s3://{target['Bucket']}/{target['Key']}"
    try:
        # An upload that is gone has no parts: the store lost it, or a request whose answer was lost did this.
        with explained(uri, "abandoning an upload"), suppress(FileNotFoundError):
            _call(fs, "abort_multipart_upload", UploadId=upload_id, **target)
    except DataError as error:
        log.warning("parts of it stay in the store: %s", error)
