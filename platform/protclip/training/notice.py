"""Requests that reach a running training from outside, and how all ranks act on them at the same step."""

from datetime import timedelta
from enum import IntEnum

import torch
import torch.distributed as dist

from protclip import parallel


class Notice(IntEnum):
    """What is asked of the loop; of several, the highest counts."""

    NONE = 0
    SAVE = 1
    """Write a checkpoint after this step and go on: a node will soon be taken away."""
    STOP = 2
    """Write a checkpoint after this step and return."""


class Agreement:
    """Tells every rank, at the same step, the highest notice that any rank had one step before.

    The exchange runs on the host beside the step (gloo), so it costs neither a wait nor a device
    synchronisation. All ranks construct it, and call it once per step.
    """

    def __init__(self, timeout_s: float) -> None:
        """Opens a process group of its own.

        Args:
            timeout_s: Seconds after which a rank that does not answer is an error.
        """
        self._group = None
        if parallel.is_distributed():
            self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))
        self._highest = torch.zeros(1, dtype=torch.int32)
        self._work: dist.Work | None = None

    def __call__(self, mine: Notice) -> Notice:
        """Sends this rank's notice and returns what all ranks agreed on at the last call.

        Without a process group `mine` comes straight back.
        """
        if self._group is None:
            return mine
        agreed = Notice.NONE
        if self._work is not None:
            self._work.wait()
            agreed = Notice(int(self._highest))
        self._highest.fill_(mine)
        self._work = dist.all_reduce(self._highest, dist.ReduceOp.MAX, group=self._group, async_op=True)
        return agreed
