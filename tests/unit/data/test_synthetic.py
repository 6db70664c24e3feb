import csv
import gzip
import io
import re
import tracemalloc
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from Bio import SwissProt
from Bio.SeqUtils import molecular_weight
from Bio.SeqUtils.CheckSum import crc64
from hypothesis import given, settings
from hypothesis import strategies as st

from protclip.data import synthetic, synthetic_flat
from protclip.data.synthetic_families import FAMILIES, PLACES
from protclip.data.synthetic_flat import Entry
from protclip.data.synthetic_members import Kin, Motif, fold, members
from protclip.errors import ConfigError
from protclip.records import Property

SECTIONS: tuple[synthetic.SectionName, ...] = ("reviewed", "unreviewed")
ACCESSION = re.compile(r"[OPQ][0-9][A-Z0-9]{3}[0-9]|[A-NR-Z][0-9]([A-Z][A-Z0-9]{2}[0-9]){1,2}")


@pytest.fixture(scope="module")
def made() -> dict[synthetic.SectionName, list[Entry]]:
    return {s: list(synthetic.records(s, 5000, 0)) for s in SECTIONS}


@pytest.fixture(scope="module")
def homologs() -> list:
    kins = [
        Kin(f, a, p) for f in FAMILIES for a in range(len(f.activities)) for p in f.places for _ in range(4)
    ]
    return list(members(np.random.default_rng(3), kins))


def parse(section: synthetic.SectionName, count: int) -> list:
    return list(SwissProt.parse(io.BytesIO(b"".join(synthetic.entries(section, count, 0)))))


@pytest.mark.parametrize("section", SECTIONS)
def test_entries_are_read_by_biopython_as_they_were_meant(section):
    parsed, meant = parse(section, 400), synthetic.records(section, 400, 0)
    for record, entry in zip(parsed, meant, strict=True):
        sequence = entry.member.sequence.decode()
        assert record.accessions == [entry.accession]
        assert record.entry_name == entry.entry_name
        assert record.data_class == ("Reviewed" if entry.reviewed else "Unreviewed")
        assert record.sequence == sequence
        assert record.sequence_length == len(sequence)
        assert record.protein_existence == entry.confidence
        assert record.taxonomy_id == [str(entry.organism.taxon_id)]
        assert entry.annotation.name in record.description
        length, weight, checksum = record.seqinfo
        assert (length, f"CRC-{checksum}") == (len(sequence), crc64(sequence))
        assert weight == pytest.approx(molecular_weight(sequence, "protein"), rel=1e-4)
        comments = dict(c.split(": ", 1) for c in record.comments if ": " in c)
        for prop, text in entry.annotation.texts().items():
            if prop != Property.PROTEIN_NAME:
                assert text.split(".")[0].split(";")[0] in comments[prop.label].replace("\n", " ")
        stated = {p.label for p in entry.annotation.texts()}
        assert all(p.label in stated or p.label not in comments for p in Property)


def test_weight_and_checksum_are_those_of_real_entries(real_data: Path):
    with (real_data / "uniprot" / "flat" / "biopython.dat").open() as file:
        for record in SwissProt.parse(file):
            sequence = record.sequence.encode()
            assert synthetic_flat.molecular_weight(sequence) == record.seqinfo[1]
            assert f"{synthetic_flat.crc64(sequence):016X}" == record.seqinfo[2]


@pytest.mark.parametrize("section", SECTIONS)
def test_entries_keep_line_widths_and_line_order(section):
    order = ["ID", "AC", "DT", "DE", "GN", "OS", "OC", "OX", "RN", "CC", "DR", "PE", "KW", "FT", "SQ"]
    for entry in synthetic.entries(section, 200, 5):
        lines = entry.decode("ascii").split("\n")
        assert lines[-2:] == ["//", ""]
        # Names are never broken, as in the real files.
        assert all(len(line) <= 80 and line == line.rstrip() for line in lines if not line.startswith("DE"))
        codes = [line[:2] for line in lines if line[:2] in order]
        assert codes == sorted(codes, key=order.index)


@pytest.mark.parametrize("section", SECTIONS)
def test_records_have_the_published_shares_of_confidence_and_coverage(made, section):
    law, entries = synthetic.SECTIONS[section], made[section]

    def assert_binomial(hits: int, trials: int, share: float) -> None:
        assert abs(hits - trials * share) <= 4 * np.sqrt(trials * share * (1 - share)) + 1e-9

    for level, share in enumerate(law.confidence, 1):
        level_entries = [e for e in entries if e.confidence == level]
        assert_binomial(len(level_entries), len(entries), share)
        for coverage, coverage_share in enumerate(law.coverage, 1):
            hits = sum(len(e.annotation.texts()) == coverage for e in level_entries)
            assert_binomial(hits, len(level_entries), coverage_share)


def test_records_get_worse_with_confidence(made):
    for confidence, share in synthetic.WRONG_SHARES.items():
        wrong = [
            e.claimed != e.member.kin
            for entries in made.values()
            for e in entries
            if e.confidence == confidence
        ]
        assert abs(sum(wrong) - len(wrong) * share) <= 4 * np.sqrt(len(wrong) * share * (1 - share))


def test_entries_follow_from_the_seed_alone():
    some = list(synthetic.entries("reviewed", 300, 7))
    assert list(synthetic.entries("reviewed", 300, 7)) == some
    assert list(synthetic.entries("reviewed", 20, 7)) == some[:20]
    assert not set(synthetic.entries("reviewed", 300, 8)) & set(some)


def test_entries_stream():
    def peak(count: int) -> int:
        tracemalloc.start()
        for _ in synthetic.entries("unreviewed", count, 0):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    next(synthetic.entries("unreviewed", 10**9, 0))
    assert peak(1536) < 1.3 * peak(512)


def test_features_point_at_what_they_say():
    seen = Counter()
    rules = {
        "SIGNAL": r"M[KR]{1,3}[LAVIF]{10,13}[STGNQ]{3,5}A[STGNQ]A",
        "TRANSIT": r"M[^DE]{20,35}",
        "TRANSMEM": r"[LIVAFGM]{19,22}",
        "Nuclear localization signal": r"PK[KR]{4}KV|KR.{10,12}[KR]{5}",
        "Prevents secretion from ER": r"[KH]DEL",
        "Microbody targeting signal": r"[SA][KR]L",
        "ACT_SITE": r"[CDEHKSTY]",
        "BINDING": r"[CDEHKSTY]",
    }
    for record in parse("reviewed", 600):
        motifs = [f.location for f in record.features if f.type == "MOTIF"]
        for feature in record.features:
            name = feature.qualifiers.get("note", "") if feature.type == "MOTIF" else feature.type
            residues = str(feature.location.extract(record.sequence))
            if name in rules:
                assert re.fullmatch(rules[name], residues), (name, residues)
                seen[name] += 1
            if feature.type in ("ACT_SITE", "BINDING"):
                assert any(m.start <= feature.location.start < m.end for m in motifs)
    assert seen.keys() == rules.keys()


def motif_of(member, number: int) -> bytes:
    note = f"{member.kin.family.name.capitalize()} motif {number}"
    (feature,) = (f for f in member.features if f.note == note)
    return member.sequence[feature.start - 1 : feature.end]


def identity(a: bytes, b: bytes) -> float:
    return sum(x == y for x, y in zip(a, b, strict=True)) / len(a)


def ancestral(kin: Kin, motif: Motif, activity: int) -> bytes:
    return fold(kin.family).ancestors[activity, motif.start : motif.start + motif.length].tobytes()


def test_members_share_motifs_and_differ_elsewhere(homologs):
    kept = defaultdict(list)
    for member in homologs:
        for number, motif in enumerate(fold(member.kin.family).motifs, 1):
            found = motif_of(member, number)
            kept[member.kin.family.name].append(
                identity(found, ancestral(member.kin, motif, member.kin.activity))
            )
    assert all(np.mean(values) > 0.9 for values in kept.values())
    by_kin = defaultdict(list)
    for member in homologs:
        by_kin[member.kin].append(member.sequence)
    assert len({m.sequence for m in homologs}) == len(homologs)
    # Cores start with the same residue numbers, so plain comparison bounds the likeness near the start.
    plain = [s for kin, s in by_kin.items() if kin.place == "Cytoplasm"]
    starts = [identity(a[:30], b[:30]) for group in plain for a, b in pairwise(group)]
    assert np.mean(starts) < 0.75


def test_members_tell_their_activity_by_the_first_motif(homologs):
    right = []
    for member in homologs:
        motif, count = fold(member.kin.family).motifs[0], len(member.kin.family.activities)
        found = motif_of(member, 1)
        likeness = [identity(found, ancestral(member.kin, motif, a)) for a in range(count)]
        right.append(int(np.argmax(likeness)) == member.kin.activity)
    assert np.mean(right) > 0.99


def test_functions_state_the_activity_of_the_first_motif(made):
    told = [
        e.claimed.family.activities[e.claimed.activity].target in " ".join(e.annotation.function)
        for e in made["reviewed"]
        if e.annotation.function
    ]
    assert np.mean(told) == 1.0


def place_by_rule(sequence: str) -> str:
    if re.search("[LIVAFGM]{18}", sequence):
        return "Cell membrane"
    if re.match("M[KR]{1,3}[LAVIF]{9}", sequence):
        return "Endoplasmic reticulum" if sequence.endswith(("KDEL", "HDEL")) else "Secreted"
    if sequence.endswith(("SKL", "ARL", "SRL", "AKL")):
        return "Peroxisome"
    if re.search("PK[KR]{4}KV|KR.{10,12}[KR]{5}", sequence):
        return "Nucleus"
    head = sequence[1:21]
    return (
        "Mitochondrion" if not set("DE") & set(head) and len(re.findall("[RSA]", head)) > 6 else "Cytoplasm"
    )


def test_locations_follow_from_the_signals_and_not_from_the_family():
    rows = list(synthetic.locations(1500, 0))
    counts = Counter(place for _, place in rows)
    assert counts.keys() == PLACES.keys()
    assert min(counts.values()) > 0.6 * len(rows) / len(PLACES)
    assert np.mean([place_by_rule(q) == place for q, place in rows]) > 0.98
    by_place = {place: [f.name for f in FAMILIES if place in f.places] for place in PLACES}
    assert all(len(families) >= 6 for families in by_place.values())
    assert max(len(f.places) for f in FAMILIES) == 3


def test_reviewed_texts_hardly_repeat(made):
    rich = [tuple(t.values()) for e in made["reviewed"] if len(t := e.annotation.texts()) >= 3]
    assert len(set(rich)) > 0.99 * len(rich)
    plain = [tuple(t.values()) for e in made["unreviewed"] if len(t := e.annotation.texts()) >= 3]
    assert np.mean([sum(map(len, t)) for t in plain]) < 0.8 * np.mean([sum(map(len, t)) for t in rich])


@settings(max_examples=200)
@given(section=st.sampled_from(SECTIONS), first=st.integers(0, 10**7), second=st.integers(0, 10**7))
def test_accession_is_one_to_one_into_the_uniprot_pattern(section, first, second):
    accession = synthetic.accession(section, first)
    assert ACCESSION.fullmatch(accession)
    assert (accession == synthetic.accession(section, second)) == (first == second)


def test_accession_is_unique_across_sections(made):
    accessions = [e.accession for entries in made.values() for e in entries]
    assert len(set(accessions)) == len(accessions)
    names = [e.entry_name for entries in made.values() for e in entries]
    assert len(set(names)) == len(names)


def test_accession_refuses_more_than_there_are():
    with pytest.raises(ConfigError, match="holds at most 13,996,800 entries"):
        synthetic.accession("reviewed", 13_996_800)


def test_write_sample_writes_the_same_bytes_for_the_same_seed(tmp_path: Path):
    first = synthetic.write_sample(str(tmp_path / "a"), 60, 40, 3)
    again = synthetic.write_sample(str(tmp_path / "b"), 60, 40, 3)
    other = synthetic.write_sample(str(tmp_path / "c"), 60, 40, 4)
    assert {n: Path(u).name for n, u in first.items()} == {
        "reviewed": "uniprot_sprot.dat.gz",
        "unreviewed": "uniprot_trembl.dat.gz",
        "made_location": "made_location.csv",
    }
    for name in first:
        data = Path(first[name]).read_bytes()
        assert data == Path(again[name]).read_bytes()
        assert data != Path(other[name]).read_bytes()
    unpacked = gzip.decompress(Path(first["unreviewed"]).read_bytes())
    assert unpacked == b"".join(synthetic.entries("unreviewed", 40, 3))


def test_write_sample_benchmark_has_fresh_members_in_three_splits(tmp_path: Path):
    written = synthetic.write_sample(str(tmp_path), 0, 600, 0)
    assert written.keys() == {"unreviewed", "made_location"}
    with Path(written["made_location"]).open() as file:
        rows = list(csv.DictReader(file))
    assert Counter(r["split"] for r in rows) == {"train": 120, "valid": 20, "test": 40}
    assert {r["label"] for r in rows} <= PLACES.keys()
    sequences = {r["sequence"] for r in rows}
    assert len(sequences) == len(rows)
    assert not sequences & {e.member.sequence.decode() for e in synthetic.records("unreviewed", 600, 0)}


def test_write_sample_refuses_negative_numbers(tmp_path: Path):
    with pytest.raises(ConfigError, match="none of the three may be negative"):
        synthetic.write_sample(str(tmp_path), -1, 5, 0)
