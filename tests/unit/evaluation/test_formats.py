import gzip
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protclip.data.manifest import PairsManifest
from protclip.errors import BenchmarkError, DataError
from protclip.evaluation.formats import (
    Sources,
    read_csv,
    read_deeploc_fasta,
    read_pairs,
)
from protclip.evaluation.spec import HeldOutPairs, LabelledSequences, SplitFiles


def labelled(format_, label, train, test, valid=None):
    return LabelledSequences(
        format=format_, label=label, files=SplitFiles(train=train, valid=valid, test=test)
    )


def sources(root, pairs="", tokenizer=""):
    return Sources(data_root=str(root), pairs=str(pairs), tokenizer=tokenizer)


def write(path, text):
    path.write_text(text)
    return path.name


def test_read_csv_picks_the_rows_of_each_split(tmp_path):
    name = write(
        tmp_path / "a.csv",
        "split,sequence,label\ntrain,MA,NA\nvalid,MC,1\ntest,MD,001\ntrain,ME,2\n",
    )
    splits = read_csv(labelled("csv", "label", name, name, name), sources(tmp_path))
    assert [(s, e.sequences, e.targets) for s, e in splits.items()] == [
        ("train", ["MA", "ME"], ["NA", "2"]),
        ("valid", ["MC"], ["1"]),
        ("test", ["MD"], ["001"]),
    ]


def test_read_csv_takes_whole_files_without_a_split_column(tmp_path):
    train = write(tmp_path / "train.csv", "sequence,target\nMA,x\nMC,y\n")
    test = write(tmp_path / "test.csv", "sequence,target\nMD,x\n")
    splits = read_csv(labelled("csv", "target", train, test), sources(tmp_path))
    assert {name: len(split) for name, split in splits.items()} == {"train": 2, "test": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sequence,split\nMA,train\n", "no column 'label'; it has sequence, split"),
        ("sequence,label,split\nMA,x,train\n", "nothing in split test"),
        ("sequence,label,split\nMA,x,train\n,x,test\n", "an empty sequence or label in split test"),
        ("sequence,label,split\nMA,x\n", "not readable as CSV"),
        ("", "not readable as CSV"),
    ],
)
def test_read_csv_explains_what_is_wrong(tmp_path, text, message):
    name = write(tmp_path / "a.csv", text)
    with pytest.raises(BenchmarkError, match=message):
        read_csv(labelled("csv", "label", name, name), sources(tmp_path))


def test_readers_name_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv: no such file"):
        read_csv(labelled("csv", "label", "nowhere.csv", "nowhere.csv"), sources(tmp_path))


DEEPLOC = """>P1 Nucleus-S
MKT
AYI

>P2-3 Cell.membrane-M test
GGS
>P3 Cytoplasm-Nucleus-U
AAA
>P4 Lysosome/Vacuole-U test
cc c
"""


def test_read_deeploc_fasta_reads_locations(tmp_path):
    name = write(tmp_path / "a.fasta", DEEPLOC)
    found = read_deeploc_fasta(labelled("deeploc_fasta", "location", name, name), sources(tmp_path))["test"]
    assert found.sequences == ["MKTAYI", "GGS", "CCC"]
    assert found.targets == ["Nucleus", "Cell.membrane", "Lysosome/Vacuole"]
    assert found.left_out == {"ambiguous location Cytoplasm-Nucleus": 1}


def test_read_deeploc_fasta_leaves_unknown_membrane_labels_out(tmp_path):
    name = write(tmp_path / "a.fasta", DEEPLOC)
    found = read_deeploc_fasta(labelled("deeploc_fasta", "membrane", name, name), sources(tmp_path))["train"]
    assert list(zip(found.sequences, found.targets, strict=True)) == [
        ("MKTAYI", "soluble"),
        ("GGS", "membrane"),
    ]
    assert found.left_out == {"neither membrane nor soluble": 2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b">P1 Nucleus\nMKT\n", "header '>P1 Nucleus' is not"),
        (b">P1 Moon-S\nMKT\n", "header '>P1 Moon-S' is not"),
        (b">P1 Nucleus-S\n>P2 Nucleus-S\nMKT\n", "not FASTA at '>P1 Nucleus-S'"),
        (b"MKT\n>P2 Nucleus-S\nMKT\n", "not FASTA at 'MKT'"),
        (b"", "nothing in split train"),
        (gzip.compress(DEEPLOC.encode())[:-20], "damaged or not a text file"),
        (b"\xff\xfe\x00", "damaged or not a text file"),
    ],
)
def test_read_deeploc_fasta_explains_what_is_wrong(tmp_path, content, message):
    (tmp_path / "a.fasta").write_bytes(content)
    with pytest.raises(BenchmarkError, match=message):
        read_deeploc_fasta(labelled("deeploc_fasta", "location", "a.fasta", "a.fasta"), sources(tmp_path))


def test_read_deeploc_fasta_knows_two_labels(tmp_path):
    with pytest.raises(BenchmarkError, match="location and membrane, not 'label'"):
        read_deeploc_fasta(labelled("deeploc_fasta", "label", "a", "a"), sources(tmp_path))


RESIDUES = st.text("ACDEFGHIKLMNPQRSTVWYX", min_size=1, max_size=130)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(RESIDUES, st.sampled_from(["Nucleus-S", "Cell.membrane-M"])), min_size=1, max_size=6),
    st.integers(1, 70),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_read_deeploc_fasta_gives_back_what_was_written(tmp_path_factory, entries, width, newline, packed):
    lines = []
    for number, (sequence, tail) in enumerate(entries):
        lines.append(f">Q{number} {tail}")
        lines += [sequence[i : i + width] for i in range(0, len(sequence), width)]
    content = newline.join(lines).encode()
    root = tmp_path_factory.mktemp("fasta")
    (root / "a.fasta").write_bytes(gzip.compress(content) if packed else content)
    data = labelled("deeploc_fasta", "location", "a.fasta", "a.fasta")
    found = read_deeploc_fasta(data, sources(root))["test"]
    assert list(zip(found.sequences, found.targets, strict=True)) == [(s, t[:-2]) for s, t in entries]


def test_read_deeploc_fasta_counts_the_official_test_part(real_data):
    root = sources(real_data / "localization")
    files = ("deeploc_our_val_set.fasta", "deeploc_test_set.fasta.gz")
    sub = read_deeploc_fasta(labelled("deeploc_fasta", "location", *files), root)
    assert len(sub["test"]) == 2768
    assert Counter(sub["test"].targets) == {
        "Nucleus": 806,
        "Cytoplasm": 505,
        "Extracellular": 393,
        "Mitochondrion": 302,
        "Cell.membrane": 273,
        "Endoplasmic.reticulum": 173,
        "Plastid": 152,
        "Golgi.apparatus": 70,
        "Lysosome/Vacuole": 64,
        "Peroxisome": 30,
    }
    assert len(sub["train"]) == 1678 - 23
    assert sub["train"].left_out == {"ambiguous location Cytoplasm-Nucleus": 23}
    binary = read_deeploc_fasta(labelled("deeploc_fasta", "membrane", *files), root)
    assert Counter(binary["test"].targets) == {"membrane": 743, "soluble": 1003}
    assert binary["test"].left_out == {"neither membrane nor soluble": 1022}
    assert Counter(binary["train"].targets) == {"membrane": 426, "soluble": 595}


def test_read_pairs_reads_the_held_out_split_and_biotext_tokens(tiny_pairs):
    manifest = PairsManifest.load(str(tiny_pairs))
    where = sources("", tiny_pairs, manifest.tokenizer.fingerprint)
    splits = read_pairs(HeldOutPairs(format="pairs"), where)
    assert {name: len(split) for name, split in splits.items()} == {"train": 48, "test": 24}
    assert all(sequence.startswith("M") for sequence in splits["test"].sequences)
    from protclip.data.tokenizer import TextTokenizer

    tokenizer = TextTokenizer.load("builtin")
    motif = splits["test"].sequences[0][1:5]
    name, *_ = tokenizer.encode([f"FUNCTION: Acts by its {motif} motif."])
    text = splits["test"].targets[0]
    assert any(text[i : i + len(name)] == name for i in range(len(text)))
    few = read_pairs(HeldOutPairs(format="pairs", split="valid", max_pairs=5, max_train_pairs=30), where)
    assert {name: len(split) for name, split in few.items()} == {"train": 30, "test": 5}


def test_read_pairs_refuses_another_tokenizer(tiny_pairs):
    with pytest.raises(DataError, match="tokenised with 'builtin'"):
        read_pairs(HeldOutPairs(format="pairs"), sources("", tiny_pairs, "f" * 64))
