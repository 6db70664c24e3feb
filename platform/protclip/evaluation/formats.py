"""Readers of benchmark data: each takes a data section and gives the splits, or says what is wrong."""

import gzip
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from itertools import chain
from typing import Any, Generic, TypeVar

import pyarrow as pa
from pyarrow import csv

from protclip import storage
from protclip.data.dataset import PairsDataset
from protclip.data.manifest import PairsManifest
from protclip.errors import BenchmarkError, DataError
from protclip.evaluation.spec import HeldOutPairs, LabelledSequences
from protclip.records import PROPERTIES

TargetT = TypeVar("TargetT")

GZIP_MAGIC = b"\x1f\x8b"

DEEPLOC_LOCATIONS = frozenset(
    {
        *("Cell.membrane", "Cytoplasm", "Endoplasmic.reticulum", "Extracellular", "Golgi.apparatus"),
        *("Lysosome/Vacuole", "Mitochondrion", "Nucleus", "Peroxisome", "Plastid"),
    }
)
DEEPLOC_AMBIGUOUS = "Cytoplasm-Nucleus"
DEEPLOC_MEMBRANE = {"M": "membrane", "S": "soluble"}
DEEPLOC_HEADER = re.compile(r">\S+ (\S+)-([MSU])(?: test)?")


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a suite's data lies.

    Attributes:
        data_root: URI under which benchmark files lie.
        pairs: URI of the pairs for held-out retrieval.
        tokenizer: Fingerprint of the checkpoint's text tokenizer.
    """

    data_root: str
    pairs: str
    tokenizer: str


@dataclass(frozen=True, slots=True)
class Examples(Generic[TargetT]):
    """One split: sequences with a target each, and what was left out.

    Attributes:
        sequences: Residue letters.
        targets: Class names, or biotext tokens.
        left_out: Entries that take no part, by reason.
    """

    sequences: list[str]
    targets: list[TargetT]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.sequences)


Splits = dict[str, Examples[TargetT]]
"""Examples by split: train, perhaps valid, test."""


def read_csv(data: LabelledSequences, sources: Sources) -> Splits[str]:
    """Reads `sequence` and the label column; where there is a column `split`, only the split's rows.

    Raises:
        BenchmarkError: A column or every row of a split is missing, or a cell is empty.
    """

    def read(uri: str, split: str) -> Examples[str]:
        try:
            table = csv.read_csv(
                BytesIO(_read_text(uri).encode()),
                convert_options=csv.ConvertOptions(
                    column_types={data.label: pa.string(), "sequence": pa.string(), "split": pa.string()}
                ),
            )
        except pa.ArrowInvalid as error:
            raise BenchmarkError(f"{uri}: not readable as CSV: {error}") from error
        missing = [name for name in ("sequence", data.label) if name not in table.column_names]
        if missing:
            raise BenchmarkError(f"{uri}: no column {missing[0]!r}; it has {', '.join(table.column_names)}")
        if "split" in table.column_names:
            table = table.filter(pa.array(s == split for s in table["split"].to_pylist()))
        sequences, labels = table["sequence"].to_pylist(), table[data.label].to_pylist()
        if not all(sequences) or not all(labels):
            raise BenchmarkError(f"{uri}: an empty sequence or {data.label} in split {split}; fix it")
        return Examples(sequences, labels)

    return _read_splits(data, sources, read)


def read_deeploc_fasta(data: LabelledSequences, sources: Sources) -> Splits[str]:
    """Reads DeepLoc 1.0 FASTA, `>ACCESSION Location-X [test]`, X = membrane, soluble or unknown.

    Left out: of `location` the ambiguous Cytoplasm-Nucleus, of `membrane` every unknown one.

    Raises:
        BenchmarkError: A header is not of this form or names another location.
    """
    if data.label not in {"location", "membrane"}:
        raise BenchmarkError(f"data.label: a DeepLoc FASTA has location and membrane, not {data.label!r}")

    def read(uri: str, _: str) -> Examples[str]:
        sequences, labels, left_out = [], [], Counter[str]()
        for header, sequence in _read_fasta(uri):
            match = DEEPLOC_HEADER.fullmatch(header)
            if match is None or match[1] not in DEEPLOC_LOCATIONS | {DEEPLOC_AMBIGUOUS}:
                raise BenchmarkError(
                    f"{uri}: header {header!r} is not '>ACCESSION Location-X' with X one of M, S, U and a "
                    f"location of {', '.join(sorted(DEEPLOC_LOCATIONS))}, {DEEPLOC_AMBIGUOUS}"
                )
            if data.label == "membrane" and match[2] not in DEEPLOC_MEMBRANE:
                left_out["neither membrane nor soluble"] += 1
            elif data.label == "location" and match[1] == DEEPLOC_AMBIGUOUS:
                left_out[f"ambiguous location {DEEPLOC_AMBIGUOUS}"] += 1
            else:
                sequences.append(sequence)
                labels.append(match[1] if data.label == "location" else DEEPLOC_MEMBRANE[match[2]])
        return Examples(sequences, labels, left_out)

    return _read_splits(data, sources, read)


def read_pairs(data: HeldOutPairs, sources: Sources) -> Splits[list[int]]:
    """Reads the held-out split as "test", and training pairs as "train"; targets are biotext tokens.

    Raises:
        DataError: There are no such pairs, or another tokenizer made them.
        BenchmarkError: The split is empty.
    """
    made_by = PairsManifest.load(sources.pairs).tokenizer
    if made_by.fingerprint != sources.tokenizer:
        raise DataError(
            f"{sources.pairs}: tokenised with {made_by.source!r} ({made_by.fingerprint[:12]}), but the "
            f"checkpoint reads {sources.tokenizer[:12]}; give the pairs it was trained on or sample again"
        )
    wanted = {"train": ("train", data.max_train_pairs), "test": (data.split, data.max_pairs)}
    splits = {}
    for role, (split, limit) in wanted.items():
        dataset = PairsDataset(sources.pairs, split, seed=0)
        if not len(dataset):
            raise BenchmarkError(f"{sources.pairs}: split {split} is empty; sample with a larger share of it")
        rows = dataset.rows(0, 0, min(limit, len(dataset)))
        pieces = zip(*(rows[str(p)].to_pylist() for p in PROPERTIES), strict=True)
        splits[role] = Examples(rows["sequence"].to_pylist(), [list(chain(*p)) for p in pieces])
    return splits


def _read_splits(
    data: LabelledSequences, sources: Sources, read: Callable[[str, str], Examples[str]]
) -> Splits[str]:
    """Applies `read` to each split's file."""
    files = {"train": data.files.train, "valid": data.files.valid, "test": data.files.test}
    splits = {}
    for split, path in files.items():
        if path is not None:
            uri = storage.join(sources.data_root, path)
            splits[split] = read(uri, split)
            if not len(splits[split]):
                raise BenchmarkError(f"{uri}: nothing in split {split}; check the file and its labels")
    return splits


def _read_text(uri: str) -> str:
    """A text file, unpacked when it is gzipped."""
    raw = storage.read_bytes(uri)
    try:
        return (gzip.decompress(raw) if raw.startswith(GZIP_MAGIC) else raw).decode()
    except (OSError, EOFError, ValueError) as error:
        raise BenchmarkError(f"{uri}: damaged or not a text file: {error}") from error


def _read_fasta(uri: str) -> list[tuple[str, str]]:
    """Header lines, each with the residues below it, upper case."""
    entries = []
    for block in re.split(r"^(?=>)", _read_text(uri), flags=re.MULTILINE):
        header, *lines = block.strip().splitlines() or [""]
        sequence = "".join("".join(lines).split()).upper()
        if header.startswith(">") and sequence:
            entries.append((header.strip(), sequence))
        elif block.strip():
            raise BenchmarkError(
                f"{uri}: not FASTA at {block.strip()[:60]!r}; expected '>header', then residues"
            )
    return entries


FORMATS: dict[str, Callable[[Any, Sources], Splits[Any]]] = {
    "csv": read_csv,
    "deeploc_fasta": read_deeploc_fasta,
    "pairs": read_pairs,
}
"""Readers by the name that a benchmark's `data.format` gives."""
