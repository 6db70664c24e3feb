"""Carries dumps of the databases to the bucket and back.

`copies.py store DIRECTORY URI KEEP` writes the files of a directory to URI/<UTC time>/, then a list of them,
and deletes all but the newest KEEP. `copies.py fetch DIRECTORY URI [TIME]` brings back those of the newest
complete copy, or of the one named.
"""

import logging
import sys
from datetime import UTC, datetime
from pathlib import Path

from protclip import storage
from protclip.errors import DataError

log = logging.getLogger("copies")

LIST = "files.json"


def store(directory: Path, uri: str, keep: int) -> None:
    """Makes a copy, complete once its list is there, then removes the oldest ones."""
    copy = storage.join(uri, datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ"))
    files = sorted(directory.iterdir())
    stored = [storage.copy_to(file, storage.join(copy, file.name)) for file in files]
    storage.write_json(storage.join(copy, LIST), {storage.basename(file.uri): file.sha256 for file in stored})
    log.info("%s: %d files, %d bytes", copy, len(stored), sum(file.num_bytes for file in stored))
    complete = _complete(uri)
    kept = {copy, *complete[-keep:]}
    for old in storage.list_directories(uri):
        if old not in kept and old < max(kept):
            storage.remove(old)
            log.info("%s: removed", old)


def fetch(directory: Path, uri: str, time: str = "") -> None:
    """Brings the files of a copy and compares their digests.

    Raises:
        DataError: There is no such copy, or a file is not what was stored.
    """
    complete = _complete(uri)
    copy = storage.join(uri, time) if time else next(iter(complete[::-1]), "")
    if copy not in complete:
        names = ", ".join(storage.basename(name) for name in complete) or "none"
        raise DataError(f"{uri}: no copy {time}; there are: {names}")
    for name, digest in storage.read_json(storage.join(copy, LIST)).items():
        target = directory / name
        target.write_bytes(storage.read_bytes(storage.join(copy, name)))
        if storage.sha256(str(target)) != digest:
            raise DataError(f"{copy}/{name} is damaged; give the name of an older copy")
    log.info("%s: fetched", copy)


def _complete(uri: str) -> list[str]:
    """Copies that have their list, oldest first."""
    return [copy for copy in storage.list_directories(uri) if storage.exists(storage.join(copy, LIST))]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    action, place, where, *rest = sys.argv[1:]
    if action == "store":
        store(Path(place), where, int(rest[0]))
    else:
        fetch(Path(place), where, *rest)
