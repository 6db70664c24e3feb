"""Objects of an S3 store as files: reads that are whole or fail, uploads that end whole or not at all."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

from s3fs import S3FileSystem
from s3fs.core import S3File

from protclip.errors import DataError
from protclip.storage.filesystems import explained

log = logging.getLogger(__name__)

READ_AHEAD_BYTES = 16 * 2**20
PART_BYTES = 50 * 2**20
"""What an upload sends at once and holds in memory; 10,000 parts are the most an object has."""


class ObjectFile(S3File):
    """An object opened for reading; s3fs repeats requests that fail, also in the middle of an answer.

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
        """One piece; an answer of another size than asked for, which s3fs lets pass, is a failure too."""
        wanted = min(end, self.size) - start
        with explained(f"s3://{self.path}", "reading"):
            data: bytes = super()._fetch_range(start, end) or b""
            if len(data) != wanted:
                raise OSError(f"{len(data):,} bytes came where {wanted:,} were asked for")
        return data


def create_object(fs: S3FileSystem, path: str, data: bytes) -> None:
    """Stores a small object under a name that is free.

    Raises:
        FileExistsError: It is not free.
    """
    bucket, _, key = path.partition("/")
    try:
        fs.call_s3("put_object", Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
    except OSError as error:
        # s3fs knows only the answer of AWS, which names the condition.
        response: dict[str, dict[str, str]] = getattr(error.__cause__, "response", {})
        if response.get("Error", {}).get("Code") == "PreconditionFailed":
            raise FileExistsError(path) from error
        raise


@contextmanager
def upload(fs: S3FileSystem, path: str) -> Iterator[IO[bytes]]:
    """A file whose content becomes an object at the end of the block, and is abandoned after an error."""
    sink = S3File(fs, path, "wb", block_size=PART_BYTES)
    try:
        yield cast("IO[bytes]", sink)
        try:
            sink.close()
        except FileNotFoundError as error:
            raise OSError(f"the store lost the upload: {error}") from error
    except BaseException:
        # Otherwise its destructor would upload what there is.
        sink.closed = True
        try:
            with explained(f"s3://{path}", "abandoning an upload"):
                sink.discard()
        except DataError as error:
            log.warning("parts of it stay in the store: %s", error)
        raise
