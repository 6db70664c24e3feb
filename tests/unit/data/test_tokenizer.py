import json
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from protclip import storage
from protclip.data import synthetic, tokenizer
from protclip.data.tokenizer import TextTokenizer
from protclip.errors import ConfigError, DataError

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "binds", "Binds", "zinc", "##s", "."]


@pytest.fixture(scope="module")
def builtin() -> TextTokenizer:
    return TextTokenizer.load("builtin")


def saved(path: Path, name: str, content: str) -> str:
    (path / name).write_text(content)
    return str(path)


def test_builtin_vocabulary_is_what_the_command_writes(tmp_path: Path):
    tokenizer.main(["--output", str(tmp_path / "vocab.txt")])
    shipped = Path(tokenizer.__file__).parent / "vocab" / "wordpiece.txt"
    assert (tmp_path / "vocab.txt").read_bytes() == shipped.read_bytes()


def test_builtin_has_specials_first_and_a_sensible_size(builtin):
    assert (builtin.pad_id, builtin.cls_id, builtin.sep_id) == (0, 2, 3)
    assert 3500 <= builtin.vocab_size <= 6000


@given(st.text(string.printable, max_size=60))
def test_builtin_never_needs_unknown_for_ascii(builtin, text):
    assert 1 not in builtin.encode([text])[0]


def test_builtin_cuts_made_words_into_few_pieces(builtin):
    texts = [t for e in synthetic.records("reviewed", 200, 99) for t in e.annotation.texts().values()]
    assert sum(map(len, builtin.encode(texts))) < 2.5 * sum(len(t.split()) for t in texts)


def test_train_wordpiece_prefers_frequent_words():
    texts = ["vortexin binds vortexin", "vortexin binds zinc"]
    pieces = tokenizer.train_wordpiece(texts, 1000)
    assert pieces.index("vortexin") < pieces.index("binds") < pieces.index("zinc")
    assert tokenizer.train_wordpiece(texts, 148) == pieces[:148]


@settings(max_examples=200)
@given(st.lists(st.text(max_size=30), max_size=4))
def test_encode_of_joined_texts_is_the_joined_encoding(builtin, texts):
    assert builtin.encode([" ".join(texts)])[0] == sum(builtin.encode(texts), [])


def test_encode_of_a_biotext_is_the_joined_encoding_of_its_properties(builtin):
    for section in ("reviewed", "unreviewed"):
        for entry in synthetic.records(section, 100, 5):
            pieces = [f"{p.label}: {text}" for p, text in entry.annotation.texts().items()]
            assert builtin.encode([" ".join(pieces)])[0] == sum(builtin.encode(pieces), [])


def test_encode_handles_no_text_and_empty_text(builtin):
    assert builtin.encode([]) == []
    assert builtin.encode([""]) == [[]]


def test_with_specials_frames_and_cuts(builtin):
    assert builtin.with_specials([7, 8, 9], 10).tolist() == [2, 7, 8, 9, 3]
    assert builtin.with_specials([7, 8, 9], 4).tolist() == [2, 7, 8, 3]
    assert builtin.with_specials([], 4).tolist() == [2, 3]


def test_json_brings_the_same_tokenizer_back(builtin):
    again = TextTokenizer.from_json(builtin.to_json())
    assert again.fingerprint == builtin.fingerprint
    assert again.encode(["Vortexin-3 binds ATP."]) == builtin.encode(["Vortexin-3 binds ATP."])


def test_load_reads_vocab_txt_and_its_case(tmp_path: Path):
    uri = saved(tmp_path, "vocab.txt", "\n".join(VOCABULARY) + "\n")
    lower = TextTokenizer.load(uri)
    assert lower.vocab_size == len(VOCABULARY)
    assert lower.encode(["Binds zincs."]) == [[5, 7, 8, 9]]
    saved(tmp_path, "tokenizer_config.json", json.dumps({"do_lower_case": False}))
    cased = TextTokenizer.load(uri)
    assert cased.encode(["Binds zincs."]) == [[6, 7, 8, 9]]
    assert cased.fingerprint != lower.fingerprint


def test_load_agrees_with_transformers(tmp_path: Path, builtin):
    from transformers import BertTokenizerFast

    uri = saved(tmp_path, "vocab.txt", "\n".join(VOCABULARY[:5] + list(string.ascii_lowercase) + ["##inc"]))
    reference = BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"), do_lower_case=True)
    reference.save_pretrained(tmp_path / "saved")
    texts = ["Zinc z (inc), a-b.", "É x", ""]
    want = [reference.encode(t, add_special_tokens=False) for t in texts]
    assert TextTokenizer.load(uri).encode(texts) == want
    assert TextTokenizer.load(str(tmp_path / "saved")).encode(texts) == want


def test_load_drops_padding_and_truncation(tmp_path: Path, builtin):
    other = Tokenizer.from_str(builtin.to_json())
    other.enable_padding(length=16)
    other.enable_truncation(2)
    loaded = TextTokenizer.load(saved(tmp_path, "tokenizer.json", other.to_str()))
    assert loaded.encode(["binds zinc ions"]) == builtin.encode(["binds zinc ions"])
    assert loaded.fingerprint == builtin.fingerprint


def test_load_says_what_was_tried(tmp_path: Path, monkeypatch):
    with pytest.raises(ConfigError, match=r"neither tokenizer\.json nor vocab\.txt"):
        TextTokenizer.load(str(tmp_path))
    with pytest.raises(ConfigError, match="no such directory"):
        TextTokenizer.load(str(tmp_path / "missing"))
    with pytest.raises(ConfigError, match="unknown storage scheme"):
        TextTokenizer.load("ftp://host/dir")
    with pytest.raises(ConfigError, match=r"not a Hugging Face tokenizer\.json"):
        TextTokenizer.load(saved(tmp_path, "tokenizer.json", '{"version": "1.0"}'))

    def refuse(name: str, **_: object) -> None:
        raise DataError(f"{name} is not a repository\nmore lines")

    monkeypatch.setattr(storage, "hub_directory", refuse)
    with pytest.raises(ConfigError, match=r"hub gave none .*nobody/nothing is not a repository\)"):
        TextTokenizer.load("nobody/nothing")


def test_load_takes_a_hub_name(monkeypatch, builtin, tmp_path: Path):
    import transformers

    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(builtin.to_json()))
    fast.save_pretrained(tmp_path)
    monkeypatch.setattr(storage, "hub_directory", lambda name, **_: tmp_path)
    assert TextTokenizer.load("some/model").encode(["zinc"]) == builtin.encode(["zinc"])


def test_tokenizer_refuses_missing_specials_and_large_vocabularies(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"no \[CLS\], \[SEP\] in its vocabulary"):
        TextTokenizer.load(saved(tmp_path, "vocab.txt", "[PAD]\n[UNK]\nzinc\n"))
    large = Tokenizer(
        models.WordPiece(
            {p: i for i, p in enumerate(VOCABULARY)} | {f"w{i}": i for i in range(10, 65_600)},
            unk_token="[UNK]",
        )
    )
    with pytest.raises(ConfigError, match="65,600 pieces, but token lists are stored in 16 bits"):
        TextTokenizer.from_json(large.to_str())
