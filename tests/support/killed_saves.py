"""Kills a run at chosen moments of its saves and looks at what is left; a script, so that it can fork.

    python killed_saves.py RUN_URI [COUNT]

Each trial is a new run: a process saves the steps 1 to 4 and kills itself at one moment, then another looks
for the newest checkpoint and continues. Moments are: before and after each file is opened, renamed or
removed, half-way through each write, and before and after each request to an object store. Without COUNT
all moments are tried, else that many, evenly spread. Prints one line of JSON: moments there are, trials.
"""

import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from s3fs import S3FileSystem

from protclip import checkpoint, storage
from protclip.storage import files
from protclip.training.store import CheckpointStore
from small_state import METRIC, holds, save, state_at

LAST = 4
FILE_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}


class Death:
    """Counts moments, and ends the process at one of them."""

    def __init__(self, moment: int | None) -> None:
        self.count = 0
        self._moment = moment

    def near(self) -> None:
        """One more moment."""
        self.count += 1
        if self.count == self._moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, place: str) -> None:
        """Finds the moments at which the storage at `place` changes."""

        def hook(event: str, args: tuple[Any, ...]) -> None:
            if event in FILE_EVENTS and str(args[0]).startswith(place):
                self.near()

        sys.addaudithook(hook)
        write, remove = files.HashingWriter.write, storage.remove
        call: Callable[..., Any] = S3FileSystem._call_s3

        def halfway(writer: files.HashingWriter, data: bytes) -> int:
            write(writer, data[: len(data) // 2])
            with contextlib.suppress(AttributeError, OSError):
                writer._sink.flush()
            self.near()
            write(writer, data[len(data) // 2 :])
            return len(data)

        def piecemeal(uri: str) -> None:
            self.near()
            if storage.is_local(uri) and Path(uri).is_dir():
                for path in sorted(Path(uri).rglob("*")):
                    if path.is_file():
                        path.unlink()
                        self.near()
            remove(uri)
            self.near()

        async def requested(*args: Any, **keys: Any) -> Any:
            self.near()
            answer = await call(*args, **keys)
            self.near()
            return answer

        files.HashingWriter.write = halfway  # pyright: ignore[reportAttributeAccessIssue]
        storage.remove = piecemeal
        S3FileSystem._call_s3 = requested  # pyright: ignore[reportAttributeAccessIssue]


def open_store(run: str) -> CheckpointStore:
    return CheckpointStore(run, keep_last=2, keep_best=1, best_metric=METRIC)


def killed(act: Callable[[], None]) -> bool:
    """Whether a process of its own was killed in the middle of something."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def train(run: str, moment: int | None, note: Path) -> None:
    """Saves, and leaves a note of what was finished; at the end of the number of moments."""
    death = Death(moment)
    death.watch(run)
    with open_store(run) as store:
        for step in range(1, LAST + 1):
            save(store, state_at(step), score=-step)
            store.wait()
            note.write_text(str(step))
    note.write_text(str(death.count))


def look(run: str, finished: int) -> None:
    """Holds what is there against what must be there, and goes on from it."""
    for uri, meta in checkpoint.complete(run):
        checkpoint.fetch(uri, meta)
    store = open_store(run)
    found = store.newest()
    step = found.meta.step if found else 0
    assert step >= finished, f"{run}: step {step} found, {finished} was finished"
    assert not found or holds(found, state_at(step)), run
    with store:
        save(store, state_at(step + 1))
    assert holds(open_store(run).newest(), state_at(step + 1)), run
    complete = checkpoint.complete(run)
    assert [meta.step for _, meta in complete] == [s for s in (step + 1, step, 1) if s][: len(complete)], run
    for uri, meta in complete:
        checkpoint.fetch(uri, meta)
        assert len(storage.list_directories(uri)) == 1, run
    assert len(storage.list_directories(run)) == len(complete), run


def main(place: str, count: int | None) -> None:
    os.fsync = lambda fd: None  # What a killed process has written stays; only a power cut asks for more.
    finished: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as directory:
        note = Path(directory, "note")
        assert not killed(lambda: train(f"{place}/whole", None, note))
        moments = int(note.read_text())
        chosen = [1 + i * moments // count for i in range(count)] if count else list(range(1, moments + 1))
        for moment in chosen:
            note.write_text("0")
            run = f"{place}/killed-{moment}"
            assert killed(lambda run=run, moment=moment: train(run, moment, note)), f"no moment {moment}"
            finished[run] = int(note.read_text())
    # Only now, since a process that has talked to an object store is not one to fork.
    for run, step in finished.items():
        look(run, step)
    print(json.dumps({"moments": moments, "trials": len(chosen)}))  # noqa: T201 - a script


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None)
