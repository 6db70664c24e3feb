"""Remote files kept on this node: fetched once whatever the number of workers, checked at every use.

The cache lies in `$XDG_CACHE_HOME/protclip` (`~/.cache/protclip`). An entry is one version of what a URI
names; it appears whole or not at all. What has not been used for longest, and by no living process, makes
room when the disk gets full or the cache larger than the file `max_gb` in its folder says.
"""

import fcntl
import hashlib
import json
import logging
import math
import os
import re
import shutil
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO

from filelock import FileLock

from protclip.errors import DataError
from protclip.progress import progress
from protclip.storage.failures import explained
from protclip.storage.files import (
    COPY_BLOCK_BYTES,
    StoredFile,
    list_files,
    open_input,
    read_range,
    sha256,
    version,
)
from protclip.storage.filesystems import basename, filesystem, is_local
from protclip.storage.http import is_http

log = logging.getLogger(__name__)

NOTE, FILES, RESERVED = "sha256.json", "files", "bytes"
LIMIT = "max_gb"
"""A number in this file of the cache's folder: the most it may hold, in units of 10⁹ bytes."""
PIECE_BYTES = 8 * 2**20
PIECES_AHEAD = 8
ATTEMPTS = 3
FREE_SHARE = 0.1
"""Share of the disk that is kept free by removing old entries."""
_held: dict[Path, IO[str]] = {}
"""By entry the file whose lock says that this process uses it."""
MD5_ETAG = re.compile(r"[0-9a-f]{32}")


def cached(uri: str, sha256: str | None = None) -> Path:
    """A file on this node: itself when local, else a copy of its present version.

    Of several processes that ask at the same time one fetches it, the others wait for that. A copy that
    is no longer what was fetched is fetched again.

    Args:
        uri: The file; local, `s3://` or `https://`.
        sha256: Hex digest of its content, if that is known; the store is then asked for nothing while a
            copy is here.

    Raises:
        DataError: It is not there, cannot be read, is not what its digest says, or is larger than the cache
            may be.
    """
    name = basename(uri.partition("?")[0] if is_http(uri) else uri)
    digests = None if sha256 is None else {name: sha256}
    if is_local(uri):
        path = Path(filesystem(uri)[1])
        _check_local({name: path}, digests)
        return path
    return _obtain(uri, {name: uri}, digests) / name


def cached_directory(
    uri: str, sha256: Mapping[str, str] | None = None, suffixes: tuple[str, ...] = ("",)
) -> Path:
    """A directory on this node: itself when local, else a copy of its present files; see `cached`.

    Args:
        uri: The directory; local or `s3://`.
        sha256: Hex digests of the files that are wanted, by path inside the directory; the store is then
            asked for nothing while a copy is here. None for all files that are there.
        suffixes: Of these, only files whose names end so.

    Raises:
        DataError: It is not there, cannot be read, or a file is not what its digest says.
    """
    if is_local(uri):
        path = Path(filesystem(uri)[1])
        if not path.is_dir():
            raise DataError(f"{uri}: no such directory; check the path and its spelling")
        _check_local({name: path / name for name in sha256 or ()}, sha256)
        return path
    if is_http(uri):
        raise DataError(f"{uri}: a web server lists no directory; download it and give its path")
    prefix = uri.rstrip("/") + "/"
    names = sha256 or [f.uri.removeprefix(prefix) for f in list_files(uri) if f.uri.endswith(suffixes)]
    return _obtain(uri, {name: prefix + name for name in names}, sha256)


def _check_local(paths: Mapping[str, Path], digests: Mapping[str, str] | None) -> None:
    """Refuses local files that are not there or not what their digests say."""
    for name, path in paths.items():
        if not path.is_file():
            raise DataError(f"{path}: no such file or directory; check the path and its spelling")
        if digests and sha256(str(path)) != digests[name]:
            raise _not_the_one(str(path))


def _obtain(uri: str, sources: Mapping[str, str], digests: Mapping[str, str] | None) -> Path:
    """The folder of an intact copy of some files, each under its name."""
    versions = digests or {name: version(source) for name, source in sources.items()}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    key = hashlib.sha256(json.dumps([endpoint, uri, versions]).encode()).hexdigest()[:32]
    root = _root()
    entry = root / key
    # Before it is looked at, so that it cannot be removed afterwards.
    _hold(entry)
    for _ in range(ATTEMPTS):
        seen = _stamp(entry)
        # Outside the lock, so that all workers of a node check at the same time.
        if _is_intact(entry):
            return entry / FILES
        with FileLock(root / f"{key}.lock"):
            if _stamp(entry) == seen:
                if seen:
                    log.warning("%s: its copy in %s is damaged and fetched again", uri, entry)
                _fetch(uri, sources, versions, entry, digests)
                return entry / FILES
    raise DataError(f"{uri}: its copy in {entry} is damaged again and again; check that disk")


def _root() -> Path:
    """The cache's folder."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "protclip"
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{root}: no cache for remote files can be kept here ({error.strerror}); set XDG_CACHE_HOME to a "
            "directory on a disk of this node"
        ) from error
    return root


def _hold(entry: Path) -> None:
    """Marks an entry as used by this process, until the process ends."""
    if entry not in _held:
        mark = _mark(entry).open("a")
        fcntl.flock(mark, fcntl.LOCK_SH)
        _held[entry] = mark


def _mark(entry: Path) -> Path:
    """The file that the users of an entry, or of what is fetched for it, hold a lock on."""
    return entry.with_suffix(".used")


def _stamp(entry: Path) -> tuple[int, int] | None:
    """What changes when an entry is replaced; None when there is none."""
    try:
        found = (entry / NOTE).stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_ctime_ns


def _is_intact(entry: Path) -> bool:
    """Whether every file of an entry is what was fetched; counts as a use of it."""
    try:
        digests: dict[str, str] = json.loads((entry / NOTE).read_bytes())
        os.utime(entry)
        return all(sha256(str(entry / FILES / name)) == digest for name, digest in digests.items())
    except (OSError, ValueError, DataError):
        return False


def _fetch(
    uri: str,
    sources: Mapping[str, str],
    versions: Mapping[str, str],
    entry: Path,
    known: Mapping[str, str] | None,
) -> None:
    """Puts an entry in its place, whole."""
    stored = {name: list_files(source)[0] for name, source in sources.items()}
    num_bytes = sum(file.num_bytes for file in stored.values())
    partial = entry.with_suffix(".partial")
    # Whoever makes room looks at all entries, so that none comes or goes without this lock.
    room = FileLock(entry.parent / "room.lock")
    with explained(str(entry.parent), "writing"):
        with room:
            shutil.rmtree(entry, ignore_errors=True)
            shutil.rmtree(partial, ignore_errors=True)
            _make_room(uri, entry.parent, num_bytes)
            partial.mkdir()
            (partial / RESERVED).write_text(str(num_bytes))
        try:
            digests = _fill(uri, partial, num_bytes, stored, versions, known)
            (partial / NOTE).write_text(json.dumps(digests))
            with room:
                (partial / RESERVED).unlink()
                partial.rename(entry)
        except BaseException:
            with room:
                shutil.rmtree(partial, ignore_errors=True)
            raise
    log.info("%s: %s bytes fetched to %s", uri, f"{num_bytes:,}", entry)


def _fill(
    uri: str,
    partial: Path,
    num_bytes: int,
    stored: Mapping[str, StoredFile],
    versions: Mapping[str, str],
    known: Mapping[str, str] | None,
) -> dict[str, str]:
    """Fetches the files of an entry, checked as far as anything says what they are; their digests."""
    digests: dict[str, str] = {}
    bar = progress(f"fetching {basename(uri)}", "B", num_bytes, unit_scale=True, leave=False)
    with bar, ThreadPoolExecutor(PIECES_AHEAD, thread_name_prefix="cache") as pool:
        for name, file in stored.items():
            target = partial / FILES / name
            target.parent.mkdir(parents=True, exist_ok=True)
            content, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
            may_be_md5 = known is None and MD5_ETAG.fullmatch(versions[name])
            # What does not reach the disk before the power fails is noticed at the next use.
            with target.open("wb") as sink:
                for data in _pieces(file, pool):
                    sink.write(data)
                    content.update(data)
                    if may_be_md5:
                        md5.update(data)
                    bar.update(len(data))
            digests[name] = content.hexdigest()
            if known is not None:
                if digests[name] != known[name]:
                    raise _not_the_one(file.uri)
            elif version(file.uri) != versions[name]:
                raise DataError(f"{file.uri}: it has changed while it was read; run again")
            elif _is_md5(file.uri, versions[name]) and md5.hexdigest() != versions[name]:
                raise _not_the_one(file.uri)
    return digests


def _pieces(file: StoredFile, pool: ThreadPoolExecutor) -> Iterator[bytes]:
    """The content in order; of an object several pieces are read at once."""
    if is_http(file.uri):
        with open_input(file.uri) as source:
            while block := source.read(COPY_BLOCK_BYTES):
                yield block
        return
    ahead: deque[Future[bytes]] = deque()
    for start in range(0, file.num_bytes, PIECE_BYTES):
        if len(ahead) == PIECES_AHEAD:
            yield ahead.popleft().result()
        stop = min(start + PIECE_BYTES, file.num_bytes)
        ahead.append(pool.submit(read_range, file.uri, start, stop))
    while ahead:
        yield ahead.popleft().result()


def _is_md5(uri: str, etag: str) -> bool:
    """Whether an ETag is the MD5 of the content; not so on the web, for parts, or with a user's key."""
    if is_http(uri) or not MD5_ETAG.fullmatch(etag):
        return False
    filesystem_, path = filesystem(uri)
    bucket, _, key = path.partition("/")
    with explained(uri, "looking up"):
        head: dict[str, str] = filesystem_.handler.fs.call_s3("head_object", Bucket=bucket, Key=key)
    encrypted = head.get("ServerSideEncryption", "").startswith("aws:") or "SSECustomerAlgorithm" in head
    return not encrypted


def _make_room(uri: str, root: Path, num_bytes: int) -> None:
    """Removes what was used least recently, until so many bytes fit and the disk keeps some free.

    Raises:
        DataError: They never fit into the cache, or not as long as other entries are in use.
    """
    limit = _limit(root)
    if num_bytes > limit:
        raise DataError(
            f"{uri}: {num_bytes:,} bytes are more than the cache of this node may hold; raise the number in "
            f"{root / LIMIT}"
        )
    disk = shutil.disk_usage(root)
    last_use = {entry: entry.stat().st_mtime for entry in root.iterdir() if entry.is_dir()}
    sizes = {entry: _num_bytes(entry) for entry in last_use}
    for entry in sorted(last_use, key=last_use.__getitem__):
        free = disk.free - FREE_SHARE * disk.total
        if num_bytes <= min(free, limit - sum(sizes.values())):
            return
        with _mark(entry).open("a") as mark, suppress(BlockingIOError):
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            log.info("%s is removed from the cache, unused for longest", entry)
            shutil.rmtree(entry, ignore_errors=True)
            disk = shutil.disk_usage(root)
            del sizes[entry]
    if num_bytes > limit - sum(sizes.values()):
        raise DataError(
            f"{uri}: there is no room for its {num_bytes:,} bytes in the cache of this node, since living "
            f"processes use {sum(sizes.values()):,} of {limit:,.0f}; raise the number in {root / LIMIT}, or "
            "run fewer jobs at once"
        )


def _limit(root: Path) -> float:
    """Bytes that the cache may hold."""
    try:
        return float((root / LIMIT).read_text()) * 1e9
    except FileNotFoundError:
        return math.inf
    except ValueError as error:
        raise DataError(f"{root / LIMIT}: not a number; write the gigabytes the cache may hold") from error


def _num_bytes(entry: Path) -> int:
    """What an entry takes; what one that is being fetched will take."""
    with suppress(FileNotFoundError):
        return int((entry / RESERVED).read_text())
    return sum(path.stat().st_size for path in entry.rglob("*") if path.is_file())


def _not_the_one(uri: str) -> DataError:
    """The error of a file that is not what its digest says."""
    return DataError(f"{uri}: its content does not have the expected checksum; it is damaged or another file")
