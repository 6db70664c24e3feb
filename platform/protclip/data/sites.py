"""Annotated sites (FT lines) of UniProtKB flat files: where in the sequence something is known.

The training data does not hold them; they are ground truth for what a model looks at.
"""

import logging
import re
from collections.abc import Iterator
from typing import NamedTuple

from protclip.data.formats import flatfile
from protclip.data.formats.common import BadRecord
from protclip.data.uniprot import format_of, read_blocks
from protclip.errors import DataError
from protclip.records import ProteinRecord

log = logging.getLogger(__name__)

# `KEY  12..34` with qualifiers on further lines since 2019, `KEY  12  34  note` before.
_FEATURE = re.compile(
    rb"^FT   (\w+) +<?(\d+)(?:(?:\.\.| +)>?(\d+)(?: +(\S[^\n]*))?)? *\n((?:FT {6,}[^\n]*\n)*)", re.MULTILINE
)
_QUALIFIER = re.compile(rb'/(?:note|ligand)="([^"]*)"')


class Site(NamedTuple):
    """A stretch of a sequence with a meaning.

    Attributes:
        key: UniProtKB feature key, such as "MOTIF".
        start: First residue, from 0.
        stop: Last residue plus 1.
        note: What is said about it, or the ligand; empty when nothing is.
    """

    key: str
    start: int
    stop: int
    note: str


def read_annotated(uri: str) -> Iterator[tuple[ProteinRecord, list[Site]]]:
    """Entries of a flat file with their sites, in order; what is no readable entry is counted in the log.

    Args:
        uri: Flat file, plain or gzip, local, s3:// or https://.

    Raises:
        DataError: It cannot be opened or is no flat file.
    """
    found = format_of(uri)
    if found != "flat":
        raise DataError(f"{uri}: sites are read from UniProtKB flat files (.dat), this is {found}")
    bad = 0
    for block in read_blocks(uri, found):
        for start, stop, outcome in flatfile.records(block.data):
            if isinstance(outcome, BadRecord):
                bad += 1
            else:
                yield outcome, sites(block.data[start:stop], len(outcome.sequence))
    if bad:
        log.warning("%s: %d stretches are no readable entries and were left out", uri, bad)


def sites(entry: bytes, length: int) -> list[Site]:
    """The sites of one entry whose ends are known, and lie in its own sequence.

    Args:
        entry: The entry's lines.
        length: Residues of its sequence.
    """
    found = []
    for key, first, last, old_note, more in _FEATURE.findall(entry.replace(b"\r\n", b"\n")):
        start, stop = int(first) - 1, int(last or first)
        note = _QUALIFIER.search(re.sub(rb"\nFT +", b" ", more))
        text = note[1] if note else old_note
        if 0 <= start < stop <= length:
            found.append(Site(key.decode(), start, stop, text.decode("utf-8", "replace").rstrip(".")))
    return found
