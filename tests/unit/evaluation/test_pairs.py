import pytest

from protclip.data.manifest import PairsManifest
from protclip.data.tokenizer import TextTokenizer
from protclip.errors import DataError
from protclip.evaluation.pairs import read_pairs
from protclip.evaluation.spec.retrieval import HeldOutPairs


def test_read_pairs_reads_the_held_out_split_and_biotext_tokens(tiny_pairs):
    where = (str(tiny_pairs), PairsManifest.load(str(tiny_pairs)).tokenizer.fingerprint)
    found = read_pairs(HeldOutPairs(format="pairs"), *where)
    assert {name: len(found.split(name)) for name in ("train", "valid", "test")} == {
        "train": 48,
        "valid": 0,
        "test": 24,
    }
    test = found.split("test").to_pylist()
    assert all(row["sequence"].startswith("M") for row in test)
    assert len({row["id"] for row in test}) == 24
    motif = test[0]["sequence"][1:5]
    name, *_ = TextTokenizer.load("builtin").encode([f"FUNCTION: Acts by its {motif} motif."])
    text = test[0]["tokens"]
    assert any(text[i : i + len(name)] == name for i in range(len(text)))
    few = read_pairs(HeldOutPairs(format="pairs", split="valid", max_pairs=5, max_train_pairs=30), *where)
    assert (len(few.split("train")), len(few.split("test"))) == (30, 5)


def test_read_pairs_refuses_another_tokenizer(tiny_pairs):
    with pytest.raises(DataError, match="tokenised with 'builtin'"):
        read_pairs(HeldOutPairs(format="pairs"), str(tiny_pairs), "f" * 64)
