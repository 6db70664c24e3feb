"""What the rest of the platform knows of tracking: a protocol, and a tracker that remembers nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from protclip.config.keys import Plain

Status = Literal["FINISHED", "FAILED", "KILLED"]
Param = Plain
Row = Sequence[str | float | None]


class Tracker(Protocol):
    """An open run. No method raises because a server is away, and only `flush` and `close` wait for one."""

    @property
    def run_id(self) -> str | None:
        """The run's identifier, to continue it later; None when nothing is remembered."""
        ...

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds a point to each metric's curve."""
        ...

    def log_params(self, params: Mapping[str, Param]) -> None:
        """Records configuration values; a value once recorded cannot change."""
        ...

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets or replaces tags."""
        ...

    def log_file(self, path: Path, folder: str = "") -> None:
        """Stores a copy of a small file (a report, a picture), read before the call returns."""
        ...

    def log_text(self, text: str, name: str) -> None:
        """Stores text as the file `name`, which may contain folders."""
        ...

    def log_table(self, columns: Sequence[str], rows: Sequence[Row], name: str) -> None:
        """Stores a table as the file `name` (`.json`), shown as such."""
        ...

    def flush(self) -> None:
        """Waits a while until everything is delivered; what is not stays on disk, and a warning says so."""
        ...

    def close(self, status: Status = "FINISHED") -> None:
        """Ends the run and flushes; nothing may be logged afterwards."""
        ...


class NullTracker:
    """Remembers nothing; for `tracking.enabled=false` and for ranks other than 0."""

    run_id = None

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Does nothing."""

    def log_params(self, params: Mapping[str, Param]) -> None:
        """Does nothing."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Does nothing."""

    def log_file(self, path: Path, folder: str = "") -> None:
        """Does nothing."""

    def log_text(self, text: str, name: str) -> None:
        """Does nothing."""

    def log_table(self, columns: Sequence[str], rows: Sequence[Row], name: str) -> None:
        """Does nothing."""

    def flush(self) -> None:
        """Does nothing."""

    def close(self, status: Status = "FINISHED") -> None:
        """Does nothing."""
