"""Finds a user's mistake inside the wrappers that Ray puts around a worker's exception."""

from protclip.errors import ProtclipError


def user_error(error: BaseException) -> ProtclipError | None:
    """The project's own error at the root of `error`, or None when it is something else.

    A task's error is both a `RayTaskError` and an instance of the cause's class, with a remote traceback
    as its text; Ray Train keeps the errors of its workers by rank.

    Args:
        error: What a job raised.
    """
    if isinstance(error, ProtclipError) and not hasattr(error, "cause"):
        return error
    names = ("cause", "controller_failure", "__cause__")
    inner = [getattr(error, name, None) for name in names]
    inner += getattr(error, "worker_failures", {}).values()
    found = (user_error(e) for e in inner if isinstance(e, BaseException))
    return next((e for e in found if e is not None), None)
