"""ProtAnno lines: the biotext split into properties, and back."""

import json
from pathlib import Path

import pytest

from protclip.data import uniprot
from protclip.data.biotext import biotext
from protclip.data.formats import protanno
from protclip.data.formats.common import BadRecord
from protclip.records import ProteinRecord

TEXT = (
    "PROTEIN NAME: Lamp keeper (LK). FUNCTION: Keeps the lamp lit {ECO:1}.; FUNCTION: [Wick]: Glows. "
    "SUBCELLULAR LOCATION: Lamp post; Single-pass. Note=At night. SIMILARITY: Belongs to the lamp family."
)


def parse(sequence: str, text: str) -> ProteinRecord:
    return protanno.parse(json.dumps({"seq": sequence, "text": text}).encode())


def test_parse_splits_at_the_headings() -> None:
    found = parse("MKLV", TEXT)
    assert found == ProteinRecord(
        accession=found.accession,
        entry_name="",
        reviewed=False,
        sequence="MKLV",
        protein_name="Lamp keeper (LK)",
        function="Keeps the lamp lit {ECO:1}.; FUNCTION: [Wick]: Glows.",
        subcellular_location="Lamp post; Single-pass. Note=At night.",
        similarity="Belongs to the lamp family.",
    )


def test_parse_leaves_absent_properties_none() -> None:
    found = parse("MKLV", "PROTEIN NAME: Lamp. SIMILARITY: Like a lamp.")
    assert (found.protein_name, found.function, found.subcellular_location) == ("Lamp", None, None)
    assert found.similarity == "Like a lamp."
    assert found.coverage == 2


def test_parse_makes_a_stable_accession() -> None:
    assert parse("MKLV", TEXT).accession == "PAC87A279DB912196D"
    assert len({parse(s, t).accession for s in ("MK", "MKL") for t in (TEXT, TEXT + " ")}) == 4


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"seq": "MK", "text": "PROT', "malformed JSON"),
        (b'["MK"]', "unexpected JSON structure"),
        (b'{"seq": 1, "text": "PROTEIN NAME: x."}', "unexpected JSON structure"),
        (b'{"text": "PROTEIN NAME: x."}', "no sequence"),
        (b'{"seq": "MK1", "text": "PROTEIN NAME: x."}', "letters outside the residue alphabet"),
        (b'{"seq": "MK", "text": "FUNCTION: x."}', "no protein name"),
        (b'{"seq": "MK", "text": "words"}', "no protein name"),
        (b'{"seq": "MK"}', "no protein name"),
    ],
)
def test_parse_rejects(line: bytes, reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        protanno.parse(line)


def test_real_pairs_come_back_letter_by_letter(real_data: Path) -> None:
    path = real_data / "protclip" / "aligned_data_sample.json"
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    records = [r for r in uniprot.read_records(str(path)) if isinstance(r, ProteinRecord)]
    assert len(texts) == 10
    assert [biotext(dict(r.properties()), "keep") for r in records] == texts
