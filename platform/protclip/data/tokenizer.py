"""WordPiece tokens of biotexts, and the built-in vocabulary.

Run as a program it trains the built-in vocabulary anew from made entries:
`python -m protclip.data.tokenizer`.
"""

import argparse
import hashlib
import importlib.resources
import json
import logging
import string
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, Digits
from tokenizers.pre_tokenizers import Sequence as Pieces
from tokenizers.trainers import WordPieceTrainer

from protclip import storage
from protclip.data.synthetic import SectionName, records
from protclip.errors import ConfigError, DataError

log = logging.getLogger(__name__)

BUILTIN = "builtin"
MAX_VOCAB_SIZE = 2**16 - 1
BUILTIN_VOCAB_SIZE = 4096
BUILTIN_ENTRIES = 12_000
PAD, UNKNOWN, CLS, SEP, MASK = SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CONTINUATION = "##"
_BUILTIN_FILE = "vocab/wordpiece.txt"


def _wordpiece(vocabulary: Sequence[str], *, lowercase: bool) -> Tokenizer:
    """A tokenizer that treats text as BERT does."""
    tokenizer = Tokenizer(WordPiece({piece: i for i, piece in enumerate(vocabulary)}, unk_token=UNKNOWN))
    tokenizer.normalizer = BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return tokenizer


def train_wordpiece(texts: Iterable[str], vocab_size: int) -> list[str]:
    """Trains a lower-case WordPiece vocabulary; the same texts give the same pieces in the same order.

    The special tokens come first, then every printable ASCII character at the start and inside of a
    word, so that no English text needs `[UNK]`.

    Args:
        texts: What to learn from.
        vocab_size: Most pieces; fewer come back when the texts hold no more.

    Returns:
        The pieces by id.
    """
    characters = [c for c in string.printable if c.isprintable() and not c.isspace() and not c.isupper()]
    first = [*SPECIALS, *characters, *(_CONTINUATION + c for c in characters)]
    tokenizer = _wordpiece([UNKNOWN], lowercase=True)
    # Digits stay single: numbers and gene symbols would crowd out words.
    tokenizer.pre_tokenizer = Pieces([BertPreTokenizer(), Digits(individual_digits=True)])
    # Given as special tokens the characters have fixed ids. Otherwise the trainer would number them in
    # the order of a hash table, and equally frequent pairs are merged in the order of their ids.
    trainer = WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=first,
        continuing_subword_prefix=_CONTINUATION,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    pieces = tokenizer.get_vocab()
    return sorted(pieces, key=pieces.__getitem__)


class TextTokenizer:
    """Turns texts into WordPiece ids.

    The ids of texts that are joined by a space are the ids of the texts, joined: words never span a
    space. So properties are tokenised once and put together later.
    """

    def __init__(self, tokenizer: Tokenizer, source: str) -> None:
        """Wraps a Hugging Face tokenizer; `source` names it in errors.

        Raises:
            ConfigError: It lacks BERT's special tokens or its ids do not fit 16 bits.
        """
        tokenizer.no_padding()
        tokenizer.no_truncation()
        ids = tokenizer.get_vocab(with_added_tokens=True)
        missing = [t for t in (PAD, UNKNOWN, CLS, SEP) if t not in ids]
        if missing:
            raise ConfigError(
                f"tokenizer {source}: no {', '.join(missing)} in its vocabulary; "
                "use a BERT (WordPiece) tokenizer"
            )
        self.vocab_size = max(ids.values()) + 1
        if self.vocab_size > MAX_VOCAB_SIZE:
            raise ConfigError(
                f"tokenizer {source}: {self.vocab_size:,} pieces, but token lists are stored in 16 bits; "
                f"use one with at most {MAX_VOCAB_SIZE:,}"
            )
        self.pad_id, self.cls_id, self.sep_id = ids[PAD], ids[CLS], ids[SEP]
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, source: str) -> Self:
        """Loads a tokenizer.

        Args:
            source: "builtin"; a directory, local or `s3://`, with `tokenizer.json` or `vocab.txt`
                (whose `tokenizer_config.json`, when there is one, tells whether case matters); or
                the name of a model on the Hugging Face hub.

        Raises:
            ConfigError: Nothing usable is there; the message names what was tried.
        """
        if source == BUILTIN:
            vocabulary = importlib.resources.files("protclip.data").joinpath(_BUILTIN_FILE).read_text("utf-8")
            return cls(_wordpiece(vocabulary.split("\n")[:-1], lowercase=True), source)
        try:
            if storage.exists(source):
                return cls(_from_directory(source), source)
        except DataError as error:
            raise ConfigError(f"tokenizer {source}: {error}") from error
        if not storage.is_local(source) or source.startswith(("/", ".", "~")):
            raise ConfigError(f"tokenizer {source}: no such directory; check the path and its spelling")
        return cls(_from_hub(source), source)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The tokenizer that `to_json` wrote down.

        Raises:
            ConfigError: The text is no tokenizer.
        """
        return cls(_parse(text, "from JSON"), "from JSON")

    def to_json(self) -> str:
        """The tokenizer as canonical Hugging Face JSON: equal tokenizers give equal texts."""
        parsed = json.loads(self._tokenizer.to_str())
        return json.dumps(parsed, sort_keys=True, ensure_ascii=False, separators=(",", ":"))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def encode(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text, without special tokens and of any length."""
        return [e.ids for e in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def with_specials(self, ids: Sequence[int] | np.ndarray, max_tokens: int) -> np.ndarray:
        """`[CLS] … [SEP]` around as many of the ids as fit into `max_tokens`, int64."""
        inside = np.asarray(ids[: max_tokens - 2], dtype=np.int64)
        return np.concatenate(([self.cls_id], inside, [self.sep_id]))


def _parse(text: str, where: str) -> Tokenizer:
    """A tokenizer from Hugging Face JSON."""
    try:
        return Tokenizer.from_str(text)
    except Exception as error:
        # The library raises bare Exception for any JSON it does not like.
        raise ConfigError(
            f"tokenizer {where}: not a Hugging Face tokenizer.json ({error}); save it anew"
        ) from error


def _from_directory(uri: str) -> Tokenizer:
    """A tokenizer from the files of a saved model."""
    whole, vocabulary, config = (
        storage.join(uri, name) for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json")
    )
    if storage.exists(whole):
        return _parse(storage.read_bytes(whole).decode(errors="replace"), whole)
    if not storage.exists(vocabulary):
        raise ConfigError(f"tokenizer {uri}: neither tokenizer.json nor vocab.txt is there; add one of them")
    lowercase = storage.read_json(config).get("do_lower_case", True) if storage.exists(config) else True
    try:
        pieces = storage.read_bytes(vocabulary).decode().rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"tokenizer {vocabulary}: not UTF-8 text; one piece per line is wanted") from error
    return _wordpiece([p.rstrip("\r") for p in pieces], lowercase=bool(lowercase))


def _from_hub(name: str) -> Tokenizer:
    """The fast tokenizer of a hub model, from the cache or the network."""
    from transformers import AutoTokenizer

    try:
        directory = storage.hub_directory(name, weights=False)
        backend = AutoTokenizer.from_pretrained(directory, use_fast=True).backend_tokenizer
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"tokenizer {name}: no such directory, and the Hugging Face hub gave none of that name "
            f"({str(error).strip().splitlines()[0]}); use builtin, a directory with tokenizer.json or "
            "vocab.txt, or a hub name"
        ) from error
    return Tokenizer.from_str(backend.to_str())


def made_texts(num_entries: int, seed: int) -> Iterator[str]:
    """The property texts of made entries with their headings, both sections in turn."""
    sections: tuple[SectionName, ...] = ("reviewed", "unreviewed")
    for section in sections:
        for entry in records(section, num_entries // len(sections), seed):
            for prop, text in entry.annotation.texts().items():
                yield f"{prop.label}: {text}"


def main(argv: Sequence[str] | None = None) -> None:
    """Trains the built-in vocabulary from made entries and writes it, one piece a line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / _BUILTIN_FILE)
    parser.add_argument("--entries", type=int, default=BUILTIN_ENTRIES, help="made entries to learn from")
    parser.add_argument("--vocab-size", type=int, default=BUILTIN_VOCAB_SIZE)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    pieces = train_wordpiece(made_texts(options.entries, options.seed), options.vocab_size)
    storage.write_bytes(str(options.output), "".join(f"{p}\n" for p in pieces).encode())
    log.info("%s: %d pieces", options.output, len(pieces))


if __name__ == "__main__":
    main()
