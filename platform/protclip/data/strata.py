"""The strata: parsed records as Arrow tables, without duplicates, one folder per (C, R)."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from protclip import storage
from protclip.data.manifest import FileEntry, StratumCount
from protclip.errors import DataError
from protclip.records import (
    CONFIDENCE_LEVELS,
    COVERAGE_LEVELS,
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


def tables(
    parsed: Sequence[tuple[int, ProteinRecord | Rejection]],
    origin: Origin,
    release: str | None,
    missing_confidence: int | None,
) -> tuple[pa.Table, pa.Table]:
    """What a parser gave, as one table of records and one of rejections.

    Args:
        parsed: (offset, record or rejection) in the order of the input.
        origin: Where they come from.
        release: UniProt release, if known.
        missing_confidence: Level of records that state none; None rejects them.

    Returns:
        Tables of `PARSED_SCHEMA` and `REFUSED_SCHEMA`.
    """
    rejections = [(offset, item) for offset, item in parsed if isinstance(item, Rejection)]
    records = [(offset, item) for offset, item in parsed if isinstance(item, ProteinRecord)]
    if missing_confidence is None:
        rejections += [
            (offset, Rejection(NO_CONFIDENCE, record.accession, record_json(asdict(record))))
            for offset, record in records
            if record.confidence is None
        ]
        rejections.sort(key=lambda pair: pair[0])
        records = [(offset, record) for offset, record in records if record.confidence is not None]
    return _record_table(records, origin, release, missing_confidence), _rejection_table(rejections, origin)


def _record_table(
    parsed: Sequence[tuple[int, ProteinRecord]],
    origin: Origin,
    release: str | None,
    missing_confidence: int | None,
) -> pa.Table:
    """Records as `PARSED_SCHEMA`."""
    records = [record for _, record in parsed]
    columns: dict[str, object] = {
        name: [getattr(record, name) for record in records]
        for name in STRATA_SCHEMA.names
        if name in ProteinRecord.__slots__
    }
    columns |= {
        "length": [len(record.sequence) for record in records],
        "coverage": [record.coverage for record in records],
        "confidence": [record.confidence or missing_confidence for record in records],
        "release": pa.repeat(pa.scalar(release, pa.string()), len(records)),
        "sampling_key": sampling_keys([record.accession for record in records]),
        "input": np.full(len(records), origin.index),
        "offset": [offset for offset, _ in parsed],
        "level_assumed": [record.confidence is None for record in records],
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
        DataError: The file is missing or damaged.
    """
    with storage.parquet_file(storage.join(uri, file.path)) as opened:
        if opened.metadata.num_rows != file.rows:
            raise DataError(
                f"{storage.join(uri, file.path)}: {opened.metadata.num_rows} rows, the manifest says "
                f"{file.rows}; prepare the data set again"
            )
        column = opened.schema_arrow.get_field_index("reviewed")
        for index in range(opened.num_row_groups):
            found = opened.metadata.row_group(index).column(column).statistics
            if (reviewed and found.max) or (unreviewed and not found.min):
                yield opened.read_row_group(index, columns=list(columns))
