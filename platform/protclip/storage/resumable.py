"""A file written in several runs, each of which may be killed at any moment.

What is there of it lies in a hidden folder beside the target, together with a note of what it is
written from. Locally it is one file that grows and takes the target's name at the end; on S3 it is
numbered objects of `PIECE_BYTES` that the server joins at the end. Under the target's name a reader
sees the whole file or none.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from protclip.storage.failures import code_of, explained
from protclip.storage.files import (
    COPY_BLOCK_BYTES,
    atomic_writer,
    exists,
    list_files,
    open_input,
    read_bytes,
    remove,
    write_bytes,
)
from protclip.storage.filesystems import absolute, filesystem, is_local, join

log = logging.getLogger(__name__)

PIECE_BYTES = 64 * 2**20
"""S3 joins at most 10,000 objects: files of up to 640 GB."""
MIN_PIECE_BYTES = 5 * 2**20
"""What S3 asks of every joined object but the last."""

SOURCE_NAME = "source"


class _Sink(Protocol):
    """Where the bytes lie until the file is complete."""

    num_bytes: int

    def kept(self) -> list[str]:
        """URIs of what earlier runs wrote, in order."""
        ...

    def write(self, data: bytes) -> None:
        """Adds bytes."""
        ...

    def close(self) -> None:
        """Secures what was written, as far as possible."""
        ...

    def publish(self, target: str) -> None:
        """Makes the file appear under its name."""
        ...


class Resumable:
    """A file to be continued where the last run stopped; use it as a context manager.

    Args:
        uri: The target, local or `s3://`.
        source: What the bytes come from, so that a change of it is noticed (size, checksum, ETag …);
            what was written from another source is thrown away.

    Attributes:
        uri: The target.

    Raises:
        DataError: Nothing can be written there.
    """

    def __init__(self, uri: str, source: str) -> None:
        self.uri = uri
        self._folder = _folder(uri)
        note = join(self._folder, SOURCE_NAME)
        if not exists(note) or read_bytes(note) != source.encode():
            remove(self._folder)
            write_bytes(note, source.encode())
        with explained(uri, "writing"):
            self._sink: _Sink = _LocalFile(self._folder) if is_local(uri) else _Pieces(self._folder)

    @property
    def num_bytes(self) -> int:
        """Bytes written by earlier runs and this one."""
        return self._sink.num_bytes

    def kept(self) -> Iterator[bytes]:
        """The bytes that earlier runs wrote, to be read before anything is written."""
        for uri in self._sink.kept():
            with explained(uri, "reading"), open_input(uri) as file:
                while block := file.read(COPY_BLOCK_BYTES):
                    yield block

    def write(self, data: bytes) -> None:
        """Adds bytes.

        Raises:
            DataError: They cannot be written; what there is stays for the next run.
        """
        with explained(self.uri, "writing"):
            self._sink.write(data)

    def commit(self) -> None:
        """Gives the file, which is complete, its name.

        Raises:
            DataError: That failed; what there is stays for the next run.
        """
        with explained(self.uri, "writing"):
            self._sink.publish(self.uri)
        discard(self.uri)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with explained(self.uri, "writing"):
            self._sink.close()


def kept_bytes(uri: str) -> int:
    """Bytes that unfinished runs left of the file to be written at `uri`."""
    folder = _folder(uri)
    if not exists(folder):
        return 0
    return sum(file.num_bytes for file in list_files(folder)) - len(read_bytes(join(folder, SOURCE_NAME)))


def discard(uri: str) -> None:
    """Removes what unfinished runs left of the file to be written at `uri`."""
    remove(_folder(uri))


def _folder(uri: str) -> str:
    """The hidden folder of a target."""
    parent, _, name = absolute(uri).rpartition("/")
    return f"{parent}/.{name}.partial"


class _LocalFile:
    """One file that grows; unbuffered, so that a full disk is noticed at once and not again at the end."""

    def __init__(self, folder: str) -> None:
        self._path = Path(filesystem(folder)[1]) / "data"
        self._file = self._path.open("ab", buffering=0)
        self.num_bytes = self._file.seek(0, os.SEEK_END)

    def kept(self) -> list[str]:
        return [str(self._path)] if self.num_bytes else []

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            written = self._file.write(rest)
            self.num_bytes += written
            rest = rest[written:]

    def close(self) -> None:
        self._file.close()

    def publish(self, target: str) -> None:
        os.fsync(self._file.fileno())
        self._path.replace(filesystem(target)[1])


class _Pieces:
    """Numbered objects, each there or not; what is written after the last one is in memory."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        pieces = list_files(folder, suffix=".piece")
        self._uris = [piece.uri for piece in pieces]
        self._rest = bytearray()
        self.num_bytes = sum(piece.num_bytes for piece in pieces)

    def kept(self) -> list[str]:
        return list(self._uris)

    def write(self, data: bytes) -> None:
        self._rest += data
        self.num_bytes += len(data)
        if len(self._rest) >= PIECE_BYTES:
            self._store()

    def close(self) -> None:
        if len(self._rest) >= MIN_PIECE_BYTES:
            self._store()

    def publish(self, target: str) -> None:
        if self._rest:
            self._store()
        if not self._uris:
            write_bytes(target, b"")
            return
        log.info("%s: joining %s pieces", target, f"{len(self._uris):,}")
        from protclip.storage.objects import join_objects

        filesystem_, path = filesystem(target)
        try:
            join_objects(filesystem_.handler.fs, path, [filesystem(uri)[1] for uri in self._uris])
        except OSError as error:
            if code_of(error) not in {"NotImplemented", "501"}:
                raise
            log.info("%s: this server cannot join them, so they are sent again", target)
            with atomic_writer(target) as sink:
                for uri in self._uris:
                    sink.write(read_bytes(uri))

    def _store(self) -> None:
        """Writes the bytes in memory as the next object."""
        uri = join(self._folder, f"{len(self._uris):06d}.piece")
        write_bytes(uri, bytes(self._rest))
        self._uris.append(uri)
        self._rest.clear()
