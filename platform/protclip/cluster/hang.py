"""Which worker of a group that has stopped moving is behind the others."""

from collections.abc import Sequence
from dataclasses import dataclass

SILENT_S = 5.0
"""A process that has given no sign of life for so long is stopped or gone: it gives one every second."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A worker's sign of life.

    Attributes:
        group: Number of the worker group; beats of an earlier one do not count.
        rank: Its rank.
        host: Its machine.
        node_id: Its Ray node.
        pid: Its process.
        step: Updates done.
        phase: What the loop does.
        moves: Phases entered so far; the same on every rank that is not behind.
        where: Innermost line of this package the loop is in.
        waiting: Whether that line is one at which a rank may wait for the others.
    """

    group: int
    rank: int
    host: str
    node_id: str
    pid: int
    step: int
    phase: str
    moves: int
    where: str
    waiting: bool


@dataclass(frozen=True, slots=True)
class Heard:
    """The latest beat of a worker.

    Attributes:
        beat: What it said.
        silent_s: Seconds since then.
        still_s: Seconds since it entered another phase.
    """

    beat: Beat
    silent_s: float
    still_s: float

    def __str__(self) -> str:
        beat = self.beat
        silent = f", no sign of life for {self.silent_s:.0f} s" if self.silent_s > SILENT_S else ""
        return (
            f"rank {beat.rank} (process {beat.pid} on {beat.host}): step {beat.step}, {beat.phase}, "
            f"at {beat.where}{silent}"
        )


def behind(group: Sequence[Heard], timeout_s: float) -> list[Heard]:
    """The workers that hold a group up; none while it moves.

    A process that gives no sign of life is behind; otherwise those are that entered the fewest phases;
    when all are in the same one, those that do not wait for another; in a dead-locked collective, where
    no rank differs, all of them.

    Args:
        group: The latest beat of every worker of the group.
        timeout_s: Seconds without a move of any of them after which the group hangs.
    """
    if not group or min(heard.still_s for heard in group) < timeout_s:
        return []
    silent = [heard for heard in group if heard.silent_s > SILENT_S]
    if silent and len(silent) < len(group):
        return silent
    fewest = min(heard.beat.moves for heard in group)
    late = [heard for heard in group if heard.beat.moves == fewest]
    if len(late) < len(group):
        return late
    busy = [heard for heard in group if not heard.beat.waiting]
    return busy or list(group)
