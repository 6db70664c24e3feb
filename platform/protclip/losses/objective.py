"""L = w_GC·L_GC + λ1·L_BSR + λ2·L_MLM + w_PDA·L_PDA (paper, section "Objectives")."""

from collections.abc import Callable

import torch
from torch import Tensor

from protclip.config.schema import LossConfig
from protclip.losses.contrastive import global_contrastive
from protclip.losses.masked import masked_cross_entropy
from protclip.losses.pda import dynamic_segments, segment_alignment
from protclip.tensors import LossReport, ModelOutput


def _gc(output: ModelOutput, config: LossConfig) -> Tensor:
    """Global contrastive loss."""
    assert output.protein_BD is not None
    assert output.text_BD is not None
    return global_contrastive(output.protein_BD, output.text_BD, output.scale)


def _bsr(output: ModelOutput, config: LossConfig) -> Tensor:
    """Biotext-guided static segment reconstruction."""
    assert output.bsr_logits_MV is not None
    assert output.bsr_targets_M is not None
    return masked_cross_entropy(output.bsr_logits_MV, output.bsr_targets_M)


def _mlm(output: ModelOutput, config: LossConfig) -> Tensor:
    """Masked-residue modelling."""
    assert output.mlm_logits_MV is not None
    assert output.mlm_targets_M is not None
    return masked_cross_entropy(output.mlm_logits_MV, output.mlm_targets_M)


def _pda(output: ModelOutput, config: LossConfig) -> Tensor:
    """Property-grouped dynamic segment alignment."""
    assert output.prototypes_BKD is not None
    assert output.residues_BLD is not None
    assert output.residue_mask_BL is not None
    assert output.present_BK is not None
    assert output.pda_scale is not None
    theta_K = output.residues_BLD.new_tensor(config.pda.thetas)
    segments_BKD = dynamic_segments(
        output.prototypes_BKD, output.residues_BLD, output.residue_mask_BL, theta_K
    )
    return segment_alignment(segments_BKD, output.prototypes_BKD, output.present_BK, output.pda_scale)


TERMS: dict[str, Callable[[ModelOutput, LossConfig], Tensor]] = {
    "gc": _gc,
    "bsr": _bsr,
    "mlm": _mlm,
    "pda": _pda,
}
"""Every term by the name that its weight, its metric and its ablation bear."""


def objective(output: ModelOutput, config: LossConfig) -> LossReport:
    """The weighted sum of the terms whose weight is above 0, and each of them unweighted.

    Args:
        output: What the model computed for these terms.
        config: Weights and θ.
    """
    weights = {name: weight for name, weight in config.weights.items() if weight}
    terms = {name: TERMS[name](output, config) for name in weights}
    total = torch.stack([weight * terms[name] for name, weight in weights.items()]).sum()
    return LossReport(total, {name: term.detach() for name, term in terms.items()})
