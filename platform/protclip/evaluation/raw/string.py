"""Actions between proteins as STRING v11 publishes them, whole or as the SHS27K and SHS148K extracts.

A tab-separated file has a line per pair, mode of action and direction under the header `item_id_a item_id_b
mode action is_directional a_is_acting score`. Sequences are FASTA (STRING) or lines of identifier, tab and
sequence (the extracts).
"""

# pyright: reportAttributeAccessIssue=false

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from protclip.errors import BenchmarkError, DataError
from protclip.evaluation.prepared import SCHEMAS
from protclip.evaluation.raw.base import Format, RawTables
from protclip.evaluation.raw.protein_pairs import sequences_by_id, with_sequences
from protclip.evaluation.raw.text import GZIP_MAGIC, read_text
from protclip.evaluation.spec.base import DataSection

MODES = "reaction", "binding", "ptmod", "activation", "inhibition", "catalysis", "expression"
"""In the order of GNN-PPI's labels."""

BLOCK_BYTES = 2**24
_COLUMNS = "item_id_a", "item_id_b", "mode"


class StringSection(DataSection):
    """STRING; roles of files: `actions`, `sequences`."""

    format: Literal["string_actions"]


def read(section: StringSection, files: Mapping[str, Path]) -> RawTables:
    """Reads every unordered pair with all its modes, by the alphabet (GNN-PPI's reading).

    Score and direction are ignored.

    Raises:
        DataError: A file cannot be read.
        BenchmarkError: A file is not of its format.
    """
    order = [("a", "ascending"), ("b", "ascending")]
    modes = _read_actions(files["actions"]).sort_by([*order, ("mode", "ascending")])
    pairs = modes.group_by(["a", "b"], use_threads=False).aggregate([("mode", "list")]).sort_by(order)
    pairs = pairs.rename_columns(["a", "b", "labels"]).cast(SCHEMAS["ppi"]["pairs"])
    return with_sequences(pairs, _read_sequences(files["sequences"]), MODES)


def _read_actions(path: Path) -> pa.Table:
    """Distinct pairs and modes, block by block: STRING's file would fill the memory several times over."""
    try:
        with path.open("rb") as file:
            packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; is it under raw?") from error
    read = csv.ReadOptions(block_size=BLOCK_BYTES)
    parse = csv.ParseOptions(delimiter="\t", quote_char=False)
    convert = csv.ConvertOptions(include_columns=_COLUMNS, column_types=dict.fromkeys(_COLUMNS, pa.string()))
    blocks: list[pa.Table] = []
    try:
        with (
            pa.input_stream(path, compression="gzip" if packed else None) as stream,
            csv.open_csv(stream, read, parse, convert) as reader,
        ):
            for batch in reader:
                a, b = batch["item_id_a"], batch["item_id_b"]
                pair = {"a": pc.min_element_wise(a, b), "b": pc.max_element_wise(a, b), "mode": batch["mode"]}
                blocks.append(_distinct(pa.table(pair)))
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        raise BenchmarkError(
            f"{path}: damaged, or not tab-separated with columns {', '.join(_COLUMNS)} ({error}); is it "
            "STRING's protein.actions file?"
        ) from error
    return _distinct(pa.concat_tables(blocks))


def _distinct(table: pa.Table) -> pa.Table:
    """Each row once, in any order."""
    return table.group_by(table.column_names).aggregate([])


def _read_sequences(path: Path) -> dict[str, str]:
    """Sequences by identifier."""
    text = read_text(path)
    if text.startswith(">"):
        return sequences_by_id([path])
    sequences: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, tab, sequence = line.partition("\t")
        if not tab:
            raise BenchmarkError(
                f"{path}, line {number}: neither FASTA nor identifier, tab, sequence: {line[:60]!r}"
            )
        sequences.setdefault(name, sequence)
    return sequences


FORMAT = Format(StringSection, read, ("ppi",))
