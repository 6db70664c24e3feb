"""Single files from a web server to their place, verified; continued when interrupted."""

import gzip
import hashlib
import io
import logging
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
from isal.igzip import IGzipFile
from isal.igzip_lib import IsalError

from protclip import storage
from protclip.data.releases import DownloadedFile, RemoteFile
from protclip.errors import DataError
from protclip.storage.http import HttpStream, Patience
from protclip.storage.resumable import Resumable, discard

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

log = logging.getLogger(__name__)

BLOCK_BYTES = 2**20
ATTEMPTS = 2
"""A file whose checksum is wrong is fetched once more, from the next mirror if there is one."""

Moved = Callable[[int], None]
"""Is told bytes that have come, or, below zero, are thrown away; may be called by many threads."""


class Stopped(Exception):  # noqa: N818 - no error of its own
    """Another file failed, this one is left for later."""


class _Mismatch(Exception):  # noqa: N818 - becomes a DataError when it happens again
    """What a server has is not what UniProt publishes."""


class _Spoilt(_Mismatch):
    """And it is part of what was written."""


class Digests:
    """Counts bytes and computes their checksums."""

    def __init__(self) -> None:
        self.num_bytes = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256()

    def update(self, data: bytes) -> None:
        """Takes more bytes."""
        self.num_bytes += len(data)
        self._md5.update(data)
        self._sha256.update(data)

    @property
    def md5(self) -> str:
        """Hex digest."""
        return self._md5.hexdigest()

    def entry(self, name: str, source: str) -> DownloadedFile:
        """The line of the note about a file of these bytes, downloaded today."""
        return DownloadedFile(
            name=name,
            source=source,
            num_bytes=self.num_bytes,
            md5=self.md5,
            sha256=self._sha256.hexdigest(),
            downloaded=datetime.now(UTC).date(),
        )


@dataclass(frozen=True, slots=True)
class Transfer:
    """How files are fetched.

    Attributes:
        mirrors: Base URLs, tried in order.
        patience: How long to wait for a server.
        moved: Is told of every byte.
        stop: Ends all transfers when set.
    """

    mirrors: Sequence[str]
    patience: Patience
    moved: Moved
    stop: threading.Event

    def fetch(self, file: RemoteFile, target: str) -> DownloadedFile:
        """Downloads a file unless it is there already, and verifies it.

        Args:
            file: What to fetch.
            target: Where to, local or `s3://`; what an interrupted call left there is used.

        Raises:
            DataError: No mirror has it whole, its checksum is wrong twice, or the target cannot be written.
            Stopped: `stop` is set.
        """
        if (there := self._present(file, target)) is not None:
            return there
        for attempt in range(ATTEMPTS):
            first = attempt % len(self.mirrors)
            try:
                return self._fetch_from([*self.mirrors[first:], *self.mirrors[:first]], file, target)
            except _Mismatch as mismatch:
                if isinstance(mismatch, _Spoilt):
                    discard(target)
                if attempt + 1 == ATTEMPTS:
                    raise DataError(
                        f"{mismatch}, {ATTEMPTS} times; the mirror is damaged or is being renewed: try again "
                        "later or use another one"
                    ) from mismatch
                log.warning("%s; trying once more", mismatch)
        raise AssertionError("there is an attempt")

    def _present(self, file: RemoteFile, target: str) -> DownloadedFile | None:
        """The finished file of an earlier call, when its bytes are right."""
        if not storage.exists(target) or storage.list_files(target)[0].num_bytes != file.num_bytes:
            return None
        log.info("%s is there; checking it", target)
        digests = Digests()
        with storage.open_input(target) as source:
            while data := source.read(BLOCK_BYTES):
                self._take(data, digests)
        if digests.md5 == file.md5:
            discard(target)
            return digests.entry(file.name, storage.join(self.mirrors[0], file.path))
        self.moved(-digests.num_bytes)
        return None

    def _fetch_from(self, mirrors: Sequence[str], file: RemoteFile, target: str) -> DownloadedFile:
        """Goes on with a file on the first mirror that serves it, with the next one where that one stops."""
        digests = Digests()
        try:
            with Resumable(target, f"{file.num_bytes} bytes, MD5 {file.md5}") as sink:
                for data in sink.kept():
                    self._take(data, digests)
                if sink.num_bytes:
                    log.info("%s: goes on after %s bytes", target, f"{sink.num_bytes:,}")
                url = self._download(mirrors, file, sink, digests)
                if (digests.num_bytes, digests.md5) != (file.num_bytes, file.md5):
                    raise _Spoilt(
                        f"{url}: {file.num_bytes:,} bytes of MD5 {file.md5} were expected, "
                        f"{digests.num_bytes:,} of {digests.md5} found"
                    )
                sink.commit()
        except _Mismatch:
            self.moved(-digests.num_bytes)
            raise
        return digests.entry(file.name, url)

    def _download(self, mirrors: Sequence[str], file: RemoteFile, sink: Resumable, digests: Digests) -> str:
        """Fetches what is missing and returns the URL that the end came from."""
        urls = [storage.join(mirror, file.path) for mirror in mirrors]
        for url, following in zip(urls, [*urls[1:], None], strict=True):
            if sink.num_bytes >= file.num_bytes:
                return url
            try:
                self._append(url, file, sink, digests)
            except _Unserved as error:
                if following is None:
                    raise DataError(str(error)) from error
                log.warning("%s; going on with %s", error, following)
            else:
                return url
        raise AssertionError("there is a mirror")

    def _append(self, url: str, file: RemoteFile, sink: Resumable, digests: Digests) -> None:
        """Fetches what is missing from one server."""
        with HttpStream(url, self.patience, self.stop.wait) as stream:
            stream.seek(sink.num_bytes)
            with _serving():
                size = stream.size
            if size not in {None, file.num_bytes}:
                raise _Mismatch(f"{url}: {file.num_bytes:,} bytes were expected, {size:,} offered")
            while data := self._read(stream):
                sink.write(data)
                self._take(data, digests)

    def _read(self, stream: HttpStream) -> bytes:
        """The next bytes of the server."""
        with _serving():
            return stream.read(BLOCK_BYTES) or b""

    def _take(self, data: bytes, digests: Digests) -> None:
        """Counts bytes, unless all is to stop."""
        if self.stop.is_set():
            raise Stopped
        digests.update(data)
        self.moved(len(data))


class _Unserved(Exception):  # noqa: N818 - becomes a DataError when no mirror is left
    """A server does not serve a file."""


@contextmanager
def _serving() -> Iterator[None]:
    """What fails in the block is the server's fault, not the target's."""
    try:
        yield
    except DataError as error:
        raise _Unserved(str(error)) from error


def extract(
    archive: str, members: Sequence[str], output: str, source: str, moved: Moved
) -> list[DownloadedFile]:
    """Takes files out of a `.tar.gz`, reading it once from beginning to end.

    Args:
        archive: The tarball, local or `s3://`.
        members: Names of the files, in whatever folder of the tarball.
        output: Where they go; each appears when it is whole.
        source: URL of the tarball, for the note.
        moved: Is told of the bytes of the tarball that were read.

    Raises:
        DataError: The tarball is damaged or lacks a file.
    """
    missing, seen, entries = set(members), [], []
    with _opened(archive, moved) as tar:
        for member in tar:
            name = storage.basename(member.name)
            seen.append(member.name)
            if name not in missing or (content := tar.extractfile(member)) is None:
                continue
            digests = Digests()
            with storage.atomic_writer(storage.join(output, name)) as sink:
                while data := content.read(BLOCK_BYTES):
                    digests.update(data)
                    sink.write(data)
            entries.append(digests.entry(name, source))
            missing.remove(name)
            if not missing:
                return entries
    raise DataError(f"{source}: holds no {', '.join(sorted(missing))}, but {', '.join(seen) or 'nothing'}")


@contextmanager
def _opened(archive: str, moved: Moved) -> Iterator[tarfile.TarFile]:
    """A tarball to be read as a stream; damage noticed in the block is named."""
    with storage.open_input(archive) as raw:
        try:
            with (
                IGzipFile(fileobj=_Counted(raw, moved)) as stream,
                tarfile.open(fileobj=stream, mode="r|") as tar,
            ):
                yield tar
        except (tarfile.TarError, EOFError, gzip.BadGzipFile, IsalError) as error:  # pyright: ignore[reportGeneralTypeIssues]
            raise DataError(f"{archive}: damaged tarball ({error}); delete it and run again") from error


class _Counted(io.RawIOBase):
    """A file that tells how much of it was read."""

    def __init__(self, file: pa.NativeFile, moved: Moved) -> None:
        super().__init__()
        self._file = file
        self._moved = moved

    def readable(self) -> bool:
        """Always true."""
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Reads the next bytes."""
        count: int = self._file.readinto(buffer)
        self._moved(count)
        return count
