"""Official archives: the files that are wanted of a tar, tar.gz or zip, and nothing else, as local files."""

import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from shutil import copyfileobj
from typing import IO

from protclip.errors import BenchmarkError
from protclip.storage.failures import explained

COPY_BLOCK_BYTES = 2**20
SHOWN = 8

_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, lzma.LZMAError, zlib.error),
    *(EOFError, NotImplementedError, RuntimeError),
)

Member = tuple[str, bool, Callable[[], IO[bytes]]]
"""Name, whether it is a plain file, and how to open it."""


def extract(archive: Path, wanted: Callable[[str], bool], into: Path) -> list[Path]:
    """Takes files out of an archive, whose sort its bytes tell.

    What an archive says of owners, rights and dates is not followed.

    Args:
        archive: A tar (gzip, bzip2, xz or plain) or a zip.
        wanted: Whether a file of this name, as the archive writes it, is taken; links and devices of
            such a name are refused.
        into: Folder for them, under the names they have in the archive.

    Returns:
        The files, in the archive's order.

    Raises:
        BenchmarkError: It is no archive or is damaged, holds nothing that is wanted, or a wanted member is
            no plain file or would come to lie outside of `into`.
        DataError: There is no room for the files.
    """
    with explained(str(into), "unpacking"):
        try:
            found, seen = _extract(archive, wanted, into)
        except _DAMAGE as error:
            raise BenchmarkError(
                f"{archive}: not an archive that can be read ({error}); delete it and fetch it anew"
            ) from error
    if not found:
        rest = f" and {len(seen) - SHOWN} more" if len(seen) > SHOWN else ""
        raise BenchmarkError(
            f"{archive}: none of its files is one that is read; it holds "
            f"{', '.join(seen[:SHOWN]) or 'nothing'}{rest}. Is it the official file?"
        )
    return found


def _extract(archive: Path, wanted: Callable[[str], bool], into: Path) -> tuple[list[Path], list[str]]:
    """The files taken, and the names of all that there are."""
    found: list[Path] = []
    seen: list[str] = []
    members = _zip_members if zipfile.is_zipfile(archive) else _tar_members
    for name, is_plain, opened in members(archive):
        seen.append(name)
        if not wanted(name):
            continue
        parts = PurePosixPath(name).parts
        if not is_plain or not parts or ".." in parts or "\\" in name or name.startswith("/"):
            raise BenchmarkError(
                f"{archive}: {name!r} is a link, or leads out of the archive; this is not an official "
                "file, fetch it anew from its source"
            )
        target = into.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        with opened() as source, target.open("wb") as sink:
            copyfileobj(source, sink, COPY_BLOCK_BYTES)
        found.append(target)
    return found, seen


def _tar_members(archive: Path) -> Iterator[Member]:
    """Members of a tarball but its folders."""

    def opened(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
        file = tar.extractfile(member)
        assert file is not None, "only plain files are opened"
        return file

    with tarfile.open(archive) as tar:
        for member in tar:
            if not member.isdir():
                yield member.name, member.isfile(), lambda member=member: opened(tar, member)
        # The checksum of the compressed stream stands behind the padding, where no member is read.
        assert tar.fileobj is not None, "it is open"
        while tar.fileobj.read(COPY_BLOCK_BYTES):
            pass


def _zip_members(archive: Path) -> Iterator[Member]:
    """Members of a zip but its folders."""
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            mode = member.external_attr >> 16
            if not member.is_dir():
                yield member.filename, not stat.S_ISLNK(mode), lambda member=member: file.open(member)
