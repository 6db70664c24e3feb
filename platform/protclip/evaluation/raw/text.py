"""Text files as benchmarks are published in: gzipped or not, FASTA or delimited."""

import gzip
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from protclip.errors import BenchmarkError, DataError

GZIP_MAGIC = b"\x1f\x8b"


def read_text(path: Path) -> str:
    """A text file, unpacked when it is gzipped, without byte order mark.

    Raises:
        DataError: It cannot be opened.
        BenchmarkError: It is damaged or no text.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; is it under raw?") from error
    try:
        return (gzip.decompress(raw) if raw.startswith(GZIP_MAGIC) else raw).decode("utf-8-sig")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise BenchmarkError(f"{path}: damaged or not a text file ({error}); fetch it anew") from error


def read_fasta(path: Path) -> list[tuple[str, str]]:
    """Headers without their `>`, each with the residues below it.

    Raises:
        DataError: The file cannot be opened.
        BenchmarkError: It is not FASTA.
    """
    entries: list[tuple[str, str]] = []
    for block in re.split(r"^(?=>)", read_text(path), flags=re.MULTILINE):
        header, *lines = block.strip().splitlines() or [""]
        if header.startswith(">"):
            entries.append((header[1:].strip(), "".join("".join(lines).split())))
        elif header:
            raise BenchmarkError(f"{path}: not FASTA at {header[:60]!r}; expected '>header', then residues")
    return entries


def read_columns(path: Path, names: Sequence[str], separator: str = ",") -> list[list[str]]:
    """Columns of a delimited text file with a header line, every cell as it is written.

    Raises:
        DataError: The file cannot be opened.
        BenchmarkError: It has no such column, or rows of different lengths.
    """
    data = read_text(path).encode()
    parse = csv.ParseOptions(delimiter=separator)
    try:
        known = csv.open_csv(pa.BufferReader(data), parse_options=parse).schema.names
        for name in names:
            if name not in known:
                raise BenchmarkError(f"{path}: no column {name!r}; it has {', '.join(known)}")
        table = csv.read_csv(
            pa.BufferReader(data),
            parse_options=parse,
            convert_options=csv.ConvertOptions(
                include_columns=list(names), column_types=dict.fromkeys(names, pa.string())
            ),
        )
    except pa.ArrowInvalid as error:
        raise BenchmarkError(
            f"{path}: not readable as text delimited by {separator!r}: {error}; check data.separator"
        ) from error
    return [table[name].to_pylist() for name in names]
