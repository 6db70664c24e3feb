"""Strata made for tests, and what was sampled from them."""

from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from protclip.cluster.tasks import Stage
from protclip.config.data import SampleConfig
from protclip.data.manifest import PairsManifest, StrataManifest
from protclip.data.strata import Origin, tables, totals, write_parts
from protclip.records import PAIRS_SCHEMA, ProteinRecord


def made_records(count: int) -> list[ProteinRecord]:
    """Entries of all strata, some without a date, some with the sequence of another; 47 families."""
    rng = np.random.default_rng(count)
    texts = [f"Text {i} {{ECO:0000269|PubMed:{i}}}." for i in range(50)]
    made: list[ProteinRecord] = []
    for i in range(count):
        coverage = int(rng.integers(1, 5))
        residues = "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), int(rng.integers(20, 60))))
        family = int(47 * rng.random() ** 3)
        made.append(
            ProteinRecord(
                accession=f"A{i:06d}",
                entry_name="A_B",
                reviewed=bool(rng.random() < 0.05),
                sequence=made[int(rng.integers(i))].sequence if i % 9 == 8 else residues,
                protein_name=f"Protein {i}",
                function=texts[i % 50] if coverage > 1 else None,
                subcellular_location=texts[i % 49] if coverage > 3 else None,
                similarity=f"Belongs to the F{family} family. {{ECO:{i}}}." if coverage > 2 else None,
                confidence=int(rng.integers(1, 6)),
                annotation_date=date(2010 + i % 15, 1 + i % 12, 1 + i % 28) if i % 11 else None,
            )
        )
    return made


def write_strata(output: Path, num_parts: int, records: list[ProteinRecord]) -> str:
    """Strata in so many ranges of sampling keys; gives their URI."""
    table, _ = tables(list(enumerate(records)), Origin(0, "made"), None, None)
    order = np.argsort(table["sampling_key"].to_numpy())
    written = [
        pair
        for part, rows in enumerate(np.array_split(order, num_parts))
        for pair in write_parts(table, rows, str(output), part)
    ]
    StrataManifest(
        release=None,
        inputs=("made",),
        strata=totals(count for _, count in written),
        files=tuple(sorted((file for file, _ in written), key=lambda f: f.path)),
        rejected={},
        missing_confidence=0,
    ).save(str(output))
    return str(output)


def config(source: str, output: Path, **values: object) -> SampleConfig:
    """A configuration without tracking."""
    settings = {"tracking": {"enabled": False}, **values}
    return SampleConfig.model_validate({"source": source, "output": str(output), **settings})


def shards(output: Path) -> dict[str, bytes]:
    """Content of every shard."""
    return {str(path.relative_to(output)): path.read_bytes() for path in output.glob("*/shard-*")}


def pairs(output: Path, split: str) -> pa.Table:
    """The pairs of a split, or of a further sample by the name of its folder."""
    manifest = PairsManifest.load(str(output))
    files = manifest.all_splits[split].files
    tables_ = [pq.read_table(output / file.path) for file in files]
    return pa.concat_tables([PAIRS_SCHEMA.empty_table(), *tables_])


def accessions(output: Path) -> set[str]:
    """Those of all splits."""
    return {a for split in ("train", "valid", "test") for a in pairs(output, split)["accession"].to_pylist()}


def serially(items: Iterable, *stages: Stage) -> Iterator:
    """Stands for `run_stages`, in this process."""
    for stage in stages:
        items = [result for item in items for result in stage.run(item)]
    return iter(items)
