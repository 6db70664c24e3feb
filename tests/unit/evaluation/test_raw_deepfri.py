import zipfile
from collections import Counter

import pytest

from made_raw import made_pdb, write_text
from protclip.errors import BenchmarkError
from protclip.evaluation.raw.deepfri import DeepfriSection, read, read_annotations, read_identity, residues_of

BRANCHES = ("molecular_function", "biological_process", "cellular_component")
GO_HEAD = [
    line
    for letter, branch in zip("MBC", BRANCHES, strict=True)
    for line in (
        f"### GO-terms ({branch})",
        f"GO:{letter}2\tGO:{letter}1",
        f"### GO-names ({branch})",
        f"second\tfirst, of {letter}",
    )
] + ["\t".join(["### PDB-chain", *(f"GO-terms ({branch})" for branch in BRANCHES)])]
GO_ROWS = ["1ABC-A\tGO:M1,GO:M2\tGO:B1\tGO:C2", "2ABC-A\t\tGO:B2", "3ABC-A\tGO:M1", "9ABC-A\t\t\tGO:C1"]
IDENTITY = ["PDB-chain,<30%,<40%,<50%,<70%,<95%", "2ABC-A,0,0,1,1,1", "3ABC-A,0,0,0,0,0"]


def section(branch=None, roles=()):
    return DeepfriSection(format="deepfri", branch=branch, files={role: {"path": role} for role in roles})


def rows(tables, *columns):
    return [tuple(row[c] for c in columns) for row in tables.tables["examples"].to_pylist()]


def made_files(tmp_path, **texts):
    files = {role: tmp_path / f"{role}.txt" for role in texts}
    for role, path in files.items():
        write_text(path, texts[role], "\r\n")
    return files


def go_files(tmp_path):
    return made_files(
        tmp_path,
        annotations=GO_HEAD + GO_ROWS,
        identity=IDENTITY,
        train=["1ABC-A", "7ABC-A"],
        test=["2ABC-A", "3ABC-A"],
        train_sequences=[">1ABC-A nrPDB", "MKT", "AYI"],
        test_sequences=[">2ABC-A nrPDB_test", "GGS", ">3ABC-A nrPDB_test", "AAA"],
    )


@pytest.mark.parametrize(
    ("branch", "labels", "found"),
    [
        ("molecular_function", ("GO:M2", "GO:M1"), {"1ABC-A": ["GO:M1", "GO:M2"], "2ABC-A": []}),
        ("biological_process", ("GO:B2", "GO:B1"), {"1ABC-A": ["GO:B1"], "2ABC-A": ["GO:B2"]}),
        ("cellular_component", ("GO:C2", "GO:C1"), {"1ABC-A": ["GO:C2"], "2ABC-A": []}),
    ],
)
def test_read_takes_one_branch_and_keeps_chains_without_its_labels(tmp_path, branch, labels, found):
    files = go_files(tmp_path)
    tables = read(section(branch, files), files)
    assert tables.labels == labels
    assert rows(tables, "id", "split", "sequence", "labels", "identity") == [
        ("2ABC-A", "test", "GGS", found["2ABC-A"], 50),
        ("1ABC-A", "train", "MKTAYI", found["1ABC-A"], None),
    ]
    assert {(odd.id, odd.reason.partition(",")[0]) for odd in tables.odd} == {
        ("7ABC-A", "no annotation"),
        ("3ABC-A", "identity to training of 95 % or more"),
        ("9ABC-A", "in no split"),
    }


def test_read_notes_chains_without_a_sequence(tmp_path):
    files = go_files(tmp_path)
    del files["train_sequences"]
    tables = read(section("molecular_function", files), files)
    assert rows(tables, "id") == [("2ABC-A",)]
    assert [odd.id for odd in tables.odd if odd.reason == "no sequence"] == ["1ABC-A"]


def test_read_takes_sequences_out_of_an_archive_of_structures(tmp_path):
    path = tmp_path / "EnzymeCommission.zip"
    text = ["### EC-numbers", "1.1.1.-\t2.7.11.1", "### PDB-chain\tEC-numbers"]
    text += ["1ABC-A\t2.7.11.1,1.1.1.-", "2ABC-A\t1.1.1.-", "3ABC-A\t1.1.1.-"]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("EnzymeCommission/nrPDB-EC_annot.tsv", "\r\n".join(text))
        archive.writestr("__MACOSX/EnzymeCommission/._nrPDB-EC_annot.tsv", b"\x00\x05\x16\x07")
        archive.writestr("EnzymeCommission/nrPDB-EC_test.csv", "\r\n".join(IDENTITY))
        archive.writestr("EnzymeCommission/enzyme_commission.pkl.gz", b"never read")
        for split, chain, sequence in (("train", "1ABC-A", "MKTAYI"), ("test", "2ABC-A", "GSX")):
            with zipfile.ZipFile(tmp_path / "inner.zip", "w") as inner:
                inner.writestr(f"{split}/{chain}_1_of_2.pdb", made_pdb(sequence))
            archive.write(tmp_path / "inner.zip", f"EnzymeCommission/{split}.zip")
        archive.writestr("EnzymeCommission/valid.zip", b"")
    with pytest.raises(BenchmarkError, match=r"valid\.zip of the archive is damaged"):
        read(section(roles=["archive"]), {"archive": path})

    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(whole, "w") as new:
        for name in old.namelist():
            if not name.endswith("valid.zip"):
                new.writestr(name, old.read(name))
    tables = read(section(roles=["archive"]), {"archive": whole})
    assert rows(tables, "id", "split", "sequence", "labels", "identity") == [
        ("1ABC-A", "train", "MKTAYI", ["2.7.11.1", "1.1.1.-"], None),
        ("2ABC-A", "test", "GSX", ["1.1.1.-"], 50),
    ]
    assert [(odd.id, odd.reason) for odd in tables.odd] == [("3ABC-A", "in no split")]


def test_residues_of_are_those_with_an_alpha_carbon_of_the_first_model():
    def atom(record, name, residue, number, insertion=" ", alternative=" "):
        return (
            f"{record:6}    1 {name}{alternative}{residue} A{number:4}{insertion}     1.000   1.000   1.000"
        )

    lines = [
        "SEQRES   1 A    9  GLY GLY GLY GLY GLY GLY GLY GLY GLY",
        atom("ATOM", " N  ", "MET", 1),
        atom("ATOM", " CA ", "MET", 1, alternative="A"),
        atom("ATOM", " CA ", "MET", 1, alternative="B"),
        atom("ATOM", " CA ", "LYS", 2),
        atom("ATOM", " CA ", "SER", 2, insertion="A"),
        atom("HETATM", " CA ", "MSE", 7),
        atom("HETATM", " CA ", "SEP", 8),
        atom("ATOM", " O  ", "TRP", 9),
        atom("HETATM", "CA  ", " CA", 10),
        atom("HETATM", " O  ", "HOH", 11),
        "ENDMDL",
        atom("ATOM", " CA ", "TRP", 3),
    ]
    assert residues_of(lines) == "MKSMX"


@pytest.mark.parametrize(
    ("lines", "branch", "message"),
    [
        (["### EC-numbers", "1.1.1.1", "### PDB-chain\tEC-numbers"], BRANCHES[0], "no '### GO-terms"),
        (GO_HEAD, None, "no '### EC-numbers' or no column of that name; it has GO-terms"),
        (["### EC-numbers", "1.1.1.1", "1ABC-A\t1.1.1.1"], None, "no column of that name"),
        (["1ABC-A\t1.1.1.1"], None, "it has no titles"),
    ],
)
def test_read_annotations_explains_what_is_wrong(tmp_path, lines, branch, message):
    write_text(tmp_path / "annot.tsv", lines)
    with pytest.raises(BenchmarkError, match=message):
        read_annotations(tmp_path / "annot.tsv", branch)


def test_read_identity_explains_what_is_wrong(tmp_path):
    write_text(tmp_path / "test.csv", ["PDB-chain,<30%", "1ABC-A,1"])
    with pytest.raises(BenchmarkError, match="no column '<40%'; it has PDB-chain, <30%"):
        read_identity(tmp_path / "test.csv")


def test_read_needs_annotations_and_knows_splits(tmp_path):
    files = made_files(tmp_path, train=["1ABC-A"])
    with pytest.raises(BenchmarkError, match="no annotation table"):
        read(section(roles=files), files)
    files = made_files(tmp_path, annotations=GO_HEAD + GO_ROWS, training=["1ABC-A"])
    with pytest.raises(BenchmarkError, match="role 'training' begins with none of train, valid, test"):
        read(section(BRANCHES[0], files), files)


def test_read_reads_the_real_ec_files(real_data):
    start = "nrPDB-EC_2020.04_"
    ends = {"annotations": "annot.tsv", "identity": "test.csv", "test_sequences": "test_sequences.fasta"}
    ends |= {split: f"{split}.txt" for split in ("train", "valid", "test")}
    files = {role: real_data / "ec" / f"{start}{end}" for role, end in ends.items()}
    labels, annotations = read_annotations(files["annotations"], None)
    assert (len(annotations), len(labels)) == (19201, 538)
    assert sum(label.endswith("-") for label in labels) == 161
    tables = read(section(roles=files), files)
    assert Counter(rows(tables, "split")) == {("test",): 1919}
    assert Counter(i for (i,) in rows(tables, "identity")) == {30: 720, 40: 183, 50: 214, 70: 359, 95: 443}
    assert all(found and set(found) <= set(labels) for (found,) in rows(tables, "labels"))
    assert Counter(odd.reason for odd in tables.odd) == {"no sequence": 15551 + 1729, "in no split": 2}
    assert {odd.id for odd in tables.odd if odd.reason == "in no split"} == {"4UDF-1A", "4UDF-1B"}


def test_read_identity_reads_the_real_go_file(real_data):
    identity = read_identity(real_data / "go" / "nrPDB-GO_2019.06.18_test.csv")
    assert len(identity) == 3416
    assert sum(bound == 30 for bound in identity.values()) == 1717
