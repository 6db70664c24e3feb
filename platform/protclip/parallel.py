"""The few collective operations training needs; on one process each of them is the identity."""

from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def is_distributed() -> bool:
    """True inside an initialised process group of more than one rank."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process's rank, 0 without a process group."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of ranks, 1 without a process group."""
    return dist.get_world_size() if is_distributed() else 1


def part(total: int, index: int, parts: int) -> tuple[int, int]:
    """Where the `index`-th of `parts` consecutive shares of `total` things starts and stops.

    Shares differ by one thing at most; the largest is ceil(total / parts).
    """
    return index * total // parts, (index + 1) * total // parts


def bounds(total: int) -> tuple[int, int]:
    """Where this rank's share of `total` things starts and stops; shares may differ by one."""
    return part(total, rank(), world_size())


class _GatherRows(torch.autograd.Function):
    """Concatenates the shares of all ranks; its adjoint sums every rank's gradient."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, rows: Tensor, total: int) -> Tensor:
        ranks = world_size()
        most = -(-total // ranks)
        # Collectives take equal sizes: shares one shorter send a row that nobody reads.
        sent = rows.new_zeros((most, *rows.shape[1:]))
        sent[: len(rows)] = rows
        gathered = rows.new_empty((ranks * most, *rows.shape[1:]))
        dist.all_gather_single(gathered, sent)
        if ranks * most == total:
            return gathered
        sizes = [stop - start for start, stop in (part(total, index, ranks) for index in range(ranks))]
        return torch.cat([share[:size] for share, size in zip(gathered.split(most), sizes, strict=True)])

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor, None]:
        total = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        start, stop = bounds(len(total))
        return total[start:stop], None


def gather_rows(rows: Tensor, total: int) -> Tensor:
    """Rows of all ranks in rank order, differentiable (paper: features gathered with gradient).

    Args:
        rows: (B, …), this rank's share of all rows as `bounds` has it.
        total: Rows of all ranks (G).

    Returns:
        (G, …).
    """
    start, stop = bounds(total)
    assert len(rows) == stop - start, f"{len(rows)} rows are not this rank's share of {total}"
    return _GatherRows.apply(rows, total) if is_distributed() else rows  # pyright: ignore[reportReturnType]


def sum_over_ranks(value: Tensor) -> Tensor:
    """Sum over ranks, without gradient."""
    value = value.detach().clone()
    if is_distributed():
        dist.all_reduce(value)
    return value


def mean_over_ranks(value: Tensor) -> Tensor:
    """Average over ranks, without gradient."""
    return sum_over_ranks(value) / world_size()


def from_rank_0(value: T) -> T:
    """Rank 0's value on every rank; a small one that can be pickled."""
    if not is_distributed():
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]
