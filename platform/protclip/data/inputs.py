"""The files a job reads: which, in what format, and of which release."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from protclip import storage
from protclip.data.releases import NOTE_NAME, release_of
from protclip.data.strata import Origin
from protclip.data.uniprot import format_of
from protclip.errors import DataError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Input:
    """A file to read."""

    origin: Origin
    format: str
    num_bytes: int


def find_inputs(uris: Sequence[str], wanted: str) -> list[Input]:
    """The files to read, directories listed, with their formats.

    Args:
        uris: Files and directories.
        wanted: A format for all, or "auto".

    Raises:
        DataError: A file is missing, empty, of no known format, or a table without the columns needed.
    """
    files = [file for uri in uris for file in storage.list_files(uri)]
    files = [file for file in files if storage.basename(file.uri) != NOTE_NAME]
    if not files:
        raise DataError(f"no files in {', '.join(uris)}; give UniProtKB files or their folder")
    inputs: list[Input] = []
    for index, file in enumerate(files):
        if not file.num_bytes:
            raise DataError(f"{file.uri}: the file is empty; fetch it again or leave it out")
        inputs.append(Input(Origin(index, file.uri), format_of(file.uri, wanted), file.num_bytes))
    return inputs


def release_of_all(inputs: Sequence[Input], given: str | None) -> str | None:
    """The one release that the inputs belong to: as given, and as the notes of their downloads state.

    Raises:
        DataError: There is more than one.
    """
    stated = {i.origin.uri: release_of(i.origin.uri) for i in inputs}
    files = {release: uri for uri, release in stated.items() if release is not None}
    if given is not None:
        files.setdefault(given, "release=")
    if len(files) > 1:
        told = "; ".join(f"{uri} is of {release}" for release, uri in sorted(files.items()))
        raise DataError(f"the inputs mix UniProt releases: {told}; prepare each release by itself")
    unstated = [uri for uri, release in stated.items() if release is None]
    if files and unstated and given is None:
        log.warning("taken to be of release %s, though nothing says so: %s", *files, ", ".join(unstated))
    return next(iter(files), None)
