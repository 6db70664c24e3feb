"""The strata: parsed records as Arrow tables, without duplicates, one folder per (C, R)."""

# pyarrow makes its compute functions when it is imported, no type checker sees them.
# pyright: reportAttributeAccessIssue=false

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from protclip import storage
from protclip.data.formats.common import RECORD_SCHEMA
from protclip.data.manifest import FileEntry, StratumCount
from protclip.data.uniprot import Block, parse_columns
from protclip.records import (
    CONFIDENCE_LEVELS,
    COVERAGE_LEVELS,
    PROPERTIES,
    REJECTED_SCHEMA,
    STRATA_SCHEMA,
    ProteinRecord,
    Rejection,
    sampling_keys,
)

DUPLICATE = "duplicate accession"
NO_CONFIDENCE = "no protein existence level"
ROW_GROUP_ROWS = 8192

PARSED_SCHEMA = pa.schema(
    [
        *STRATA_SCHEMA,
        pa.field("input", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("level_assumed", pa.bool_(), nullable=False),
    ]
)
"""Strata rows with their origin: index of the input file, offset of the entry, and whether its
confidence was assumed."""

REFUSED_SCHEMA = pa.schema([pa.field("input", pa.int32(), nullable=False), *REJECTED_SCHEMA])
"""Rejected entries with the index of their input file."""


@dataclass(frozen=True, slots=True)
class Origin:
    """An input file."""

    index: int
    uri: str


def parse_tables(
    block: Block, origin: Origin, release: str | None, missing_confidence: int | None
) -> tuple[pa.Table, pa.Table]:
    """What a block holds, as one table of records and one of rejections, in its order.

    Args:
        block: Part of an input.
        origin: The input.
        release: UniProt release, if known.
        missing_confidence: Level of records that state none; None rejects them.

    Returns:
        Tables of `PARSED_SCHEMA` and `REFUSED_SCHEMA`.
    """
    plain, others = parse_columns(block)
    return tables(others, origin, release, missing_confidence, plain)


def tables(
    parsed: Sequence[tuple[int, ProteinRecord | Rejection]],
    origin: Origin,
    release: str | None,
    missing_confidence: int | None,
    plain: pa.Table | None = None,
) -> tuple[pa.Table, pa.Table]:
    """As `parse_tables`, of (offset, record or rejection) and of a table of `RECORD_SCHEMA`."""
    rejections = [(offset, item) for offset, item in parsed if isinstance(item, Rejection)]
    records = _columns([(offset, item) for offset, item in parsed if isinstance(item, ProteinRecord)])
    if plain is not None:
        records = pa.concat_tables([plain, records]).sort_by("offset") if len(records) else plain
    unknown = records["confidence"].is_null()
    if missing_confidence is None and records["confidence"].null_count:
        for row in records.filter(unknown).to_pylist():
            fields = record_json({name: row[name] for name in ProteinRecord.__slots__})
            rejections.append((row["offset"], Rejection(NO_CONFIDENCE, row["accession"], fields)))
        rejections.sort(key=lambda pair: pair[0])
        records = records.filter(records["confidence"].is_valid())
    return _completed(records, origin, release, missing_confidence), _rejection_table(rejections, origin)


def _columns(parsed: Sequence[tuple[int, ProteinRecord]]) -> pa.Table:
    """Records as `RECORD_SCHEMA`."""
    columns: dict[str, list[object]] = {
        name: [getattr(record, name) for _, record in parsed] for name in ProteinRecord.__slots__
    }
    return pa.table({**columns, "offset": [offset for offset, _ in parsed]}, schema=RECORD_SCHEMA)


def _completed(
    records: pa.Table, origin: Origin, release: str | None, missing_confidence: int | None
) -> pa.Table:
    """`RECORD_SCHEMA` to `PARSED_SCHEMA`."""
    columns: dict[str, object] = {name: records[name] for name in records.column_names}
    unknown = records["confidence"].is_null()
    if missing_confidence is not None:
        columns["confidence"] = pc.fill_null(records["confidence"], missing_confidence)
    columns |= {
        "length": pc.binary_length(records["sequence"]).cast(pa.int32()),
        "coverage": sum(records[prop].is_valid().cast(pa.int8()).to_numpy() for prop in PROPERTIES),
        "release": pa.repeat(pa.scalar(release, pa.string()), len(records)),
        "sampling_key": sampling_keys(records["accession"].to_pylist()),
        "input": np.full(len(records), origin.index, np.int32),
        "level_assumed": unknown,
    }
    return pa.table({name: columns[name] for name in PARSED_SCHEMA.names}, schema=PARSED_SCHEMA)


def _rejection_table(rejections: Sequence[tuple[int, Rejection]], origin: Origin) -> pa.Table:
    """Rejections as `REFUSED_SCHEMA`."""
    rows = [
        {
            "input": origin.index,
            "reason": rejection.reason,
            "accession": rejection.accession,
            "source": origin.uri,
            "offset": offset,
            "raw": rejection.raw,
        }
        for offset, rejection in rejections
    ]
    return pa.Table.from_pylist(rows, schema=REFUSED_SCHEMA)


def record_json(fields: dict[str, object]) -> bytes:
    """A readable entry that is turned down after parsing, kept by its fields."""
    return json.dumps(fields, default=str, ensure_ascii=False).encode()


def without_duplicates(parsed: pa.Table, sources: Sequence[str]) -> tuple[np.ndarray, pa.Table]:
    """Keeps the first entry of each accession, first by (input, offset).

    Args:
        parsed: All entries of some range of sampling keys, in any order.
        sources: URI per input index.

    Returns:
        Row numbers of the entries kept, in the order (sampling_key, accession), and the others as
        `REFUSED_SCHEMA`, each with its fields as JSON.
    """
    names = ["sampling_key", "accession", "input", "offset"]
    keys = parsed.select(names).append_column("row", pa.array(np.arange(len(parsed))))
    keys = keys.sort_by([(name, "ascending") for name in names])
    accession, rows = keys["accession"].to_numpy(), keys["row"].to_numpy()
    repeated = np.zeros(len(parsed), dtype=bool)
    repeated[1:] = accession[1:] == accession[:-1]
    refused = [
        {
            "input": row["input"],
            "reason": DUPLICATE,
            "accession": row["accession"],
            "source": sources[row["input"]],
            "offset": row["offset"],
            "raw": record_json({name: row[name] for name in STRATA_SCHEMA.names}),
        }
        for row in parsed.take(pa.array(rows[repeated])).to_pylist()
    ]
    return rows[~repeated], pa.Table.from_pylist(refused, schema=REFUSED_SCHEMA)


def stratum_path(confidence: int, coverage: int, part: int) -> str:
    """Where a part of a stratum lies below the data set."""
    return f"confidence={confidence}/coverage={coverage}/part-{part:05d}.parquet"


def stratum_of(path: str) -> tuple[int, int]:
    """(confidence, coverage) of a part's path."""
    confidence, coverage = (int(folder.partition("=")[2]) for folder in path.split("/")[:2])
    return confidence, coverage


def totals(counts: Iterable[StratumCount]) -> tuple[StratumCount, ...]:
    """Sums per stratum, of all strata, the empty ones too, in the order (C, R)."""
    reviewed, unreviewed = Counter[tuple[int, int]](), Counter[tuple[int, int]]()
    for count in counts:
        reviewed[count.confidence, count.coverage] += count.reviewed
        unreviewed[count.confidence, count.coverage] += count.unreviewed
    return tuple(
        StratumCount(confidence=c, coverage=r, reviewed=reviewed[c, r], unreviewed=unreviewed[c, r])
        for c in CONFIDENCE_LEVELS
        for r in COVERAGE_LEVELS
    )


def write_parts(
    parsed: pa.Table, rows: np.ndarray, output: str, part: int
) -> Iterator[tuple[FileEntry, StratumCount]]:
    """Writes some rows of a `PARSED_SCHEMA` table, one file per stratum.

    In a file reviewed entries come first, so that a reader of one section skips row groups; otherwise
    the order is that of `rows`.
    """
    entries = parsed.select(STRATA_SCHEMA.names)
    confidence, coverage, reviewed = (
        entries[name].to_numpy()[rows] for name in ("confidence", "coverage", "reviewed")
    )
    for c in CONFIDENCE_LEVELS:
        for r in COVERAGE_LEVELS:
            inside = (confidence == c) & (coverage == r)
            first, second = rows[inside & reviewed], rows[inside & ~reviewed]
            if not inside.any():
                continue
            table = entries.take(pa.array(np.concatenate([first, second])))
            path = stratum_path(c, r, part)
            stored = storage.write_parquet(storage.join(output, path), table, ROW_GROUP_ROWS)
            yield (
                FileEntry.of(path, stored, len(table), ROW_GROUP_ROWS),
                StratumCount(confidence=c, coverage=r, reviewed=len(first), unreviewed=len(second)),
            )


def read_entries(
    uri: str, file: FileEntry, columns: Sequence[str], *, reviewed: bool, unreviewed: bool
) -> Iterator[pa.Table]:
    """The row groups of a strata file that can hold entries of the wanted sections.

    Args:
        uri: The data set.
        file: One of its files.
        columns: Columns to read.
        reviewed: Whether Swiss-Prot entries are wanted.
        unreviewed: Whether TrEMBL entries are wanted.

    Raises:
        DataError: The file is missing, damaged, or not the one in the manifest.
    """
    with storage.parquet_file(storage.join(uri, file.path), file.num_bytes, file.row_groups) as opened:
        column = opened.schema_arrow.get_field_index("reviewed")
        for index in range(opened.num_row_groups):
            found = opened.metadata.row_group(index).column(column).statistics
            if (reviewed and found.max) or (unreviewed and not found.min):
                yield opened.read_row_group(index, columns=list(columns))
