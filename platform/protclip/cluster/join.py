"""Tables by accession, brought into the order of the strata, so that a task reads only its own keys.

A table (clusters, consistency scores) may have as many rows as UniProt has entries. One task per file cuts
it into pieces, one per piece hashes the accessions and writes a sorted run, one per range of sampling keys
merges the runs into a sorted Parquet file. Whoever joins reads the row groups that its keys touch.
"""

# pyarrow makes its compute functions when it is imported, no type checker sees them.
# pyright: reportAttributeAccessIssue=false

import io
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from isal import igzip
from isal.igzip_lib import IsalError
from pyarrow import csv

from protclip import storage
from protclip.cluster.journal import Journal, keep
from protclip.cluster.shuffle import KEY_SPACE, KeyRange, ranges_for, read_range, write_run
from protclip.cluster.tasks import Stage, run_stages
from protclip.data.families import content_ids
from protclip.data.manifest import MANIFEST_NAME, JoinedTable
from protclip.errors import ConfigError, DataError
from protclip.progress import progress

log = logging.getLogger(__name__)

PIECE_BYTES = 64 * 2**20
ROWS_PER_FILE = 2_000_000
CELLS = 256
ROW_GROUP_ROWS = 65_536
GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
CLUSTER_COLUMN = {2: 1, 22: 9}
"""Which column of a text table has the cluster, by their number; 22 are those of idmapping_selected.tab."""

Values = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Sampling keys, values, and which rows are usable."""


@dataclass(frozen=True, slots=True)
class SideTable:
    """A table in the order of the sampling keys, in the staging folder.

    Attributes:
        uri: Where it came from.
        files: Sorted Parquet files, the i-th holds the i-th of equal ranges of keys.
        rows: Accessions with a value.
        unreadable: Rows without accession or value, or of another form.
        repeated: Rows whose accession was there before; the first one counts.
    """

    uri: str
    files: tuple[str, ...]
    rows: int
    unreadable: int
    repeated: int

    @property
    def entry(self) -> JoinedTable:
        """What the manifest says of it."""
        return JoinedTable(uri=self.uri, rows=self.rows, unreadable=self.unreadable, repeated=self.repeated)

    def look_up(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values of some sampling keys, and whether there is one.

        Raises:
            DataError: The files cannot be read.
        """
        known, values = self._between(int(keys.min()), int(keys.max())) if len(keys) else ((), ())
        if not len(known):
            return np.zeros(len(keys), np.uint64), np.zeros(len(keys), bool)
        places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        return values[places], known[places] == keys

    def _between(self, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys and values of the row groups that hold keys from `low` to `high`."""
        count = len(self.files)
        pieces = [
            piece
            for uri in self.files[low * count // KEY_SPACE : high * count // KEY_SPACE + 1]
            for piece in _row_groups(uri, low, high)
        ]
        table = pa.concat_tables(pieces) if pieces else pa.table({"key": [], "value": []})
        return table["key"].to_numpy(), table["value"].to_numpy()


@dataclass(frozen=True, slots=True)
class _Piece:
    """Whole lines of a text table, or row group `number` of a Parquet file (no data, width 0)."""

    file: int
    number: int
    uri: str
    width: int = 0
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class _Indexed:
    """What a piece became."""

    file: int
    number: int
    run: str
    rows: int
    unreadable: int


@dataclass(frozen=True, slots=True)
class _Merged:
    """What a range of keys became."""

    index: int
    uri: str
    rows: int
    repeated: int


def clusters(piece: pa.Table) -> Values:
    """A table of accession and cluster; the value is the identity of the cluster's name."""
    names = [piece[name] for name in ("accession", "cluster")]
    # The parser of text gives bytes, which need not be UTF-8; a Parquet file may number its clusters.
    names = [n if pa.types.is_binary(n.type) else n.cast(pa.string()).cast(pa.binary()) for n in names]
    accessions, found = (pc.greater(pc.binary_length(n).fill_null(0), 0).to_numpy() for n in names)
    keys, values = (content_ids(n.fill_null(b"")) for n in names)
    return keys, values, accessions & found


def consistency(piece: pa.Table) -> Values:
    """An output of the embedding job; the value is the cosine of protein and text."""
    values = piece["consistency"].cast(pa.float32()).fill_null(np.nan).to_numpy()
    keys = piece["sampling_key"]
    usable = keys.is_valid().to_numpy() & (np.abs(values) <= 1 + 1e-3)
    return keys.fill_null(0).to_numpy(), np.clip(values, -1, 1), usable


TABLES: Mapping[str, tuple[tuple[str, ...], pa.DataType, Callable[[pa.Table], Values]]] = {
    "clusters": (("accession", "cluster"), pa.uint64(), clusters),
    "consistency": (("sampling_key", "consistency"), pa.float32(), consistency),
}
"""Kinds of tables: columns, type of the value, and how rows become keys and values."""


def find_files(kind: str, uri: str) -> list[str]:
    """The files of a table.

    Raises:
        ConfigError: There are none.
        DataError: It is the output of a job that did not finish.
    """
    if not storage.exists(uri):
        raise ConfigError(f"{kind}={uri}: nothing is there; check the path and its spelling")
    files = [file.uri for file in storage.list_files(uri)]
    if files == [uri]:
        return files
    if kind == "consistency" and not storage.exists(storage.join(uri, MANIFEST_NAME)):
        raise DataError(f"{uri}: no {MANIFEST_NAME} here; give the output of a finished job")
    tables = [file for file in files if file.endswith((".parquet", ".tsv", ".tab", ".gz"))]
    if not tables:
        raise ConfigError(f"{kind}={uri}: no table in this folder; give a file, or a folder of Parquet files")
    return tables


def join(kind: str, uri: str, journal: Journal) -> SideTable:
    """Brings a table into the order of the sampling keys.

    Args:
        kind: A key of `TABLES`.
        uri: A file, or a folder of files.
        journal: Of the job.

    Raises:
        ConfigError: There is no such table.
        DataError: It is damaged or of another form.
    """
    stage = f"join-{kind}"
    done = journal.done(stage, SideTable).get("table")
    if done is not None:
        return done
    folder = storage.join(journal.folder, kind)
    files = [_Piece(index, 0, file) for index, file in enumerate(find_files(kind, uri))]
    indexed: list[_Indexed] = []
    with progress(f"reading {kind}", " rows") as bar:
        index = partial(_index, kind=kind, folder=folder)
        for result in run_stages(files, Stage(partial(_read, kind=kind), num_cpus=0), Stage(index)):
            indexed.append(result)
            bar.update(result.rows)
    indexed.sort(key=lambda piece: (piece.file, piece.number))
    ranges = ranges_for(sum(piece.rows for piece in indexed), ROWS_PER_FILE)
    merge = partial(_merge, runs=[piece.run for piece in indexed if piece.run], kind=kind, folder=folder)
    merged = sorted(run_stages(ranges, Stage(merge)), key=lambda part: part.index)
    table = SideTable(
        uri=uri,
        files=tuple(part.uri for part in merged),
        rows=sum(part.rows for part in merged),
        unreadable=sum(piece.unreadable for piece in indexed),
        repeated=sum(part.repeated for part in merged),
    )
    log.info(
        "%s: %s accessions, %s unreadable rows, %s repeated accessions (the first one counts)",
        *(uri, f"{table.rows:,}", f"{table.unreadable:,}", f"{table.repeated:,}"),
    )
    if not table.rows:
        raise DataError(
            f"{uri}: no row of it gives {' and '.join(TABLES[kind][0])}; is this the right table?"
        )
    return keep(journal.folder, stage, "table", table)


def _read(file: _Piece, *, kind: str) -> Iterator[_Piece]:
    """Task: the pieces of a file, one by one."""
    with storage.open_input(file.uri) as source:
        magic = source.read(len(PARQUET))
        source.seek(0)
        if magic == PARQUET:
            yield from _read_parquet(file, TABLES[kind][0])
        elif kind != "clusters":
            raise DataError(f"{file.uri}: not a Parquet file; {kind} are read from Parquet")
        else:
            compressed = magic.startswith(GZIP)
            yield from _read_lines(file, igzip.IGzipFile(fileobj=source) if compressed else source)


def _read_parquet(file: _Piece, columns: Sequence[str]) -> Iterator[_Piece]:
    """The row groups of a Parquet file."""
    with storage.parquet_file(file.uri) as opened:
        missing = [name for name in columns if name not in opened.schema_arrow.names]
        if missing:
            found = ", ".join(opened.schema_arrow.names)
            raise DataError(f"{file.uri}: no column {missing[0]!r}; it has {found}")
        count = opened.num_row_groups
    yield from (_Piece(file.file, number, file.uri) for number in range(count))


def _read_lines(file: _Piece, source: io.BufferedIOBase | pa.NativeFile) -> Iterator[_Piece]:
    """Stretches of whole lines of a text file."""
    number = width = 0
    rest = b""
    try:
        while data := source.read(PIECE_BYTES):
            lines, _, rest = (rest + data).rpartition(b"\n")
            if not lines.strip():
                continue
            width = width or _width(file.uri, lines)
            yield _Piece(file.file, number, file.uri, width, lines)
            number += 1
        if rest:
            yield _Piece(file.file, number, file.uri, width or _width(file.uri, rest), rest)
    except (OSError, EOFError, IsalError) as error:  # pyright: ignore[reportGeneralTypeIssues]
        raise DataError(f"{file.uri}: damaged or cut off: {error}; fetch it again") from error


def _width(uri: str, lines: bytes) -> int:
    """Columns of the first line."""
    width = lines.partition(b"\n")[0].count(b"\t") + 1
    if width not in CLUSTER_COLUMN:
        raise DataError(
            f"{uri}: its first line has {width} columns; a table of clusters has two, separated by a tab, or "
            "is UniProt's idmapping_selected.tab with 22"
        )
    return width


def _index(piece: _Piece, *, kind: str, folder: str) -> Iterable[_Indexed]:
    """Task: one piece becomes a sorted run."""
    columns, value_type, read = TABLES[kind]
    refused = 0
    if piece.width:
        table, refused = _parse(piece)
    else:
        with storage.parquet_file(piece.uri) as opened:
            table = opened.read_row_group(piece.number, columns=list(columns))
    keys, values, usable = read(table)
    rows = int(usable.sum())
    run = storage.join(folder, f"{piece.file:06d}-{piece.number:06d}.arrow") if rows else ""
    if run:
        found = pa.table({"key": keys[usable], "value": pa.array(values[usable], value_type)})
        write_run(run, found, "key", CELLS)
    yield _Indexed(piece.file, piece.number, run, rows, refused + len(usable) - rows)


def _parse(piece: _Piece) -> tuple[pa.Table, int]:
    """Accession and cluster of lines, and how many lines are of another form."""
    refused: list[int] = []

    def skip(row: csv.InvalidRow) -> str:
        refused.append(row.actual_columns)
        return "skip"

    names = [str(number) for number in range(piece.width)]
    wanted = ["0", str(CLUSTER_COLUMN[piece.width])]
    table = csv.read_csv(
        io.BytesIO(piece.data),
        csv.ReadOptions(column_names=names, use_threads=False, block_size=2 * PIECE_BYTES),
        csv.ParseOptions(delimiter="\t", quote_char=False, invalid_row_handler=skip),
        csv.ConvertOptions(include_columns=wanted, column_types=dict.fromkeys(wanted, pa.binary())),
    )
    return table.rename_columns(["accession", "cluster"]), len(refused)


def _merge(keys: KeyRange, *, runs: Sequence[str], kind: str, folder: str) -> Iterable[_Merged]:
    """Task: one range of keys becomes a sorted file, the first value of each key."""
    schema = pa.schema([("key", pa.uint64()), ("value", TABLES[kind][1])])
    rows = read_range(runs, keys, "key", schema)
    found, first = np.unique(rows["key"].to_numpy(), return_index=True)
    uri = storage.join(folder, f"sorted-{keys.index:06d}.parquet")
    storage.write_parquet(uri, rows.take(pa.array(first)), ROW_GROUP_ROWS)
    yield _Merged(keys.index, uri, len(found), len(rows) - len(found))


def _row_groups(uri: str, low: int, high: int) -> Iterator[pa.Table]:
    """The row groups of a sorted file that hold keys from `low` to `high`."""
    with storage.parquet_file(uri) as file:
        for number in range(file.num_row_groups):
            found = file.metadata.row_group(number).column(0).statistics
            if found.min <= high and found.max >= low:
                yield file.read_row_group(number)
