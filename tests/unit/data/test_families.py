from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from protclip.data.families import content_ids, family_ids, family_names
from protclip.data.uniprot import read_records
from protclip.records import ProteinRecord

NAMED = {
    "Belongs to the claudin family.": "claudin",
    "Belongs to the ABC transporter family. ALD subfamily. {ECO:0000305}.": "abc transporter",
    "Belongs to the protein kinase superfamily. Tyr protein kinase family. EGF receptor subfamily.": (
        "protein kinase"
    ),
    "BELONGS TO THE 14-3-3 FAMILY.": "14-3-3",
    "BELONGS TO THE ICLR FAMILY OF TRANSCRIPTIONAL REGULATORS.": "iclr",
    "In the N-terminal section; belongs to the 2-acyl-GPE acetyltransferase family. {ECO:1}. In the "
    "C-terminal section; belongs to the AMP-binding enzyme family.": "2-acyl-gpe acetyltransferase",
    "Contains 1 PDZ domain. Belongs to the MAGUK family.": "maguk",
    "Belongs to the ligand-gated ion channel (TC 1.A.9) family. Acetylcholine receptor (TC 1.A.9.1) "
    "subfamily.": "ligand-gated ion channel",
    "Belongs to the chlamydial porin (CP) (TC 1.B.2) family.": "chlamydial porin (cp)",
    "Belongs to the  ribosomal\nprotein S4e family.": "ribosomal protein s4e",
    "Belongs to the 2 kinds of snoRNP families.": "2 kinds of snornp",
}
UNNAMED = [
    "Contains 4 EF-hand calcium-binding domains.",
    "BELONGS TO THE A/B GROUP OF HNRNP, WHICH ARE BASIC. SOME FAMILY.",
    "To V.cholerae AcfD (VC_0845). {ECO:0000305}.",
    "Belongs to the globins. The family is old.",
    "",
    None,
]


@pytest.mark.parametrize(("text", "name"), NAMED.items())
def test_family_names_gives_the_widest_unit(text: str, name: str) -> None:
    assert family_names(pa.array([text], pa.large_string())).to_pylist() == [name]


@pytest.mark.parametrize("text", UNNAMED)
def test_family_names_gives_none_where_none_is_named(text: str | None) -> None:
    assert family_names(pa.array([text], pa.large_string())).to_pylist() == [None]


def test_family_ids_are_those_of_the_names_whatever_the_chunks() -> None:
    texts = [*NAMED, *UNNAMED] * 3
    chunked = pa.chunked_array([texts[:5], texts[5:20], texts[20:]], pa.large_string())
    ids, found = family_ids(chunked)
    names = [*NAMED.values(), *[None] * len(UNNAMED)] * 3
    assert ids.dtype == np.uint64
    assert found.tolist() == [name is not None for name in names]
    assert ids.tolist() == [0 if n is None else xxhash.xxh3_64_intdigest(n.encode()) for n in names]


def test_family_ids_of_nothing_and_of_nulls() -> None:
    ids, found = family_ids(pa.array([], pa.large_string()))
    assert (len(ids), len(found)) == (0, 0)
    ids, found = family_ids(pa.array([None, None], pa.large_string()))
    assert not found.any()


def test_content_ids_tell_sequences_apart() -> None:
    ids = content_ids(pa.chunked_array([["MKV", "MKV"], ["MKW"]], pa.large_string()))
    assert ids[0] == ids[1] == xxhash.xxh3_64_intdigest(b"MKV")
    assert ids[2] != ids[0]


def test_family_names_of_real_records(real_data: Path) -> None:
    files = [
        *(real_data / "uniprot" / "flat").glob("*.dat*"),
        *(real_data / "uniprot" / "xml").glob("*.xml*"),
    ]
    records = [
        r for f in files for r in read_records(str(f)) if isinstance(r, ProteinRecord) and r.similarity
    ]
    texts = [record.similarity for record in records]
    names = family_names(pa.array(texts, pa.large_string())).to_pylist()
    assert len(records) > 200
    for text, name in zip(texts, names, strict=True):
        says = text.lower()
        assert (name is None) == ("belongs to" not in says or "family" not in says), text
        assert name is None or (name in " ".join(says.split()) or "(tc " in says)
    shared = {"14-3-3", "flavodoxin", "snake three-finger toxin", "g-protein coupled receptor 1"}
    assert shared <= {name for name in names if names.count(name) > 2}
