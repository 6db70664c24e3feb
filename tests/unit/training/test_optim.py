import itertools
import math

import pytest
import torch
from torch import nn

from protclip.config.schema import OptimConfig
from protclip.training.optim import lr_factor, make_optimizer, make_schedule, parameter_groups


class Towers(nn.Module):
    def __init__(self):
        super().__init__()
        self.protein_encoder = nn.Linear(2, 2)
        self.text_encoder = nn.Linear(2, 2).requires_grad_(False)
        self.projection = nn.Linear(2, 2)
        self.log_scale = nn.Parameter(torch.zeros(()))


def test_encoder_gets_its_own_learning_rate_and_frozen_parameters_none():
    groups = {g["name"]: g for g in parameter_groups(Towers(), OptimConfig(lr=1e-3, encoder_lr_factor=0.1))}
    assert groups["encoder_matrix"]["lr"] == groups["encoder_vector"]["lr"] == pytest.approx(1e-4)
    assert groups["head_matrix"]["lr"] == 1e-3
    assert sum(len(g["params"]) for g in groups.values()) == 5


def test_encoder_learning_rate_applies_to_the_update():
    model = Towers()
    optimizer = make_optimizer(model, OptimConfig(lr=1e-2, encoder_lr_factor=0.1))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    optimizer.step()
    moved = {n: (before[n] - p.detach()).abs().max().item() for n, p in model.named_parameters()}
    assert moved["protein_encoder.weight"] == pytest.approx(1e-3, rel=1e-3)
    assert moved["projection.weight"] == pytest.approx(1e-2, rel=1e-3)
    assert moved["text_encoder.weight"] == 0


def test_weight_decay_spares_vectors_and_temperatures():
    groups = parameter_groups(Towers(), OptimConfig(weight_decay=0.5))
    assert {g["name"]: g["weight_decay"] for g in groups} == {
        "encoder_matrix": 0.5,
        "encoder_vector": 0.0,
        "head_matrix": 0.5,
        "head_vector": 0.0,
    }


def test_schedule_warms_up_linearly_and_decays_to_its_end():
    config = OptimConfig(warmup_share=0.1, final_lr_share=0.2)
    factors = [lr_factor(s, 100, config) for s in range(101)]
    steps = [b - a for a, b in itertools.pairwise(factors[:11])]
    assert factors[0] > 0
    assert all(math.isclose(s, steps[0]) for s in steps)
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.6)
    assert factors[100] == pytest.approx(0.2)
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))


def test_schedule_scales_every_group():
    optimizer = make_optimizer(Towers(), OptimConfig(lr=1e-3, warmup_share=0.5))
    make_schedule(optimizer, 6, OptimConfig(lr=1e-3, warmup_share=0.5))
    rates = {g["name"]: g["lr"] for g in optimizer.param_groups}
    assert rates["head_matrix"] == pytest.approx(1e-3 / 4)
    assert rates["encoder_matrix"] == pytest.approx(1e-4 / 4)
