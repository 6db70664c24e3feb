"""What a rank's process is asked to do, by signals, actor tasks and threads."""

import signal
import threading

from protclip.training.notice import Notice


class Process:
    """What this process is asked to do; a signal handler, threads and actor tasks write, the loop reads.

    Attributes:
        group: Number of its worker group.
        asked: What the loop has not been told yet.
        done: Set once the loop has returned or raised.
    """

    def __init__(self) -> None:
        self.group = 0
        self.asked = Notice.NONE
        self.done = threading.Event()

    def ask(self, notice: Notice) -> None:
        """Adds a wish; the highest counts."""
        self.asked = max(self.asked, notice)

    def take(self) -> Notice:
        """What is asked; a wish to save counts once, one to stop for good."""
        asked = self.asked
        if asked is Notice.SAVE:
            self.asked = Notice.NONE
        return asked


THIS = Process()


def join_group(group: int) -> None:
    """Actor task, in the main thread, which alone may do that: SIGTERM no longer ends the process at once."""
    THIS.group = group
    signal.signal(signal.SIGTERM, lambda *_: THIS.ask(Notice.STOP))


def leave_group(timeout_s: float) -> None:
    """Actor task: has the loop write a checkpoint and return, and waits for it."""
    THIS.ask(Notice.STOP)
    THIS.done.wait(timeout_s)
