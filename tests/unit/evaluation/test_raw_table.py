from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from protclip.config.load import load_config
from protclip.errors import BenchmarkError
from protclip.evaluation.raw.table import TableSection, read
from protclip.evaluation.spec.sequences import MultilabelSpec, RegressionSpec

CONF = Path(__file__).resolve().parents[3] / "conf" / "benchmarks"


def section(files, **keys):
    keys = {"target": "target", "target_type": "number"} | keys
    return TableSection(format="table", files={role: {"path": role} for role in files}, **keys)


def table(files, **keys):
    return read(section(files, **keys), files)


def rows(tables, *columns):
    return [tuple(row[c] for c in columns) for row in tables.tables["examples"].to_pylist()]


def written(tmp_path, text, name="a.csv"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_read_divides_by_a_column_and_keeps_labels_as_they_are_written(tmp_path):
    path = written(
        tmp_path,
        "part,sequence,target,more\n1,MA,NA,x\n2,MC,1,x\n3,MD,001,x\n1,ME, 2 ,x\n4,MF,3,x\n3,MG,,x\n",
    )
    rule = {"column": "part", "values": {"1": "train", "2": "valid", "3": "test"}}
    tables = table({"all": path}, target_type="label", splits=rule)
    assert rows(tables, "id", "split", "sequence", "label") == [
        ("all line 2", "train", "MA", "NA"),
        ("all line 3", "valid", "MC", "1"),
        ("all line 4", "test", "MD", "001"),
        ("all line 5", "train", "ME", "2"),
    ]
    assert [(odd.id, odd.reason) for odd in tables.odd] == [
        ("all line 6", "in no split"),
        ("all line 7", "target is no label"),
    ]


def test_read_joins_several_files_of_a_split(tmp_path):
    files = {
        role: written(tmp_path, f"name\tsequence\ttarget\n{role}\tM{letter}\t{i}\n", role)
        for i, (role, letter) in enumerate({"train_a": "A", "train_b": "C", "test": "D"}.items())
    }
    assert rows(table(files, separator="\t", id="name"), "id", "split", "sequence", "value") == [
        ("train_a", "train", "MA", 0),
        ("train_b", "train", "MC", 1),
        ("test", "test", "MD", 2),
    ]


def test_read_takes_the_mean_of_a_sequence_measured_several_times(tmp_path):
    path = written(tmp_path, "sequence,target,split\nMA,1,train\nMC,9,train\nMA,2,train\nMA,7,test\n")
    tables = table({"all": path}, splits={"column": "split"})
    assert rows(tables, "id", "split", "sequence", "value") == [
        ("all line 2", "train", "MA", 1.5),
        ("all line 3", "train", "MC", 9),
        ("all line 5", "test", "MA", 7),
    ]
    assert [(odd.id, odd.reason, odd.detail, odd.kept) for odd in tables.odd] == [
        ("all line 2", "measured several times", "mean of [1.0, 2.0]", True)
    ]


def test_read_leaves_rare_labels_out(tmp_path):
    train = written(tmp_path, "sequence|target\nMA|b; a\nMC|a\nMD|b; c\nME|\nMF|c\n", "train")
    test = written(tmp_path, "sequence|target\nMG|c; d; a\nMH|d\n", "test")
    files = {"train": train, "test": test}
    tables = table(files, separator="|", target_type="labels", join="; ", min_count=2)
    assert tables.labels == ("a", "b", "c")
    assert rows(tables, "sequence", "labels")[-1] == ("MG", ["c", "a"])
    assert [(odd.id, odd.reason) for odd in tables.odd] == [
        ("train line 5", "no label that is frequent enough"),
        ("test line 3", "no label that is frequent enough"),
    ]


REFERENCE = "MKTAYIGS"


@pytest.mark.parametrize(
    ("cell", "first", "sequence"),
    [
        ("", 1, REFERENCE),
        ("M1K", 1, "KKTAYIGS"),
        ("K1R", 0, "MRTAYIGS"),
        ("SK2R:SS8*", 1, "MRTAYIG*"),
        ("S8A", 1, "MKTAYIGA"),
        ("K2R, A4V", 1, "MRTVYIGS"),
        ("K2R/A4V", 1, "MRTVYIGS"),
        ("M2K", 1, None),
        ("G9A", 1, None),
        ("M1K", 2, None),
        ("M1", 1, None),
        ("p.Met1Lys", 1, None),
    ],
)
def test_read_applies_mutations_to_the_reference(tmp_path, cell, first, sequence):
    path = written(tmp_path, f'sequence,target\n"{cell}",1\n')
    tables = table({"train": path}, variants={"reference": REFERENCE, "first_residue": first})
    assert rows(tables, "sequence") == ([(sequence,)] if sequence else [])
    assert [odd.reason for odd in tables.odd] == ([] if sequence else ["does not fit the reference"])


def test_read_puts_segments_into_the_reference_of_a_file_and_cuts_the_region(tmp_path):
    path = written(tmp_path, "sequence,target\nTAY,1\nTWY,2\nWWWW,3\n")
    reference = written(tmp_path, ">sp|P1|X\nMKTA\nYIGS\n", "reference.fasta")
    files = {"all": path, "reference": reference}
    keys = {"variants": {"segment": (3, 5)}, "splits": {"train_mutations": 1}}
    assert rows(table(files, **keys), "split", "sequence") == [
        ("train", REFERENCE),
        ("train", "MKTWYIGS"),
        ("test", "MKWWWWIGS"),
    ]
    cut = table(files, region=(1, 6), **keys)
    assert rows(cut, "sequence") == [("KTAYI",), ("KTWYI",), ("KWWWW",)]
    reference.write_text(">a\nMKT\n>b\nMKT\n")
    with pytest.raises(BenchmarkError, match=r"reference\.fasta: 2 sequences; a reference is one"):
        table(files, **keys)


def test_read_draws_test_rows_and_samples_by_the_sequence_alone(tmp_path):
    letters = np.random.default_rng(0).choice(list("ACDEFGHIKL"), (2000, 12))
    sequences = ["".join(row) for row in letters]
    text = "".join(f"{sequence},{i}\n" for i, sequence in enumerate(sequences))
    path = written(tmp_path, "sequence,target\n" + text)
    back = written(tmp_path, "sequence,target\n" + "".join(reversed(text.splitlines(True))), "b.csv")

    def drawn(path, **keys):
        return dict(rows(table({"all": path}, splits={"test_share": 0.25}, **keys), "sequence", "split"))

    whole, half = drawn(path), drawn(path, sample=0.5)
    assert whole == drawn(back)
    assert Counter(whole.values())["test"] / 2000 == pytest.approx(0.25, abs=0.03)
    assert half.items() <= whole.items()
    assert len(half) / 2000 == pytest.approx(0.5, abs=0.03)
    assert Counter(half.values())["test"] / len(half) == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"files": ["all"]}, "goes with splits and alone"),
        ({"files": ["train"], "splits": {"test_share": 0.1}}, "goes with splits and alone"),
        ({"files": ["all", "test"], "splits": {"test_share": 0.1}}, "goes with splits and alone"),
        ({"files": ["all"], "splits": {"test_share": 0.1, "column": "a"}}, "give one of column"),
        ({"files": ["all"], "splits": {"train_mutations": 3}}, "give variants"),
        ({"files": ["train"], "variants": {}}, "variants need a reference"),
        ({"files": ["train", "reference"], "variants": {"reference": "M"}}, "variants need a reference"),
    ],
)
def test_section_refuses_what_does_not_go_together(keys, message):
    with pytest.raises(ValidationError, match=message):
        section(**keys)


def test_read_explains_what_is_wrong(tmp_path):
    path = written(tmp_path, "sequence,score\nMA,1\n")
    with pytest.raises(BenchmarkError, match="no column 'target'; it has sequence, score"):
        table({"train": path})
    with pytest.raises(BenchmarkError, match="role 'extra' begins with none of train, valid, test"):
        table({"extra": path}, target="score")


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(st.integers(0, 7), st.sampled_from("ACDEFG"), max_size=5), st.sampled_from(":, /"))
def test_mutations_are_the_inverse_of_comparing_with_the_reference(tmp_path_factory, changes, join):
    letters = list(REFERENCE)
    for index, letter in changes.items():
        letters[index] = letter
    cell = join.join(f"{REFERENCE[i]}{i + 1}{letters[i]}" for i in sorted(changes))
    path = written(tmp_path_factory.mktemp("table"), f"sequence\ttarget\n{cell}\t1\n")
    tables = table({"train": path}, separator="\t", variants={"reference": REFERENCE})
    assert rows(tables, "sequence") == [("".join(letters),)]


@pytest.mark.parametrize(
    ("name", "splits", "odd"),
    [
        ("tem1_stiffler", {"train": 4807 - 1009, "test": 1009}, {}),
        ("gfp_subset", {"train": 2097, "valid": 524, "test": 2552}, {}),
        # TAPE's numbers: 21,446 for training, 5,362 for validation, 27,217 for testing.
        ("gfp_sarkisyan", {"train": 21446 + 5362, "test": 27217}, {}),
        ("aav_segments", {"train": 11366, "test": 42340 - 11366}, {"measured several times": 1788}),
        (
            "stability_rocklin",
            {"train": 12196 + 11769 - 40, "test": 19697 - 17},
            {"target is no number": 57},
        ),
        ("go_mf_swissprot", {"train": 826, "test": 793}, {"no label that is frequent enough": 2056}),
        ("go_bp_swissprot", {"train": 1062, "test": 777}, {"no label that is frequent enough": 3033}),
        ("go_cc_swissprot", {"train": 2200, "test": 2107}, {"no label that is frequent enough": 522}),
    ],
)
def test_read_reads_the_real_files_whole_as_the_benchmarks_say(real_data, name, splits, odd):
    spec = MultilabelSpec if name.startswith("go_") else RegressionSpec
    data = load_config(spec[TableSection], CONF / f"{name}.yaml").data.model_copy(update={"sample": 1})
    tables = read(data, {role: real_data / file.path for role, file in data.files.items()})
    assert Counter(tables.tables["examples"]["split"].to_pylist()) == splits
    assert Counter(o.reason for o in tables.odd) == odd
