"""Files: looking them up, reading them, writing them atomically."""

import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
from pyarrow import fs as pafs

from protclip.errors import DataError
from protclip.storage.failures import explained
from protclip.storage.filesystems import filesystem, is_local
from protclip.storage.http import BUFFER_BYTES, HttpStream, is_http

COPY_BLOCK_BYTES = 8 * 2**20


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


def exists(uri: str) -> bool:
    """True when a file or a directory is there.

    Raises:
        DataError: The storage cannot be reached.
    """
    if is_http(uri):
        with HttpStream(uri) as stream:
            return stream.exists
    with explained(uri, "looking up"):
        filesystem_, path = filesystem(uri)
        return filesystem_.get_file_info(path).type != pafs.FileType.NotFound


def list_files(uri: str, suffix: str = "") -> list[StoredFile]:
    """All files below a directory (or the file itself), hidden ones left out, sorted by URI.

    A URL is one file.

    Raises:
        DataError: Nothing is there, the storage cannot be reached, or a web server does not state the
            size.
    """
    if is_http(uri):
        with HttpStream(uri) as stream:
            return [StoredFile(uri, stream.seek(0, io.SEEK_END))]
    with explained(uri, "listing"):
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


def list_directories(uri: str) -> list[str]:
    """URIs of the directories right below one, sorted; none when it is not there.

    Raises:
        DataError: The storage cannot be reached.
    """
    with explained(uri, "listing"):
        filesystem_, path = filesystem(uri)
        found = filesystem_.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    prefix = uri.rstrip("/")
    return sorted(f"{prefix}/{i.base_name}" for i in found if i.type == pafs.FileType.Directory)


def open_input(uri: str, *, random: bool = False) -> pa.NativeFile:
    """A seekable binary file for reading.

    Args:
        uri: The file.
        random: Whether pieces of it are read here and there; an object store is then asked for exactly
            these, otherwise for large pieces ahead. A web server is asked for all that follows.

    Raises:
        DataError: It is not there or cannot be read.
    """
    if is_http(uri):
        return pa.PythonFile(io.BufferedReader(HttpStream(uri), BUFFER_BYTES), mode="r")
    with explained(uri, "reading"):
        filesystem_, path = filesystem(uri)
        if is_local(uri):
            return filesystem_.open_input_file(path)
        from protclip.storage.objects import ObjectFile

        return pa.PythonFile(ObjectFile(filesystem_.handler.fs, path, random=random), mode="r")


def read_bytes(uri: str) -> bytes:
    """The whole content of a file."""
    with explained(uri, "reading"), open_input(uri) as file:
        return file.read()


def read_range(uri: str, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of a file; an object store is asked for them by one request, and for nothing else.

    Raises:
        DataError: The file is not there, cannot be read or is shorter.
    """
    with explained(uri, "reading"):
        filesystem_, path = filesystem(uri)
        if is_local(uri):
            with Path(path).open("rb") as file:
                file.seek(start)
                data = file.read(stop - start)
        else:
            from protclip.storage.objects import read_object

            data = read_object(filesystem_.handler.fs, path, Range=f"bytes={start}-{stop - 1}")
    if len(data) != stop - start:
        raise DataError(
            f"{uri}: {len(data):,} bytes came where {stop - start:,} were asked for; if the file is cut, "
            "make the data set again"
        )
    return data


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


class HashingWriter:
    """Passes bytes to a sink and keeps their digest and count."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink = sink
        self._digest = hashlib.sha256()
        self._num_bytes = 0
        self.stored: StoredFile | None = None

    def write(self, data: bytes | memoryview) -> int:
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
def atomic_writer(uri: str) -> Iterator[HashingWriter]:
    """A binary file that appears under its name only when the block ends without an error.

    Locally: temporary file beside the target, fsync, rename. On S3: an object exists only once its
    upload is complete; after an error the upload is abandoned. An `OSError` that leaves the block is
    taken for a failure to write the target.

    Yields:
        A writer; after the block its `stored` names size and digest.

    Raises:
        DataError: The target cannot be written.
    """
    with explained(uri, "writing"):
        with _local_sink(uri) if is_local(uri) else _s3_sink(uri) as sink:
            writer = HashingWriter(sink)
            yield writer
        writer.finish(uri)


@contextmanager
def _local_sink(uri: str, publish: Callable[[Path, Path], object] = os.replace) -> Iterator[IO[bytes]]:
    """A hidden file beside the target that takes its name at the end."""
    target = Path(filesystem(uri)[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("xb") as sink:
            yield sink
            sink.flush()
            os.fsync(sink.fileno())
        publish(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def remove_partials(uri: str) -> None:
    """Removes what killed writers left below a local directory; in an object store nothing is half there."""
    if is_local(uri):
        for partial in Path(filesystem(uri)[1]).rglob(".*.partial"):
            partial.unlink(missing_ok=True)


@contextmanager
def _s3_sink(uri: str) -> Iterator[IO[bytes]]:
    """An upload that is completed at the end or abandoned."""
    from protclip.storage.objects import upload

    filesystem_, path = filesystem(uri)
    with upload(filesystem_.handler.fs, path) as sink:
        yield sink


def write_bytes(uri: str, data: bytes) -> StoredFile:
    """Writes a small file atomically."""
    with atomic_writer(uri) as sink:
        sink.write(data)
    assert sink.stored is not None
    return sink.stored


def create(uri: str, data: bytes) -> bool:
    """Writes a small file unless one is there; of several writers exactly one succeeds.

    Returns:
        Whether this call wrote it.
    """
    with explained(uri, "writing"):
        filesystem_, path = filesystem(uri)
        if not is_local(uri):
            from protclip.storage.objects import create_object

            return create_object(filesystem_.handler.fs, path, data)
        try:
            with _local_sink(uri, os.link) as sink:
                sink.write(data)
        except FileExistsError:
            return False
    return True


def write_json(uri: str, value: Any) -> StoredFile:
    """Writes a JSON file atomically, keys in the order given."""
    return write_bytes(uri, (json.dumps(value, indent=2) + "\n").encode())


def version(uri: str) -> str:
    """What changes when a file's content does, without reading it: its size and date, or its ETag.

    Raises:
        DataError: It is not there or cannot be reached.
    """
    if is_http(uri):
        with HttpStream(uri) as stream:
            return stream.version
    with explained(uri, "looking up"):
        filesystem_, path = filesystem(uri)
        if is_local(uri):
            found = Path(path).stat()
            return f"{found.st_size}-{found.st_mtime_ns}"
        return str(filesystem_.handler.fs.info(path)["ETag"]).strip('"')


def sha256(uri: str) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with explained(uri, "reading"), open_input(uri) as file:
        while block := file.read(COPY_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def remove(uri: str) -> None:
    """Deletes a file or a whole directory; nothing happens when it is not there."""
    with explained(uri, "deleting"):
        filesystem_, path = filesystem(uri)
        if not is_local(uri):
            from protclip.storage.objects import remove_objects

            remove_objects(filesystem_.handler.fs, path)
            return
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
