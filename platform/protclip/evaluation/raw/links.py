"""Knowledge graphs from plain tables: nodes by type from any number of files, and edges between them.

A node file is FASTA, whose identifiers are accessions, or a delimited table; an edge file is such a table.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, Self

import pyarrow as pa
from pydantic import Field, model_validator

from protclip.config.base import Config
from protclip.errors import BenchmarkError
from protclip.evaluation.prepared import SCHEMAS
from protclip.evaluation.raw.base import Format, Odd, RawTables
from protclip.evaluation.raw.text import read_columns, read_fasta
from protclip.evaluation.spec.base import DataSection

Row = dict[str, str | None]


class _Table(Config):
    """A delimited text file with a header line."""

    file: str = Field(description="its role in files")
    separator: str = Field(default="\t", min_length=1, max_length=1, description="what stands between cells")
    join: str | None = Field(
        default=None, description="what stands between several values in one cell; null: a cell is one value"
    )


class NodeTable(_Table):
    """Nodes of one type. Of a node in several tables, the first one counts."""

    type: str = Field(description="type of these nodes")
    fasta: bool = Field(default=False, description="FASTA: identifier (of UniProt's the accession), residues")
    id: str | None = Field(default=None, description="column of the identifier")
    name: str | None = Field(default=None, description="column of the name")
    text: str | None = Field(default=None, description="column of the text")
    sequence: str | None = Field(default=None, description="column of the residues")

    @model_validator(mode="after")
    def _has_an_identifier(self) -> Self:
        if self.fasta == (self.id is not None):
            raise ValueError("nodes: give either id, the column of the identifier, or fasta: true")
        return self


class EdgeTable(_Table):
    """Edges of one relation."""

    relation: str = Field(description="name of the relation")
    head: str = Field(description="column of the heads' identifiers")
    tail: str = Field(description="column of the tails' identifiers")


class LinksSection(DataSection):
    """A graph from tables."""

    format: Literal["links"]
    nodes: tuple[NodeTable, ...] = Field(min_length=1, description="where nodes are")
    edges: tuple[EdgeTable, ...] = Field(min_length=1, description="where edges are")

    @model_validator(mode="after")
    def _files_are_named(self) -> Self:
        for table in (*self.nodes, *self.edges):
            if table.file not in self.files:
                raise ValueError(f"no {table.file!r} in files; there are {', '.join(self.files)}")
        return self


def read(section: LinksSection, files: Mapping[str, Path]) -> RawTables:
    """Reads nodes and edges; left out are edges with an end that is no node, and nodes without an edge.

    Raises:
        DataError: A file cannot be opened.
        BenchmarkError: A file is not of the form that the section says.
    """
    nodes: dict[str, Row] = {}
    for table in section.nodes:
        for row in _nodes(table, files[table.file]):
            nodes.setdefault(row["id"] or "", row)
    edges: list[tuple[str, str, str]] = []
    odd: list[Odd] = []
    for table in section.edges:
        for head, tail in _edges(table, files[table.file]):
            missing = [end for end in (head, tail) if end not in nodes]
            if missing:
                odd.append(Odd(f"{head} {tail}", "an edge with an end that is in no node file", missing[0]))
            else:
                edges.append((head, table.relation, tail))
    used = {end for head, _, tail in edges for end in (head, tail)}
    schemas = SCHEMAS["transformation"]
    columns = list(zip(*edges, strict=True)) or [(), (), ()]
    return RawTables(
        {
            "nodes": pa.Table.from_pylist([nodes[name] for name in nodes if name in used], schemas["nodes"]),
            "edges": pa.table([pa.array(c, pa.string()) for c in columns], schema=schemas["edges"]),
        },
        odd=odd + [Odd(name, "a node without an edge") for name in nodes if name not in used],
    )


def _nodes(table: NodeTable, path: Path) -> Iterator[Row]:
    """The nodes of a file, as rows of the schema."""
    if table.fasta:
        for header, sequence in read_fasta(path):
            identifier = (header.split() or [""])[0]
            database, _, rest = identifier.partition("|")
            name = rest.partition("|")[0] if database in {"sp", "tr"} else identifier
            yield {"id": name, "type": table.type, "sequence": sequence}
        return
    wanted = {
        key: column
        for key in ("id", "name", "text", "sequence")
        if (column := getattr(table, key)) is not None
    }
    for cells in zip(*read_columns(path, list(wanted.values()), table.separator), strict=True):
        parts = [_split(cell, table.join) for cell in cells]
        if len({len(part) for part in parts}) > 1:
            raise BenchmarkError(
                f"{path}: {table.join!r} joins {' and '.join(str(len(part)) for part in parts)} values in "
                f"{', '.join(wanted.values())} of {cells[0]!r}; there must be as many in each"
            )
        for values in zip(*parts, strict=True):
            yield {"type": table.type, **dict(zip(wanted, (v or None for v in values), strict=True))}


def _edges(table: EdgeTable, path: Path) -> Iterator[tuple[str, str]]:
    """Heads and tails of a file."""
    for head, tails in zip(*read_columns(path, [table.head, table.tail], table.separator), strict=True):
        for tail in _split(tails, table.join):
            yield head.strip(), tail


def _split(cell: str, join: str | None) -> list[str]:
    """The values of a cell."""
    return [part.strip() for part in (cell.split(join) if join else [cell])]


FORMAT = Format(LinksSection, read, ("transformation",))
