import gzip
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protclip.errors import BenchmarkError, DataError
from protclip.evaluation.raw.deeploc import LOCATIONS, DeeplocSection, read

DEEPLOC = """>P1 Nucleus-S
MKT
AYI

>P2-3 Cell.membrane-M test
GGS
>P3 Cytoplasm-Nucleus-U
AAA
>P4 Lysosome/Vacuole-U test
CC C
"""


def deeploc(label, **files):
    section = DeeplocSection(format="deeploc_fasta", label=label, files={r: {"path": r} for r in files})
    return read(section, files)


def rows(tables, *columns):
    return [tuple(row[c] for c in columns) for row in tables.tables["examples"].to_pylist()]


def written(tmp_path, content=DEEPLOC):
    path = tmp_path / "a.fasta"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_read_reads_locations_in_the_official_order(tmp_path):
    tables = deeploc("location", test=written(tmp_path))
    assert rows(tables, "id", "split", "sequence", "label") == [
        ("P1", "test", "MKTAYI", "Nucleus"),
        ("P2-3", "test", "GGS", "Cell.membrane"),
        ("P4", "test", "CCC", "Lysosome/Vacuole"),
    ]
    assert tables.labels == LOCATIONS
    assert [(odd.id, odd.reason) for odd in tables.odd] == [("P3", "ambiguous location Cytoplasm-Nucleus")]


def test_read_leaves_unknown_membrane_labels_out(tmp_path):
    tables = deeploc("membrane", train=written(tmp_path))
    assert rows(tables, "sequence", "label") == [("MKTAYI", "soluble"), ("GGS", "membrane")]
    assert tables.labels == ("membrane", "soluble")
    assert [(odd.id, odd.reason) for odd in tables.odd] == [
        ("P3", "neither membrane nor soluble"),
        ("P4", "neither membrane nor soluble"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b">P1 Nucleus\nMKT\n", "header 'P1 Nucleus' is not"),
        (b">P1 Moon-S\nMKT\n", "header 'P1 Moon-S' is not"),
        (b"MKT\n>P2 Nucleus-S\nMKT\n", "not FASTA at 'MKT'"),
        (gzip.compress(DEEPLOC.encode())[:-20], "damaged or not a text file"),
        (b"\x1f\x8b\x08\x00" + b"\xff" * 40, "damaged or not a text file"),
        (b"\xff\xfe\x00", "damaged or not a text file"),
    ],
)
def test_read_explains_what_is_wrong(tmp_path, content, message):
    with pytest.raises(BenchmarkError, match=message):
        deeploc("location", train=written(tmp_path, content))


def test_read_names_a_missing_file_and_a_wrong_role(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.fasta: cannot be read"):
        deeploc("location", train=tmp_path / "nowhere.fasta")
    with pytest.raises(BenchmarkError, match="role 'all' begins with none of train, valid, test"):
        deeploc("location", all=written(tmp_path))


RESIDUES = st.text("ACDEFGHIKLMNPQRSTVWYX", min_size=1, max_size=130)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(RESIDUES, st.sampled_from(["Nucleus-S", "Cell.membrane-M"])), min_size=1, max_size=6),
    st.integers(1, 70),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_read_gives_back_what_was_written(tmp_path_factory, entries, width, newline, packed):
    lines = []
    for number, (sequence, mark) in enumerate(entries):
        lines.append(f">P{number} {mark}")
        lines += [sequence[i : i + width] for i in range(0, len(sequence), width)]
    content = newline.join([*lines, ""]).encode()
    path = written(tmp_path_factory.mktemp("fasta"), gzip.compress(content) if packed else content)
    assert rows(deeploc("location", train=path), "sequence", "label") == [
        (sequence, mark[:-2]) for sequence, mark in entries
    ]


def test_read_reads_the_real_files(real_data):
    folder = real_data / "localization"
    files = {"train": folder / "deeploc_our_val_set.fasta", "test": folder / "deeploc_test_set.fasta.gz"}
    location = deeploc("location", **files)
    counts = Counter(rows(location, "split", "label"))
    order = [counts["test", label] for label in location.labels]
    assert order == [273, 505, 173, 70, 64, 302, 806, 30, 152, 393]
    assert sum(n for (split, _), n in counts.items() if split == "train") == 1678 - 23
    assert Counter(odd.reason for odd in location.odd) == {"ambiguous location Cytoplasm-Nucleus": 23}
    membrane = deeploc("membrane", **files)
    assert Counter(rows(membrane, "split", "label")) == {
        ("test", "membrane"): 743,
        ("test", "soluble"): 1003,
        ("train", "membrane"): 426,
        ("train", "soluble"): 595,
    }
    assert Counter(odd.detail for odd in membrane.odd) == {"test": 1022, "train": 657}
