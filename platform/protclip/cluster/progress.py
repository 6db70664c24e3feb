"""A progress line on the driver for work that goes on in a worker."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray

from protclip.progress import progress

POLL_S = 0.5


Post = Callable[[int, str], None]
"""Shows a step and a text on the driver; may be sent to workers."""


class _Board:
    """Holds the latest step and text; workers write, the driver reads."""

    def __init__(self) -> None:
        self._state = (0, "")

    def post(self, step: int, text: str) -> None:
        """Replaces what is shown."""
        self._state = step, text

    def read(self) -> tuple[int, str]:
        """The latest step and text."""
        return self._state


@contextmanager
def progress_line(total: int, description: str) -> Iterator[Post]:
    """Shows a bar of `total` steps while the block runs.

    On a terminal the bar moves; in a log a line is written every few seconds.

    Yields:
        What workers call to move it.
    """
    board: Any = ray.remote(num_cpus=0)(_Board).remote()
    done = threading.Event()
    bar = progress(description, "step", total)

    def show() -> None:
        step, text = ray.get(board.read.remote())
        bar.set_postfix_str(text, refresh=False)
        bar.update(step - bar.n)

    def poll() -> None:
        while not done.wait(POLL_S):
            show()

    thread = threading.Thread(target=poll, name="progress", daemon=True)
    thread.start()
    try:
        yield partial(_post, board)
    finally:
        done.set()
        thread.join()
        show()
        bar.close()
        ray.kill(board)


def _post(board: Any, step: int, text: str) -> None:
    """Leaves the latest step and text without waiting."""
    board.post.remote(step, text)
