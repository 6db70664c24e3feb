"""Rows of the pairs table to one batch of tensors, with both kinds of masks.

What is masked in a protein depends on (seed, epoch, sampling key) alone, so it does not change with
the number of workers, the batch it falls into, or a restart.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from protclip.config.schema import MaskingConfig
from protclip.data.pairs import token_lists
from protclip.records import NUM_PROPERTIES, PROPERTIES
from protclip.tensors import MASK, PAD, Batch, tokenize_residues


@dataclass(frozen=True, slots=True)
class TextTokens:
    """Special token ids of the text tokenizer."""

    pad_id: int
    cls_id: int
    sep_id: int


def mask_generator(seed: int, epoch: int, key: int) -> np.random.Generator:
    """The random stream of one protein in one epoch (counter-based, so creating it is cheap)."""
    return np.random.Generator(np.random.Philox(key=[np.uint64(key), np.uint64(seed << 32 ^ epoch)]))


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
    while True:
        length = int(rng.integers(shortest, longest + 1))
        if sum(lengths) + length / 2 > budget:
            break
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


@dataclass(frozen=True, slots=True)
class Collator:
    """Makes batches out of rows of the pairs table.

    Attributes:
        masking: Rates and segment lengths.
        text_tokens: Special ids of the text tokenizer.
        max_protein_tokens: Longest protein, `<cls>` and `<eos>` included; the rest is cut off.
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
        proteins = [
            tokenize_residues(s, self.max_protein_tokens) for s in rows.column("sequence").to_pylist()
        ]
        length = max(map(len, proteins))
        clean = np.full((len(proteins), length), PAD, dtype=np.int64)
        single, segment = np.zeros(clean.shape, dtype=bool), np.zeros(clean.shape, dtype=bool)
        masking = self.masking
        for i, (tokens, key) in enumerate(zip(proteins, keys, strict=True)):
            rng = mask_generator(self.seed, epoch, int(key))
            n = len(tokens) - 2
            clean[i, : len(tokens)] = tokens
            single[i, 1 : n + 1] = random_positions(n, masking.mlm_rate, rng)
            segment[i, 1 : n + 1] = segment_positions(
                n, masking.segment_rate, masking.segment_min, masking.segment_max, rng
            )
        text, properties = self._texts(rows)
        text_BT, property_BKT = self._pad(text), self._pad(properties)
        return Batch(
            tokens_BL=torch.from_numpy(clean),
            mlm_tokens_BL=torch.from_numpy(np.where(single, MASK, clean)),
            mlm_mask_BL=torch.from_numpy(single),
            segment_tokens_BL=torch.from_numpy(np.where(segment, MASK, clean)),
            segment_mask_BL=torch.from_numpy(segment),
            text_BT=text_BT,
            text_mask_BT=self._real(text, text_BT),
            property_BKT=property_BKT.unflatten(0, (-1, NUM_PROPERTIES)),
            property_mask_BKT=self._real(properties, property_BKT).unflatten(0, (-1, NUM_PROPERTIES)),
            keys_B=torch.from_numpy(keys.astype(np.int64)),
        )

    def _texts(self, rows: pa.Table) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Token ids of each biotext, and of each property text row by row; empty when absent."""
        columns = [token_lists(rows.column(str(p))) for p in PROPERTIES]
        biotexts, properties = [], []
        for pieces in zip(*columns, strict=True):
            biotexts.append(self._wrap(np.concatenate(pieces)))
            properties.extend(self._wrap(p) if len(p) else p for p in pieces)
        return biotexts, properties

    def _wrap(self, ids: np.ndarray) -> np.ndarray:
        """`[CLS] ids [SEP]`, ids cut to fit."""
        tokens = self.text_tokens
        return np.concatenate(([tokens.cls_id], ids[: self.max_text_tokens - 2], [tokens.sep_id]))

    def _pad(self, texts: list[np.ndarray]) -> torch.Tensor:
        """Right-padded int64 (N, T)."""
        padded = np.full((len(texts), max(map(len, texts))), self.text_tokens.pad_id, dtype=np.int64)
        for row, ids in zip(padded, texts, strict=True):
            row[: len(ids)] = ids
        return torch.from_numpy(padded)

    @staticmethod
    def _real(texts: list[np.ndarray], padded: torch.Tensor) -> torch.Tensor:
        """True on real tokens."""
        lengths = torch.tensor([len(t) for t in texts])
        return torch.arange(padded.shape[1])[None] < lengths[:, None]
