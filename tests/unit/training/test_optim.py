import itertools
import math

import pytest
import torch

from protclip.config.schema import ModelConfig, OptimConfig
from protclip.training import freezing
from protclip.training.optim import (
    learning_rates,
    lr_factor,
    make_optimizer,
    make_schedule,
    parameter_groups,
)
from tiny_models import model_config, tiny_model


def rates(config: ModelConfig, optim: OptimConfig) -> dict[str, float]:
    """Learning rate of every parameter by name; checks that none is in two groups."""
    model = tiny_model(config)
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = [(names[p], g["lr"]) for g in parameter_groups(model, config, optim) for p in g["params"]]
    assert len(dict(found)) == len(found)
    return dict(found)


def test_encoders_get_their_own_learning_rate_and_what_is_never_trained_none() -> None:
    config = model_config(text={"trainable": False})
    groups = {g["name"]: g for g in parameter_groups(tiny_model(config), config, OptimConfig(lr=1e-3))}
    assert {name: group["lr"] for name, group in groups.items()} == pytest.approx(
        {"protein_matrix": 1e-4, "protein_vector": 1e-4, "head_matrix": 1e-3, "head_vector": 1e-3}
    )


def test_layers_learn_more_slowly_the_lower_they_are() -> None:
    found = rates(model_config(), OptimConfig(lr=1e-3, encoder_lr_factor=0.5, layer_decay=0.8))
    expected = {}
    for name in found:
        factor = 1.0
        if name.startswith(("protein_encoder", "text_encoder")):
            factor = 0.5
            for below, part in ((0.8**2, "embed"), (0.8, "layers.0."), (0.8, "layer.0.")):
                if part in name:
                    factor = 0.5 * below
        expected[name] = 1e-3 * factor
    assert found == pytest.approx(expected)
    assert len(set(expected.values())) == 4


def test_groups_of_layers_are_few_and_named() -> None:
    config = model_config(text={"train_layers": 1})
    groups = parameter_groups(tiny_model(config), config, OptimConfig(layer_decay=0.9))
    assert [group["name"] for group in groups if not group["name"].startswith("head")] == [
        "protein_embedding_matrix",
        "protein_layer_00_matrix",
        "protein_layer_00_vector",
        "protein_layer_01_matrix",
        "protein_layer_01_vector",
        "text_layer_01_matrix",
        "text_layer_01_vector",
    ]


def test_the_optimizer_holds_what_is_yet_to_be_unfrozen() -> None:
    config = model_config(protein={"unfreeze_at": 100})
    model = tiny_model(config)
    before = parameter_groups(model, config, OptimConfig())
    freezing.apply(model, config, step=0)
    assert parameter_groups(model, config, OptimConfig()) == before
    assert {g["name"]: g["start"] for g in before} == {
        "protein_matrix": 100,
        "protein_vector": 100,
        "text_matrix": 0,
        "text_vector": 0,
        "head_matrix": 0,
        "head_vector": 0,
    }


def test_encoder_learning_rate_applies_to_the_update_and_what_has_no_gradient_stays() -> None:
    config = model_config(text={"unfreeze_at": 1})
    model = tiny_model(config)
    freezing.apply(model, config, step=0)
    optimizer = make_optimizer(model, config, OptimConfig(lr=1e-2, encoder_lr_factor=0.1))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    optimizer.step()
    moved = {n: (before[n] - p.detach()).abs().max().item() for n, p in model.named_parameters()}
    assert moved["protein_encoder.layers.0.fc1.weight"] == pytest.approx(1e-3, rel=1e-3)
    assert moved["protein_projection.0.weight"] == pytest.approx(1e-2, rel=1e-3)
    assert not any(moved[name] for name in moved if name.startswith("text_encoder"))


def test_weight_decay_spares_vectors_and_temperatures() -> None:
    config = model_config()
    groups = parameter_groups(tiny_model(config), config, OptimConfig(weight_decay=0.5))
    assert {g["name"]: g["weight_decay"] for g in groups} == {
        f"{part}_{kind}": decay
        for part in ("protein", "text", "head")
        for kind, decay in (("matrix", 0.5), ("vector", 0.0))
    }


def test_an_update_whose_gradient_is_not_finite_can_be_left_out() -> None:
    config = model_config()
    model = tiny_model(config)
    optimizer = make_optimizer(model, config, OptimConfig(lr=1e-2))
    optimizer.found_inf = torch.tensor(1.0)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.full_like(p, math.nan)
    optimizer.step()
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_schedule_warms_up_linearly_and_decays_to_its_end() -> None:
    config = OptimConfig(warmup_share=0.1, final_lr_share=0.2)
    factors = [lr_factor(s, 100, config) for s in range(101)]
    steps = [b - a for a, b in itertools.pairwise(factors[:11])]
    assert factors[0] > 0
    assert all(math.isclose(s, steps[0]) for s in steps)
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.6)
    assert factors[100] == pytest.approx(0.2)
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))


def test_what_starts_late_has_its_own_warm_up_on_the_common_cosine() -> None:
    config = OptimConfig(warmup_share=0.1)
    late = [lr_factor(s, 100, config, start=40) for s in range(101)]
    common = [lr_factor(s, 100, config) for s in range(101)]
    assert late[:40] == [0.0] * 40
    assert late[40:50] == pytest.approx([(i + 1) / 11 * common[40 + i] for i in range(10)])
    assert late[50:] == common[50:]


def test_schedule_scales_every_group_and_the_log_has_one_rate_per_part() -> None:
    config, optim = model_config(protein={"unfreeze_at": 4}), OptimConfig(lr=1e-3, layer_decay=0.5)
    optimizer = make_optimizer(tiny_model(config), config, optim)
    make_schedule(optimizer, 6, optim.model_copy(update={"warmup_share": 0.5}))
    found = {g["name"]: g["lr"] for g in optimizer.param_groups}
    assert found["head_matrix"] == pytest.approx(1e-3 / 4)
    assert found["text_layer_01_matrix"] == pytest.approx(1e-4 / 4)
    assert found["text_layer_00_matrix"] == pytest.approx(5e-5 / 4)
    assert learning_rates(optimizer) == pytest.approx({"head": 1e-3 / 4, "text": 1e-4 / 4, "protein": 0})
