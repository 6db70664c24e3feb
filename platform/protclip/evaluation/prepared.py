"""Prepared benchmarks: Parquet tables of one schema per kind, and a manifest that says what was made.

<root>/<benchmark>/{examples,…}.parquet, odd.parquet, manifest.json (last)
"""

# pyarrow makes its compute functions when it is imported, no type checker sees them.
# pyright: reportAttributeAccessIssue=false

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from protclip import storage
from protclip.config.base import Config
from protclip.data.manifest import MANIFEST_NAME, FileEntry, Manifest
from protclip.errors import DataError
from protclip.evaluation.raw.base import Odd

ROW_GROUP_ROWS = 8192
ODD = "odd"
"""Name of the table of rows left out or remarkable."""

_TEXT, _SPLIT = pa.string(), pa.string()
_LABELLED = pa.schema([("id", _TEXT), ("split", _SPLIT), ("sequence", _TEXT), ("label", _TEXT)])
_PROTEINS = pa.schema([("id", _TEXT), ("sequence", _TEXT)])

SCHEMAS: dict[str, dict[str, pa.Schema]] = {
    "classification": {"examples": _LABELLED},
    "zero_shot": {"examples": _LABELLED},
    "few_shot": {"examples": _LABELLED},
    "multilabel": {
        "examples": pa.schema(
            [
                ("id", _TEXT),
                ("split", _SPLIT),
                ("sequence", _TEXT),
                ("labels", pa.list_(_TEXT)),
                ("identity", pa.int8()),
            ]
        )
    },
    "regression": {
        "examples": pa.schema(
            [("id", _TEXT), ("split", _SPLIT), ("sequence", _TEXT), ("value", pa.float64())]
        )
    },
    "similarity": {
        "proteins": _PROTEINS,
        "pairs": pa.schema(
            [
                ("a", _TEXT),
                ("b", _TEXT),
                ("subset", _TEXT),
                ("measure", _TEXT),
                ("similarity", pa.float64()),
            ]
        ),
    },
    "ppi": {
        "proteins": _PROTEINS,
        "pairs": pa.schema([("a", _TEXT), ("b", _TEXT), ("labels", pa.list_(_TEXT))]),
    },
    "transformation": {
        "nodes": pa.schema(
            [
                ("id", _TEXT),
                ("type", _TEXT),
                ("name", _TEXT),
                ("text", _TEXT),
                ("sequence", _TEXT),
                ("vector", pa.list_(pa.float32())),
            ]
        ),
        "edges": pa.schema([("head", _TEXT), ("relation", _TEXT), ("tail", _TEXT)]),
    },
}
"""Tables and columns by kind. `split` is train, valid or test. `identity` is the lowest published cut-off,
in percent, under which a test protein's identity to training proteins lies; null where none is known.
"""


class Source(Config):
    """An official file as it was found.

    Attributes:
        path: Its name under raw.
        url: Its official address, if it has one.
        num_bytes: Its size.
        sha256: Its checksum.
        as_published: Whether size and checksums agree with the published ones; null: none is published.
    """

    path: str
    url: str | None
    num_bytes: int
    sha256: str
    as_published: bool | None


class PreparedManifest(Manifest):
    """What a prepared benchmark holds.

    Attributes:
        kind: Always "benchmark".
        benchmark: Its name.
        task: The kind of benchmark.
        settings: The data section it was made by, as plain values.
        sources: The official files.
        labels: All labels in the official order.
        counts: Examples per split, proteins, pairs and the like.
        expected: Published counts that differ from ours, by name.
        odd: Rows left out, by reason; they stand in `odd.parquet`.
        kept: Rows that take part but are remarkable, by reason; they stand there as well.
        leaked: Test sequences that also stand in train or valid, by split.
        files: The tables, path relative to the manifest.
    """

    kind: Literal["benchmark"] = "benchmark"
    benchmark: str
    task: str
    settings: dict[str, object]
    sources: tuple[Source, ...]
    labels: tuple[str, ...] = ()
    counts: dict[str, int]
    expected: dict[str, int] = Field(default={})
    odd: dict[str, int] = Field(default={})
    kept: dict[str, int] = Field(default={})
    leaked: dict[str, int] = Field(default={})
    files: tuple[FileEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A benchmark's data, ready to run.

    Attributes:
        tables: By name, with the columns of `SCHEMAS`.
        labels: All labels in the official order; empty where there are none.
        digest: sha256 of the manifest, which identifies the data.
        notes: What a reader of the results must know: odd rows, leaks, counts that differ.
    """

    tables: Mapping[str, pa.Table]
    labels: tuple[str, ...]
    digest: str
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> pa.Table:
        """The examples of a split, in stored order; no rows when there is no such split."""
        examples = self.tables["examples"]
        return examples.filter(pc.equal(examples["split"], name))


_ODD_SCHEMA = pa.schema([("id", _TEXT), ("reason", _TEXT), ("detail", _TEXT), ("kept", pa.bool_())])


def save(
    uri: str, manifest: PreparedManifest, tables: Mapping[str, pa.Table], odd: Sequence[Odd]
) -> PreparedManifest:
    """Writes a benchmark; what was there before is gone once this begins.

    Args:
        uri: Its folder.
        manifest: What is said of it, without files.
        tables: By name, with the columns of `SCHEMAS` of the manifest's task.
        odd: Rows left out or remarkable.

    Returns:
        The manifest with the files.

    Raises:
        DataError: It cannot be written.
    """
    storage.remove(storage.join(uri, MANIFEST_NAME))
    columns = [[getattr(o, name) for o in odd] for name in _ODD_SCHEMA.names]
    files = []
    for name, table in {**tables, ODD: pa.table(columns, schema=_ODD_SCHEMA)}.items():
        path = f"{name}.parquet"
        stored = storage.write_parquet(storage.join(uri, path), table, ROW_GROUP_ROWS)
        files.append(FileEntry.of(path, stored, len(table), ROW_GROUP_ROWS))
    manifest = manifest.model_copy(update={"files": tuple(files)})
    manifest.save(uri)
    return manifest


def load(data_root: str, name: str) -> Prepared:
    """Reads a benchmark; checksums and columns of its tables are verified.

    Args:
        data_root: URI of the prepared benchmarks.
        name: The benchmark.

    Raises:
        DataError: It is not prepared, or not by this version, or its files are damaged.
    """
    uri = storage.join(data_root, name)
    remedy = f"run `protclip prepare-benchmarks benchmarks={name} raw=… output={data_root} overwrite=true`"
    if not storage.exists(storage.join(uri, MANIFEST_NAME)):
        raise DataError(f"{uri}: benchmark {name} is not prepared here; {remedy}, or mend data_root")
    manifest = PreparedManifest.load(uri)
    entries = {file.path: file for file in manifest.files}
    tables = {}
    for table_name, schema in SCHEMAS.get(manifest.task, {}).items():
        entry = entries.get(f"{table_name}.parquet")
        if entry is None:
            raise DataError(f"{uri}: has no table {table_name}; {remedy}")
        tables[table_name] = _read_table(storage.join(uri, entry.path), entry, schema, remedy)
    if not tables or manifest.benchmark != name:
        raise DataError(f"{uri}: holds {manifest.benchmark}, a benchmark of kind {manifest.task}; {remedy}")
    return Prepared(tables, manifest.labels, Manifest.digest(uri), tuple(notes(manifest)))


def _read_table(uri: str, entry: FileEntry, schema: pa.Schema, remedy: str) -> pa.Table:
    """A table that is what the manifest says."""
    content = storage.read_bytes(uri)
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise DataError(f"{uri}: not the file that its manifest describes, it was changed; {remedy}")
    table = pq.read_table(pa.BufferReader(content))
    if not table.schema.equals(schema):
        raise DataError(f"{uri}: its columns are not those of this version; {remedy}")
    return table


def notes(manifest: PreparedManifest) -> Iterator[str]:
    """What a reader of results must know, in a few words each."""
    for source in manifest.sources:
        if source.as_published is False:
            yield f"{source.path} is not the published file: its size or checksum differs"
    for name, published in manifest.expected.items():
        yield f"{name}: {manifest.counts[name]:,}, published {published:,}"
    for reason, count in manifest.odd.items():
        yield f"{count:,} left out: {reason}"
    for reason, count in manifest.kept.items():
        yield f"{count:,} kept: {reason}"
