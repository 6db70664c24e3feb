"""Made knowledge graphs in the official forms: PrimeKG with BioBridge's nodes and vectors, and plain tables.

Nodes have a group, which shows in sequences, texts and vectors; edges are within a group.
"""

import csv
import gzip
import io
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from protclip.evaluation.raw.links import LinksSection, NodeTable
from protclip.evaluation.raw.primekg import TYPES, PrimeKgSection

GROUPS = 6
SIZE = 60
WORDS = ("kinase", "membrane", "transport", "nucleus", "lipid", "zinc")
LETTERS = "ACDEFG"
RELATIONS = {
    ("protein", "protein"): ("ppi",),
    ("protein", "biological"): ("interacts with",),
    ("protein", "molecular"): ("interacts with",),
    ("protein", "cellular"): ("interacts with",),
    ("protein", "drug"): ("target", "enzyme", "transporter", "carrier"),
    ("disease", "protein"): ("associated with",),
}
WITHOUT_VECTOR = 3
"""The number among the drugs of the one that has no vector."""
START = {role: 1000 * (place + 1) for place, role in enumerate(TYPES)}
"""First node number of each type."""
COLUMNS = {
    "protein": ("node_index", "node_id", "node_name", "node_type", "node_source", "sequence"),
    "drug": ("node_index", "node_id", "node_name", "node_type", "node_source", "drugbank_id", "smiles"),
    "disease": (
        *("node_index", "mondo_id", "mondo_name"),
        *("mondo_definition", "umls_description", "orphanet_definition"),
    ),
}
KG = (
    "relation",
    "display_relation",
    *(f"{side}_{what}" for side in "xy" for what in ("index", "id", "type", "name", "source")),
)


def made_sequence(group: int, rng: np.random.Generator) -> str:
    """Random residues, every other one that of the group."""
    return "".join(LETTERS[group] + letter for letter in rng.choice(list("HIKLMNPQRSTVWY"), 15))


def write_csv(path: Path, rows: Sequence[Sequence[object]], separator: str = ",") -> None:
    """Writes rows, gzipped where the name says so."""
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\n").writerows(rows)
    path.write_bytes(
        gzip.compress(text.getvalue().encode()) if path.suffix == ".gz" else text.getvalue().encode()
    )


def write_primekg(section: PrimeKgSection, paths: Mapping[str, Path], rng: np.random.Generator) -> None:
    """Writes the files of a PrimeKG benchmark."""
    center_GW = rng.normal(size=(GROUPS, 12))
    for role in TYPES:
        if role not in paths:
            continue
        columns = COLUMNS.get(role, (*COLUMNS["protein"][:5], "description"))
        write_csv(paths[role], [columns, *(row for i in range(SIZE) for row in _node_rows(role, i, rng))])
        if f"vectors_{role}" in paths:
            numbers = [i for i in range(SIZE) if role != "drug" or i != WITHOUT_VECTOR]
            vectors_NW = center_GW[[i % GROUPS for i in numbers]] + 0.1 * rng.normal(size=(len(numbers), 12))
            vectors = {
                "node_index": [START[role] + i for i in numbers],
                "embedding": vectors_NW.astype(np.float32),
            }
            paths[f"vectors_{role}"].write_bytes(pickle.dumps(vectors))
    rows: list[Sequence[object]] = []
    for (one, other), relations in RELATIONS.items():
        for relation in relations:
            for i in range(SIZE):
                for j in _tails(i, rng):
                    rows += _both_ways(relation, _end(one, i), _end(other, j))
    rows += _both_ways("expression present", _end("protein", 0), [5, "UBERON:1", "anatomy", "lung", "UBERON"])
    write_csv(paths["kg"], [KG, *rows])


def _tails(i: int, rng: np.random.Generator) -> list[int]:
    """Two nodes of the group of node i; every node is one of them for some i."""
    following = (i + GROUPS) % SIZE
    others = [j for j in range(i % GROUPS, SIZE, GROUPS) if j != following]
    return [following, int(rng.choice(others))]


def _both_ways(relation: str, one: list[object], other: list[object]) -> list[list[object]]:
    """An edge in both directions."""
    return [["made", relation, *one, *other], ["made", relation, *other, *one]]


def _end(role: str, i: int) -> list[object]:
    """Number, id, type, name and source of a node."""
    return [START[role] + i, f"{role}:{i}", TYPES[role], f"{role} {i}", "made"]  # pyright: ignore


def _node_rows(role: str, i: int, rng: np.random.Generator) -> list[list[object]]:
    """The rows of a node; every third disease has two, every other one no text from MONDO."""
    number, name, kind, called, source = _end(role, i)
    text = f'Of "{WORDS[i % GROUPS]}", and\nmore'
    if role == "disease":
        row = [number, name, called, "" if i % 2 else text, f"umls {text}", f"orphanet {text}"]
        return [row, [number, name, f"{called} again", text, "", ""]] if i % 3 == 0 else [row]
    last = {"protein": [made_sequence(i % GROUPS, rng)], "drug": [f"DB{i:05}", "CCO"]}.get(role, [text])
    return [[number, name, called, kind, source, *last]]


def write_links(section: LinksSection, paths: Mapping[str, Path], rng: np.random.Generator) -> None:
    """Writes tables of two types; the first one named holds the heads of all edges."""
    head, tail = dict.fromkeys(table.type for table in section.nodes)
    for role, path in paths.items():
        tables = [table for table in section.nodes if table.file == role]
        edges = next((table for table in section.edges if table.file == role), None)
        if edges is not None:
            columns = {edges.head: ("id", head), edges.tail: ("id", tail)}
            for table in tables:
                columns |= _columns(table)
            rows = [list(columns)]
            for i in range(SIZE):
                tails = _tails(i, rng)
                for each in [tails] if edges.join else [[j] for j in tails]:
                    rows.append(
                        [
                            (edges.join or "").join(
                                _cell(*columns[c], j) for j in ([i] if columns[c][1] == head else each)
                            )
                            for c in columns
                        ]
                    )
            write_csv(path, rows, edges.separator)
        elif tables[0].fasta:
            lines = [
                f">sp|{_cell('id', tables[0].type, i)}|X made\n{_cell('sequence', '', i)}\n"
                for i in range(SIZE)
            ]
            text = "".join(lines).encode()
            path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
        else:
            columns = _columns(tables[0])
            rows = [[_cell(what, kind, i) for what, kind in columns.values()] for i in range(SIZE)]
            write_csv(path, [list(columns), *rows], tables[0].separator)


def _columns(table: NodeTable) -> dict[str, tuple[str, str]]:
    """What each column of a node table says of which type."""
    keys = ("id", "name", "text", "sequence")
    return {getattr(table, key): (key, table.type) for key in keys if getattr(table, key)}


def _cell(what: str, kind: str, i: int) -> str:
    """A cell of node i of a type."""
    values: dict[str, Any] = {
        "id": f"{kind}{i}",
        "name": f"{WORDS[i % GROUPS]} {i}",
        "text": f"Of {WORDS[i % GROUPS]}.",
        "sequence": made_sequence(i % GROUPS, np.random.default_rng(i)),
    }
    return values[what]
