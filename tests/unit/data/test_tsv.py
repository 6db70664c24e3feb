"""REST tables: columns by name, cells without headings, rejections."""

from datetime import date
from pathlib import Path

import pytest

from protclip.data import uniprot
from protclip.data.formats import tsv
from protclip.data.formats.common import BadRecord
from protclip.errors import DataError
from protclip.records import ProteinRecord

ROW = {
    "Entry": "P00001",
    "Entry Name": "LAMP1_TEST",
    "Reviewed": "reviewed",
    "Protein names": "Lamp keeper (LK) (EC 1.2.3.4) (Fragment) [Cleaved into: A (B); Wick] [Includes: Oil]",
    "Length": "8",
    "Function [CC]": "FUNCTION: Keeps {ECO:1}.; FUNCTION: [Small lamp]: Glows.",
    "Subcellular location [CC]": "SUBCELLULAR LOCATION: Lamp post.; SUBCELLULAR LOCATION: [Wick]: Oil.",
    "Sequence similarities": "Belongs to the lamp family.",
    "Protein existence": "Inferred from homology",
    "Sequence": "MKLVXUOZ",
    "Organism (ID)": "4242",
    "Date of last modification": "2020-02-03",
    "Gene Names": "LAMP",
}
REST_FIELDS = {
    "Entry": "accession",
    "Entry Name": "id",
    "Protein names": "protein_name",
    "Length": "length",
    "Function [CC]": "cc_function",
    "Subcellular location [CC]": "cc_subcellular_location",
    "Sequence similarities": "cc_similarity",
    "Protein existence": "protein_existence",
    "Sequence": "sequence",
    "Organism (ID)": "organism_id",
    "Date of last modification": "date_modified",
}
EXPECTED = ProteinRecord(
    accession="P00001",
    entry_name="LAMP1_TEST",
    reviewed=True,
    sequence="MKLVXUOZ",
    protein_name="Lamp keeper (LK) (EC 1.2.3.4)",
    function="Keeps {ECO:1}. [Small lamp]: Glows.",
    subcellular_location="Lamp post. [Wick]: Oil.",
    similarity="Belongs to the lamp family.",
    confidence=3,
    taxon_id=4242,
    annotation_date=date(2020, 2, 3),
)


def parse(row: dict[str, str]) -> ProteinRecord:
    return tsv.parse("\t".join(row.values()).encode() + b"\r\n", "\t".join(row).encode() + b"\r\n")


def test_parse_finds_columns_by_title_in_any_order() -> None:
    assert parse(ROW) == EXPECTED
    assert parse(dict(reversed(ROW.items()))) == EXPECTED


def test_parse_finds_columns_by_rest_field_name() -> None:
    assert parse({REST_FIELDS.get(title, title): cell for title, cell in ROW.items()}) == EXPECTED


def test_parse_leaves_absent_columns_and_empty_cells_empty() -> None:
    row = {"Sequence": "MK", "Entry": "P1", "Function [CC]": "", "Protein names": "Lamp"}
    assert parse(row) == ProteinRecord("P1", "", False, "MK", "Lamp")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Entry": " "}, "no accession"),
        ({"Protein names": ""}, "no protein name"),
        ({"Sequence": ""}, "no sequence"),
        ({"Sequence": "MKL1XUOZ"}, "letters outside the residue alphabet"),
        ({"Length": "9"}, "sequence length differs from the stated one"),
        ({"Date of last modification": "soon"}, "malformed date"),
        ({"Gene Names": "LAMP\tmore"}, "wrong number of columns"),
    ],
)
def test_parse_rejects(change: dict[str, str], reason: str) -> None:
    header = "\t".join(ROW).encode()
    with pytest.raises(BadRecord, match=reason) as caught:
        tsv.parse("\t".join((ROW | change).values()).encode(), header)
    assert caught.value.accession == (None if reason == "no accession" else "P00001")


def test_read_records_names_missing_columns_and_those_found(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    path.write_text("Entry\tLength\tProteína\nP1\t2\tx\n")
    with pytest.raises(DataError) as caught:
        list(uniprot.read_records(str(path)))
    message = str(caught.value)
    for words in (str(path), "'Protein names'", "'Sequence'", "Entry, Length, Proteína"):
        assert words in message
    assert "'Entry'" not in message


def test_read_records_reads_the_real_table_and_refuses_the_foreign_one(real_data: Path) -> None:
    items = list(uniprot.read_records(str(real_data / "uniprot" / "tsv" / "human_500_part1.tsv")))
    assert len(items) == 376
    records = [i for i in items if isinstance(i, ProteinRecord)]
    assert sum(r.function is not None for r in records) == 370
    assert not any("FUNCTION:" in (r.function or "") or "[Cleaved" in r.protein_name for r in records)
    with pytest.raises(DataError, match=r"no column 'Entry'.*Proteína"):
        list(uniprot.read_records(str(real_data / "uniprot" / "tsv" / "legionella_40.csv")))
