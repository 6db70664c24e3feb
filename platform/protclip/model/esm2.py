"""ESM-2, the protein tower: a pre-norm transformer with rotary positions.

Parameters are named as in fair-esm, so that its weights load one to one; a test holds the states
against fair-esm's own forward pass. All rows are computed as one packed sequence. Shape suffixes: B
rows, L residue tokens of the longest, N residue tokens of all rows, H width, A heads, E = H / A.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu
from torch.utils.checkpoint import checkpoint

from protclip.model.packing import Packing
from protclip.tensors import MASK, PAD, VOCAB_SIZE

TRAINED_MASK_SHARE = 0.15 * 0.8
"""Share of `<mask>` among the tokens in ESM-2's own pre-training."""


@dataclass(frozen=True, slots=True)
class Esm2Sizes:
    """What tells one ESM-2 from another.

    Attributes:
        num_layers: Transformer layers.
        width: Width of a residue state (H).
        num_heads: Attention heads.
    """

    num_layers: int
    width: int
    num_heads: int


PRESETS: dict[str, Esm2Sizes] = {
    "esm2-tiny": Esm2Sizes(2, 64, 2),
    "esm2_t6_8M_UR50D": Esm2Sizes(6, 320, 20),
    "esm2_t12_35M_UR50D": Esm2Sizes(12, 480, 20),
    "esm2_t30_150M_UR50D": Esm2Sizes(30, 640, 20),
    "esm2_t33_650M_UR50D": Esm2Sizes(33, 1280, 20),
    "esm2_t36_3B_UR50D": Esm2Sizes(36, 2560, 40),
    "esm2_t48_15B_UR50D": Esm2Sizes(48, 5120, 40),
}


class SelfAttention(nn.Module):
    """Multi-head attention among the residues of one protein, rotary positions in queries and keys."""

    def __init__(self, sizes: Esm2Sizes) -> None:
        super().__init__()
        self.num_heads = sizes.num_heads
        self.q_proj = nn.Linear(sizes.width, sizes.width)
        self.k_proj = nn.Linear(sizes.width, sizes.width)
        self.v_proj = nn.Linear(sizes.width, sizes.width)
        self.out_proj = nn.Linear(sizes.width, sizes.width)
        for projection in (self.q_proj, self.k_proj, self.v_proj):
            nn.init.xavier_uniform_(projection.weight, gain=0.5**0.5)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x_NH: Tensor, cos_N1E: Tensor, sin_N1E: Tensor, packing: Packing) -> Tensor:
        """Attended states (N, H)."""
        q, k, v = (
            p(x_NH).unflatten(-1, (self.num_heads, -1)) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = (_rotate(x, cos_N1E, sin_N1E).to(v.dtype) for x in (q, k))
        return self.out_proj(packing.attend(q, k, v).flatten(1))


def _rotary(position_N: Tensor, head_width: int) -> tuple[Tensor, Tensor]:
    """Cosine and signed sine (N, 1, E) of every token's angles, float32."""
    frequencies = 10000 ** (-torch.arange(0, head_width, 2, device=position_N.device).float() / head_width)
    angles = torch.outer(position_N.float(), frequencies)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1)[:, None], torch.cat((-sin, sin), dim=-1)[:, None]


def _rotate(x_NAE: Tensor, cos_N1E: Tensor, sin_N1E: Tensor) -> Tensor:
    """Each pair (e, e + E/2) turned by its token's angle."""
    return x_NAE * cos_N1E + x_NAE.roll(x_NAE.shape[-1] // 2, -1) * sin_N1E


class Layer(nn.Module):
    """Attention and a feed-forward block, each normalised before and added to its input."""

    def __init__(self, sizes: Esm2Sizes) -> None:
        super().__init__()
        self.self_attn = SelfAttention(sizes)
        self.self_attn_layer_norm = nn.LayerNorm(sizes.width)
        self.fc1 = nn.Linear(sizes.width, 4 * sizes.width)
        self.fc2 = nn.Linear(4 * sizes.width, sizes.width)
        self.final_layer_norm = nn.LayerNorm(sizes.width)

    def forward(self, x_NH: Tensor, cos_N1E: Tensor, sin_N1E: Tensor, packing: Packing) -> Tensor:
        """States (N, H) after this layer."""
        x_NH = x_NH + self.self_attn(self.self_attn_layer_norm(x_NH), cos_N1E, sin_N1E, packing)
        return x_NH + self.fc2(gelu(self.fc1(self.final_layer_norm(x_NH))))


class Esm2(nn.Module):
    """The encoder without its language-model and contact heads.

    Args:
        sizes: Layers, width, heads.
        checkpointing: Recompute each layer's activations in the backward pass to save memory.
    """

    def __init__(self, sizes: Esm2Sizes, *, checkpointing: bool = False) -> None:
        super().__init__()
        self.head_width = sizes.width // sizes.num_heads
        self.checkpointing = checkpointing
        self.embed_tokens = nn.Embedding(VOCAB_SIZE, sizes.width, padding_idx=PAD)
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.num_layers))
        self.emb_layer_norm_after = nn.LayerNorm(sizes.width)

    def forward(self, tokens_BL: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Last-layer states (B, L, H) of right-padded residue tokens, `<cls>` and `<eos>` included.

        A row's states do not depend on the other rows or on padding; those at padding are 0.

        Args:
            tokens_BL: int64 tokens.
            lengths: Each row's tokens, so that the host need not wait for the device to count them.
        """
        packing = Packing.of(tokens_BL != PAD, lengths)
        x_NH = self._embed(packing.pack(tokens_BL), packing)
        rotary = _rotary(packing.position_N, self.head_width)
        for layer in self.layers:
            if self.checkpointing and torch.is_grad_enabled():
                x_NH = checkpoint(
                    layer, x_NH, *rotary, packing, use_reentrant=False, preserve_rng_state=False
                )
            else:
                x_NH = layer(x_NH, *rotary, packing)
        return packing.unpack(self.emb_layer_norm_after(x_NH))

    def _embed(self, tokens_N: Tensor, packing: Packing) -> Tensor:
        """Token embeddings; masked ones are 0 and the row's others scaled up to make good for it."""
        hidden_N = tokens_N == MASK
        lengths_B = packing.starts.diff()
        hidden_share_B = torch.zeros_like(lengths_B).index_add(0, packing.row_N, hidden_N.int()) / lengths_B
        scale_B = (1 - TRAINED_MASK_SHARE) / (1 - hidden_share_B)
        return self.embed_tokens(tokens_N).masked_fill(hidden_N[:, None], 0) * scale_B[packing.row_N, None]
