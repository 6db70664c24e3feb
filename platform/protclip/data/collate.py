"""Rows of the pairs table to one batch of tensors, with both kinds of masks.

What is masked in a protein, and what is taken of one that is too long, depends on (seed, epoch,
sampling key) alone, so it does not change with the number of workers, the batch it falls into, or a
restart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from protclip.config.schema import MaskingConfig
from protclip.data.pairs import token_lists
from protclip.records import NUM_PROPERTIES, PROPERTIES
from protclip.tensors import PAD, Batch, tokenize_residues


@dataclass(frozen=True, slots=True)
class TextTokens:
    """Special token ids of the text tokenizer."""

    pad_id: int
    cls_id: int
    sep_id: int


class MaskStreams:
    """The random stream of every protein in one epoch, a function of (seed, epoch, sampling key).

    There is one generator, counter-based, put to the start of a protein's stream: making a new one
    takes ten times as long.
    """

    def __init__(self, seed: int, epoch: int) -> None:
        bits = np.random.Philox(key=np.array([0, seed << 32 ^ epoch], dtype=np.uint64))
        self._bits, self._start = bits, bits.state
        self._generator = np.random.Generator(bits)

    def of(self, key: int) -> np.random.Generator:
        """A protein's stream from its start, to be used before the next one is asked for."""
        self._start["state"]["key"][0] = key
        self._bits.state = self._start
        return self._generator


def random_positions(num_residues: int, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Residues that MLM hides: `rate` of them, at least one, uniformly without replacement [P].

    Every chosen residue becomes `<mask>` (the paper names no 80/10/10 replacement).

    Returns:
        bool array of length `num_residues`.
    """
    count = min(num_residues, max(1, round(rate * num_residues))) if rate > 0 else 0
    hidden = np.zeros(num_residues, dtype=bool)
    hidden[rng.choice(num_residues, count, replace=False)] = True
    return hidden


def segment_positions(
    num_residues: int, rate: float, shortest: int, longest: int, rng: np.random.Generator
) -> np.ndarray:
    """Residues that BSR hides: segments of `shortest` to `longest`, `rate` of the residues in all [P].

    Lengths are drawn until their sum is nearest to the budget; the segments are then placed
    uniformly among all placements that leave at least one residue between two of them. A protein
    too short for one whole segment hides at most half of its residues.

    Returns:
        bool array of length `num_residues`.
    """
    hidden = np.zeros(num_residues, dtype=bool)
    if rate == 0 or num_residues < 2:
        return hidden
    budget = rate * num_residues
    lengths = [int(rng.integers(shortest, longest + 1))]
    while sum(lengths) + (length := int(rng.integers(shortest, longest + 1))) / 2 <= budget:
        lengths.append(length)
    if 2 * lengths[0] > num_residues:
        lengths = [max(1, min(shortest, num_residues // 2))]
    while len(lengths) > 1 and num_residues < sum(lengths) + len(lengths) - 1:
        lengths.pop()
    free = num_residues - sum(lengths) - (len(lengths) - 1)
    gaps = np.sort(rng.integers(0, free + 1, len(lengths)))
    offset = 0
    for gap, length in zip(gaps, lengths, strict=True):
        hidden[gap + offset : gap + offset + length] = True
        offset += length + 1
    return hidden


def outside(hidden: np.ndarray, taken: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Hidden residues with those already taken moved to free places, while there are any.

    As uniform among the residues that are not taken as `random_positions` is among all.

    Returns:
        bool array, as many True as `hidden` has, or as there are residues not taken.
    """
    moved = hidden & ~taken
    free = np.flatnonzero(~(hidden | taken))
    moved[rng.choice(free, min(len(free), int((hidden & taken).sum())), replace=False)] = True
    return moved


@dataclass(frozen=True, slots=True)
class Collator:
    """Makes batches out of rows of the pairs table.

    Attributes:
        masking: Rates and segment lengths; with shared corruption no residue is in both masks, and the
            segments are those of separate corruption.
        text_tokens: Special ids of the text tokenizer.
        max_protein_tokens: Longest protein, `<cls>` and `<eos>` included; of a longer one, a
            window anywhere in it is taken, another in each epoch.
        max_text_tokens: Longest biotext or property text, `[CLS]` and `[SEP]` included.
        seed: Seed of the masks.
    """

    masking: MaskingConfig
    text_tokens: TextTokens
    max_protein_tokens: int
    max_text_tokens: int
    seed: int

    def __call__(self, rows: pa.Table, epoch: int) -> Batch:
        """One batch of all rows, in order."""
        keys = rows.column("sampling_key").to_numpy()
        sequences = [sequence.encode() for sequence in rows.column("sequence").to_pylist()]
        most = self.max_protein_tokens - 2
        longest = min(most, max(map(len, sequences)))
        clean = np.full((len(sequences), longest + 2), PAD, dtype=np.int64)
        single, segment = np.zeros(clean.shape, dtype=bool), np.zeros(clean.shape, dtype=bool)
        masking, streams = self.masking, MaskStreams(self.seed, epoch)
        for i, (sequence, key) in enumerate(zip(sequences, keys.tolist(), strict=True)):
            rng = streams.of(key)
            start = int(rng.integers(len(sequence) - most + 1)) if len(sequence) > most else 0
            tokens = tokenize_residues(sequence, self.max_protein_tokens, start)
            n = len(tokens) - 2
            clean[i, : n + 2] = tokens
            hidden = random_positions(n, masking.mlm_rate, rng)
            taken = segment_positions(n, masking.segment_rate, masking.segment_min, masking.segment_max, rng)
            single[i, 1 : n + 1] = outside(hidden, taken, rng) if masking.corruption == "shared" else hidden
            segment[i, 1 : n + 1] = taken
        columns = [token_lists(rows.column(str(p))) for p in PROPERTIES]
        pieces = [piece for row in zip(*columns, strict=True) for piece in row]
        biotexts = [
            np.concatenate(pieces[i : i + NUM_PROPERTIES]) for i in range(0, len(pieces), NUM_PROPERTIES)
        ]
        text_BT, text_mask_BT = self._padded(biotexts)
        property_NT, property_mask_NT = self._padded(pieces)
        # A pair without any text has an empty one; a property that is absent has none.
        property_mask_NT &= torch.tensor([len(piece) > 0 for piece in pieces])[:, None]
        property_NT.masked_fill_(~property_mask_NT, self.text_tokens.pad_id)
        return Batch(
            tokens_BL=torch.from_numpy(clean),
            mlm_mask_BL=torch.from_numpy(single),
            segment_mask_BL=torch.from_numpy(segment),
            text_BT=text_BT,
            text_mask_BT=text_mask_BT,
            property_BKT=property_NT.unflatten(0, (-1, NUM_PROPERTIES)),
            property_mask_BKT=property_mask_NT.unflatten(0, (-1, NUM_PROPERTIES)),
            keys_B=torch.from_numpy(keys.astype(np.int64)),
            shared=masking.corruption == "shared",
            cropped=sum(len(sequence) > most for sequence in sequences),
            cut_texts=sum(len(ids) > self.max_text_tokens - 2 for ids in biotexts),
        )

    def _padded(self, texts: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """`[CLS] ids [SEP]`, ids cut to fit, right-padded int64 (N, T); and True on real tokens."""
        tokens, room = self.text_tokens, self.max_text_tokens - 2
        lengths_N = np.array([min(len(ids), room) for ids in texts])
        padded_NT = np.full((len(texts), int(lengths_N.max()) + 2), tokens.pad_id, dtype=np.int64)
        padded_NT[:, 0] = tokens.cls_id
        padded_NT[np.arange(len(texts)), lengths_N + 1] = tokens.sep_id
        for row, ids, length in zip(padded_NT, texts, lengths_N, strict=True):
            row[1 : length + 1] = ids[:length]
        real_NT = np.arange(padded_NT.shape[1]) < lengths_N[:, None] + 2
        return torch.from_numpy(padded_NT), torch.from_numpy(real_NT)
