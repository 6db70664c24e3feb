import gzip
import zipfile
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protclip.errors import BenchmarkError, DataError
from protclip.evaluation.raw.flip import FlipSection, read

CSV = """sequence,target,set,validation
AAMKTAA,1.5,train,
AAGGSAA,-2,train,True
AACCCAA,3e-1,test,
AADDDAA,,test,
AAEEEAA,high,train,
AAFFFAA,4,,
AA*LLAA,nan,test,
"""


def flip(path, **keys):
    return read(FlipSection(format="flip", files={"splits": {"path": "x"}}, **keys), {"splits": path})


def rows(tables, *columns):
    return [tuple(row[c] for c in columns) for row in tables.tables["examples"].to_pylist()]


@pytest.mark.parametrize("packed", [False, True])
def test_read_takes_validation_out_of_the_training_set(tmp_path, packed):
    path = tmp_path / "two_vs_many.csv"
    path.write_bytes(gzip.compress(CSV.encode()) if packed else CSV.encode())
    tables = flip(path)
    assert rows(tables, "id", "split", "sequence", "value") == [
        ("line 2", "train", "AAMKTAA", 1.5),
        ("line 3", "valid", "AAGGSAA", -2.0),
        ("line 4", "test", "AACCCAA", 0.3),
    ]
    assert [(odd.id, odd.reason, odd.kept) for odd in tables.odd] == [
        ("line 5", "target is no number", False),
        ("line 6", "target is no number", False),
        ("line 7", "in no split", False),
        ("line 8", "target is no number", False),
    ]


def test_read_takes_the_member_of_the_archive_and_cuts_to_the_region(tmp_path):
    path = tmp_path / "splits.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("splits/sampled.csv", CSV.replace("MKT", "WWW"))
        archive.writestr("splits/two_vs_many.csv", CSV)
    tables = flip(path, member="splits/two_vs_many.csv", region=(2, 5))
    assert [s for (s,) in rows(tables, "sequence")] == ["MKT", "GGS", "CCC"]
    with pytest.raises(BenchmarkError, match=r"it holds splits/sampled\.csv, splits/two_vs_many\.csv"):
        flip(path, member="splits/one_vs_many.csv")


FASTA = """>Sequence0 TARGET=Cell_membrane SET=train
MKT
AYI
>Sequence1 TARGET=Nucleus SET=train VALIDATION=True
GGS
>Sequence2 TARGET=Nucleus SET=val VALIDATION=False
CCC
>Sequence3 TARGET=Nucleus SET=test VALIDATION=False
DDD
"""


def test_read_knows_the_headers_of_fasta(tmp_path):
    path = tmp_path / "scl.fasta"
    path.write_text(FASTA)
    assert rows(flip(path, target_type="label"), "id", "split", "sequence", "label") == [
        ("Sequence0", "train", "MKTAYI", "Cell_membrane"),
        ("Sequence1", "valid", "GGS", "Nucleus"),
        ("Sequence2", "valid", "CCC", "Nucleus"),
        ("Sequence3", "test", "DDD", "Nucleus"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sequence,target,set\nMKT,1,train\n", "no column 'validation'; it has sequence, target, set"),
        ("sequence,target,set,validation\nMKT,1\n", "not readable as text delimited by ','"),
        ("", "not readable as text delimited"),
        (">Sequence0 TARGET=1\nMKT\n", "header 'Sequence0 TARGET=1' is not 'ID TARGET"),
    ],
)
def test_read_explains_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(BenchmarkError, match=message):
        flip(path)


def test_read_names_a_missing_file_and_a_wrong_role(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv: cannot be read"):
        flip(tmp_path / "nowhere.csv")
    with pytest.raises(BenchmarkError, match="reads the role 'splits', not train"):
        read(FlipSection(format="flip", files={"train": {"path": "x"}}), {"train": tmp_path})


RESIDUES = st.text("ACDEFGHIKLMNPQRSTVWYX", min_size=1, max_size=80)
ROWS = st.lists(
    st.tuples(
        RESIDUES,
        st.floats(-1e6, 1e6, allow_nan=False),
        st.sampled_from([("train", ""), ("train", "True"), ("test", "")]),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=20, deadline=None)
@given(ROWS, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_read_gives_back_what_was_written(tmp_path_factory, written, newline, fasta):
    path = tmp_path_factory.mktemp("flip") / "file"
    if fasta:
        lines = [
            line
            for i, (sequence, target, (set_, validation)) in enumerate(written)
            for line in (
                f">S{i} TARGET={target!r} SET={set_} VALIDATION={bool(validation)}",
                sequence[:30],
                sequence[30:],
            )
        ]
    else:
        lines = ["sequence,target,set,validation"]
        lines += [f"{sequence},{target!r},{','.join(where)}" for sequence, target, where in written]
    path.write_bytes(newline.join([*lines, ""]).encode())
    assert rows(flip(path), "sequence", "value", "split") == [
        (sequence, target, "valid" if validation else set_)
        for sequence, target, (set_, validation) in written
    ]


@pytest.mark.parametrize(
    ("file", "target_type", "splits"),
    [
        ("mutation/flip_gb1_two_vs_rest.csv.gz", "number", {"train": 424 - 43, "valid": 43, "test": 8309}),
        ("mutation/flip_meltome_subset.fasta", "number", {"train": 67, "valid": 4, "test": 29}),
        ("localization/flip_scl_subset.fasta", "label", {"train": 115, "valid": 16, "test": 3}),
    ],
)
def test_read_reads_the_real_files(real_data, file, target_type, splits):
    tables = flip(real_data / file, target_type=target_type)
    assert Counter(tables.tables["examples"]["split"].to_pylist()) == splits
    assert not tables.odd
