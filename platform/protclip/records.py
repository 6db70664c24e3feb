"""Protein records, their four properties, and the Arrow schemas of the two tables.

*Strata* hold every UniProtKB entry that was read, partitioned by (confidence C, coverage R) as in
`paper.md`, "Data: ProtAnno". *Pairs* hold the sampled, tokenised and shuffled training examples.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

import numpy as np
import pyarrow as pa
import xxhash


class Property(StrEnum):
    """The four properties of a biotext, in their fixed order (paper, section "ProtAnno")."""

    PROTEIN_NAME = "protein_name"
    FUNCTION = "function"
    SUBCELLULAR_LOCATION = "subcellular_location"
    SIMILARITY = "similarity"

    @property
    def label(self) -> str:
        """The upper-case heading that introduces the property inside a biotext."""
        return self.value.replace("_", " ").upper()


PROPERTIES: tuple[Property, ...] = tuple(Property)
NUM_PROPERTIES = len(PROPERTIES)
CONFIDENCE_LEVELS = (1, 2, 3, 4, 5)
COVERAGE_LEVELS = (1, 2, 3, 4)


@dataclass(frozen=True, slots=True)
class ProteinRecord:
    """One UniProtKB entry, reduced to what pre-training needs.

    Attributes:
        accession: Primary accession (the first one of the entry).
        entry_name: UniProtKB entry name, or an empty string when the source states none.
        reviewed: True for Swiss-Prot, False for TrEMBL.
        sequence: Residue letters, upper case.
        protein_name: Recommended or submitted name, alternatives in brackets as in UniProt's
            "Protein names" column.
        function: FUNCTION text without its heading, evidence tags kept; None when absent.
        subcellular_location: SUBCELLULAR LOCATION text, likewise.
        similarity: SIMILARITY text, likewise.
        confidence: Protein existence level, 1 best to 5 worst; None when the source states none.
        taxon_id: NCBI taxonomy identifier, or None.
        annotation_date: Date of the last annotation update, or None.
    """

    accession: str
    entry_name: str
    reviewed: bool
    sequence: str
    protein_name: str
    function: str | None = None
    subcellular_location: str | None = None
    similarity: str | None = None
    confidence: int | None = None
    taxon_id: int | None = None
    annotation_date: date | None = None

    @property
    def coverage(self) -> int:
        """Number of properties present, 1 to 4 (the paper's R is this number over 4)."""
        return sum(text is not None for _, text in self.properties())

    def properties(self) -> Iterator[tuple[Property, str | None]]:
        """The four properties with their texts, in biotext order."""
        yield Property.PROTEIN_NAME, self.protein_name
        yield Property.FUNCTION, self.function
        yield Property.SUBCELLULAR_LOCATION, self.subcellular_location
        yield Property.SIMILARITY, self.similarity


@dataclass(frozen=True, slots=True)
class Rejection:
    """One stretch of an input that could not become a record; nothing is dropped in silence.

    Attributes:
        reason: Short stable phrase that the report counts by, for example "no sequence".
        accession: The accession, when one could be read.
        raw: The offending bytes as they stood in the (decompressed) input.
    """

    reason: str
    accession: str | None
    raw: bytes


def sampling_key(accession: str) -> int:
    """The record's fixed 64-bit identity, from which sampling, splits and order are derived."""
    return xxhash.xxh3_64_intdigest(accession.encode())


def sampling_keys(accessions: list[str]) -> np.ndarray:
    """`sampling_key` of each accession, as a uint64 array."""
    digest = xxhash.xxh3_64_intdigest
    return np.fromiter((digest(a.encode()) for a in accessions), np.uint64, len(accessions))


STRATA_SCHEMA = pa.schema(
    [
        pa.field("accession", pa.string(), nullable=False),
        pa.field("entry_name", pa.string(), nullable=False),
        pa.field("reviewed", pa.bool_(), nullable=False),
        pa.field("sequence", pa.large_string(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),
        pa.field("protein_name", pa.string(), nullable=False),
        pa.field("function", pa.large_string()),
        pa.field("subcellular_location", pa.large_string()),
        pa.field("similarity", pa.large_string()),
        pa.field("confidence", pa.int8(), nullable=False),
        pa.field("coverage", pa.int8(), nullable=False),
        pa.field("taxon_id", pa.int32()),
        pa.field("annotation_date", pa.date32()),
        pa.field("release", pa.string()),
        pa.field("sampling_key", pa.uint64(), nullable=False),
    ]
)

REJECTED_SCHEMA = pa.schema(
    [
        pa.field("reason", pa.string(), nullable=False),
        pa.field("accession", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("raw", pa.large_binary(), nullable=False),
    ]
)

PAIRS_SCHEMA = pa.schema(
    [
        pa.field("accession", pa.string(), nullable=False),
        pa.field("sequence", pa.large_string(), nullable=False),
        *(pa.field(str(p), pa.large_list(pa.uint16()), nullable=False) for p in PROPERTIES),
        pa.field("length", pa.int32(), nullable=False),
        pa.field("confidence", pa.int8(), nullable=False),
        pa.field("coverage", pa.int8(), nullable=False),
        pa.field("sampling_key", pa.uint64(), nullable=False),
    ]
)
