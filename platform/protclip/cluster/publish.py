"""A report's files, written to its directory and remembered with its runs."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from protclip import storage
from protclip.tracking.base import Tracker

FOLDER = "results"
"""Of a run's artifacts."""


def publish(files: Mapping[str, bytes], output: str, trackers: Sequence[Tracker]) -> None:
    """Writes files to a directory and stores copies of them with runs.

    Args:
        files: Contents by name.
        output: URI of the directory.
        trackers: The runs.

    Raises:
        DataError: The directory cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="protclip-") as scratch:
        for name, data in files.items():
            storage.write_bytes(storage.join(output, name), data)
            copy = Path(scratch) / name
            copy.write_bytes(data)
            for tracker in trackers:
                tracker.log_file(copy, FOLDER)
