"""Flat file entries against their own wording and against Biopython's parser."""

import gzip
import io
from datetime import date, datetime
from pathlib import Path

import pytest
from Bio import SwissProt

from protclip import tensors
from protclip.data.formats import common, flatfile
from protclip.data.formats.common import BadRecord
from protclip.records import ProteinRecord

MODERN = b"""ID   LAMP1_TEST              Reviewed;          12 AA.
AC   P00001; Q00002;
AC   Q00003;
DT   01-JAN-2001, integrated into UniProtKB/Swiss-Prot.
DT   05-FEB-2002, sequence version 2.
DT   16-JAN-2019, entry version 130.
DE   RecName: Full=Lamp keeper 1 {ECO:0000303|PubMed:1};
DE            Short=LK=1;
DE            EC=1.2.3.4 {ECO:0000269|PubMed:1, ECO:0000269|PubMed:2};
DE   AltName: Full=Night watch;
DE   AltName: CD_antigen=CD999;
DE   AltName: Allergen=Tes t 1;
DE   Contains:
DE     RecName: Full=Small lamp;
DE   Flags: Precursor;
GN   Name=LAMP;
OS   Testus testus.
OX   NCBI_TaxID=4242 {ECO:0000313|EMBL:X}, 17;
RN   [1]
RP   FUNCTION.
CC   -!- FUNCTION: Keeps the lamp lit in the long non-
CC       flickering way {ECO:0000269|PubMed:1,
CC       ECO:0000269|PubMed:2}.
CC   -!- FUNCTION: [Small lamp]: Glows - a
CC       little -
CC       by itself. {ECO:0000305}.
CC   -!- SUBUNIT: Monomer. SIMILARITY: none.
CC   -!- SUBCELLULAR LOCATION: Lamp post {ECO:0000255|HAMAP-
CC       Rule:MF_1}; Single-pass. Note=At night.
CC   -!- SIMILARITY: Belongs to the lamp family.
CC   ---------------------------------------------------------------------------
CC   Copyrighted by the Lamp Consortium
CC   Distributed under some licence
CC   ---------------------------------------------------------------------------
DR   EMBL; X; Y; -; mRNA.
**   PROSITE; PS1; X; 1;
PE   2: Evidence at transcript level;
KW   Lamp.
FT   CHAIN           1..12
**
**   #################    INTERNAL SECTION    ##################
**CL 1p1.1;
SQ   SEQUENCE   12 AA;  1200 MW;  0123456789ABCDEF CRC64;
     MKLVXUOZBW AC
//
"""

OLD = b"""ID   OLD_TEST       PRELIMINARY;      PRT;     5 AA.
AC   Q99999;
DT   01-NOV-1990 (REL. 16, CREATED)
DT   01-FEB-1991 (REL. 17, LAST ANNOTATION UPDATE)
DE   LAMP PRECURSOR (EC 1.1.1.1) (O-
DE   LIGHT) [Contains: SPARK] (FRAGMENT).
OS   TESTUS.
RN   [1]
CC   -!- SUBCELLULAR LOCATION: CYTOPLASMIC (BY SIMILARITY).
SQ   SEQUENCE   5 AA;  500 MW;  11111 CN;
     MKLVV
//
"""


def read(data: bytes) -> list[ProteinRecord | str]:
    return [o.reason if isinstance(o, BadRecord) else o for _, _, o in flatfile.records(data)]


def record(data: bytes) -> ProteinRecord:
    (only,) = read(data)
    assert isinstance(only, ProteinRecord)
    return only


def test_records_modern_entry() -> None:
    assert record(MODERN) == ProteinRecord(
        accession="P00001",
        entry_name="LAMP1_TEST",
        reviewed=True,
        sequence="MKLVXUOZBWAC",
        protein_name="Lamp keeper 1 (LK=1) (EC 1.2.3.4) (Night watch) (CD antigen CD999) (allergen Tes t 1)",
        function="Keeps the lamp lit in the long non-flickering way "
        "{ECO:0000269|PubMed:1, ECO:0000269|PubMed:2}. "
        "[Small lamp]: Glows - a little - by itself. {ECO:0000305}.",
        subcellular_location="Lamp post {ECO:0000255|HAMAP-Rule:MF_1}; Single-pass. Note=At night.",
        similarity="Belongs to the lamp family.",
        confidence=2,
        taxon_id=4242,
        annotation_date=date(2019, 1, 16),
    )


def test_records_entry_before_2008() -> None:
    assert record(OLD) == ProteinRecord(
        accession="Q99999",
        entry_name="OLD_TEST",
        reviewed=False,
        sequence="MKLVV",
        protein_name="LAMP PRECURSOR (EC 1.1.1.1) (O-LIGHT)",
        subcellular_location="CYTOPLASMIC (BY SIMILARITY).",
        annotation_date=date(1991, 2, 1),
    )


def test_records_submitted_name_and_isoform() -> None:
    text = MODERN.replace(b"RecName:", b"SubName:").replace(b"P00001;", b"P00001-2;")
    found = record(text)
    assert found.accession == "P00001-2"
    assert found.protein_name.startswith("Lamp keeper 1 (LK=1)")


def test_records_accept_crlf() -> None:
    for text in (MODERN, OLD):
        assert read(text.replace(b"\n", b"\r\n")) == read(text)


def test_records_join_comments_around_internal_lines() -> None:
    text = MODERN.replace(b"CC   -!- SUBUNIT", b"**   private\nCC   -!- SUBUNIT")
    assert read(text) == read(MODERN)


def test_records_take_lines_of_a_kind_wherever_they_stand() -> None:
    similarity = b"CC   -!- SIMILARITY: Belongs to the lamp family.\n"
    text = MODERN.replace(similarity, b"").replace(b"KW   Lamp.\n", b"KW   Lamp.\n" + similarity)
    assert read(text) == read(MODERN)


def test_records_ignore_lone_terminators_and_blank_lines() -> None:
    assert len(read(b"//\n\n" + MODERN + b"\n//\n//\n\n" + OLD + b"\n")) == 2


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"AC   P00001; Q00002;\nAC   Q00003;\n", b"", "no accession"),
        (b"AC   P00001; Q00002;", b"AC   ;", "no accession"),
        (b"Reviewed;", b"SomethingElse;", "unknown review status"),
        (b"ID   LAMP1_TEST ", b"ID   ", "not a UniProtKB record"),
        (b"ID   LAMP", b"XX   LAMP", "not a UniProtKB record"),
        (b"     MKLVXUOZBW AC\n", b"", "no sequence"),
        (b"SQ   SEQUENCE", b"XX   SEQUENCE", "no sequence"),
        (b"MKLVX", b"MKLV", "sequence length differs from the stated one"),
        (b"MKLVX", b"MKLV*", "letters outside the residue alphabet"),
        (b"MKLVX", b"MKLVJ", "letters outside the residue alphabet"),
        (b"MKLVX", b"mklvx", "letters outside the residue alphabet"),
        (b"12 AA.", b"0 AA.", "placeholder sequence"),
        (b"16-JAN-2019", b"16-FOO-2019", "malformed date"),
        (b"\n//\n", b"\n", "no terminator"),
    ],
)
def test_records_reject(old: bytes, new: bytes, reason: str) -> None:
    assert MODERN.count(old) == 1
    assert read(MODERN.replace(old, new)) == [reason]


def test_records_reject_entry_without_name() -> None:
    lines = [line for line in MODERN.splitlines(keepends=True) if not line.startswith(b"DE")]
    assert read(b"".join(lines)) == ["no protein name"]


def test_records_keep_the_entry_after_one_without_terminator() -> None:
    first = MODERN.removesuffix(b"//\n")
    spans = list(flatfile.records(first + OLD))
    assert [(start, end) for start, end, _ in spans] == [
        (0, len(first)),
        (len(first), len(first + OLD) - 1),
    ]
    assert read(first + OLD) == ["no terminator", record(OLD)]


def test_records_reject_what_stands_between_entries() -> None:
    outcomes = list(flatfile.records(OLD + b"stray text\n" + OLD))
    assert [start for start, _, _ in outcomes] == [0, len(OLD), len(OLD) + 11]
    assert read(OLD + b"stray text\n//\n" + OLD) == [record(OLD), "not a UniProtKB record", record(OLD)]


def test_residues_are_those_of_the_model() -> None:
    letters = {t for t in tensors.RESIDUE_TOKENS if len(t) == 1 and t.isalpha()}
    assert set(common.RESIDUES.decode()) == letters


def _plain(texts: list[str]) -> str:
    return "".join("".join(texts).split())


def test_records_agree_with_biopython_on_real_entries(real_data: Path) -> None:
    compared = 0
    for path in sorted((real_data / "uniprot" / "flat").glob("*.dat*")):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for start, end, ours in flatfile.records(data):
            try:
                (theirs,) = SwissProt.parse(io.StringIO(data[start:end].decode() + "\n"))
            except ValueError:
                assert isinstance(ours, ProteinRecord), "Biopython refuses 19 old entries, we read them"
                continue
            if isinstance(ours, BadRecord):
                assert theirs.data_class == "IPI", ours.reason
                continue
            compared += 1
            assert ours.accession == theirs.accessions[0]
            assert ours.entry_name == theirs.entry_name
            assert ours.reviewed == (theirs.data_class in ("Reviewed", "STANDARD"))
            assert ours.sequence == theirs.sequence
            assert ours.confidence == (theirs.protein_existence or None)
            # Biopython takes "9606 {ECO" for an identifier.
            taxa = [t.partition(" ")[0] for t in theirs.taxonomy_id]
            assert ours.taxon_id == (int(taxa[0]) if taxa else None)
            assert theirs.annotation_update is not None
            stated = datetime.strptime(theirs.annotation_update[0], "%d-%b-%Y").astimezone().date()
            assert ours.annotation_date == stated
            for prop, text in list(ours.properties())[1:]:
                heading = f"{prop.label}: "
                wanted = [c.removeprefix(heading) for c in theirs.comments if c.startswith(heading)]
                assert _plain([text or ""]) == _plain(wanted)
                assert text is None or text == " ".join(text.split())
            name = ours.protein_name.partition(" (")[0]
            assert name in " ".join(str(theirs.description).split())
    assert compared == 299
