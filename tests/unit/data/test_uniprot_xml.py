"""XML entries: names, composed texts, sequences, rejections."""

import re
from datetime import date
from pathlib import Path

import pytest

from protclip.data.formats import uniprot_xml
from protclip.data.formats.common import BadRecord
from protclip.records import ProteinRecord

ENTRY = """<entry dataset="Swiss-Prot" created="2001-01-01" modified="2020-02-03" version="7">
<accession>P00001</accession>
<accession>Q00002</accession>
<name>LAMP1_TEST</name>
<protein>
 <recommendedName><fullName evidence="1">Lamp keeper &amp; co</fullName><shortName>LK</shortName>
  <ecNumber>1.2.3.4</ecNumber></recommendedName>
 <alternativeName><fullName>Night watch</fullName></alternativeName>
 <cdAntigenName>CD999</cdAntigenName>
 <component><recommendedName><fullName>Small lamp</fullName></recommendedName></component>
</protein>
<gene><name type="primary">LAMP</name></gene>
<organism><name type="scientific">Testus</name><dbReference type="NCBI Taxonomy" id="4242"/></organism>
<comment type="function"><text evidence="1 3">Keeps the lamp lit.</text><text>Also sings</text></comment>
<comment type="function"><molecule>Small lamp</molecule><text status="by similarity">Glows.</text></comment>
<comment type="function"><text evidence="2"/></comment>
<comment type="subcellular location">
 <molecule>Isoform 2</molecule>
 <subcellularLocation><location evidence="2">Cytoplasm</location><location evidence="2">P-body</location>
 </subcellularLocation>
 <subcellularLocation><location status="potential">Cell projection</location>
  <location status="potential">Filopodium membrane</location>
  <topology evidence="1">Lipid-anchor</topology><topology evidence="1">GPI-anchor</topology>
  <orientation evidence="3">Cytoplasmic side</orientation></subcellularLocation>
 <text evidence="3">At night.</text>
</comment>
<comment type="similarity"><text evidence="2">Belongs to the lamp family.</text></comment>
<proteinExistence type="evidence at transcript level"/>
<feature type="sequence conflict"><location><position position="3"/></location></feature>
<evidence key="1" type="ECO:0000269"><source><dbReference type="PubMed" id="11"/></source></evidence>
<evidence key="2" type="ECO:0000305"/>
<evidence key="3" type="ECO:0000303"><source ref="2"/></evidence>
<comment type="sequence caution"><conflict type="frameshift">
 <sequence resource="EMBL-CDS" id="X" version="1"/></conflict></comment>
<sequence length="12" mass="1200" checksum="0" modified="1999-01-01" version="1">
MKLVXU
OZBWAC
</sequence>
</entry>"""

NAMESPACE = 'xmlns="http://uniprot.org/uniprot"'
EXPECTED = ProteinRecord(
    accession="P00001",
    entry_name="LAMP1_TEST",
    reviewed=True,
    sequence="MKLVXUOZBWAC",
    protein_name="Lamp keeper & co (LK) (EC 1.2.3.4) (Night watch) (CD antigen CD999)",
    function="Keeps the lamp lit. {ECO:0000269|PubMed:11, ECO:0000303|Ref.2}. Also sings. "
    "[Small lamp]: Glows (By similarity).",
    subcellular_location="[Isoform 2]: Cytoplasm, P-body {ECO:0000305}. "
    "Cell projection, filopodium membrane (Potential); Lipid-anchor, GPI-anchor {ECO:0000269|PubMed:11}; "
    "Cytoplasmic side {ECO:0000303|Ref.2}. Note=At night. {ECO:0000303|Ref.2}.",
    similarity="Belongs to the lamp family. {ECO:0000305}.",
    confidence=2,
    taxon_id=4242,
    annotation_date=date(2020, 2, 3),
)


def read(text: str) -> list[ProteinRecord | str]:
    outcomes = uniprot_xml.SOURCE.records(text.encode(), b"utf-8")
    return [o.reason if isinstance(o, BadRecord) else o for _, _, o in outcomes]


def test_parse_composes_the_flat_files_words() -> None:
    assert uniprot_xml.parse(ENTRY.encode()) == EXPECTED


def test_parse_accepts_a_namespace_on_the_entry() -> None:
    assert uniprot_xml.parse(ENTRY.replace("<entry ", f"<entry {NAMESPACE} ").encode()) == EXPECTED


def test_parse_reads_the_declared_encoding() -> None:
    header, start = uniprot_xml.SOURCE.start(b'<?xml version="1.0" encoding="ISO-8859-1"?><uniprot><entry ')
    assert (header, start) == (b"ISO-8859-1", 52)
    text = ENTRY.replace("Night watch", "N\u00e4chtlich").encode("latin-1")
    assert "(N\u00e4chtlich)" in uniprot_xml.parse(text, header).protein_name


def test_parse_reads_submitted_names_and_ec_numbers_of_old_files() -> None:
    text = ENTRY.replace("recommendedName>", "submittedName>").replace("<ecNumber>1.2.3.4</ecNumber>", "")
    text = text.replace("<submittedName>", '<submittedName ref="9">', 1)
    text = text.replace("<evidence", '<dbReference type="EC" id="5.6.7.8" key="9"/><evidence', 1)
    name = uniprot_xml.parse(text.encode()).protein_name
    assert name == "Lamp keeper & co (LK) (EC 5.6.7.8) (Night watch) (CD antigen CD999)"


def test_records_finds_entries_in_a_row() -> None:
    assert read(f"{ENTRY}\n<!-- aside -->{ENTRY}") == [EXPECTED, EXPECTED]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('length="12"', 'length="0"', "placeholder sequence"),
        ('length="12"', 'length="13"', "sequence length differs from the stated one"),
        ("OZBWAC", "OZBWA*", "letters outside the residue alphabet"),
        ("MKLVXU\nOZBWAC", "", "no sequence"),
        ('<sequence length="12"', '<nothing length="12"', "malformed XML"),
        ("<accession>P00001</accession>\n<accession>Q00002</accession>", "", "no accession"),
        ("2020-02-03", "yesterday", "malformed date"),
        ("<protein>", "<protein", "malformed XML"),
        ("<entry ", "<!DOCTYPE x><entr ", "malformed XML"),
    ],
)
def test_records_reject(old: str, new: str, reason: str) -> None:
    assert ENTRY.count(old) == 1
    assert read(ENTRY.replace(old, new)) == [reason]


def test_parse_rejects_entry_without_name() -> None:
    text = re.sub(r"<protein>.*</protein>", "", ENTRY, flags=re.DOTALL)
    assert read(text) == ["no protein name"]


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        (b"\n<copyright>x</copyright>\n</uniprot>\n", ""),
        (b"\n</uniprot>", ""),
        (b"\n", "no terminator"),
        (b"<entry dataset", "no terminator"),
        (b"\x00\x01garbage", "not a UniProtKB record"),
    ],
)
def test_leftover_names_an_improper_end(rest: bytes, reason: str) -> None:
    assert uniprot_xml.SOURCE.leftover is not None
    assert uniprot_xml.SOURCE.leftover(rest, b"") == reason


def test_locations_are_cased_as_in_uniprots_list(real_data: Path) -> None:
    """Each path of `subcell.txt`, rebuilt from the single names as XML gives them, is that path."""
    terms = (real_data / "uniprot" / "vocab" / "subcell.txt").read_text().split("\n//\n")
    paths = [m[1] for t in terms if (m := re.search(r"^SL   (.*)\.$", t, re.MULTILINE))]
    # One term repeats a name on two levels and has a capital on both.
    paths.remove("Target cell, Membrane, Target membrane")
    assert len(paths) > 500
    for path in paths:
        parts = [f"<location>{part[0].upper()}{part[1:]}</location>" for part in path.split(", ")]
        if path.split(", ")[-1].startswith("trans-") or path.startswith(("cis-", "trans-")):
            parts = [f"<location>{part}</location>" for part in path.split(", ")]
        places = f"<subcellularLocation>{''.join(parts)}</subcellularLocation>"
        text = re.sub(r"<subcellularLocation>.*</subcellularLocation>", places, ENTRY, flags=re.DOTALL)
        location = uniprot_xml.parse(text.encode()).subcellular_location
        assert location is not None
        assert location.startswith(f"[Isoform 2]: {path}. ")
