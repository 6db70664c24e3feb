"""Semantic similarity sets of PROBE (Unsal et al. 2022), github.com/kansil/PROBE.

The archive holds, per ontology, square matrices of Lin similarity between the 500 (200) proteins with the
most annotations, as CSV with accessions in the header and no index, and coordinates into the larger one of
pairs that are evenly spread over the similarities ("sparse").

Shape suffixes: V proteins, P pairs.
"""

import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from pyarrow import csv
from pydantic import Field

from protclip.errors import BenchmarkError
from protclip.evaluation.prepared import SCHEMAS
from protclip.evaluation.raw.archives import extract
from protclip.evaluation.raw.base import Format, Odd, RawTables
from protclip.evaluation.raw.protein_pairs import sequences_by_id, with_sequences
from protclip.evaluation.spec.base import DataSection

MEASURE = "lin"


class ProbeSection(DataSection):
    """PROBE; roles of files: `archive` (zip) and `sequences` (FASTA of the human proteins)."""

    format: Literal["probe"]
    ontology: Literal["MF", "BP", "CC"] = Field(description="whose annotations are compared")


def read(section: ProbeSection, files: Mapping[str, Path]) -> RawTables:
    """Reads the pairs above the diagonal of both matrices, and the sparse ones without the diagonal.

    Raises:
        DataError: A file cannot be read.
        BenchmarkError: The archive lacks a file of the ontology, or one is not of this form.
    """
    matrix = f"human_{section.ontology}_proteinSimilarityMatrix_for_highest_annotated_{{}}_proteins.csv"
    names = {size: matrix.format(size) for size in ("200", "500")}
    names["sparse"] = f"SparsifiedSimilarityCoordinates_{section.ontology}_for_highest_500.npy"
    with tempfile.TemporaryDirectory() as folder:
        members = extract(files["archive"], lambda n: n.endswith(tuple(names.values())), Path(folder))
        found = {path.name: path for path in members}
        missing = [name for name in names.values() if name not in found]
        if missing:
            raise BenchmarkError(f"{files['archive']}: no {missing[0]} in it; is it PROBE's archive?")
        matrices = {size: _read_matrix(found[names[size]]) for size in ("200", "500")}
        coordinates_P2 = _read_coordinates(found[names["sparse"]], len(matrices["500"][0]))
    odd = [
        Odd(matrices["500"][0][i], "sparse coordinate on the diagonal") for i, j in coordinates_P2 if i == j
    ]
    chosen = {size: np.argwhere(np.triu(np.ones_like(values), 1)) for size, (_, values) in matrices.items()}
    chosen["sparse"] = coordinates_P2[coordinates_P2[:, 0] != coordinates_P2[:, 1]]
    tables = [
        _table(*matrices["500" if subset == "sparse" else subset], subset, chosen[subset])
        for subset in ("sparse", "200", "500")
    ]
    return with_sequences(pa.concat_tables(tables), sequences_by_id([files["sequences"]]), odd=odd)


def _read_matrix(path: Path) -> tuple[list[str], np.ndarray]:
    """Accessions, and the square matrix."""
    try:
        table = csv.read_csv(path, convert_options=csv.ConvertOptions(null_values=["", "NA", "NaN"]))
        values_VV = np.column_stack([column.to_numpy().astype(np.float64) for column in table.columns])
    except (pa.ArrowInvalid, ValueError) as error:
        raise BenchmarkError(f"{path.name}: not a matrix of numbers below accessions ({error})") from error
    if values_VV.shape[0] != values_VV.shape[1]:
        raise BenchmarkError(f"{path.name}: {values_VV.shape[0]} rows, but {values_VV.shape[1]} accessions")
    return [name.strip() for name in table.column_names], values_VV


def _read_coordinates(path: Path, size: int) -> np.ndarray:
    """Rows and columns (P, 2) into the matrix."""
    try:
        coordinates_P2 = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise BenchmarkError(f"{path.name}: not an array of plain numbers ({error})") from error
    if (
        coordinates_P2.ndim != 2
        or coordinates_P2.shape[1] != 2
        or not np.issubdtype(coordinates_P2.dtype, np.integer)
        or not ((coordinates_P2 >= 0) & (coordinates_P2 < size)).all()
    ):
        raise BenchmarkError(
            f"{path.name}: {coordinates_P2.dtype} {coordinates_P2.shape} is not (row, column) into a matrix "
            f"of {size} proteins"
        )
    return coordinates_P2


def _table(names: list[str], values_VV: np.ndarray, subset: str, chosen_P2: np.ndarray) -> pa.Table:
    """Pairs of one set."""
    rows, columns = chosen_P2.T
    accessions = pa.array(names, pa.string())
    return pa.table(
        [
            accessions.take(pa.array(rows)),
            accessions.take(pa.array(columns)),
            pa.array([subset] * len(rows), pa.string()),
            pa.array([MEASURE] * len(rows), pa.string()),
            pa.array(values_VV[rows, columns]),
        ],
        schema=SCHEMAS["similarity"]["pairs"],
    )


FORMAT = Format(ProbeSection, read, ("similarity",))
