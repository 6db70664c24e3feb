import itertools

import pytest
import torch
from torch import Tensor, nn

from protclip.config.load import load_config
from protclip.config.schema import LossConfig, ModelConfig, OptimConfig, PretrainConfig
from protclip.errors import ConfigError
from protclip.model.protclip import USED_BY
from protclip.training import freezing
from protclip.training.optim import make_optimizer, make_schedule
from tiny_models import GC_ONLY, model_config, tiny_loss, tiny_model

OPTIM = OptimConfig(lr=1e-2, encoder_lr_factor=0.5)
NUM_STEPS = 6


def trained(config: ModelConfig, step: int, loss: LossConfig = GC_ONLY) -> set[str]:
    """Names of the parameters that are trained at a step."""
    model = tiny_model(config, loss)
    freezing.apply(model, config, step)
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def parts(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


class Run:
    """Six plain steps, those of the loop as far as freezing is concerned."""

    def __init__(self, config: ModelConfig) -> None:
        self.config, self.model, self.step = config, tiny_model(config), 0
        self.optimizer = make_optimizer(self.model, config, OPTIM)
        self.schedule = make_schedule(self.optimizer, NUM_STEPS, OPTIM)

    def weights(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def until(self, step: int) -> list[dict[str, Tensor]]:
        """The weights before and after every step on the way."""
        seen = [self.weights()]
        while self.step < step:
            freezing.apply(self.model, self.config, self.step)
            self.optimizer.zero_grad(set_to_none=True)
            tiny_loss(self.model).backward()
            self.optimizer.step()
            self.schedule.step()
            self.step += 1
            seen.append(self.weights())
        return seen


@pytest.mark.parametrize("term", ["gc", "bsr", "mlm", "pda"])
def test_parts_that_no_objective_uses_are_not_trained(term: str) -> None:
    weights = dict.fromkeys(("gc", "bsr", "mlm"), 0.0) | ({term: 1.0} if term != "pda" else {})
    loss = LossConfig.model_validate(weights | {"pda": {"weight": float(term == "pda")}})
    assert parts(trained(model_config(), 0, loss)) == {
        part for part, terms in USED_BY.items() if term in terms and part != "logit_bias"
    }


def test_a_tower_is_trained_from_its_step_on() -> None:
    config = model_config(protein={"unfreeze_at": 3}, text={"unfreeze_at": 5})
    found = [
        parts(trained(config, step)) & {"protein_encoder", "text_encoder"} for step in (0, 2, 3, 4, 5, 9)
    ]
    protein, both = {"protein_encoder"}, {"protein_encoder", "text_encoder"}
    assert found == [set(), set(), protein, protein, both, both]


def test_a_tower_that_is_not_trainable_never_is() -> None:
    config = model_config(protein={"trainable": False}, text={"trainable": False})
    assert parts(trained(config, 10**9)) == {"protein_projection", "text_projection", "log_scale"}


def test_the_last_layers_are_trained_with_the_norm_above_them() -> None:
    names = trained(model_config(protein={"train_layers": 1}, text={"train_layers": 1}), 0)
    every = {name for name, _ in tiny_model(model_config()).named_parameters()}
    upper = ("protein_encoder.layers.1.", "protein_encoder.emb_layer", "text_encoder.bert.encoder.layer.1.")
    assert {n for n in names if "_encoder." in n} == {n for n in every if n.startswith(upper)}
    all_layers = trained(model_config(protein={"train_layers": 2}), 0)
    assert {n for n in every if n.startswith("protein_encoder.")} - all_layers == {
        "protein_encoder.embed_tokens.weight"
    }


def test_apply_tells_whether_the_trained_set_changed() -> None:
    config = model_config(protein={"unfreeze_at": 2})
    model = tiny_model(config)
    assert [freezing.apply(model, config, step) for step in range(4)] == [True, False, True, False]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_frozen_lower_layers_run_forward_once_and_never_backward(checkpointing: bool) -> None:
    config = model_config(protein={"train_layers": 1, "checkpointing": checkpointing})
    model = tiny_model(config).train()
    freezing.apply(model, config, 0)
    runs: list[tuple[int, bool]] = []
    for i, layer in enumerate(model.protein_encoder.layers):

        def note(_: nn.Module, inputs: tuple[Tensor, ...], i: int = i) -> None:
            runs.append((i, inputs[0].requires_grad))

        layer.register_forward_pre_hook(note)
    tiny_loss(model).backward()
    assert runs == [(0, False), (1, False), (1, False)][: 2 + checkpointing]


def test_weights_change_from_the_step_of_unfreezing_on() -> None:
    seen = Run(model_config(protein={"unfreeze_at": 3})).until(NUM_STEPS)
    for step, (before, after) in enumerate(itertools.pairwise(seen)):
        changed = parts({name for name in before if not torch.equal(before[name], after[name])})
        assert ("protein_encoder" in changed) == (step >= 3), step
        assert {"text_encoder", "protein_projection"} <= changed


def test_a_tower_is_unfrozen_gently() -> None:
    """The first update of its weights, Adam's, is as long as the rate: not yet the full one."""
    optim = OptimConfig(lr=1e-2, encoder_lr_factor=1, warmup_share=0.5, final_lr_share=1)
    config = model_config(protein={"unfreeze_at": 3})
    optimizer = make_optimizer(tiny_model(config), config, optim)
    schedule = make_schedule(optimizer, NUM_STEPS, optim)
    rates = []
    for _ in range(7):
        rates.append({g["name"]: g["lr"] / optim.lr for g in optimizer.param_groups})
        optimizer.step()
        schedule.step()
    assert [r["protein_matrix"] for r in rates] == pytest.approx([0, 0, 0, 0.25, 0.5, 0.75, 1])
    assert [r["text_matrix"] for r in rates] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1])


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_a_resumed_schedule_ends_as_the_uninterrupted_one(stop: int) -> None:
    config = model_config(protein={"unfreeze_at": 3}, text={"train_layers": 1, "unfreeze_at": 1})
    whole = Run(config).until(NUM_STEPS)[-1]
    first, rest = Run(config), Run(config)
    first.until(stop)
    rest.model.load_state_dict(first.model.state_dict())
    rest.optimizer.load_state_dict(first.optimizer.state_dict())
    rest.schedule.load_state_dict(first.schedule.state_dict())
    rest.step = stop
    assert all(torch.equal(tensor, whole[name]) for name, tensor in rest.until(NUM_STEPS)[-1].items())


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.text.train_layers=2"], "no effect with trainable=false"),
        (["model.protein.trainable=false", "model.protein.unfreeze_at=5"], "no effect with trainable=false"),
        (["model.protein.lora.rank=8", "model.protein.train_layers=1"], "drop train_layers or lora.rank"),
        (["model.protein.lora.rank=8", "model.protein.trainable=false"], "trainable=false freezes them"),
        (["model.protein.unfreeze_at=100", "train.max_steps=100"], "past the last step, 99"),
        (["optim.layer_decay=1.1"], "layer_decay"),
        (["model.protein.lora.targets=lm_head"], "targets"),
    ],
)
def test_combinations_without_effect_are_errors(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(PretrainConfig, None, ["data=pairs", "run.name=x", *overrides])


def test_more_layers_than_there_are_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"model\.protein\.train_layers=3: esm2-tiny has 2 layers"):
        tiny_model(model_config(protein={"train_layers": 3}))
    with pytest.raises(ConfigError, match=r"model\.text\.train_layers=9: bert-tiny has 2 layers"):
        tiny_model(model_config(text={"train_layers": 9}))
