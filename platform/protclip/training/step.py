"""One optimisation step over any number of microbatches, with the gradient of one large batch.

A term that is a mean over pairs, residues or properties adds up over microbatches. The global
contrastive loss does not, as every pair is held against all others: with several microbatches, each is
first embedded without gradient, and computed anew with its share of that loss's gradient (GradCache,
Gao et al. 2021). No random state has to be kept for the second time: the model has no dropout, masks
come with the batch, and PDA's noise is a function of (seed, step, sampling key, prototype). For the same
reason a resumed run repeats an uninterrupted one, and N ranks compute what one would.

Nothing here waits for the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from protclip import parallel
from protclip.config.schema import LossConfig
from protclip.losses.contrastive import GradientCache
from protclip.losses.objective import Totals, objective
from protclip.records import NUM_PROPERTIES
from protclip.tensors import Batch, LossReport
from protclip.training.replica import Replica


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step leaves for the log, the same on every rank; on the device until somebody reads it.

    Attributes:
        losses: Total and terms of the global batch.
        grad_norm: Norm of the whole gradient before clipping.
        part_norms: That of each part of the model.
        skipped: 1 when loss or gradient was not finite and the update was left out, else 0; float32.
    """

    losses: LossReport
    grad_norm: Tensor
    part_norms: dict[str, Tensor]
    skipped: Tensor


def _mixed(values: Tensor) -> Tensor:
    """SplitMix64's finalising bijection (Steele, Lea, Flood 2014) of int64, whose shifts keep the sign."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64)):
        values = (values ^ ((values >> shift) & (2 ** (64 - shift) - 1))) * factor
    return values ^ ((values >> 31) & (2**33 - 1))


def gumbel_noise(seed: int, step: int, keys_B: Tensor, num_prototypes: int) -> Tensor:
    """Gumbel(0, 1) samples of PDA's prototype mixture, each a function of (seed, step, key, k, p).

    Args:
        seed: Seed of the run.
        step: Updates done before this one.
        keys_B: Sampling keys of the pairs, int64.
        num_prototypes: Size of the bank (P).

    Returns:
        float32 (B, K, P) on the keys' device.
    """
    salt = int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64).view(np.int64)[0])
    places = torch.arange(1, NUM_PROPERTIES * num_prototypes + 1, device=keys_B.device)
    streams = _mixed(_mixed(keys_B ^ salt)[:, None] + places * (0x9E3779B97F4A7C15 - 2**64))
    # 23 bits and a half: float32 holds every such value exactly, 0 and 1 are not among them.
    uniform = (((streams >> 41) & (2**23 - 1)).float() + 0.5) / 2**23
    return -torch.log(-torch.log(uniform)).unflatten(1, (NUM_PROPERTIES, num_prototypes))


def train_step(
    replica: Replica,
    batches: Sequence[Batch],
    optimizer: torch.optim.AdamW,
    schedule: LambdaLR,
    loss: LossConfig,
    *,
    global_batch: int,
    seed: int,
    step: int,
    clip_norm: float,
) -> StepResult:
    """The weighted objectives of all microbatches, their gradient, clipping, update, schedule.

    Where the loss or the gradient is not finite on any rank, no rank's parameters and moments change.

    Args:
        replica: The model, in training mode.
        batches: This rank's microbatches, on the model's device; equally many on every rank.
        optimizer: Its fused optimizer.
        schedule: Its learning-rate schedule; it goes on also when the update is left out.
        loss: Weights of the terms.
        global_batch: Pairs of all ranks (G).
        seed: Seed of the run.
        step: Updates done before this one.
        clip_norm: Limit of the gradient's norm.
    """
    num_prototypes = replica.bare.architecture.num_prototypes
    totals = Totals.of(batches, global_batch)
    cache = None
    if loss.gc and len(batches) > 1:
        cache = GradientCache([replica.embed(batch) for batch in batches], loss, global_batch)
    optimizer.zero_grad(set_to_none=True)
    reports = []
    for index, batch in enumerate(batches):
        noise_BKP = gumbel_noise(seed, step, batch.keys_B, num_prototypes) if loss.pda.weight else None
        with replica.reducing(last=index + 1 == len(batches)):
            output = replica.forward(batch, noise_BKP)
            report = objective(output, loss, totals, cache.share(index, output) if cache else None)
            report.total.backward()
        reports.append(report)
    losses = _whole(reports)
    part_norms = replica.part_norms()
    grad_norm = replica.clip(clip_norm, part_norms)
    skipped = 1 - (losses.total.isfinite() & grad_norm.isfinite()).float()
    # As torch's gradient scaler does: fused Adam reads them on the device and leaves everything as it is.
    optimizer.grad_scale, optimizer.found_inf = None, skipped  # pyright: ignore[reportAttributeAccessIssue]
    optimizer.step()
    schedule.step()
    replica.bare.limit_scales()
    return StepResult(losses, grad_norm, part_norms, skipped)


def _whole(reports: Sequence[LossReport]) -> LossReport:
    """The losses of the global batch: microbatches' shares summed, ranks' averaged."""
    names = list(reports[0].terms)
    shares_KN = torch.stack([torch.stack([r.total.detach(), *r.terms.values()]) for r in reports])
    total, *terms = parallel.mean_over_ranks(shares_KN.sum(0)).unbind()
    return LossReport(total, dict(zip(names, terms, strict=True)))
