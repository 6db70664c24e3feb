"""UniProt releases: their files with the checksums UniProt publishes, and the note of what was downloaded.

UniProt keeps the current release as single files, in `complete/` and, cut by taxonomy, in
`taxonomic_divisions/`. Earlier ones are tarballs in `previous_releases/`. Every directory has a
`RELEASE.metalink` with the release's number and each file's size and MD5.
"""

import logging
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from pydantic import ValidationError

from protclip import storage
from protclip.config.base import Config
from protclip.errors import DataError
from protclip.storage.http import Patience, fetch, is_http

log = logging.getLogger(__name__)

NOTE_NAME = "release.json"
METALINK_NAME = "RELEASE.metalink"
CURRENT = "current"

_COMPLETE = "current_release/knowledgebase/complete"
_DIVISIONS = "current_release/knowledgebase/taxonomic_divisions"
_RELEASE = re.compile(r"\d{4}_\d{2}")
_MD5 = re.compile(r"[0-9a-f]{32}")


class DownloadedFile(Config):
    """One file that was downloaded, or taken from a tarball that was.

    Attributes:
        name: Its name, beside the note.
        source: URL of the file, the tarball or the query.
        num_bytes: Its size.
        md5: Hex digest, for single files the one UniProt publishes.
        sha256: Hex digest.
        downloaded: Day.
    """

    name: str
    source: str
    num_bytes: int
    md5: str
    sha256: str
    downloaded: date


class ReleaseNote(Config):
    """What lies in a folder of downloads, `release.json`; written last.

    Attributes:
        release: UniProt release of all files.
        files: The files, by name.
        query: What was asked for, when it is not a whole section.
        entries: Entries found by the query and kept.
    """

    release: str
    files: tuple[DownloadedFile, ...]
    query: str | None = None
    entries: int | None = None

    @classmethod
    def load(cls, folder: str) -> "ReleaseNote | None":
        """The note in a folder; None when there is none.

        Raises:
            DataError: It is not a note of a download.
        """
        uri = storage.join(folder, NOTE_NAME)
        if not storage.exists(uri):
            return None
        try:
            return cls.model_validate_json(storage.read_bytes(uri))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise DataError(
                f"{uri}: not a note of `protclip download` ({where}: {first['msg']}); move the file away or "
                "download again"
            ) from error

    def save(self, folder: str) -> None:
        """Writes the note."""
        storage.write_json(storage.join(folder, NOTE_NAME), self.model_dump(mode="json"))

    def file(self, name: str) -> DownloadedFile | None:
        """The file of this name."""
        return next((file for file in self.files if file.name == name), None)


def release_of(uri: str) -> str | None:
    """The release that the note beside a file states; None when there is no note or it lists no such file.

    Args:
        uri: A file, local or `s3://`. About files on web servers nothing is known.

    Raises:
        DataError: There is a note that cannot be read.
    """
    folder, separator, name = uri.rpartition("/")
    if is_http(uri):
        return None
    note = ReleaseNote.load(folder if separator else ".")
    return note.release if note is not None and note.file(name) else None


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file UniProt offers.

    Attributes:
        path: Below a mirror's base URL.
        num_bytes: Its size.
        md5: Hex digest.
        members: Names of the files to be taken out of it, when it is a tarball.
    """

    path: str
    num_bytes: int
    md5: str
    members: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name."""
        return storage.basename(self.path)


@dataclass(frozen=True, slots=True)
class Release:
    """A release as far as it is wanted."""

    name: str
    files: tuple[RemoteFile, ...]


@dataclass(frozen=True, slots=True)
class Metalink:
    """What a `RELEASE.metalink` says.

    Attributes:
        release: Number, like 2026_03.
        files: Size and MD5 by file name.
    """

    release: str
    files: Mapping[str, tuple[int, str]]


def parse_metalink(data: bytes, url: str) -> Metalink:
    """Reads a metalink of version 3 as UniProt writes it.

    Args:
        data: The XML.
        url: Where it comes from, for messages.

    Raises:
        DataError: It is not such a file, or lacks the release, a size or an MD5.
    """
    try:
        root = ET.fromstring(data)  # noqa: S314 - expat limits entity expansion itself
    except ET.ParseError as error:
        raise DataError(f"{url}: not a metalink ({error}); check the mirror's address") from error
    release = (root.findtext("{*}version") or "").strip()
    if not _RELEASE.fullmatch(release):
        raise DataError(f"{url}: {release!r} is no release number like 2026_03; check the mirror's address")
    files: dict[str, tuple[int, str]] = {}
    for file in root.iterfind(".//{*}file"):
        name, size = file.get("name", ""), (file.findtext("{*}size") or "").strip()
        hashes = file.iterfind(".//{*}hash")
        md5 = next((h.text or "" for h in hashes if h.get("type", "").lower() == "md5"), "").strip().lower()
        if not (name and size.isdecimal() and _MD5.fullmatch(md5)):
            raise DataError(
                f"{url}: lacks name, size or MD5 of a file ({name!r}, {size!r}, {md5!r}); use another mirror"
            )
        files[name] = int(size), md5
    return Metalink(release, files)


def find_release(
    release: str, sections: Sequence[str], mirrors: Sequence[str], patience: Patience
) -> Release:
    """Asks UniProt what to download, the next mirror when one fails.

    Args:
        release: `current` or a number like 2026_03, which may be the current one's.
        sections: Names like `sprot` or `trembl_bacteria`.
        mirrors: Base URLs, at least one.
        patience: How long to wait for a server.

    Raises:
        DataError: No mirror has all of it.
    """
    for mirror, following in zip(mirrors, [*mirrors[1:], None], strict=True):
        try:
            return _find(release, sections, mirror, patience)
        except DataError as error:
            if following is None:
                raise
            log.warning("%s; trying %s", error, following)
    raise AssertionError("there is a mirror")


def _find(release: str, sections: Sequence[str], mirror: str, patience: Patience) -> Release:
    """The release as one mirror has it."""
    current = _metalink(mirror, _COMPLETE, patience)
    if release not in {CURRENT, current.release}:
        return _find_archived(release, sections, mirror, patience)
    files = [_file(current, _COMPLETE, f"uniprot_{s}.dat.gz", mirror) for s in sections if "_" not in s]
    if divisions := [s for s in sections if "_" in s]:
        metalink = _metalink(mirror, _DIVISIONS, patience)
        if metalink.release != current.release:
            raise DataError(
                f"{mirror}: holds parts of the releases {current.release} and {metalink.release}; it is "
                "being renewed, try again in a few hours"
            )
        files += [_file(metalink, _DIVISIONS, f"uniprot_{s}.dat.gz", mirror) for s in divisions]
    return Release(current.release, tuple(files))


def _find_archived(release: str, sections: Sequence[str], mirror: str, patience: Patience) -> Release:
    """The tarballs of an earlier release: one per section, or one of everything."""
    if divisions := [s for s in sections if "_" in s]:
        raise DataError(
            f"release {release} is not the current one, and taxonomic divisions ({', '.join(divisions)}) are "
            "kept of the current one only; take sections=sprot,trembl"
        )
    folder = f"previous_releases/release-{release}/knowledgebase"
    metalink = _metalink(mirror, folder, patience)
    if metalink.release != release:
        raise DataError(f"{mirror}/{folder}: holds release {metalink.release}; use another mirror")
    wanted: dict[str, list[str]] = {}
    for section in sections:
        own = f"uniprot_{section}-only{release}.tar.gz"
        archive = own if own in metalink.files else f"knowledgebase{release}.tar.gz"
        wanted.setdefault(archive, []).append(f"uniprot_{section}.dat.gz")
    files = (_file(metalink, folder, archive, mirror, members) for archive, members in wanted.items())
    return Release(release, tuple(files))


def _metalink(mirror: str, folder: str, patience: Patience) -> Metalink:
    """What a directory of a mirror holds."""
    url = storage.join(mirror, folder, METALINK_NAME)
    return parse_metalink(fetch(url, patience)[1], url)


def _file(metalink: Metalink, folder: str, name: str, mirror: str, members: Iterable[str] = ()) -> RemoteFile:
    """A file of a directory."""
    if name not in metalink.files:
        known = ", ".join(n for n in sorted(metalink.files) if n.endswith((".dat.gz", ".tar.gz")))
        raise DataError(f"{mirror}/{folder}: holds no {name}; there are: {known or 'no such files at all'}")
    num_bytes, md5 = metalink.files[name]
    return RemoteFile(f"{folder}/{name}", num_bytes, md5, tuple(members))
