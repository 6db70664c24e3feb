import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protclip.errors import BenchmarkError, DataError
from protclip.evaluation.prepare import prepare_one
from protclip.evaluation.raw import string
from protclip.evaluation.raw.string import MODES, StringSection, read

SECTION = StringSection(format="string_actions", files={})
HEADER = "item_id_a\titem_id_b\tmode\taction\tis_directional\ta_is_acting\tscore"
SEQUENCES = "P1\tMKV\nP2\tMKL\nP3\tMKA\nP4\tMKI\n"
NAMES = st.sampled_from(["P1", "P2", "P3", "P4"])
ROWS = st.lists(st.tuples(NAMES, NAMES, st.sampled_from(MODES)), min_size=1, max_size=20)


def write(folder, rows, sequences=SEQUENCES, packed=False):
    text = "\n".join([HEADER, *("\t".join([*row, "", "t", "f", "900"]) for row in rows)]) + "\n"
    files = {"actions": folder / "actions.txt", "sequences": folder / "sequences"}
    files["actions"].write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    files["sequences"].write_text(sequences)
    return files


@pytest.mark.parametrize("packed", [True, False])
def test_read_joins_the_modes_of_both_directions(tmp_path, packed):
    rows = [("P2", "P1", "binding"), ("P1", "P3", "ptmod"), ("P1", "P2", "reaction"), ("P2", "P1", "binding")]
    raw = read(SECTION, write(tmp_path, rows, packed=packed))
    assert raw.tables["pairs"].to_pylist() == [
        {"a": "P1", "b": "P2", "labels": ["binding", "reaction"]},
        {"a": "P1", "b": "P3", "labels": ["ptmod"]},
    ]
    assert raw.tables["proteins"].to_pylist() == [
        {"id": "P1", "sequence": "MKV"},
        {"id": "P2", "sequence": "MKL"},
        {"id": "P3", "sequence": "MKA"},
    ]
    assert (raw.labels, raw.odd) == (MODES, [])


@settings(max_examples=25, deadline=None)
@given(ROWS, st.integers(80, 400))
def test_read_equals_a_loop_over_lines_whatever_the_blocks(tmp_path_factory, rows, block_bytes):
    expected = {}
    for a, b, mode in rows:
        expected.setdefault((min(a, b), max(a, b)), set()).add(mode)
    files = write(tmp_path_factory.mktemp("string"), rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(string, "BLOCK_BYTES", block_bytes)
        pairs = read(SECTION, files).tables["pairs"].to_pylist()
    found = [((row["a"], row["b"]), row["labels"]) for row in pairs]
    assert found == [(pair, sorted(modes)) for pair, modes in sorted(expected.items())]


def test_read_takes_fasta_as_string_publishes_it(tmp_path):
    files = write(tmp_path, [("P1", "P2", "binding")], ">P1\nMK\nV\n>P2 a name\nMKL\n")
    assert read(SECTION, files).tables["proteins"]["sequence"].to_pylist() == ["MKV", "MKL"]


def test_pairs_without_a_sequence_are_odd(tmp_path):
    rows = [("P1", "P9", "binding"), ("P9", "P1", "reaction"), ("P1", "P2", "binding"), ("P8", "P9", "ptmod")]
    raw = read(SECTION, write(tmp_path, rows))
    assert raw.tables["pairs"]["b"].to_pylist() == ["P2"]
    assert {(odd.id, odd.reason) for odd in raw.odd} == {
        ("P1 P9", "pair with a protein without a sequence"),
        ("P8 P9", "pair with a protein without a sequence"),
    }


def test_an_unknown_mode_costs_its_pair_and_is_reported(tmp_path):
    files = write(tmp_path, [("P1", "P2", "binding"), ("P1", "P3", "hugging"), ("P2", "P3", "ptmod")])
    content = prepare_one("made", "ppi", SECTION, files)
    assert content.counts["pairs"] == 2
    assert [(odd.id, odd.detail) for odd in content.odd] == [("P1 P3", "hugging")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"protein1 protein2 combined_score\nP1 P2 900\n", "protein.actions file"),
        (f"{HEADER}\nP1\tP2\n".encode(), "protein.actions file"),
        (gzip.compress(f"{HEADER}\nP1\tP2\tbinding\t\tt\tt\t9\n".encode())[:-20], "damaged"),
        (b"", "protein.actions file"),
    ],
    ids=["links instead of actions", "short row", "cut off", "empty"],
)
def test_read_refuses_another_actions_file(tmp_path, content, message):
    files = write(tmp_path, [])
    files["actions"].write_bytes(content)
    with pytest.raises(BenchmarkError, match=message):
        read(SECTION, files)


def test_read_says_which_line_of_the_sequences_is_none(tmp_path):
    with pytest.raises(BenchmarkError, match="line 2: neither FASTA nor"):
        read(SECTION, write(tmp_path, [("P1", "P2", "binding")], "P1\tMKV\nP2 MKL\n"))


def test_read_names_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        read(SECTION, {"actions": tmp_path / "nowhere"})
