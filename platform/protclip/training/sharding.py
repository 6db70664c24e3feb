"""Whole tensors out of and into a model and its optimizer, whether they are sharded or not.

    full_parameters(model) -> Iterator[tuple[str, Tensor]]
    full_moments(optimizer, model) -> Iterator[tuple[str, Tensor]]
    load_parameters(model, tensors: Mapping[str, Tensor]) -> None
    load_moments(optimizer, model, tensors: Mapping[str, Tensor]) -> None

A tensor of a sharded model lies in pieces on all ranks (FSDP2's DTensor); what is written is always
whole and named by its parameter, so that a checkpoint fits any strategy and number of ranks. Every
rank calls these functions, in the same order: gathering is a collective operation.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from protclip.errors import CheckpointError


def full_parameters(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter by name, whole, detached, on the model's device; one exists at a time.

    An unsharded parameter is the model's own memory, not a copy.
    """
    for name, parameter in model.named_parameters():
        yield name, whole(parameter.detach())


def full_moments(optimizer: Optimizer, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The optimizer's state by `<what>/<parameter>`, whole: `exp_avg/…`, `exp_avg_sq/…`, `step/…`.

    Parameters that have not been updated yet have none. As with `full_parameters`, unsharded ones are
    the optimizer's own memory.
    """
    for name, parameter in model.named_parameters():
        for what, tensor in optimizer.state.get(parameter, {}).items():
            yield f"{what}/{name}", whole(tensor)


@torch.no_grad()
def load_parameters(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Loads whole tensors into every parameter; each rank keeps its own piece.

    Args:
        model: Sharded or not.
        tensors: Whole tensors by parameter name, on any device, the same on every rank; each is looked
            up once, so a mapping may read it from a file at that moment.

    Raises:
        CheckpointError: A name is missing or too many, or a shape differs.
    """
    parameters = dict(model.named_parameters())
    if differing := sorted(parameters.keys() ^ tensors.keys()):
        what = "too many" if differing[0] in tensors else "missing"
        raise CheckpointError(
            f"these weights belong to another model ({len(differing)} names differ, {differing[0]} is "
            f"{what}); check the model section of the configuration"
        )
    for name, parameter in parameters.items():
        parameter.copy_(_like(parameter, tensors[name], name))


def load_moments(optimizer: Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Replaces the optimizer's state by what `full_moments` gave.

    Args:
        optimizer: Of the model's parameters; they need no gradient yet.
        model: Sharded or not.
        tensors: Whole tensors by `<what>/<parameter>`, as in `load_parameters`.

    Raises:
        CheckpointError: A moment belongs to no parameter of the model, or a shape differs.
    """
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for key in tensors:
        what, _, name = key.partition("/")
        if name not in parameters:
            raise CheckpointError(
                f"the optimizer state {key} has no parameter in this model; check the model section of the "
                "configuration"
            )
        parameter, tensor = parameters[name], tensors[key]
        # Adam counts updates in a plain scalar beside each parameter.
        placed = tensor.to(parameter.device) if tensor.ndim == 0 else _like(parameter, tensor, key)
        optimizer.state[parameter][what] = placed.clone()


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its pieces, for every rank; all ranks call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _like(parameter: Tensor, tensor: Tensor, name: str) -> Tensor:
    """A whole tensor on the parameter's device, cut up as the parameter is."""
    if tensor.shape != parameter.shape:
        raise CheckpointError(
            f"{name} is {tuple(tensor.shape)} in the checkpoint and {tuple(parameter.shape)} in this model; "
            "check the model section of the configuration"
        )
    if not isinstance(parameter, DTensor):
        return tensor.to(parameter.device)
    # Without a source rank nothing is sent: every rank holds the whole tensor already.
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)
