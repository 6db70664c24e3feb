"""Tasks whose results an interrupted job finds again."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from protclip.cluster.journal import Journal, keep
from protclip.cluster.tasks import Stage, run_stages

T = TypeVar("T")


def run_kept(
    journal: Journal, stage: str, kind: type[T], items: Mapping[str, Any], run: Callable[[Any], T]
) -> Iterator[T]:
    """One task per item; what an earlier attempt finished comes first, the rest as it gets done.

    Args:
        journal: Of the job.
        stage: Name of this kind of task.
        kind: Type of the results, a dataclass of plain values.
        items: The work, each under a name that a later attempt gives it, too.
        run: Does one item; what it writes must be there when it returns.

    Raises:
        ProtclipError: A task raised it.
    """
    done = journal.done(stage, kind)
    yield from (done[name] for name in items if name in done)
    left = [(name, item) for name, item in items.items() if name not in done]
    yield from run_stages(left, Stage(partial(_run, run=run, folder=journal.folder, stage=stage)))


def _run(named: tuple[str, Any], *, run: Callable[[Any], T], folder: str, stage: str) -> Iterable[T]:
    """Task: one item, its result kept."""
    name, item = named
    yield keep(folder, stage, name, run(item))
