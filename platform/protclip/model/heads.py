"""What stands on the encoders: projections, residue heads, cross-attention, prototypes.

Shape suffixes: B pairs, M masked positions (padded per pair), T text tokens, K properties, P
prototypes, D embedding width, V residue tokens.
"""

import torch
from torch import Tensor, nn

from protclip.tensors import VOCAB_SIZE


def projection(width: int, projection_dim: int) -> nn.Sequential:
    """Encoder states to the shared space: Linear, ReLU, Linear [R]."""
    return nn.Sequential(
        nn.Linear(width, projection_dim), nn.ReLU(), nn.Linear(projection_dim, projection_dim)
    )


def residue_head(width: int, hidden: int) -> nn.Sequential:
    """States to residue logits: Linear, GELU, LayerNorm, Linear [P][R]."""
    return nn.Sequential(
        nn.Linear(width, hidden), nn.GELU(), nn.LayerNorm(hidden), nn.Linear(hidden, VOCAB_SIZE)
    )


class Fusion(nn.Module):
    """BSR's cross-attention: masked residues ask, the biotext answers [P].

    Pre-norm, with a residual connection [D]; the softmax runs over the text tokens [D: the reference
    takes it over the residues].
    """

    def __init__(self, projection_dim: int, num_heads: int) -> None:
        super().__init__()
        self.residue_norm = nn.LayerNorm(projection_dim)
        self.text_norm = nn.LayerNorm(projection_dim)
        self.attention = nn.MultiheadAttention(projection_dim, num_heads, batch_first=True)

    def forward(self, residues_BMD: Tensor, text_BTD: Tensor, text_mask_BT: Tensor) -> Tensor:
        """Residues (B, M, D) with what they found in their own pair's text."""
        text_BTD = self.text_norm(text_BTD)
        found_BMD, _ = self.attention(
            self.residue_norm(residues_BMD),
            text_BTD,
            text_BTD,
            key_padding_mask=~text_mask_BT,
            need_weights=False,
        )
        return residues_BMD + found_BMD


class Prototypes(nn.Module):
    """PDA's bank of learnable prototypes, of which a property's text chooses a soft mixture [R].

    Args:
        num_prototypes: Size of the bank (P).
        projection_dim: Width (D).
        temperature: Gumbel-softmax temperature τ; lower is harder.
    """

    def __init__(self, num_prototypes: int, projection_dim: int, temperature: float) -> None:
        super().__init__()
        self.bank_PD = nn.Parameter(torch.randn(num_prototypes, projection_dim))
        self.temperature = temperature

    def forward(self, properties_BKD: Tensor, noise_BKP: Tensor | None) -> Tensor:
        """Mixtures (B, K, D) by dot product with the bank; no noise gives the plain softmax."""
        logits_BKP = properties_BKD @ self.bank_PD.T
        if noise_BKP is not None:
            logits_BKP = logits_BKP + noise_BKP
        return (logits_BKP / self.temperature).softmax(-1) @ self.bank_PD


def precise(states: Tensor) -> Tensor:
    """At least float32, whatever the precision of the pass before; a float64 model stays float64."""
    return states.to(torch.promote_types(states.dtype, torch.float32))


def masked_mean(states_BLH: Tensor, mask_BL: Tensor) -> Tensor:
    """Mean over the positions where the mask is True, float32 (B, H); 0 where there is none."""
    total_BH = (precise(states_BLH) * mask_BL[..., None]).sum(1)
    return total_BH / mask_BL.sum(1, keepdim=True).clamp(min=1)


def positions(mask: Tensor, count: int) -> Tensor:
    """Flat indices (N,) of the True elements, in order; knowing their number, the host need not wait."""
    return torch.nonzero_static(mask.flatten(), size=count)[:, 0]


def take(states: Tensor, at_N: Tensor) -> Tensor:
    """Rows (N, …) of (B, L, …) at flat indices; `x[mask]` for the indices of a mask."""
    return states.flatten(0, 1).index_select(0, at_N)


def spread(rows_ND: Tensor, at_N: Tensor, batch: int) -> Tensor:
    """The inverse of `take` for a (B, L) of `batch` elements: rows at their places, zeros elsewhere."""
    return rows_ND.new_zeros(batch, rows_ND.shape[-1]).index_copy(0, at_N, rows_ND)


def gather_masked(states_BLH: Tensor, mask_BL: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The states at True positions, in order, right-padded.

    Args:
        states_BLH: States.
        mask_BL: Which are wanted.
        most: The most True positions of a row (M).

    Returns:
        (B, M, H) states, and (B, M) bool, True on real ones.
    """
    positions_BM = (~mask_BL).byte().sort(dim=1, stable=True).indices[:, :most]
    rows_B1 = torch.arange(len(mask_BL), device=mask_BL.device)[:, None]
    real_BM = torch.arange(most, device=mask_BL.device) < mask_BL.sum(1, keepdim=True)
    return states_BLH[rows_B1, positions_BM], real_BM
