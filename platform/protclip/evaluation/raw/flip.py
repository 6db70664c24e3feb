"""Splits of FLIP (Dallago et al. 2021): CSV `sequence,target,set,validation`, or FASTA that says the same.

FASTA headers are `>ID TARGET=… SET=… [VALIDATION=…]`. The official archives hold one CSV per split rule.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from protclip.errors import BenchmarkError
from protclip.evaluation.raw.archives import extract
from protclip.evaluation.raw.base import Format, Odd, RawTables
from protclip.evaluation.raw.examples import Example, Split, parse_target, to_tables
from protclip.evaluation.raw.text import read_columns, read_fasta, read_text
from protclip.evaluation.spec.base import DataSection

ROLE = "splits"
_HEADER = re.compile(
    r"(?P<id>\S+)\s+TARGET=(?P<target>\S*)\s+SET=(?P<set>\S+)(?:\s+VALIDATION=(?P<validation>\S*))?"
)
_SPLITS: dict[str, Split] = {"train": "train", "val": "valid", "test": "test"}


class FlipSection(DataSection):
    """A split of FLIP; the file has the role `splits`."""

    format: Literal["flip"]
    target_type: Literal["number", "label"] = Field(default="number", description="what the target is")
    member: str | None = Field(
        default=None, description="name of the CSV in the archive; null: the file is no archive"
    )
    region: tuple[int, int] | None = Field(
        default=None, description="[start, stop) of every sequence is used, counted from 0; null: all of it"
    )


def read(section: FlipSection, files: Mapping[str, Path]) -> RawTables:
    """Reads one split rule; valid are those of set train that are marked for validation.

    Raises:
        DataError: The file cannot be read.
        BenchmarkError: It is not of the format, or the archive has no such member.
    """
    if ROLE not in files:
        raise BenchmarkError(f"data.files: the format flip reads the role {ROLE!r}, not {', '.join(files)}")
    if section.member is None:
        return _read(section, files[ROLE])
    with tempfile.TemporaryDirectory() as folder:
        return _read(section, extract(files[ROLE], lambda name: name == section.member, Path(folder))[0])


def _read(section: FlipSection, path: Path) -> RawTables:
    """Reads a CSV or FASTA file."""
    examples: list[Example] = []
    odd: list[Odd] = []
    cut = slice(*section.region) if section.region else slice(None)
    rows = _fasta_rows(path) if read_text(path).startswith(">") else _csv_rows(path)
    for name, sequence, target, set_, validation in rows:
        split = _SPLITS.get(set_)
        value = parse_target(target, section.target_type, "")
        if split is None:
            odd.append(Odd(name, "in no split", set_))
        elif value is None:
            odd.append(Odd(name, f"target is no {section.target_type}", target))
        else:
            if split == "train" and validation == "True":
                split = "valid"
            examples.append(Example(name, split, sequence.strip()[cut], value))
    return to_tables(examples, section.target_type, (), odd)


Row = tuple[str, str, str, str, str]
"""Name, sequence, target, set, validation."""


def _csv_rows(path: Path) -> Iterator[Row]:
    """Rows of the CSV, which has no names; they are numbered as the lines are."""
    columns = read_columns(path, ("sequence", "target", "set", "validation"))
    for line, (sequence, target, set_, validation) in enumerate(zip(*columns, strict=True), 2):
        yield f"line {line}", sequence, target, set_, validation


def _fasta_rows(path: Path) -> Iterator[Row]:
    """Entries of the FASTA file."""
    for header, sequence in read_fasta(path):
        match = _HEADER.fullmatch(header)
        if match is None:
            raise BenchmarkError(f"{path}: header {header!r} is not 'ID TARGET=… SET=… [VALIDATION=…]'")
        yield match["id"], sequence, match["target"], match["set"], match["validation"] or ""


FORMAT = Format(FlipSection, read, ("regression", "classification"))
