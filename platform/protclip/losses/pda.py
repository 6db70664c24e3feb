"""PDA, property-grouped dynamic segment alignment. Shape suffixes as in `tensors.py`."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from protclip.losses.masked import share_of_mean

IGNORED = -100

FLAT = 1e-5
"""Range of similarities, relative to the largest, below which they count as all equal."""


def normalised_similarity(prototypes_BKD: Tensor, residues_BLD: Tensor, mask_BL: Tensor) -> Tensor:
    """How much each residue is what a property is about, from 0 to 1 (paper, dynamic segments).

    Dot products of property and residues, min-max normalised per property over the real residues.
    Gradient flows through minimum and maximum too. Where all residues are equally similar, all are 1,
    without gradient [D].

    Args:
        prototypes_BKD: What stands for each property's text.
        residues_BLD: Projected residue states.
        mask_BL: True on residues, at least one per protein.

    Returns:
        (B, K, L); what stands outside the mask is unspecified.
    """
    mask_B1L = mask_BL[:, None]
    similarity_BKL = prototypes_BKD @ residues_BLD.transpose(1, 2)
    lowest_BK1 = similarity_BKL.masked_fill(~mask_B1L, torch.inf).amin(-1, keepdim=True)
    highest_BK1 = similarity_BKL.masked_fill(~mask_B1L, -torch.inf).amax(-1, keepdim=True)
    range_BK1 = highest_BK1 - lowest_BK1
    differ_BK1 = range_BK1 > FLAT * torch.maximum(highest_BK1.abs(), lowest_BK1.abs())
    # The inner choice keeps 0/0 out of the branch that is not taken: its gradient would be NaN.
    return torch.where(
        differ_BK1, (similarity_BKL - lowest_BK1) / torch.where(differ_BK1, range_BK1, 1.0), 1.0
    )


def dynamic_segments(
    prototypes_BKD: Tensor, residues_BLD: Tensor, mask_BL: Tensor, theta_K: Tensor
) -> Tensor:
    """The weighted residues that each property of a protein is about (paper, dynamic segments).

    Similarities under θ become 0, the rest, normalised to sum 1, weigh the residues. The threshold
    itself has no gradient.

    Args:
        prototypes_BKD: What stands for each property's text.
        residues_BLD: Projected residue states.
        mask_BL: True on residues, at least one per protein.
        theta_K: Threshold per property, at least 0 and below 1.

    Returns:
        (B, K, D) segments.
    """
    similarity_BKL = normalised_similarity(prototypes_BKD, residues_BLD, mask_BL)
    weights_BKL = similarity_BKL * (mask_BL[:, None] & (similarity_BKL >= theta_K[:, None]))
    return (weights_BKL / weights_BKL.sum(-1, keepdim=True)) @ residues_BLD


def segment_alignment(
    segments_BKD: Tensor, prototypes_BKD: Tensor, present_BK: Tensor, scale: Tensor, count: Tensor
) -> Tensor:
    """Each segment picks its property among those of the same protein, and each property its segment.

    Cosine logits, K × K per protein. Absent properties are neither candidates nor counted, and a
    protein with fewer than two properties has nothing to tell apart.

    Args:
        segments_BKD: Dynamic segments.
        prototypes_BKD: What stands for each property's text.
        present_BK: True where the property is present.
        scale: Inverse temperature, one element.
        count: Properties that are counted in all microbatches and ranks, int64 scalar.

    Returns:
        Scalar, see `share_of_mean`.
    """
    segments_BKD, prototypes_BKD = normalize(segments_BKD, dim=-1), normalize(prototypes_BKD, dim=-1)
    logits_BKK = scale * segments_BKD @ prototypes_BKD.transpose(1, 2)
    counted_BK = present_BK & (present_BK.sum(1, keepdim=True) > 1)
    own_BK = torch.arange(present_BK.shape[1], device=present_BK.device).expand_as(present_BK)
    targets_N = torch.where(counted_BK, own_BK, IGNORED).flatten()
    # A row that is not counted keeps all its candidates: without any, its gradient would be NaN.
    out_BKK = ~present_BK[:, None] & counted_BK[:, :, None]
    to_property, to_segment = (
        cross_entropy(
            logits.masked_fill(out_BKK, -torch.inf).flatten(0, 1),
            targets_N,
            ignore_index=IGNORED,
            reduction="sum",
        )
        for logits in (logits_BKK, logits_BKK.transpose(1, 2))
    )
    return share_of_mean((to_property + to_segment) / 2, count)
