import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_graphs import write_evokgsim, write_probe
from protclip.errors import BenchmarkError
from protclip.evaluation.prepare import prepare_one
from protclip.evaluation.raw import probe, protein_pairs
from protclip.evaluation.raw.probe import ProbeSection
from protclip.evaluation.raw.protein_pairs import EvoKgSimSection, sequences_by_id

SECTION = ProbeSection(format="probe", ontology="MF", files={})
EVOKGSIM = EvoKgSimSection(format="evokgsim", measure="resnik", files={})
MATRIX = "data/human_MF_proteinSimilarityMatrix_for_highest_annotated_{}_proteins.csv"
SPARSE = "data/SparsifiedSimilarityCoordinates_MF_for_highest_500.npy"


def write(folder, coordinates=((0, 1), (2, 2), (2, 0)), allow_pickle=False, **members):
    """An archive of a 3 × 3 and a 2 × 2 matrix, with other contents where given."""
    array = io.BytesIO()
    np.save(array, np.array(coordinates, object if allow_pickle else None), allow_pickle=allow_pickle)
    contents = {
        MATRIX.format(500): "P1,P2,P3\n1,0.2,0.3\n0.2,1,0.4\n0.3,0.4,1\n",
        MATRIX.format(200): "P1,P3\n1,0.3\n0.3,1\n",
        SPARSE: array.getvalue(),
    } | {MATRIX.format(size.removeprefix("m")): text for size, text in members.items()}
    files = {"archive": folder / "probe.zip", "sequences": folder / "human.fasta"}
    with zipfile.ZipFile(files["archive"], "w") as archive:
        for name, content in contents.items():
            if content is not None:
                archive.writestr(name, content)
    files["sequences"].write_text(">sp|P1|A_HUMAN\nMKV\n>tr|P2|B_HUMAN\nMKL\n>P3 other\nMKA\n")
    return files


def rows(raw):
    return [tuple(row.values()) for row in raw.tables["pairs"].to_pylist()]


def test_read_takes_pairs_above_the_diagonal_and_the_sparse_ones(tmp_path):
    raw = probe.read(SECTION, write(tmp_path))
    assert rows(raw) == [
        ("P1", "P2", "sparse", "lin", 0.2),
        ("P3", "P1", "sparse", "lin", 0.3),
        ("P1", "P3", "200", "lin", 0.3),
        ("P1", "P2", "500", "lin", 0.2),
        ("P1", "P3", "500", "lin", 0.3),
        ("P2", "P3", "500", "lin", 0.4),
    ]
    assert sorted(raw.tables["proteins"]["id"].to_pylist()) == ["P1", "P2", "P3"]
    assert [(odd.id, odd.reason) for odd in raw.odd] == [("P3", "sparse coordinate on the diagonal")]


def test_similarities_that_are_none_and_proteins_without_a_sequence_are_odd(tmp_path):
    files = write(tmp_path, m500="P1,P2,P4\n1,NA,0.3\nNA,1,0.4\n0.3,0.4,1\n")
    content = prepare_one("made", "similarity", SECTION, files)
    assert content.counts == {"proteins": 3, "pairs": 1, "pairs/200/lin": 1}
    assert [odd.reason for odd in content.odd].count("similarity is no finite number") == 2
    assert {odd.id for odd in content.odd if odd.reason.startswith("pair with")} == {
        "P1 P4",
        "P2 P4",
        "P4 P1",
    }


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"m200": None}, "no human_MF.*200_proteins.csv in it"),
        ({"m500": "P1,P2\n1,0.2\n"}, "1 rows, but 2 accessions"),
        ({"m500": "P1,P2\n1,yes\n0.2,1\n"}, "not a matrix of numbers"),
        ({"m500": "P1,P2\n1\n"}, "not a matrix of numbers"),
        ({"coordinates": ((0, 3),)}, r"not \(row, column\) into a matrix of 3 proteins"),
        ({"coordinates": ((-1, 1),)}, "not .row, column. into"),
        ({"coordinates": ((0.5, 1.0),)}, "not .row, column. into"),
        ({"coordinates": (0, 1)}, "not .row, column. into"),
        ({"allow_pickle": True}, "not an array of plain numbers"),
    ],
)
def test_read_refuses_another_archive(tmp_path, keys, message):
    with pytest.raises(BenchmarkError, match=message):
        probe.read(SECTION, write(tmp_path, **keys))


def test_read_refuses_what_is_no_archive(tmp_path):
    files = write(tmp_path)
    files["archive"].write_bytes(b"<html>Google Drive: quota exceeded</html>")
    with pytest.raises(BenchmarkError, match="not an archive"):
        probe.read(SECTION, files)


def test_made_archive_is_read(tmp_path):
    files = {"archive": tmp_path / "probe.zip", "sequences": tmp_path / "human.fasta"}
    write_probe(SECTION, files, np.random.default_rng(0))
    content = prepare_one("made", "similarity", SECTION, files)
    assert content.counts["pairs/200/lin"] == 12 * 11 / 2
    assert content.counts["pairs/500/lin"] == 20 * 19 / 2


def test_evokgsim_has_three_aspects_per_line(tmp_path):
    files = {
        "pairs": tmp_path / "pairs.txt",
        "sequences": tmp_path / "a.fasta",
        "sequences_more": tmp_path / "b",
    }
    files["pairs"].write_text("http://P1\thttp://P2\t0.1\t0.2\t0.3\nhttp://P1\thttp://P1\t1\t1\t1\n")
    files["sequences"].write_text(">P1\nMKV\n")
    files["sequences_more"].write_text(">sp|P2|X_HUMAN\nMKL\n>P1\nAAA\n")
    raw = protein_pairs.read(EVOKGSIM, files)
    assert rows(raw) == [
        ("P1", "P2", "bp", "resnik", 0.1),
        ("P1", "P2", "cc", "resnik", 0.2),
        ("P1", "P2", "mf", "resnik", 0.3),
    ]
    assert raw.tables["proteins"]["sequence"].to_pylist() == ["MKV", "MKL"]
    assert [(odd.id, odd.detail) for odd in raw.odd] == [("P1", "line 2")]


@pytest.mark.parametrize("line", ["P1\tP2\t0.1\t0.2", "P1\tP2\t0.1\t0.2\tx", "P1 P2 0.1 0.2 0.3", ""])
def test_evokgsim_names_a_line_of_another_form(tmp_path, line):
    files = {"pairs": tmp_path / "pairs.txt"}
    files["pairs"].write_text(f"http://P1\thttp://P2\t0.1\t0.2\t0.3\n{line}\n")
    with pytest.raises(BenchmarkError, match="line 2: not two proteins and 3 similarities"):
        protein_pairs.read(EVOKGSIM, files)


def test_made_evokgsim_file_is_read(tmp_path):
    files = {name: tmp_path / f"{name}.fasta" for name in ("pairs", "sequences_a", "sequences_b")}
    write_evokgsim(EVOKGSIM, files, np.random.default_rng(0))
    content = prepare_one("made", "similarity", EVOKGSIM, files)
    assert content.counts["pairs"] == 3 * content.counts["pairs/bp/resnik"] > 300
    assert not content.odd


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.from_regex(r"[A-Z][0-9]{3,5}", fullmatch=True), st.booleans()), max_size=10))
def test_sequences_by_id_keeps_the_first_of_a_name(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("fasta") / "x.fasta"
    headers = [f"sp|{name}|{name}_HUMAN desc" if full else f"{name} desc" for name, full in entries]
    path.write_text("".join(f">{header}\n{'A' * (n + 1)}\n" for n, header in enumerate(headers)))
    expected = {}
    for n, (name, _) in enumerate(entries):
        expected.setdefault(name, "A" * (n + 1))
    assert sequences_by_id([path]) == expected
