"""A queue on disk: records in the order they were given, until each has been delivered.

One JSON object per line in `<directory>/<run>.<time>.jsonl`, a file that is there only while something
waits in it. What a killed process or an absent server left is taken over by the next spool of the same
run; a lock tells a file that is left from one that is in use.
"""

import errno
import fcntl
import itertools
import json
import logging
import os
import threading
import time
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import IO, cast

log = logging.getLogger(__name__)

Record = dict[str, str | int | float]


class Spool:
    """One process's records of one run: any thread appends and drains, one thread delivers.

    Attributes:
        directory: Where its file lies, and those of others.
    """

    def __init__(self, directory: Path, run_id: str) -> None:
        """Takes over what earlier processes left of the run.

        Raises:
            OSError: The directory cannot be written.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._run_id = run_id
        self._file: FileIO | None = None
        self._position = 0
        self._ends: list[int] = []
        self._changed = threading.Condition()
        self._draining = self._closed = False
        for left in sorted(directory.glob(f"{run_id}.*.jsonl")):
            self._take_over(left)

    @property
    def path(self) -> Path:
        """The file that holds what is not delivered, or the directory when there is nothing."""
        return self.directory if self._file is None else Path(str(self._file.name))

    def append(self, records: list[Record]) -> None:
        """Adds records; the operating system has them when this returns.

        Raises:
            OSError: The disk does not take them.
        """
        with self._changed:
            self._write(b"".join(json.dumps(record).encode() + b"\n" for record in records))
            self._changed.notify_all()

    def peek(self, limit: int) -> list[Record]:
        """The next undelivered records; waits until there is one, returns none only once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._file is not None or self._closed)
            lines = self._next_lines(limit)
        return [json.loads(line) for line in lines]

    def delivered(self, count: int) -> None:
        """Forgets the first `count` records of the last `peek`."""
        with self._changed:
            if self._file is None:
                return
            self._position = self._ends[count - 1]
            if self._position == self._file.seek(0, os.SEEK_END):
                self.path.unlink(missing_ok=True)
                self._release()
            self._changed.notify_all()

    def failed(self, pause_s: float) -> None:
        """Ends a `drain` that is under way; otherwise waits, until one begins at the longest."""
        with self._changed:
            if not self._draining:
                self._changed.wait_for(lambda: self._draining or self._closed, pause_s)
                return
            self._draining = False
            self._changed.notify_all()

    def drain(self, limit_s: float) -> int:
        """Waits until all is delivered, a delivery has failed or the time is up; counts what is left."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._file is None or not self._draining, limit_s)
            self._draining = False
            if self._file is None:
                return 0
            self._file.seek(self._position)
            return self._file.read().count(b"\n")

    def close(self) -> None:
        """Stops the delivering thread; what is left stays on disk, for whoever continues the run."""
        with self._changed:
            self._closed = True
            self._release()
            self._changed.notify_all()

    def _take_over(self, left: Path) -> None:
        """Appends another file's records and removes it, unless a living process holds it."""
        try:
            file = left.open("rb")
        except FileNotFoundError:
            return  # Its process has just delivered everything.
        with file:
            if not _lock(file):
                return
            lines = file.read().splitlines(keepends=True)
            whole = [line for line in lines if _is_record(line)]
            if len(whole) < len(lines):
                log.warning("%s: %d damaged records dropped", left, len(lines) - len(whole))
            self._write(b"".join(whole))
            left.unlink()

    def _write(self, data: bytes) -> None:
        """Appends all of `data` or nothing."""
        if not data:
            return
        if self._file is None:
            path = self.directory / f"{self._run_id}.{time.time_ns()}.jsonl"
            self._file = cast("FileIO", path.open("x+b", buffering=0))
            _lock(self._file)
        end = self._file.seek(0, os.SEEK_END)
        if self._file.write(data) != len(data):
            self._file.truncate(end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def _next_lines(self, limit: int) -> list[bytes]:
        """Lines from the first undelivered one on; remembers where each ends."""
        if self._file is None:
            return []
        self._file.seek(self._position)
        # Unbuffered, which is right for appending, a file is slow to read by lines.
        with os.fdopen(os.dup(self._file.fileno()), "rb") as reader:
            lines = list(itertools.islice(reader, limit))
        self._ends = list(itertools.accumulate(map(len, lines), initial=self._position))[1:]
        return lines

    def _release(self) -> None:
        """Closes the file and with it gives up its lock."""
        if self._file is not None:
            self._file.close()
        self._file, self._position = None, 0


def left_behind(directory: Path) -> list[str]:
    """Runs whose records lie in a directory without a living process that would deliver them."""
    runs = set()
    for left in directory.glob("*.*.jsonl"):
        with suppress(FileNotFoundError), left.open("rb") as file:
            if _lock(file):
                runs.add(left.name.partition(".")[0])
    return sorted(runs)


def _is_record(line: bytes) -> bool:
    """False for what a killed process or a broken disk left of a line."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _lock(file: IO[bytes]) -> bool:
    """Takes the file's lock, held until the file is closed; False when another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
