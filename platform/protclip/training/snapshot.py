"""A rank's share of a training state, copied to host memory."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from protclip import checkpoint, parallel
from protclip.training.sharding import full_moments, full_parameters
from protclip.training.state import TrainState


@dataclass(frozen=True, slots=True)
class Share:
    """Whole tensors that one rank writes.

    Attributes:
        tensors: By role (`checkpoint.MODEL`, `checkpoint.OPTIMIZER`) and name, in host memory.
        copied: Recorded behind copies from a GPU; until it has passed the tensors hold anything.
    """

    tensors: dict[str, dict[str, Tensor]]
    copied: torch.cuda.Event | None


class Snapshots:
    """Takes snapshots into the same memory again and again, pinned when the tensors come from a GPU."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, str], Tensor] = {}

    def take(self, state: TrainState) -> Share:
        """This rank's share; the one taken before is lost. Every rank calls it.

        Whoever has the least bytes so far gets the next tensor, so all ranks know all shares. On a GPU the
        copies are queued behind the step, and the host goes on: what changes the state comes behind them.
        """
        sources: dict[str, Iterable[tuple[str, Tensor]]] = {
            checkpoint.MODEL: full_parameters(state.model),
            checkpoint.OPTIMIZER: full_moments(state.optimizer, state.model),
        }
        loads = [(0, rank) for rank in range(parallel.world_size())]
        buffers: dict[tuple[str, str], Tensor] = {}
        for role, tensors in sources.items():
            for name, tensor in tensors:
                load, rank = loads[0]
                heapq.heapreplace(loads, (load + tensor.nbytes, rank))
                if rank != parallel.rank():
                    continue
                buffer = self._buffers.get((role, name))
                if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
                    buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
                buffers[role, name] = buffer.copy_(tensor.detach(), non_blocking=True)
        self._buffers = buffers
        copied = None
        if any(buffer.is_pinned() for buffer in buffers.values()):
            copied = torch.cuda.Event()
            copied.record()
        share = {role: {n: b for (r, n), b in buffers.items() if r == role} for role in sources}
        return Share(share, copied)
