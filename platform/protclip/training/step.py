"""One optimisation step.

The only randomness of a step is PDA's noise, a function of (seed, step): nothing random is kept
between steps, so a resumed run repeats an uninterrupted one, and N ranks draw what one rank would.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from protclip import parallel
from protclip.config.schema import LossConfig
from protclip.losses.objective import objective
from protclip.records import NUM_PROPERTIES
from protclip.tensors import Batch, LossReport


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step leaves for the log; tensors stay on the device until somebody reads them.

    Attributes:
        losses: Total and terms of this rank.
        grad_norm: Norm of the whole gradient before clipping.
    """

    losses: LossReport
    grad_norm: Tensor


def gumbel_noise(seed: int, step: int, batch: int, num_prototypes: int, device: torch.device) -> Tensor:
    """Gumbel(0, 1) samples of PDA's prototype mixture for this rank's slice of the global batch.

    Args:
        seed: Seed of the run.
        step: Step number.
        batch: Pairs per rank (B).
        num_prototypes: Size of the bank (P).
        device: Where the result is wanted.

    Returns:
        float32 (B, K, P).
    """
    mixed = int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0])
    generator = torch.Generator().manual_seed(mixed >> 1)
    shape = (batch * parallel.world_size(), NUM_PROPERTIES, num_prototypes)
    uniform = torch.rand(shape, generator=generator).clamp_(min=torch.finfo(torch.float32).tiny)
    first = batch * parallel.rank()
    return -torch.log(-torch.log(uniform[first : first + batch].to(device, non_blocking=True)))


def train_step(
    model: nn.Module,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    schedule: LambdaLR,
    loss: LossConfig,
    *,
    seed: int,
    step: int,
    num_prototypes: int,
    clip_norm: float,
    bf16: bool,
) -> StepResult:
    """Forward, the weighted objectives, backward, clipping, update, schedule.

    Args:
        model: ProtCLIP, plain or wrapped for data parallelism, in training mode.
        batch: This rank's pairs, on the model's device.
        optimizer: Its optimizer.
        schedule: Its learning-rate schedule.
        loss: Weights of the terms.
        seed: Seed of the run.
        step: Updates done before this one.
        num_prototypes: Size of PDA's bank.
        clip_norm: Limit of the gradient's norm.
        bf16: Whether the forward pass runs under bf16 autocast.
    """
    device = batch.tokens_BL.device
    noise_BKP = None
    if loss.pda.weight:
        noise_BKP = gumbel_noise(seed, step, batch.num_pairs, num_prototypes, device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        output = model(batch, noise_BKP)
    losses = objective(output, loss)
    optimizer.zero_grad(set_to_none=True)
    losses.total.backward()
    trained = (p for group in optimizer.param_groups for p in group["params"])
    grad_norm = nn.utils.clip_grad_norm_(trained, clip_norm)
    optimizer.step()
    schedule.step()
    return StepResult(LossReport(losses.total.detach(), losses.terms), grad_norm)
