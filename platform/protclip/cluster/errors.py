"""Finds a user's mistake inside the wrappers that Ray puts around a worker's exception."""

import re
import sys
from collections.abc import Iterator

from protclip.errors import ConfigError, ProtclipError

MISSING = re.compile(r"No module named '((?!protclip\.)(\w+)[^']*)'")
"""A package that is not installed; a module of our own that is not there is a bug."""


def user_error(error: BaseException) -> ProtclipError | None:
    """The project's own error at the root of `error`, or None when it is something else.

    A task's error is both a `RayTaskError` and an instance of the cause's class, with a remote traceback
    as its text; Ray Train keeps the errors of its workers by rank. A package that an image lacks is the
    user's to mend, too; where a worker cannot load a task because of it, Ray has only a text.

    Args:
        error: What a job raised.
    """
    family = list(_family(error))
    for inner, _ in family:
        if isinstance(inner, ProtclipError) and not hasattr(inner, "cause"):
            return inner
    for inner, remote in family:
        found = MISSING.search(str(inner)) if remote or isinstance(inner, ModuleNotFoundError) else None
        if found and found[2] not in sys.stdlib_module_names:
            where = "on a worker: its image is not the driver's" if remote else "here"
            return ConfigError(
                f"the package {found[1]!r} is not installed {where}; build the image from "
                "k8s/image/Dockerfile, or: pip install -c constraints.txt -e ."
            )
    return None


def _family(error: BaseException) -> Iterator[tuple[BaseException, bool]]:
    """An error with all that it was made of, each with whether it comes from a worker."""
    names = ("cause", "controller_failure", "__cause__")
    waiting, seen = [(error, False)], set[int]()
    while waiting:
        one, remote = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        workers: dict[int, BaseException] = getattr(one, "worker_failures", {})
        remote = remote or bool(workers) or hasattr(one, "cause")
        yield one, remote
        inner = (*(getattr(one, name, None) for name in names), *workers.values())
        waiting += [(e, remote) for e in inner if isinstance(e, BaseException)]
