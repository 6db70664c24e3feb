"""What rows are like, in counts that add up: of a part, of parts together, of a whole data set.

Counts are a table of `COUNTS_SCHEMA`: how many rows of a group have a value of a measure. Adding counts
is adding these numbers, so it is exact, and nothing depends on the parts or their order. Lengths are
counted in logarithmic bins, `2^BIN_BITS` to the octave; up to 31 every length has its own.
"""

# pyarrow makes its compute functions when it is imported, no type checker sees them.
# pyright: reportAttributeAccessIssue=false

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from protclip import storage
from protclip.config.base import Config
from protclip.records import PROPERTIES

BIN_BITS = 4
READERS = 16
TOP_TAXA = 100
UNSTATED = "unstated"
REVIEWED, UNREVIEWED = "reviewed", "unreviewed"

GROUP = ("section", "confidence", "coverage")
COUNTS_SCHEMA = pa.schema(
    [
        pa.field("section", pa.string()),
        pa.field("confidence", pa.int8()),
        pa.field("coverage", pa.int8()),
        pa.field("measure", pa.string()),
        pa.field("value", pa.string()),
        pa.field("count", pa.int64()),
    ]
)
"""Rows of a group by value of a measure; `residues` is a sum instead, and organisms are not by stratum."""

TAXA_SCHEMA = pa.schema(
    [
        pa.field("taxon_id", pa.int32()),
        pa.field(REVIEWED, pa.int64(), nullable=False),
        pa.field(UNREVIEWED, pa.int64(), nullable=False),
    ]
)
"""Entries per organism; the row without an identifier counts those that state none."""


Histogram = dict[int, int]
"""Rows by value. Of lengths the values are the lowest ones of logarithmic bins."""


class GroupSummary(Config):
    """One section (or split) of one stratum in numbers that add up.

    Attributes:
        section: "reviewed" or "unreviewed" in strata, the split in pairs.
        confidence: C of the stratum.
        coverage: Number of its properties.
        residues: Of all sequences together.
        lengths: Rows by length in residues.
        texts: Rows that have a property, by length of its text: characters in strata, tokens in pairs.
        years: Entries by year of the last annotation, those without a date left out.
        releases: Entries by release, "unstated" where there is none.
    """

    section: str
    confidence: int
    coverage: int
    residues: int = 0
    lengths: Histogram
    texts: dict[str, Histogram] = Field(default={})
    years: Histogram = Field(default={})
    releases: dict[str, int] = Field(default={})


class TaxonCount(Config):
    """Entries of one organism, by its NCBI taxonomy identifier."""

    taxon_id: int
    reviewed: int
    unreviewed: int

    @property
    def total(self) -> int:
        """Entries of both sections."""
        return self.reviewed + self.unreviewed


class Summary(Config):
    """What the rows of a data set are like.

    Attributes:
        groups: Per section and stratum, those that have rows.
        num_taxa: Distinct organisms; in `taxa.parquet` each is counted.
        top_taxa: The most frequent ones, the first is the most frequent.
    """

    groups: tuple[GroupSummary, ...]
    num_taxa: int = 0
    top_taxa: tuple[TaxonCount, ...] = ()


def bin_width(lowest: int, bits: int = BIN_BITS) -> int:
    """How many values share the bin that begins at `lowest`."""
    return 1 << max(0, lowest.bit_length() - 1 - bits)


def bin_floor(values: np.ndarray, bits: int = BIN_BITS) -> np.ndarray:
    """The lowest value of the bin of each value, int64 ≥ 0."""
    exponents = np.frexp(values.astype(np.float64))[1].astype(np.int64)
    shifts = np.maximum(0, exponents - 1 - bits)
    return values.astype(np.int64) >> shifts << shifts


def count_entries(entries: pa.Table, rows: np.ndarray) -> pa.Table:
    """Counts of some rows of a table that has the columns of the strata.

    Args:
        entries: The table.
        rows: Row numbers.

    Returns:
        A table of `COUNTS_SCHEMA`.
    """
    binned = {"length": entries["length"]} | {str(p): pc.utf8_length(entries[p]) for p in PROPERTIES}
    plain = {
        "year": pc.year(entries["annotation_date"]),
        "release": entries["release"],
        "taxon": entries["taxon_id"],
        "residues": entries["length"],
    }
    groups = {
        "section": pc.if_else(entries["reviewed"], REVIEWED, UNREVIEWED),
        "confidence": entries["confidence"],
        "coverage": entries["coverage"],
    }
    columns = groups | plain | {name: _binned(lengths) for name, lengths in binned.items()}
    table = pa.table(columns).take(pa.array(rows))
    return add(
        [
            *(_counted(table, measure) for measure in (*binned, "year", "release")),
            _counted(table, "taxon", by=GROUP[:1]),
            _residues(table),
        ]
    )


def count_pairs(pairs: pa.Table, split: str) -> pa.Table:
    """Counts of a table of pairs, the lengths of properties in tokens.

    Args:
        pairs: The table.
        split: The split it belongs to.

    Returns:
        A table of `COUNTS_SCHEMA`.
    """
    tokens = {str(p): pc.list_value_length(pairs[p]) for p in PROPERTIES}
    present = {name: pc.if_else(pc.greater(n, 0), n, None) for name, n in tokens.items()}
    columns = {
        "section": pa.repeat(split, len(pairs)),
        "confidence": pairs["confidence"],
        "coverage": pairs["coverage"],
        "residues": pairs["length"],
        "length": _binned(pairs["length"]),
    }
    table = pa.table(columns | {name: _binned(lengths) for name, lengths in present.items()})
    return add([*(_counted(table, measure) for measure in ("length", *tokens)), _residues(table)])


def _binned(lengths: pa.ChunkedArray) -> pa.Array:
    """Lengths to the lowest of their bins, null stays null."""
    return pa.array(bin_floor(lengths.fill_null(0).to_numpy()), mask=lengths.is_null().to_numpy())


def _counted(table: pa.Table, measure: str, by: Sequence[str] = GROUP) -> pa.Table:
    """Rows by group and value of one column."""
    found = table.group_by([*by, measure]).aggregate([([], "count_all")])
    return _as_counts(found, measure, found[measure].cast(pa.string()), found["count_all"])


def _residues(table: pa.Table) -> pa.Table:
    """The sum of one column by group."""
    found = table.group_by(list(GROUP)).aggregate([("residues", "sum")])
    return _as_counts(found, "residues", pa.nulls(len(found), pa.string()), found["residues_sum"])


def _as_counts(
    found: pa.Table, measure: str, value: pa.Array | pa.ChunkedArray, count: pa.ChunkedArray
) -> pa.Table:
    """Brings what was grouped into `COUNTS_SCHEMA`."""
    groups = {name: found[name] if name in found.column_names else pa.nulls(len(found)) for name in GROUP}
    columns = groups | {"measure": pa.repeat(measure, len(found)), "value": value, "count": count}
    return pa.table(columns).cast(COUNTS_SCHEMA)


def add(counts: Iterable[pa.Table]) -> pa.Table:
    """The sum of tables of `COUNTS_SCHEMA`, in no particular order of rows."""
    names = COUNTS_SCHEMA.names
    table = pa.concat_tables([COUNTS_SCHEMA.empty_table(), *counts])
    summed = table.group_by(names[:-1]).aggregate([("count", "sum")])
    return summed.rename_columns(names).cast(COUNTS_SCHEMA)


def add_stored(uris: Sequence[str]) -> pa.Table:
    """The sum of stored counts, of which a few at a time are in memory.

    Args:
        uris: Parquet files of `COUNTS_SCHEMA`.

    Raises:
        DataError: One cannot be read.
    """
    total = COUNTS_SCHEMA.empty_table()
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(uris), READERS):
            total = add([total, *pool.map(_read, uris[start : start + READERS])])
    return total


def _read(uri: str) -> pa.Table:
    """Stored counts."""
    with storage.parquet_file(uri) as file:
        return file.read()


def taxa(counts: pa.Table) -> pa.Table:
    """Entries per organism as `TAXA_SCHEMA`, the most frequent first, of equals the lower number."""
    found = counts.filter(pc.field("measure") == "taxon")
    columns = {"taxon_id": found["value"]} | {
        name: pc.if_else(pc.equal(found["section"], name), found["count"], 0)
        for name in (REVIEWED, UNREVIEWED)
    }
    sums = pa.table(columns).group_by("taxon_id").aggregate([(REVIEWED, "sum"), (UNREVIEWED, "sum")])
    table = sums.rename_columns(TAXA_SCHEMA.names).cast(TAXA_SCHEMA)
    table = table.append_column("total", pc.add(table[REVIEWED], table[UNREVIEWED]))
    order = [("total", "descending"), ("taxon_id", "ascending")]
    return table.sort_by(order).drop_columns("total").combine_chunks()


def summarise(counts: pa.Table) -> Summary:
    """Counts as the manifest has them."""
    organisms = taxa(counts)
    organisms = organisms.filter(organisms["taxon_id"].is_valid())
    keys = [(name, "ascending") for name in COUNTS_SCHEMA.names[:-1]]
    by_stratum = counts.filter(pc.field("measure") != "taxon").sort_by(keys)
    groups: dict[tuple[str, int, int], dict[str, dict[str | None, int]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for row in by_stratum.to_pylist():
        group = groups[row["section"], row["confidence"], row["coverage"]]
        group[row["measure"]][row["value"]] = row["count"]
    return Summary(
        groups=tuple(
            GroupSummary(
                section=section,
                confidence=confidence,
                coverage=coverage,
                residues=measures["residues"][None],
                lengths=_histogram(measures["length"]),
                texts={str(p): found for p in PROPERTIES if (found := _histogram(measures[p]))},
                years=_histogram(measures["year"]),
                releases={value or UNSTATED: count for value, count in measures["release"].items()},
            )
            for (section, confidence, coverage), measures in groups.items()
        ),
        num_taxa=len(organisms),
        top_taxa=tuple(TaxonCount.model_validate(row) for row in organisms.slice(0, TOP_TAXA).to_pylist()),
    )


def _histogram(counts: dict[str | None, int]) -> Histogram:
    """Counts by number, in its order, rows without a value left out."""
    return dict(sorted((int(value), count) for value, count in counts.items() if value is not None))


def combined(histograms: Iterable[Histogram]) -> Histogram:
    """Their sum, in the order of the values."""
    return dict(sorted(sum(map(Counter[int], histograms), Counter[int]()).items()))


def quantile(histogram: Histogram, share: float) -> int:
    """The value below which a share of the rows lies: the middle of its bin, at most 3 % off.

    Raises:
        ValueError: The histogram is empty.
    """
    if not histogram:
        raise ValueError("an empty histogram has no quantiles")
    values = sorted(histogram)
    reached = np.cumsum([histogram[value] for value in values])
    lowest = values[int(np.searchsorted(reached, share * reached[-1]))]
    return lowest + (bin_width(lowest) - 1) // 2
