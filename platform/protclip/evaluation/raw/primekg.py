"""PrimeKG (Chandak et al. 2023) with the nodes and vectors of BioBridge (github.com/RyanWangZf/BioBridge).

`kg.csv`: 8 million rows, each edge twice, once in each direction. Nodes: a CSV per type. Vectors: pickled
`{"node_index": […], "embedding": […]}`.
"""

# pyright: reportAttributeAccessIssue=false

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv
from pydantic import Field, model_validator

from protclip.errors import BenchmarkError, DataError
from protclip.evaluation.prepared import SCHEMAS
from protclip.evaluation.raw import unpickle
from protclip.evaluation.raw.base import Format, Odd, RawTables
from protclip.evaluation.spec.base import DataSection, SourceFile

NodeRole = Literal["protein", "biological", "molecular", "cellular", "disease", "drug"]
VectorRole = Literal[
    "vectors_protein",
    "vectors_biological",
    "vectors_molecular",
    "vectors_cellular",
    "vectors_disease",
    "vectors_drug",
]

TYPES: dict[NodeRole, str] = {
    "protein": "gene/protein",
    "biological": "biological_process",
    "molecular": "molecular_function",
    "cellular": "cellular_component",
    "disease": "disease",
    "drug": "drug",
}
"""What PrimeKG calls the nodes of each file."""

DEFINITIONS = ("mondo_definition", "umls_description", "orphanet_definition")
"""Texts of a disease; the first one there is counts."""

_SCHEMA = SCHEMAS["transformation"]["nodes"]
_EDGE_TYPES = {"display_relation": pa.string(), "x_index": pa.int64(), "y_index": pa.int64()}
_BLOCK_BYTES = 2**24


class PrimeKgSection(DataSection):
    """PrimeKG's edges among the node types whose files are given."""

    format: Literal["primekg"]
    files: dict[Literal["kg"] | NodeRole | VectorRole, SourceFile] = Field(  # pyright: ignore
        description="kg; nodes by type; vectors_ and the type for ready vectors, which drugs need"
    )

    @model_validator(mode="after")
    def _enough_files(self) -> Self:
        for role in ("kg", "protein", *(["vectors_drug"] if "drug" in self.files else [])):
            if role not in self.files:
                raise ValueError(f"files has no {role!r}; it is needed (vectors_drug where there is drug)")
        return self


def read(section: PrimeKgSection, files: Mapping[str, Path]) -> RawTables:
    """Reads nodes, and the edges of which both ends are among them, in the order of the file.

    A node has a row per text (diseases have several); where vectors are given, it has a row per vector, and
    nodes without one take no part, as in the source (eight drugs).

    Raises:
        DataError: A file cannot be opened.
        BenchmarkError: A file is not of this form, or the files do not belong together.
    """
    tables, odd = [], list[Odd]()
    for role in get_args(NodeRole):
        if role in files:
            table, left_out = _nodes(files[role], role)
            if f"vectors_{role}" in files:
                table, without = _with_vectors(table, files[f"vectors_{role}"])
                left_out += without
            tables.append(table)
            odd += left_out
    nodes = pa.concat_tables(tables)
    edges = _edges(files["kg"], nodes["id"].cast(pa.int64()).to_numpy())
    ends = pc.unique(pa.chunked_array([*edges["head"].chunks, *edges["tail"].chunks]))  # pyright: ignore
    is_used = pc.is_in(nodes["id"], value_set=ends)
    odd += _each(nodes.filter(pc.invert(is_used)), "a node without an edge")
    return RawTables({"nodes": nodes.filter(is_used), "edges": edges}, odd=odd)


def _each(nodes: pa.Table, reason: str) -> list[Odd]:
    """The nodes of some rows, left out for one reason."""
    return [Odd(name, reason) for name in nodes["id"].unique().to_pylist()]


def _nodes(path: Path, role: NodeRole) -> tuple[pa.Table, list[Odd]]:
    """The nodes of a file, without vectors, and those that take no part."""
    name, texts = ("mondo_name", DEFINITIONS) if role == "disease" else ("node_name", ("description",))
    texts = () if role in {"protein", "drug"} else texts
    sequence = ("sequence",) if role == "protein" else ()
    types = {"node_index": pa.int64()} | dict.fromkeys((name, *texts, *sequence), pa.string())
    batches = list(_batches(path, types))
    if not batches:
        raise BenchmarkError(f"{path}: no rows; fetch it anew")
    found = pa.Table.from_batches(batches)
    columns = {
        "id": found["node_index"].cast(pa.string()),
        "type": pa.repeat(TYPES[role], len(found)),
        "name": found[name],
        "text": pc.coalesce(*(found[text] for text in texts)) if texts else None,
        "sequence": found["sequence"] if sequence else None,
    }
    nodes = pa.table(
        [pa.nulls(len(found), f.type) if columns.get(f.name) is None else columns[f.name] for f in _SCHEMA],
        schema=_SCHEMA,
    )
    if role != "protein":
        return nodes, []
    is_fine = pc.not_equal(pc.fill_null(nodes["sequence"], ""), "")
    return nodes.filter(is_fine), _each(nodes.filter(pc.invert(is_fine)), "a protein without a sequence")


def _with_vectors(nodes: pa.Table, path: Path) -> tuple[pa.Table, list[Odd]]:
    """A row for each vector of a node, and the nodes that have none."""
    index_N, vectors_NW = _vectors(path)
    distinct, first = np.unique(nodes["id"].cast(pa.int64()).to_numpy(), return_index=True)
    is_known_N = np.isin(index_N, distinct)
    rows = nodes.take(first[np.searchsorted(distinct, index_N[is_known_N])])
    kept_NW = vectors_NW[is_known_N]
    offsets = np.arange(0, kept_NW.size + 1, vectors_NW.shape[1], dtype=np.int32)
    lists = pa.ListArray.from_arrays(offsets, kept_NW.ravel())
    missing = nodes.take(first[~np.isin(distinct, index_N)])
    rows = rows.set_column(_SCHEMA.get_field_index("vector"), _SCHEMA.field("vector"), lists)
    return rows, _each(missing, "no vector in the file of vectors")


def _vectors(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Node numbers (N,) and vectors (N, W) of a pickle."""
    try:
        found = unpickle.loads(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; is it under raw?") from error
    try:
        index_N = np.asarray(found["node_index"], np.int64)  # pyright: ignore[reportIndexIssue]
        vectors_NW = np.asarray(found["embedding"], np.float32)  # pyright: ignore[reportIndexIssue]
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise BenchmarkError(
            f"{path}: not {{'node_index': numbers, 'embedding': vectors of one width}}: {error!r}"
        ) from error
    if vectors_NW.ndim != 2 or index_N.shape != vectors_NW.shape[:1] or not vectors_NW.size:
        raise BenchmarkError(f"{path}: {index_N.shape} node numbers for embeddings {vectors_NW.shape}")
    if not np.isfinite(vectors_NW).all():
        raise BenchmarkError(f"{path}: an embedding holds what is no finite number")
    return index_N, vectors_NW


def _edges(path: Path, nodes: np.ndarray) -> pa.Table:
    """Edges between nodes of these numbers."""
    is_node = np.zeros(nodes.max() + 2, bool)
    is_node[nodes] = True
    tables = []
    for batch in _batches(path, _EDGE_TYPES):
        head, tail = (batch[column].to_numpy() for column in ("x_index", "y_index"))
        # What is beyond the last node falls on the one place behind it, which is False.
        kept = is_node[np.minimum(head, len(is_node) - 1)] & is_node[np.minimum(tail, len(is_node) - 1)]
        columns = {
            "head": pa.array(head[kept]).cast(pa.string()),
            "relation": batch["display_relation"].filter(pa.array(kept)),
            "tail": pa.array(tail[kept]).cast(pa.string()),
        }
        tables.append(pa.table(columns, schema=SCHEMAS["transformation"]["edges"]))
    if not sum(map(len, tables)):
        raise BenchmarkError(
            f"{path}: no edge between the nodes of the other files; do they belong together?"
        )
    return pa.concat_tables(tables)


def _batches(path: Path, types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    """Columns of a CSV file, block by block."""
    try:
        reader = csv.open_csv(
            path,
            read_options=csv.ReadOptions(block_size=_BLOCK_BYTES),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                include_columns=list(types),
                column_types=dict(types),
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
        yield from reader
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}; is it under raw?") from error
    except (pa.ArrowInvalid, KeyError) as error:
        raise BenchmarkError(
            f"{path}: not a CSV file with the columns {', '.join(types)}: {error}; fetch it anew"
        ) from error


FORMAT = Format(PrimeKgSection, read, ("transformation",))
