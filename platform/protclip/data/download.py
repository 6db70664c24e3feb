"""UniProt to local disk or object storage: whole sections of a release, or what a query finds."""

import logging
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from protclip import storage
from protclip.config.data import DownloadConfig
from protclip.data.query import FILE_NAME, Query
from protclip.data.releases import DownloadedFile, ReleaseNote, RemoteFile, find_release
from protclip.data.transfer import Moved, Transfer, extract
from protclip.errors import DataError
from protclip.page import size
from protclip.progress import progress
from protclip.storage.http import Patience
from protclip.storage.resumable import kept_bytes

log = logging.getLogger(__name__)

ARCHIVES = ".archives"


def download(config: DownloadConfig) -> dict[str, object]:
    """Fetches the files of a release, or the entries of a query, and writes `release.json` last.

    Interrupted and run again it goes on where it stopped; finished files are kept.

    Returns:
        URI of the folder, release, files, bytes, and how many files were there already.

    Raises:
        DataError: UniProt does not answer or its files are wrong, the output holds something else, cannot be
            written or has too little room.
    """
    earlier = ReleaseNote.load(config.output)
    patience = Patience(config.retries, config.backoff_s, config.timeout_s)
    if config.query is not None:
        note, num_kept = _query(config, config.query, patience, earlier)
    else:
        note, num_kept = _sections(config, patience, earlier)
    return {
        "output": config.output,
        "release": note.release,
        "files": [storage.join(config.output, file.name) for file in note.files],
        "bytes": sum(file.num_bytes for file in note.files),
        "kept": num_kept,
        **({} if note.entries is None else {"entries": note.entries}),
    }


def _query(
    config: DownloadConfig, text: str, patience: Patience, earlier: ReleaseNote | None
) -> tuple[ReleaseNote, int]:
    """Fetches what a query finds; the note, and how many files were there."""
    query = Query(config.service, text, config.limit, patience)
    _check_same(config.output, earlier, query.release, text)
    if (
        earlier is not None
        and earlier.entries == query.num_entries
        and _is_there(config.output, earlier.files[0])
    ):
        log.info("%s is there already", earlier.files[0].name)
        return earlier, 1
    log.info("release %s: %s entries to fetch", query.release, f"{query.num_entries:,}")
    with _bar(FILE_NAME, query.num_entries, unit=" entries") as moved:
        note = query.write(config.output, moved)
    note.save(config.output)
    return note, 0


def _sections(
    config: DownloadConfig, patience: Patience, earlier: ReleaseNote | None
) -> tuple[ReleaseNote, int]:
    """Fetches sections of a release; the note, and how many files were there."""
    release = find_release(config.release, config.sections, config.mirrors, patience)
    _check_same(config.output, earlier, release.name, None)
    noted = () if earlier is None else earlier.files
    files = {file.name: file for file in noted if _is_there(config.output, file)}
    missing = [file for file in release.files if not _is_kept(file, files)]
    _show_plan(release.name, release.files, missing)
    _check_room(config.output, missing)
    with _bar("downloading", sum(f.num_bytes for f in missing), unit="B", shown=bool(missing)) as moved:
        transfer = Transfer(config.mirrors, patience, moved, threading.Event())
        fetched = _fetch_all(missing, config.output, transfer, config.connections)
    archives = [(remote, file) for remote, file in fetched if remote.members]
    entries = [file for remote, file in fetched if not remote.members]
    with _bar("extracting", sum(r.num_bytes for r, _ in archives), unit="B", shown=bool(archives)) as moved:
        for remote, file in archives:
            place = _place(config.output, remote)
            entries += extract(place, remote.members, config.output, file.source, moved)
    files |= {entry.name: entry for entry in entries}
    note = ReleaseNote(release=release.name, files=tuple(files[name] for name in sorted(files)))
    note.save(config.output)
    storage.remove(storage.join(config.output, ARCHIVES))
    return note, len(release.files) - len(missing)


def _check_same(output: str, earlier: ReleaseNote | None, release: str, query: str | None) -> None:
    """Refuses to mix what is there with something else."""
    if earlier is None or (earlier.release, earlier.query) == (release, query):
        return
    there = f"release {earlier.release}" + (f", query {earlier.query!r}" if earlier.query else "")
    wanted = f"release {release}" + (f", query {query!r}" if query else "")
    raise DataError(f"{output}: holds {there}; this is {wanted}. Use another output, or delete what is there")


def _is_there(output: str, file: DownloadedFile) -> bool:
    """Whether a file that the note lists has its size."""
    uri = storage.join(output, file.name)
    return storage.exists(uri) and storage.list_files(uri)[0].num_bytes == file.num_bytes


def _is_kept(remote: RemoteFile, noted: Mapping[str, DownloadedFile]) -> bool:
    """Whether all that a remote file gives is there, finished and noted by an earlier call."""
    if remote.members:
        return all(name in noted for name in remote.members)
    return remote.name in noted and noted[remote.name].md5 == remote.md5


def _place(output: str, remote: RemoteFile) -> str:
    """Where a file is put; a tarball out of sight."""
    return (
        storage.join(output, ARCHIVES, remote.name) if remote.members else storage.join(output, remote.name)
    )


def _show_plan(release: str, files: Sequence[RemoteFile], missing: Sequence[RemoteFile]) -> None:
    """Says what will be fetched."""
    for file in files:
        state = "" if file in missing else " (there already)"
        log.info("release %s: %s, %s%s", release, file.name, size(file.num_bytes), state)
    log.info("to download: %s", size(sum(file.num_bytes for file in missing)))


def _check_room(output: str, missing: Sequence[RemoteFile]) -> None:
    """Refuses to begin what the local disk cannot hold; a tarball's files count as much as itself."""
    if not storage.is_local(output):
        return
    needed = sum(f.num_bytes * (2 if f.members else 1) - kept_bytes(_place(output, f)) for f in missing)
    path = Path(storage.filesystem(output)[1])
    free = shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free
    if needed > free:
        raise DataError(
            f"{output}: {size(needed)} are needed and {size(free)} are free; make room, choose fewer "
            "sections or another output, which may be s3://bucket/key"
        )


def _fetch_all(
    files: Sequence[RemoteFile], output: str, transfer: Transfer, connections: int
) -> list[tuple[RemoteFile, DownloadedFile]]:
    """Fetches files, some at a time; after a failure none is begun and the others stop where they are."""
    with ThreadPoolExecutor(connections, "download") as pool:
        jobs = {pool.submit(transfer.fetch, file, _place(output, file)): file for file in files}
        try:
            return [(jobs[job], job.result()) for job in as_completed(jobs)]
        except BaseException:
            transfer.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _bar(description: str, total: int, unit: str, *, shown: bool = True) -> Iterator[Moved]:
    """A bar on stderr: alive on a terminal, a line every few seconds in a log."""
    lock = threading.Lock()
    with progress(description, unit, total, unit_scale=True, disable=not shown) as bar:

        def moved(count: int) -> None:
            with lock:
                bar.update(count)

        yield moved
