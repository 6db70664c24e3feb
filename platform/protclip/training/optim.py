"""Optimizer, parameter groups and learning-rate schedule."""

import math
from typing import TypedDict

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from protclip.config.schema import ModelConfig, OptimConfig
from protclip.model.protclip import ProtCLIP
from protclip.training.freezing import EMBEDDING, encoder_layer, trained_since


class Group(TypedDict):
    """One of torch's parameter groups, with two entries of ours: a name, and the first step it is trained."""

    name: str
    params: list[nn.Parameter]
    lr: float
    weight_decay: float
    start: int


def parameter_groups(model: ProtCLIP, config: ModelConfig, optim: OptimConfig) -> list[Group]:
    """Heads and both towers, each tower by layer when `layer_decay` is below 1; matrices apart from vectors.

    Both encoders learn at `lr · encoder_lr_factor`, layer i of n of them at `layer_decay^(n-1-i)` times
    that, the embedding at `layer_decay^n` times (Howard & Ruder 2018; BEiT). The authors' code means to
    slow the encoders down but its name test never matches; here it does. Biases, norms and temperatures
    are never decayed. Parameters that are never trained are in no group.

    Returns:
        torch's groups; names are such as `head_vector`, `text_matrix`, `protein_layer_05_matrix`,
        `protein_embedding_matrix`.
    """
    num_layers = {
        "protein": model.architecture.protein.num_layers,
        "text": model.architecture.text.num_layers,
    }
    since = trained_since(model, config)
    groups: dict[str, Group] = {}
    for name, parameter in model.named_parameters():
        if name not in since:
            continue
        group, lr = "head", optim.lr
        tower = name.partition("_encoder.")[0]
        if tower in num_layers:
            layer = encoder_layer(name, num_layers[tower])
            lr *= optim.encoder_lr_factor * optim.layer_decay ** (num_layers[tower] - 1 - layer)
            group = tower
            if optim.layer_decay < 1:
                group += "_embedding" if layer == EMBEDDING else f"_layer_{layer:02}"
        matrix = parameter.ndim >= 2
        group += "_matrix" if matrix else "_vector"
        empty = Group(
            name=group,
            params=[],
            lr=lr,
            weight_decay=optim.weight_decay if matrix else 0.0,
            start=since[name],
        )
        groups.setdefault(group, empty)["params"].append(parameter)
    return list(groups.values())


def make_optimizer(model: ProtCLIP, config: ModelConfig, optim: OptimConfig) -> torch.optim.AdamW:
    """Fused AdamW over all that is ever trained; with the paper's weight decay of 0 it is Adam.

    What is still frozen has no gradient and is passed over; its moments begin when it is unfrozen.
    """
    groups = [dict(group) for group in parameter_groups(model, config, optim)]
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=True)


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Present learning rate of the heads and of each tower's uppermost layer, by name, for the log."""
    rates: dict[str, float] = {}
    for group in optimizer.param_groups:
        part = group["name"].partition("_")[0]
        rates[part] = max(group["lr"], rates.get(part, 0.0))
    return rates


def lr_factor(step: int, max_steps: int, config: OptimConfig, start: int = 0) -> float:
    """Factor on the peak rate for the update after `step` updates: linear warm-up, then cosine.

    What is unfrozen at `start` has a warm-up of the same length of its own, times the cosine that all
    share: Adam's moments begin at 0 there, and its first updates are as long as the rate allows [D].
    """
    warmup = round(config.warmup_share * max_steps)
    rise = min(1.0, max(0, step - start + 1) / (warmup + 1))
    progress = min(1.0, max(0, step - warmup) / max(1, max_steps - warmup))
    cosine = (1 + math.cos(math.pi * progress)) / 2
    return rise * (config.final_lr_share + (1 - config.final_lr_share) * cosine)


def make_schedule(optimizer: torch.optim.Optimizer, max_steps: int, config: OptimConfig) -> LambdaLR:
    """The schedule of `lr_factor`, each group from its own start."""
    return LambdaLR(
        optimizer,
        [
            lambda step, start=group["start"]: lr_factor(step, max_steps, config, start)
            for group in optimizer.param_groups
        ],
    )
