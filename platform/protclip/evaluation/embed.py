"""Embeddings from a checkpoint, for benchmarks, search and served models."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from protclip import checkpoint
from protclip.checkpoint import LoadedCheckpoint
from protclip.data.tokenizer import TextTokenizer
from protclip.model.build import rebuild
from protclip.model.heads import masked_mean
from protclip.tensors import PAD, tokenize_residues, uses_bf16

Tokens = np.ndarray | Sequence[int]


class Embedder:
    """A trained model that maps sequences and texts to vectors.

    Results are in input order and do not depend on which inputs share a batch.

    Args:
        loaded: The checkpoint.
        device: Where to compute; CUDA when there is one by default.
        batch_size: Most inputs computed at once.
        batch_tokens: Most tokens computed at once, padding included; no bound by default.
        precision: "fp32", "bf16" (autocast), or "auto" for bf16 on GPUs that compute in it.

    Attributes:
        model: The model, in evaluation mode on `device`.
        tokenizer: The text tokenizer it was trained with.
        device: Where it computes.
        dim: Width of the shared space (D).
        scale: Inverse temperature that pre-training learnt: scale · cosine are its logits.

    Raises:
        CheckpointError: The weights do not fit the architecture stored beside them.
    """

    def __init__(
        self,
        loaded: LoadedCheckpoint,
        device: torch.device | None = None,
        batch_size: int = 64,
        batch_tokens: int | None = None,
        precision: Literal["auto", "fp32", "bf16"] = "fp32",
    ) -> None:
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = TextTokenizer.from_json(loaded.tokenizer_json)
        self.model = rebuild(loaded).to(self.device).eval()
        self._max_protein_tokens = loaded.config.model.protein.max_tokens
        self._max_text_tokens = loaded.config.model.text.max_tokens
        self._batch_size = batch_size
        self._batch_tokens = batch_tokens
        self._bf16 = uses_bf16(precision, self.device)
        self.dim = self.model.architecture.projection_dim
        self.scale = self.model.scale().item()

    @classmethod
    def from_checkpoint(
        cls,
        uri: str,
        device: torch.device | None = None,
        batch_size: int = 64,
        batch_tokens: int | None = None,
        precision: Literal["auto", "fp32", "bf16"] = "fp32",
    ) -> "Embedder":
        """Loads the checkpoint at `uri`, or a run's newest one.

        Raises:
            CheckpointError: There is none, it is damaged, or its parts do not fit each other.
        """
        return cls(checkpoint.load(uri), device, batch_size, batch_tokens, precision)

    def embed_proteins(self, sequences: Sequence[str]) -> np.ndarray:
        """L2-normalised embeddings (N, D) in the space shared with texts, float32."""
        return self._embed(
            self.residue_tokens(sequences), PAD, lambda x, _: self.model.embed_protein(x), self.dim
        )

    def protein_features(self, sequences: Sequence[str]) -> np.ndarray:
        """Mean last-layer residue states (N, H), without projection, float32."""
        width = self.model.architecture.protein.width
        return self._embed(
            self.residue_tokens(sequences), PAD, lambda x, _: self.model.protein_features(x), width
        )

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """L2-normalised embeddings (N, D) of texts, float32."""
        return self.embed_text_tokens(self.tokenizer.encode(list(texts)))

    def embed_text_tokens(self, token_ids: Sequence[Tokens]) -> np.ndarray:
        """`embed_texts` of tokens as the pairs hold them, without special ones."""
        return self._embed(
            self._with_specials(token_ids), self.tokenizer.pad_id, self.model.embed_text, self.dim
        )

    def text_features(self, texts: Sequence[str]) -> np.ndarray:
        """Mean last-layer token states (N, W), special tokens left out, without projection, float32.

        Zeros for a text without tokens.
        """
        rows = self._with_specials(self.tokenizer.encode(list(texts)))
        width = self.model.architecture.text.width
        return self._embed(rows, self.tokenizer.pad_id, self._mean_token_states, width)

    def mix_prototypes(self, texts: Sequence[str]) -> np.ndarray:
        """PDA's mixtures of prototypes (N, D) that stand for property texts, without noise, float32."""
        rows = self._with_specials(self.tokenizer.encode(list(texts)))
        return self._embed(rows, self.tokenizer.pad_id, self.model.mix_prototypes, self.dim)

    def padded_texts(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens (N, T) of texts with special ones, and bool (N, T), True on real tokens; on the CPU."""
        return pad_tokens(self._with_specials(self.tokenizer.encode(list(texts))), self.tokenizer.pad_id)

    def residue_tokens(self, sequences: Sequence[str]) -> list[np.ndarray]:
        """uint8 tokens of each sequence, cut to the model's length."""
        return [tokenize_residues(sequence, self._max_protein_tokens) for sequence in sequences]

    def _with_specials(self, token_ids: Sequence[Tokens]) -> list[Tokens]:
        """Each text between its special tokens, cut to the model's length."""
        return [self.tokenizer.with_specials(ids, self._max_text_tokens) for ids in token_ids]

    def _mean_token_states(self, tokens_NT: Tensor, mask_NT: Tensor) -> Tensor:
        """Mean (N, W) over the tokens between the first and the last real one."""
        inside_NT = mask_NT & mask_NT.roll(-1, 1)
        inside_NT[:, 0] = inside_NT[:, -1] = False
        return masked_mean(self.model.text_encoder(tokens_NT, mask_NT), inside_NT)

    @torch.inference_mode()
    def _embed(
        self, rows: Sequence[Tokens], padding: int, forward: Callable[[Tensor, Tensor], Tensor], width: int
    ) -> np.ndarray:
        """Vectors of all rows; longest first, so that memory runs out at once or never."""
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        batches = list(self._batches(order, rows))
        vectors = np.empty((len(rows), width), dtype=np.float32)
        for batch in tqdm(batches, desc="embedding", unit="batch", disable=None, leave=False):
            tokens, mask = pad_tokens([rows[i] for i in batch], padding)
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._bf16):
                embedded = forward(tokens.to(self.device), mask.to(self.device))
            vectors[batch] = embedded.float().cpu().numpy()
        return vectors

    def _batches(self, order: Sequence[int], rows: Sequence[Tokens]) -> Iterator[Sequence[int]]:
        """Row numbers, longest row first, in batches within both bounds; a batch has at least one."""
        start = 0
        while start < len(order):
            most = self._batch_size
            if self._batch_tokens is not None:
                most = max(1, min(most, self._batch_tokens // len(rows[order[start]])))
            yield order[start : start + most]
            start += most


def pad_tokens(rows: Sequence[Tokens], padding: int) -> tuple[Tensor, Tensor]:
    """int64 (N, L) tokens right-padded with `padding`, and bool (N, L), True on real tokens."""
    tokens_NL = pad_sequence(
        [torch.as_tensor(np.asarray(row, dtype=np.int64)) for row in rows],
        batch_first=True,
        padding_value=padding,
    )
    lengths_N = torch.tensor([len(row) for row in rows])
    return tokens_NL, torch.arange(tokens_NL.shape[1])[None] < lengths_N[:, None]
