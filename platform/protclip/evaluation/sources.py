"""Official files: found under raw or fetched, and held against what is published of them."""

import gzip
import hashlib
import logging
import zlib
from collections.abc import Iterator
from typing import Any

from protclip import storage
from protclip.errors import BenchmarkError
from protclip.evaluation.prepared import Source
from protclip.evaluation.spec.base import Benchmark, SourceFile
from protclip.progress import progress
from protclip.storage.http import HttpStream, Patience
from protclip.storage.resumable import Resumable

log = logging.getLogger(__name__)

BLOCK_BYTES = 2**20


def place(file: SourceFile, raw: str) -> str:
    """URI of an official file under `raw`; of the same, packed as `.gz`, where only that is there."""
    uri = storage.join(raw, file.path)
    packed = f"{uri}.gz"
    return packed if not storage.exists(uri) and storage.exists(packed) else uri


def missing(spec: Benchmark[Any], raw: str) -> list[SourceFile]:
    """The official files that are not under `raw`."""
    return [file for file in spec.data.files.values() if not storage.exists(place(file, raw))]


def obtain(
    spec: Benchmark[Any], raw: str, *, download: bool, accept_other_versions: bool
) -> tuple[Source, ...]:
    """Fetches what is missing of a benchmark's files, and verifies all of them.

    What an interrupted call left of a file is used.

    Args:
        spec: The benchmark.
        raw: URI under which its files lie.
        download: Whether files may be fetched.
        accept_other_versions: Whether files may differ from the published ones.

    Returns:
        The files as they were found, in the order of the benchmark's file.

    Raises:
        BenchmarkError: A file is missing and cannot be fetched, or is not the published one.
        DataError: A server or the storage fails.
    """
    for file in missing(spec, raw):
        uri = storage.join(raw, file.path)
        if file.url is None:
            raise BenchmarkError(
                f"{uri}: not there, and no program can fetch it. Source: {spec.citation} {spec.notes} Put "
                "the file there by hand, or change raw"
            )
        if not download:
            raise BenchmarkError(f"{uri}: not there; fetch it from {file.url}, or allow it by download=true")
        _fetch(file.url, uri)
    files: list[SourceFile] = list(dict.fromkeys(spec.data.files.values()))
    return tuple(_verified(file, raw, accept_other_versions=accept_other_versions) for file in files)


def _fetch(url: str, uri: str) -> None:
    """Downloads a file, from where an earlier call stopped."""
    with (
        HttpStream(url, Patience()) as stream,
        Resumable(uri, f"{url} {stream.version}") as sink,
        progress(f"fetching {storage.basename(uri)}", "B", stream.size, unit_scale=True) as bar,
    ):
        stream.seek(sink.num_bytes)
        bar.update(sink.num_bytes)
        while data := stream.read(BLOCK_BYTES):
            sink.write(data)
            bar.update(len(data))
        sink.commit()


def _verified(file: SourceFile, raw: str, *, accept_other_versions: bool) -> Source:
    """A file as it was found."""
    uri = place(file, raw)
    num_bytes, md5, sha256 = 0, hashlib.md5(usedforsecurity=False), hashlib.sha256()
    for data in _blocks(uri, packed=storage.basename(uri) != storage.basename(file.path)):
        num_bytes += len(data)
        md5.update(data)
        sha256.update(data)
    both = {
        "bytes": (num_bytes, file.size),
        "MD5": (md5.hexdigest(), file.md5),
        "SHA-256": (sha256.hexdigest(), file.sha256),
    }
    published = {what: pair for what, pair in both.items() if pair[1] is not None}
    others = [
        f"{what} {is_} instead of {should}" for what, (is_, should) in published.items() if is_ != should
    ]
    if others:
        message = f"{uri}: not the published file: {', '.join(others)}"
        if not accept_other_versions:
            raise BenchmarkError(
                f"{message}. Delete it to fetch it again; where the publisher has replaced the file, check "
                "what is in it and take it by accept_other_versions=true"
            )
        log.warning("%s; taken all the same", message)
    return Source(
        path=file.path,
        url=file.url,
        num_bytes=num_bytes,
        sha256=sha256.hexdigest(),
        as_published=not others if published else None,
    )


def _blocks(uri: str, *, packed: bool) -> Iterator[bytes]:
    """A file's content, unpacked where it is packed."""
    with storage.open_input(uri) as stored:
        if not packed:
            yield from iter(lambda: stored.read(BLOCK_BYTES), b"")
            return
        try:
            with gzip.GzipFile(fileobj=stored) as stream:
                yield from iter(lambda: stream.read(BLOCK_BYTES), b"")
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise BenchmarkError(f"{uri}: damaged ({error}); delete it to fetch it again") from error
