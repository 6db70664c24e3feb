"""ESM-2, the protein tower: a pre-norm transformer with rotary positions.

Parameters are named as in fair-esm, so that its weights load one to one; a test holds the states
against fair-esm's own forward pass. Shape suffixes: B rows, L residue tokens, H width, N heads,
E = H / N.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from protclip.model.lengths import by_length
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

    def forward(self, x_BLH: Tensor, cos_LE: Tensor, sin_LE: Tensor, mask_B11L: Tensor | None) -> Tensor:
        """Attended states (B, L, H); keys where the mask is False are not looked at."""
        q, k, v = (
            p(x_BLH).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = (_rotate(x, cos_LE, sin_LE).to(v.dtype) for x in (q, k))
        attended_BNLE = scaled_dot_product_attention(q, k, v, attn_mask=mask_B11L)
        return self.out_proj(attended_BNLE.transpose(1, 2).flatten(2))


def _rotary(length: int, head_width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine (L, E) of every position's angles, float32."""
    frequencies = 10000 ** (-torch.arange(0, head_width, 2, device=device).float() / head_width)
    angles = torch.outer(torch.arange(length, device=device).float(), frequencies)
    angles_LE = torch.cat((angles, angles), dim=-1)
    return angles_LE.cos(), angles_LE.sin()


def _rotate(x_BNLE: Tensor, cos_LE: Tensor, sin_LE: Tensor) -> Tensor:
    """Each pair (e, e + E/2) turned by its position's angle."""
    first, second = x_BNLE.chunk(2, dim=-1)
    return x_BNLE * cos_LE + torch.cat((-second, first), dim=-1) * sin_LE


class Layer(nn.Module):
    """Attention and a feed-forward block, each normalised before and added to its input."""

    def __init__(self, sizes: Esm2Sizes) -> None:
        super().__init__()
        self.self_attn = SelfAttention(sizes)
        self.self_attn_layer_norm = nn.LayerNorm(sizes.width)
        self.fc1 = nn.Linear(sizes.width, 4 * sizes.width)
        self.fc2 = nn.Linear(4 * sizes.width, sizes.width)
        self.final_layer_norm = nn.LayerNorm(sizes.width)

    def forward(self, x_BLH: Tensor, cos_LE: Tensor, sin_LE: Tensor, mask_B11L: Tensor | None) -> Tensor:
        """States (B, L, H) after this layer."""
        x_BLH = x_BLH + self.self_attn(self.self_attn_layer_norm(x_BLH), cos_LE, sin_LE, mask_B11L)
        return x_BLH + self.fc2(gelu(self.fc1(self.final_layer_norm(x_BLH))))


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

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """Last-layer states (B, L, H) of right-padded residue tokens, `<cls>` and `<eos>` included.

        A row's states do not depend on the other rows or on padding; those at padding are
        unspecified.
        """
        return by_length(self._encode, tokens_BL, tokens_BL != PAD)

    def _encode(self, tokens_BL: Tensor, mask_BL: Tensor | None) -> Tensor:
        """States of one chunk; the mask is None when nothing is padding."""
        x_BLH = self._embed(tokens_BL, mask_BL)
        mask_B11L = None if mask_BL is None else mask_BL[:, None, None]
        rotary = _rotary(tokens_BL.shape[1], self.head_width, tokens_BL.device)
        for layer in self.layers:
            if self.checkpointing and torch.is_grad_enabled():
                x_BLH = checkpoint(
                    layer, x_BLH, *rotary, mask_B11L, use_reentrant=False, preserve_rng_state=False
                )
            else:
                x_BLH = layer(x_BLH, *rotary, mask_B11L)
        return self.emb_layer_norm_after(x_BLH)

    def _embed(self, tokens_BL: Tensor, mask_BL: Tensor | None) -> Tensor:
        """Token embeddings; masked ones are 0 and the row's others scaled up to make good for it."""
        hidden_BL = tokens_BL == MASK
        real_BL = torch.ones_like(hidden_BL) if mask_BL is None else mask_BL
        hidden_share_B = hidden_BL.sum(1) / real_BL.sum(1)
        scale_B = (1 - TRAINED_MASK_SHARE) / (1 - hidden_share_B)
        return self.embed_tokens(tokens_BL).masked_fill(hidden_BL[..., None], 0) * scale_B[:, None, None]
