"""What a job has finished, so that it can go on after an interruption.

Each task leaves its result as a small JSON file, written after the files it names. A job that begins in a
place where another of the same settings was interrupted finds these results and does the rest. All of it
lies in one folder, with the intermediate files, and goes when the job is done.
"""

import functools
import json
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pydantic import TypeAdapter

from protclip import storage
from protclip.errors import DataError

log = logging.getLogger(__name__)

SETTINGS_NAME = "settings.json"
READERS = 32

T = TypeVar("T")


def keep(folder: str, stage: str, name: str, result: T) -> T:
    """Leaves a task's result; called by the task, when all files of the result are there.

    Args:
        folder: The journal's folder.
        stage: Which kind of task.
        name: Which of them; the same when the task is run again.
        result: A dataclass of plain values.

    Returns:
        The result.
    """
    data = _adapter(type(result)).dump_json(result)
    storage.write_bytes(storage.join(folder, "done", stage, f"{name}.json"), data)
    return result


@functools.cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """Reads and writes one kind of results."""
    return TypeAdapter(kind)


class Journal:
    """Results of an earlier attempt at the same job, and room for this one's.

    Args:
        folder: Where to; what an attempt with other settings left there is removed.
        settings: All that decides what intermediate files hold.

    Raises:
        DataError: The folder cannot be read or written.
    """

    def __init__(self, folder: str, settings: Mapping[str, object]) -> None:
        self.folder = folder
        wanted = json.loads(json.dumps(settings, default=str))
        found = self._settings()
        self.resumed = found == wanted
        if self.resumed:
            log.info("going on where an interrupted job stopped")
            return
        if found is not None:
            changed = sorted(k for k in {**found, **wanted} if found.get(k) != wanted.get(k))
            log.warning("begun anew, for an interrupted job here had another %s", ", ".join(changed))
        storage.remove(folder)
        # Fails here, before any work, when the place cannot be written.
        storage.write_json(storage.join(folder, SETTINGS_NAME), wanted)

    def _settings(self) -> dict[str, Any] | None:
        """Those of the earlier attempt; None when there is none, or none that got as far."""
        uri = storage.join(self.folder, SETTINGS_NAME)
        return storage.read_json(uri) if storage.exists(uri) else None

    def done(self, stage: str, kind: type[T]) -> dict[str, T]:
        """Results by name.

        Args:
            stage: Which kind of task.
            kind: Type of its results.

        Raises:
            DataError: They cannot be read.
        """
        place = storage.join(self.folder, "done", stage)
        if not self.resumed or not storage.exists(place):
            return {}
        uris = [file.uri for file in storage.list_files(place, ".json")]
        with ThreadPoolExecutor(READERS) as pool:
            contents = list(pool.map(storage.read_bytes, uris))
        try:
            results = [_adapter(kind).validate_json(content) for content in contents]
        except ValueError as error:
            raise DataError(f"{place}: not results of this job: {error}; remove this folder") from error
        return {storage.basename(u).removesuffix(".json"): r for u, r in zip(uris, results, strict=True)}

    @property
    def empty(self) -> bool:
        """True when no task has finished."""
        return not storage.exists(storage.join(self.folder, "done"))

    def note(self, name: str, value: str) -> None:
        """Leaves a fact for a later attempt."""
        storage.write_bytes(storage.join(self.folder, f"{name}.txt"), value.encode())

    def noted(self, name: str) -> str | None:
        """A fact that an earlier attempt, or this one, has left."""
        uri = storage.join(self.folder, f"{name}.txt")
        return storage.read_bytes(uri).decode() if storage.exists(uri) else None
