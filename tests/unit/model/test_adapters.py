import copy
import json

import pytest
import torch
from torch import Tensor

from protclip.config.schema import ModelConfig, OptimConfig
from protclip.model.protclip import Architecture, ProtCLIP
from protclip.tensors import CLS, EOS, PAD
from protclip.training import freezing
from protclip.training.optim import make_optimizer
from tiny_models import model_config, tiny_loss, tiny_model

TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


def lora(rank: int = 4, **protein: object) -> ModelConfig:
    settings = {"rank": rank, "alpha": 2.5, "targets": TARGETS}
    return model_config(protein={"lora": settings, **protein}, text={"trainable": False})


def tokens() -> Tensor:
    """Three proteins of several lengths."""
    tokens_BL = torch.randint(4, 24, (3, 20), generator=torch.Generator().manual_seed(1))
    for row, length in zip(tokens_BL, (20, 7, 13), strict=True):
        row[0], row[length - 1], row[length:] = CLS, EOS, PAD
    return tokens_BL


def states(model: ProtCLIP) -> Tensor:
    """Residue states, 0 at padding."""
    tokens_BL = tokens()
    return model.protein_encoder(tokens_BL).masked_fill((tokens_BL == PAD)[..., None], 0)


def train(model: ProtCLIP, config: ModelConfig, num_steps: int = 20) -> list[float]:
    """Loss before each step."""
    freezing.apply(model, config, 0)
    optimizer = make_optimizer(model, config, OptimConfig(lr=5e-3, encoder_lr_factor=1))
    losses = []
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss = tiny_loss(model)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture(scope="module")
def trained() -> tuple[ProtCLIP, list[float]]:
    model = tiny_model(lora())
    return model, train(model, lora())


def test_fresh_adapters_change_no_output_and_no_other_weight() -> None:
    plain, adapted = tiny_model(lora(rank=0)), tiny_model(lora())
    assert torch.equal(states(plain), states(adapted))
    weights = {n.replace(".base_layer", ""): w for n, w in adapted.state_dict().items() if "lora_" not in n}
    assert weights.keys() == plain.state_dict().keys()
    assert all(torch.equal(weights[name], w) for name, w in plain.state_dict().items())


def test_fresh_adapters_are_the_seed_s() -> None:
    before = torch.get_rng_state()
    one, other = tiny_model(lora()).state_dict(), tiny_model(lora()).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), before)


def test_only_the_adapters_of_the_tower_are_trained(trained: tuple[ProtCLIP, list[float]]) -> None:
    model, losses = trained
    tower = dict(model.protein_encoder.named_parameters())
    updated = {name for name, parameter in tower.items() if parameter.grad is not None}
    assert updated == {name for name in tower if "lora_" in name}
    assert len(updated) == 2 * len(TARGETS) * model.architecture.protein.num_layers
    start = tiny_model(lora()).protein_encoder.state_dict()
    assert {name for name in tower if not torch.equal(start[name], tower[name])} == updated
    assert sum(tower[name].numel() for name in updated) < 0.15 * sum(p.numel() for p in tower.values())
    assert losses[-1] < 0.5 * losses[0]


def test_merged_adapters_are_plain_weights_with_the_same_output(
    trained: tuple[ProtCLIP, list[float]],
) -> None:
    model = copy.deepcopy(trained[0])
    expected = states(model)
    assert not torch.allclose(expected, states(tiny_model(lora())), atol=1e-2)
    model.merge_adapters()
    torch.testing.assert_close(states(model), expected, atol=1e-5, rtol=0)
    plain = tiny_model(lora(rank=0))
    assert model.architecture == plain.architecture
    plain.load_state_dict(model.state_dict())
    assert torch.equal(states(plain), states(model))


def test_merging_without_adapters_does_nothing() -> None:
    model = tiny_model(lora(rank=0))
    before = states(model)
    model.merge_adapters()
    assert torch.equal(states(model), before)


def test_a_checkpoint_rebuilds_the_adapters(trained: tuple[ProtCLIP, list[float]]) -> None:
    model = trained[0]
    architecture = Architecture.from_dict(json.loads(json.dumps(model.architecture.to_dict())))
    assert architecture == model.architecture
    rebuilt = ProtCLIP(architecture)
    rebuilt.load_state_dict(model.state_dict())
    assert torch.equal(states(rebuilt), states(model))


def test_checkpointing_gives_the_adapters_the_same_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        config = lora(checkpointing=checkpointing)
        model = tiny_model(config).train()
        freezing.apply(model, config, 0)
        tiny_loss(model).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    plain, recomputed = gradients
    assert all(torch.equal(recomputed[name], gradient) for name, gradient in plain.items())
    assert any("lora_B" in name and gradient.abs().max() > 0 for name, gradient in plain.items())


def test_an_adapted_matrix_compiles_into_one_graph(trained: tuple[ProtCLIP, list[float]]) -> None:
    matrix = trained[0].protein_encoder.layers[0].fc1
    x_NH = torch.randn(5, matrix.in_features, generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(matrix, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x_NH), matrix(x_NH))
