"""Errors that a user can act on, and the exit code each one gives a job.

A message says what is wrong, where, and what to do about it; the command line prints the message
alone, never a traceback.
"""

from collections.abc import Mapping


class ProtclipError(Exception):
    """Base of every error that is the user's to mend."""

    exit_code = 1
    result: Mapping[str, object] | None = None
    """What was found all the same, the job's answer on stdout."""


class ConfigError(ProtclipError, ValueError):
    """A configuration key, value or file is wrong."""

    exit_code = 2


class DataError(ProtclipError, ValueError):
    """An input file or a data set cannot be read, written or trusted."""

    exit_code = 3


class CheckpointError(ProtclipError, ValueError):
    """A checkpoint is missing, damaged, or belongs to another model."""

    exit_code = 4


class BenchmarkError(ProtclipError, ValueError):
    """A benchmark's specification or data is wrong."""

    exit_code = 5


class TrackingError(ProtclipError):
    """The tracking server refused a request before the work began."""

    exit_code = 6


class TrainingError(ProtclipError):
    """A training run cannot go on by itself, and would end the same way again."""

    exit_code = 7


class PreflightError(ProtclipError):
    """Something is not ready for a job; `result` says what."""

    exit_code = 8

    def __init__(self, message: str, result: Mapping[str, object]) -> None:
        super().__init__(message)
        self.result = result


class StoppedError(ProtclipError):
    """A run was asked to stop, did so behind a checkpoint, and goes on when it is submitted again."""

    exit_code = 75
