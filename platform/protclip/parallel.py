"""The few collective operations training needs; on one process each of them is the identity."""

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """True inside an initialised process group of more than one rank."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process's rank, 0 without a process group."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of ranks, 1 without a process group."""
    return dist.get_world_size() if is_distributed() else 1


class _GatherRows(torch.autograd.Function):
    """Concatenates equal-sized blocks of all ranks; its adjoint sums every rank's gradient."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, rows: Tensor) -> Tensor:
        gathered = rows.new_empty((world_size() * rows.shape[0], *rows.shape[1:]))
        dist.all_gather_single(gathered, rows.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> Tensor:
        total = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]


def gather_rows(rows: Tensor) -> Tensor:
    """Rows of all ranks in rank order, differentiable (paper: features gathered with gradient).

    Args:
        rows: (B, …), the same shape on every rank.

    Returns:
        (world_size · B, …).
    """
    return _GatherRows.apply(rows) if is_distributed() else rows  # pyright: ignore[reportReturnType]


def mean_over_ranks(value: Tensor) -> Tensor:
    """Average over ranks, without gradient."""
    value = value.detach().clone()
    if is_distributed():
        dist.all_reduce(value)
        value /= world_size()
    return value
