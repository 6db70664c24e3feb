"""L = w_GC·L_GC + λ1·L_BSR + λ2·L_MLM + w_PDA·L_PDA (paper, section "Objectives")."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from protclip import parallel
from protclip.config.schema import LossConfig
from protclip.losses.contrastive import global_contrastive
from protclip.losses.masked import masked_cross_entropy
from protclip.losses.pda import dynamic_segments, segment_alignment
from protclip.tensors import Batch, LossReport, ModelOutput, on_device


class Totals(NamedTuple):
    """How much there is of each thing that a term averages over, in all microbatches of all ranks.

    Attributes:
        pairs: Pairs (G).
        mlm: Positions MLM predicts, int64 scalar on the device, as the others.
        segment: Positions BSR predicts.
        aligned: Properties PDA counts.
    """

    pairs: int
    mlm: Tensor
    segment: Tensor
    aligned: Tensor

    @classmethod
    def of(cls, batches: Sequence[Batch], pairs: int) -> "Totals":
        """Those of one step; every rank calls it.

        Args:
            batches: This rank's microbatches.
            pairs: Pairs of all ranks (G).
        """
        counts = [(batch.counts.mlm, batch.counts.segment, batch.counts.aligned) for batch in batches]
        own = on_device([sum(column) for column in zip(*counts, strict=True)], batches[0].tokens_BL)
        return cls(pairs, *parallel.sum_over_ranks(own).unbind())


def _gc(output: ModelOutput, config: LossConfig, totals: Totals) -> Tensor:
    """Global contrastive loss."""
    return global_contrastive(output, config, totals.pairs)


def _bsr(output: ModelOutput, config: LossConfig, totals: Totals) -> Tensor:
    """Biotext-guided static segment reconstruction."""
    assert output.bsr_logits_MV is not None
    assert output.bsr_targets_M is not None
    return masked_cross_entropy(output.bsr_logits_MV, output.bsr_targets_M, totals.segment)


def _mlm(output: ModelOutput, config: LossConfig, totals: Totals) -> Tensor:
    """Masked-residue modelling."""
    assert output.mlm_logits_MV is not None
    assert output.mlm_targets_M is not None
    return masked_cross_entropy(output.mlm_logits_MV, output.mlm_targets_M, totals.mlm)


def _pda(output: ModelOutput, config: LossConfig, totals: Totals) -> Tensor:
    """Property-grouped dynamic segment alignment."""
    assert output.prototypes_BKD is not None
    assert output.residues_BLD is not None
    assert output.residue_mask_BL is not None
    assert output.present_BK is not None
    assert output.pda_scale is not None
    segments_BKD = dynamic_segments(
        output.prototypes_BKD,
        output.residues_BLD,
        output.residue_mask_BL,
        on_device(config.pda.thetas, output.residues_BLD),
    )
    return segment_alignment(
        segments_BKD, output.prototypes_BKD, output.present_BK, output.pda_scale, totals.aligned
    )


TERMS: dict[str, Callable[[ModelOutput, LossConfig, Totals], Tensor]] = {
    "gc": _gc,
    "bsr": _bsr,
    "mlm": _mlm,
    "pda": _pda,
}
"""Every term by the name that its weight, its metric and its ablation bear."""


def objective(
    output: ModelOutput, config: LossConfig, totals: Totals, gc: Tensor | None = None
) -> LossReport:
    """The weighted sum of the terms whose weight is above 0, and each of them unweighted.

    Args:
        output: What the model computed for these terms, of a rank's whole batch or of a microbatch.
        config: Weights, θ, form of the contrastive loss.
        totals: Of the step.
        gc: GC of a microbatch, which depends on the others (see `GradientCache`).

    Returns:
        These pairs' share of the step's loss, see `share_of_mean`.
    """
    weights = {name: weight for name, weight in config.weights.items() if weight}
    terms = {
        name: gc if name == "gc" and gc is not None else TERMS[name](output, config, totals)
        for name in weights
    }
    total = torch.stack([weight * terms[name] for name, weight in weights.items()]).sum()
    return LossReport(total, {name: term.detach() for name, term in terms.items()})
