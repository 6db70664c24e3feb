"""Files on local disk or object storage; the only module that knows which of the two it is.

A URI is a local path, `file://…` or `s3://bucket/key`. S3 credentials, region and endpoint come from
the standard chain (`AWS_*` variables, profiles, instance roles; `AWS_ENDPOINT_URL` for self-hosted
servers). Writes are atomic: a reader sees the whole new file or none of it. An output that consists
of many files becomes visible through its manifest, which is written last.
"""

import functools
import hashlib
import json
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from protclip.errors import DataError

if TYPE_CHECKING:
    from s3fs import S3FileSystem

log = logging.getLogger(__name__)

COPY_BLOCK_BYTES = 8 * 2**20
READ_AHEAD_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that exists, as a manifest lists it.

    Attributes:
        uri: Where it is.
        num_bytes: Its size.
        sha256: Hex digest; empty when the file was listed, not written.
    """

    uri: str
    num_bytes: int
    sha256: str = ""


def _s3(bucket: str) -> "S3FileSystem":
    """This process's S3 client, once it is known that the bucket answers."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    _check_bucket(endpoint, bucket)
    return _s3_client(endpoint, connect_timeout=5, read_timeout=60, max_attempts=5)


@functools.cache
def _s3_client(
    endpoint: str | None, *, connect_timeout: float, read_timeout: float, max_attempts: int
) -> "S3FileSystem":
    """One client per process and endpoint; a random read asks for what is wanted and no more."""
    import s3fs

    return s3fs.S3FileSystem(
        endpoint_url=endpoint,
        default_cache_type="none",
        use_listings_cache=False,
        skip_instance_cache=True,
        config_kwargs={
            "connect_timeout": connect_timeout,
            "read_timeout": read_timeout,
            "retries": {"total_max_attempts": max_attempts, "mode": "standard"},
        },
    )


@functools.cache
def _check_bucket(endpoint: str | None, bucket: str) -> None:
    """Asks once per process, on a short fuse: a dead endpoint costs seconds, real work keeps its patience."""
    client = _s3_client(endpoint, connect_timeout=3, read_timeout=5, max_attempts=2)
    client.retries = 1
    with _explained(f"s3://{bucket}", "reaching the bucket"):
        try:
            client.call_s3("head_bucket", Bucket=bucket)
        except FileNotFoundError as error:
            raise DataError(f"s3://{bucket}: no such bucket{_endpoint_hint('s3://')}") from error
        except PermissionError:
            log.debug("s3://%s answers, but may not be listed", bucket)


def filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The pyarrow file system that serves a URI, and the path to ask it for.

    Raises:
        DataError: The scheme is not supported, or the bucket cannot be reached.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return pafs.LocalFileSystem(), str(Path(uri).expanduser().absolute())
    if scheme == "file":
        return pafs.LocalFileSystem(), rest
    if scheme == "s3":
        bucket = rest.partition("/")[0]
        if not bucket:
            raise DataError(f"{uri}: names no bucket; write s3://bucket/key")
        return pafs.PyFileSystem(pafs.FSSpecHandler(_s3(bucket))), rest.rstrip("/")
    raise DataError(f"{uri}: unknown storage scheme {scheme!r}; use a local path or s3://bucket/key")


def is_local(uri: str) -> bool:
    """True when the URI names a file of this machine."""
    return "://" not in uri or uri.startswith("file://")


def absolute(uri: str) -> str:
    """The same place, named so that a worker in another directory finds it too."""
    return str(Path(uri).expanduser().absolute()) if "://" not in uri else uri


def join(uri: str, *parts: str) -> str:
    """The URI of something inside a directory."""
    return "/".join([uri.rstrip("/"), *parts])


def basename(uri: str) -> str:
    """The last component of a URI."""
    return uri.rstrip("/").rpartition("/")[2]


@contextmanager
def _explained(uri: str, doing: str) -> Iterator[None]:
    """Turns a storage failure into one message that names the URI."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{uri}: no such file or directory; check the path and its spelling") from error
    except PermissionError as error:
        raise DataError(f"{uri}: {doing} is not permitted; check the credentials and rights") from error
    except OSError as error:
        raise DataError(f"{uri}: {doing} failed: {_first_line(error)}{_endpoint_hint(uri)}") from error
    except Exception as error:
        # botocore and aiohttp raise families of their own from inside the S3 client.
        if type(error).__module__.split(".")[0] in {"botocore", "aiobotocore", "aiohttp", "s3fs"}:
            raise DataError(f"{uri}: {doing} failed: {_first_line(error)}{_endpoint_hint(uri)}") from error
        raise


def _first_line(error: BaseException) -> str:
    """The first line of an error's text, or its class name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _endpoint_hint(uri: str) -> str:
    """What to look at when an object store does not answer."""
    if is_local(uri):
        return ""
    endpoint = os.environ.get("AWS_ENDPOINT_URL") or "the AWS default"
    return f" (endpoint: {endpoint}; set AWS_ENDPOINT_URL and AWS credentials)"


def exists(uri: str) -> bool:
    """True when a file or a directory is there.

    Raises:
        DataError: The storage cannot be reached.
    """
    with _explained(uri, "looking up"):
        filesystem_, path = filesystem(uri)
        return filesystem_.get_file_info(path).type != pafs.FileType.NotFound


def list_files(uri: str, suffix: str = "") -> list[StoredFile]:
    """All files below a directory (or the file itself), hidden ones left out, sorted by URI.

    Raises:
        DataError: Nothing is there, or the storage cannot be reached.
    """
    with _explained(uri, "listing"):
        filesystem_, path = filesystem(uri)
        info = filesystem_.get_file_info(path)
        if info.type == pafs.FileType.NotFound:
            raise FileNotFoundError(path)
        if info.type == pafs.FileType.File:
            return [StoredFile(uri, info.size)]
        found = filesystem_.get_file_info(pafs.FileSelector(path, recursive=True))
    prefix = uri.rstrip("/")
    files = [
        StoredFile(prefix + i.path[len(path) :], i.size)
        for i in found
        if i.type == pafs.FileType.File and i.path.endswith(suffix) and "/." not in i.path[len(path) :]
    ]
    return sorted(files, key=lambda f: f.uri)


def open_input(uri: str, *, random: bool = False) -> pa.NativeFile:
    """A seekable binary file for reading.

    Args:
        uri: The file.
        random: Whether pieces of it are read here and there; an object store is then asked for exactly
            these, otherwise for large pieces ahead.

    Raises:
        DataError: It is not there or cannot be read.
    """
    with _explained(uri, "reading"):
        filesystem_, path = filesystem(uri)
        if is_local(uri) or random:
            return filesystem_.open_input_file(path)
        source = filesystem_.handler.fs.open(path, "rb", block_size=READ_AHEAD_BYTES, cache_type="readahead")
        return pa.PythonFile(source, mode="r")


def read_bytes(uri: str) -> bytes:
    """The whole content of a file."""
    with _explained(uri, "reading"), open_input(uri) as file:
        return file.read()


def read_json(uri: str) -> Any:
    """The value of a JSON file.

    Raises:
        DataError: It is not there or is not JSON.
    """
    try:
        return json.loads(read_bytes(uri))
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{uri}: not valid JSON: {error}") from error


class _HashingWriter:
    """Passes bytes to a sink and keeps their digest and count."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink = sink
        self._digest = hashlib.sha256()
        self._num_bytes = 0
        self.stored: StoredFile | None = None

    def write(self, data: bytes) -> int:
        """Writes `data`, returns its length."""
        self._digest.update(data)
        self._num_bytes += len(data)
        self._sink.write(data)
        return len(data)

    def flush(self) -> None:
        """Nothing to do before the sink is closed."""

    @property
    def closed(self) -> bool:
        """Whether the sink is closed."""
        return self._sink.closed

    def tell(self) -> int:
        """Bytes written so far."""
        return self._num_bytes

    def finish(self, uri: str) -> None:
        """Fixes what was written, for `stored`."""
        self.stored = StoredFile(uri, self._num_bytes, self._digest.hexdigest())


@contextmanager
def atomic_writer(uri: str) -> Iterator[_HashingWriter]:
    """A binary file that appears under its name only when the block ends without an error.

    Locally: temporary file beside the target, fsync, rename. On S3: an object exists only once its
    upload is complete; after an error the upload is abandoned. An `OSError` that leaves the block is
    taken for a failure to write the target.

    Yields:
        A writer; after the block its `stored` names size and digest.

    Raises:
        DataError: The target cannot be written.
    """
    with _explained(uri, "writing"):
        with _local_sink(uri) if is_local(uri) else _s3_sink(uri) as sink:
            writer = _HashingWriter(sink)
            yield writer
        writer.finish(uri)


@contextmanager
def _local_sink(uri: str) -> Iterator[IO[bytes]]:
    """A hidden file beside the target that takes its name at the end."""
    target = Path(filesystem(uri)[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("xb") as sink:
            yield sink
            sink.flush()
            os.fsync(sink.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _s3_sink(uri: str) -> Iterator[IO[bytes]]:
    """An upload that is completed at the end or abandoned."""
    filesystem_, path = filesystem(uri)
    sink = filesystem_.handler.fs.open(path, "wb")
    try:
        yield sink
    except BaseException:
        sink.discard()
        # Otherwise its destructor would upload what there is.
        sink.closed = True
        raise
    sink.close()


def write_bytes(uri: str, data: bytes) -> StoredFile:
    """Writes a small file atomically."""
    with atomic_writer(uri) as sink:
        sink.write(data)
    assert sink.stored is not None
    return sink.stored


def write_json(uri: str, value: Any) -> StoredFile:
    """Writes a JSON file atomically, keys in the order given."""
    return write_bytes(uri, (json.dumps(value, indent=2) + "\n").encode())


def write_parquet(uri: str, table: pa.Table, row_group_size: int) -> StoredFile:
    """Writes a Parquet file atomically; tables of equal rows give equal bytes, pages carry checksums."""
    with parquet_writer(uri, table.schema) as (writer, sink):
        writer.write_table(table.combine_chunks(), row_group_size)
    assert sink.stored is not None
    return sink.stored


@contextmanager
def parquet_writer(uri: str, schema: pa.Schema) -> Iterator[tuple[pq.ParquetWriter, _HashingWriter]]:
    """A Parquet file written atomically piece by piece, one row group or more per piece.

    Yields:
        The writer of tables, and the file under it, whose `stored` names size and digest afterwards.

    Raises:
        DataError: The target cannot be written.
    """
    with atomic_writer(uri) as sink:
        target = pa.PythonFile(sink, mode="w")
        with pq.ParquetWriter(target, schema, compression="zstd", write_page_checksum=True) as writer:
            yield writer, sink


@contextmanager
def parquet_file(uri: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file opened for reading; footer, and the checksum of each page read, are verified.

    An Arrow error or `OSError` that leaves the block is taken for damage of the file.

    Raises:
        DataError: It is missing, damaged or not Parquet.
    """
    with _explained(uri, "reading"), open_input(uri, random=True) as file:
        try:
            yield pq.ParquetFile(file, pre_buffer=not is_local(uri), page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            message = f"{uri}: cannot be read as Parquet: {_first_line(error)}"
            raise DataError(f"{message}; if the file is damaged, make the data set again") from error


def sha256(uri: str) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with _explained(uri, "reading"), open_input(uri) as file:
        while block := file.read(COPY_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def remove(uri: str) -> None:
    """Deletes a file or a whole directory; nothing happens when it is not there."""
    with _explained(uri, "deleting"):
        filesystem_, path = filesystem(uri)
        kind = filesystem_.get_file_info(path).type
        if kind == pafs.FileType.Directory:
            filesystem_.delete_dir(path)
        elif kind == pafs.FileType.File:
            filesystem_.delete_file(path)


def copy_to(local: Path, uri: str) -> StoredFile:
    """Copies a local file to a URI, atomically."""
    with local.open("rb") as source, atomic_writer(uri) as sink:
        shutil.copyfileobj(source, sink, COPY_BLOCK_BYTES)
    assert sink.stored is not None
    return sink.stored


@contextmanager
def local_directory(uri: str) -> Iterator[Path]:
    """A directory's files as a local folder: itself when local, else a temporary copy.

    Raises:
        DataError: It is not there or cannot be read.
    """
    if is_local(uri):
        path = Path(filesystem(uri)[1])
        if not path.is_dir():
            raise DataError(f"{uri}: no such directory; check the path and its spelling")
        yield path
        return
    prefix = uri.rstrip("/") + "/"
    with tempfile.TemporaryDirectory(prefix="protclip-") as name:
        for stored in list_files(uri):
            target = Path(name) / stored.uri.removeprefix(prefix)
            target.parent.mkdir(parents=True, exist_ok=True)
            with _explained(stored.uri, "reading"), open_input(stored.uri) as source:
                with target.open("wb") as sink:
                    shutil.copyfileobj(source, sink, COPY_BLOCK_BYTES)
        yield Path(name)
