"""A training state of a few small tensors, whose every value follows from the step."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from protclip.checkpoint import Found
from protclip.config.schema import PretrainConfig, RunConfig
from protclip.data.dataset import Position
from protclip.training.sharding import full_moments, full_parameters
from protclip.training.state import TrainState
from protclip.training.store import CheckpointStore

CONFIG = PretrainConfig(data="pairs", run=RunConfig(name="small"))
METRIC = "valid/score"


@dataclass
class Architecture:
    """What a checkpoint keeps of it."""

    width: int

    def to_dict(self) -> dict[str, Any]:
        return {"width": self.width}


class Small(nn.Module):
    """Two layers and a temperature."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.architecture = Architecture(width)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, 2 * width)
        self.scale = nn.Parameter(torch.ones(1))


def state_at(step: int, width: int = 8, salt: int = 0) -> TrainState:
    """The state after `step` updates; another `salt` gives another run."""
    torch.manual_seed(salt)
    model = Small(width)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    state = TrainState(model, optimizer, LambdaLR(optimizer, lambda n: 1 / (n + 1)))  # pyright: ignore[reportArgumentType]
    for _ in range(step):
        update(state)
    return state


def update(state: TrainState) -> None:
    """One update, with gradients that follow from the step."""
    generator = torch.Generator().manual_seed(state.step)
    for parameter in state.model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    state.optimizer.step()
    state.schedule.step()
    state.step += 1
    state.position = Position(state.step // 10, state.step % 10)


def save(store: CheckpointStore, state: TrainState, score: float | None = None) -> None:
    """Saves, with a tokenizer and a manifest that are just words."""
    store.save(state, CONFIG, "tokenizer", "manifest", "run", {} if score is None else {METRIC: score})


def tensors(state: TrainState) -> dict[str, Tensor]:
    """Parameters and moments by name, copied."""
    named = [*full_parameters(state.model), *full_moments(state.optimizer, state.model)]
    return {name: tensor.clone() for name, tensor in named}


def holds(found: Found | None, state: TrainState) -> bool:
    """Whether a checkpoint has exactly a state's tensors, step and position."""
    assert found is not None
    stored = {**found.parameters, **found.moments}
    expected = tensors(state)
    return (
        stored.keys() == expected.keys()
        and all(torch.equal(stored[name], expected[name]) for name in expected)
        and (found.meta.step, found.meta.epoch, found.meta.batch_index) == (state.step, *state.position)
    )
