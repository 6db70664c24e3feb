"""Pairs of proteins: the similarity files of evoKGsim, and what all readers of pairs have in common.

An evoKGsim file (github.com/liseda-lab/evoKGsim) has a line per pair and no header: both proteins as
`http://ACCESSION`, then the similarity of their annotations in biological process, cellular component and
molecular function.
"""

# pyright: reportAttributeAccessIssue=false

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from protclip.errors import BenchmarkError
from protclip.evaluation.prepared import SCHEMAS
from protclip.evaluation.raw.base import Format, Odd, RawTables
from protclip.evaluation.raw.text import read_fasta, read_text
from protclip.evaluation.spec.base import DataSection

ASPECTS = "bp", "cc", "mf"
"""Subsets in the order of the columns."""


class EvoKgSimSection(DataSection):
    """evoKGsim; roles of files: `pairs`, and `sequences` with anything behind for FASTA files."""

    format: Literal["evokgsim"]
    measure: str = Field(description="name of the file's measure of similarity")


def read(section: EvoKgSimSection, files: Mapping[str, Path]) -> RawTables:
    """Reads all pairs in all three aspects; pairs of a protein with itself are left out.

    Raises:
        DataError: A file cannot be read.
        BenchmarkError: A line is not of this form.
    """
    rows: list[tuple[str, str, str, str, float]] = []
    odd: list[Odd] = []
    for number, line in enumerate(read_text(files["pairs"]).splitlines(), 1):
        try:
            a, b, *values = line.split("\t")
            similarities = [float(value) for value in values]
            if len(similarities) != len(ASPECTS):
                raise ValueError(f"{len(values)} similarities")
        except ValueError as error:
            raise BenchmarkError(
                f"{files['pairs']}, line {number}: not two proteins and {len(ASPECTS)} similarities, "
                f"tab-separated ({error}); is it an evoKGsim file?"
            ) from error
        one, other = a.removeprefix("http://"), b.removeprefix("http://")
        if one == other:
            odd.append(Odd(one, "protein paired with itself", f"line {number}"))
        else:
            rows.extend(
                (one, other, s, section.measure, v) for s, v in zip(ASPECTS, similarities, strict=True)
            )
    schema = SCHEMAS["similarity"]["pairs"]
    columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
    pairs = pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)
    sequences = sequences_by_id(path for role, path in files.items() if role.startswith("sequences"))
    return with_sequences(pairs, sequences, odd=odd)


def sequences_by_id(paths: Iterable[Path]) -> dict[str, str]:
    """Sequences of FASTA files by accession or, in headers of another form, by first word; first one counts.

    Raises:
        DataError: A file cannot be opened.
        BenchmarkError: A file is not FASTA.
    """
    sequences: dict[str, str] = {}
    for path in paths:
        for header, sequence in read_fasta(path):
            name = (header.split() or [""])[0]
            match name.split("|"):
                case [_, accession, _]:
                    sequences.setdefault(accession, sequence)
                case _:
                    sequences.setdefault(name, sequence)
    return sequences


def with_sequences(
    pairs: pa.Table, sequences: Mapping[str, str], labels: tuple[str, ...] = (), odd: Iterable[Odd] = ()
) -> RawTables:
    """The pairs whose two proteins have a sequence, and these proteins; the other pairs are odd."""
    known = pa.array(sequences.keys(), pa.string())
    complete = pc.and_(pc.is_in(pairs["a"], value_set=known), pc.is_in(pairs["b"], value_set=known))
    kept, lost = pairs.filter(complete), pairs.filter(pc.invert(complete))
    lost_names = dict.fromkeys(zip(lost["a"].to_pylist(), lost["b"].to_pylist(), strict=True))
    names = pc.unique(pa.chunked_array([*kept["a"].chunks, *kept["b"].chunks], pa.string())).to_pylist()
    schema = SCHEMAS["ppi"]["proteins"]
    proteins = pa.table([names, [sequences[name] for name in names]], schema=schema)
    lacking = [Odd(f"{a} {b}", "pair with a protein without a sequence") for a, b in lost_names]
    return RawTables({"proteins": proteins, "pairs": kept}, labels, [*odd, *lacking])


FORMAT = Format(EvoKgSimSection, read, ("similarity",))
