"""Optimizer, parameter groups and learning-rate schedule."""

import math
from collections.abc import Iterator

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from protclip.config.schema import OptimConfig

ENCODER_PREFIXES = ("protein_encoder.", "text_encoder.")


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, object]]:
    """Four groups: encoders at `lr · encoder_lr_factor` or not, matrices with weight decay or not.

    The authors' code means to slow the encoders down but its name test never matches; here it does.
    Biases, norms and temperatures are never decayed. Frozen parameters are in no group.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in _trainable(model):
        key = name.startswith(ENCODER_PREFIXES), parameter.ndim >= 2
        groups.setdefault(key, []).append(parameter)
    return [
        {
            "name": ("encoder" if encoder else "head") + ("_matrix" if matrix else "_vector"),
            "params": parameters,
            "lr": config.lr * (config.encoder_lr_factor if encoder else 1.0),
            "weight_decay": config.weight_decay if matrix else 0.0,
        }
        for (encoder, matrix), parameters in sorted(groups.items())
    ]


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Named parameters that are trained."""
    return ((n, p) for n, p in model.named_parameters() if p.requires_grad)


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW; with the paper's weight decay of 0 it is Adam. Fused on CUDA."""
    device = next(model.parameters()).device
    return torch.optim.AdamW(
        parameter_groups(model, config),
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=device.type == "cuda",
    )


def lr_factor(step: int, max_steps: int, config: OptimConfig) -> float:
    """Factor on the peak rate for the update after `step` updates: linear warm-up, then cosine."""
    warmup = round(config.warmup_share * max_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, max_steps - warmup))
    cosine = (1 + math.cos(math.pi * progress)) / 2
    return config.final_lr_share + (1 - config.final_lr_share) * cosine


def make_schedule(optimizer: torch.optim.Optimizer, max_steps: int, config: OptimConfig) -> LambdaLR:
    """The schedule of `lr_factor` for every group."""
    return LambdaLR(optimizer, lambda step: lr_factor(step, max_steps, config))
