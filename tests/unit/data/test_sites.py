from pathlib import Path

import pytest

from protclip.data.sites import Site, read_annotated, sites
from protclip.data.synthetic import write_sample
from protclip.errors import DataError

MODERN = b"""ID   A_B   Reviewed;         40 AA.
FT   SIGNAL          1..19
FT                   /evidence="ECO:0000255"
FT   MOTIF           22..25
FT                   /note="Nuclear localization
FT                   signal"
FT   BINDING         30
FT                   /ligand="ATP"
FT                   /ligand_id="ChEBI:CHEBI:30616"
FT   CHAIN           <20..>40
FT                   /id="PRO_1"
FT   TRANSIT         1..?
FT   DOMAIN          P12345:3..9
FT   DOMAIN          35..90
SQ   SEQUENCE
"""
OLD = b"""ID   A_B   STANDARD;   PRT;    40 AA.
FT   SIGNAL        1     19       Potential.
FT   TRANSIT       1      ?       Mitochondrion.
FT   METAL        30     30       Zinc
FT                                (By similarity).
FT   ACT_SITE     31     31
SQ   SEQUENCE
"""


def test_sites_reads_keys_ends_and_notes_of_both_forms():
    assert sites(MODERN, 40) == [
        Site("SIGNAL", 0, 19, ""),
        Site("MOTIF", 21, 25, "Nuclear localization signal"),
        Site("BINDING", 29, 30, "ATP"),
        Site("CHAIN", 19, 40, ""),
    ]
    assert sites(OLD, 40) == [
        Site("SIGNAL", 0, 19, "Potential"),
        Site("METAL", 29, 30, "Zinc"),
        Site("ACT_SITE", 30, 31, ""),
    ]
    assert sites(MODERN.replace(b"\n", b"\r\n"), 40) == sites(MODERN, 40)


def test_read_annotated_gives_every_made_entry_its_planted_sites(tmp_path: Path):
    written = write_sample(str(tmp_path), 30, 5, seed=0)
    entries = list(read_annotated(written["reviewed"]))
    assert len(entries) == 30
    for record, found in entries:
        assert any(site.key == "MOTIF" for site in found), record.accession
        for site in found:
            stretch = record.sequence[site.start : site.stop]
            if site.note == "Prevents secretion from ER":
                assert stretch in ("KDEL", "HDEL")
            if site.key == "SIGNAL":
                assert stretch.startswith("M")


def test_read_annotated_refuses_other_formats(tmp_path: Path):
    (tmp_path / "x.xml").write_text('<uniprot xmlns="http://uniprot.org/uniprot"></uniprot>')
    with pytest.raises(DataError, match=r"sites are read from UniProtKB flat files \(\.dat\), this is xml"):
        next(read_annotated(str(tmp_path / "x.xml")))


def test_read_annotated_reads_real_files(real_data: Path):
    for path in sorted((real_data / "uniprot" / "flat").glob("*.dat*")):
        for record, found in read_annotated(str(path)):
            for site in found:
                assert 0 <= site.start < site.stop <= len(record.sequence)
                assert "\n" not in site.note
