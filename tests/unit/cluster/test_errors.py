"""A package that an image lacks is told as one message, a bug of our own is not."""

import pickle

import pytest
from ray.exceptions import RaySystemError, RayTaskError

from protclip.cluster.errors import user_error
from protclip.errors import ConfigError, DataError


def missing(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


def remote(cause: Exception) -> RayTaskError:
    error = RayTaskError("task", f"Traceback …\n{cause!r}", pickle.loads(pickle.dumps(cause)))
    return error.as_instanceof_cause()


def test_user_error_names_a_package_that_is_missing_here() -> None:
    found = user_error(missing("torch.fx"))
    assert type(found) is ConfigError
    assert str(found).startswith("the package 'torch.fx' is not installed here; build the image from")


@pytest.mark.parametrize(
    "error",
    [
        remote(missing("torch")),
        remote(RaySystemError("No module named 'torch'", "Traceback …")),
        remote(RuntimeError("failed to import on the worker.\nModuleNotFoundError: No module named 'torch'")),
    ],
)
def test_user_error_names_a_package_that_a_worker_lacks(error: Exception) -> None:
    assert "'torch' is not installed on a worker: its image is not the driver's" in str(user_error(error))


@pytest.mark.parametrize("name", ["protclip.modle", "jsn", "os.pth"])
def test_user_error_takes_only_packages_for_missing(name: str) -> None:
    assert (user_error(missing(name)) is not None) == (name == "jsn")
    assert user_error(RuntimeError(f"No module named {name!r}")) is None


def test_user_error_prefers_what_is_said_about_a_missing_package() -> None:
    error = DataError("x.parquet: needs a reader")
    error.__cause__ = missing("reader")
    assert user_error(error) is error


def test_user_error_ends_where_errors_name_one_another() -> None:
    outer, inner = RuntimeError("outer"), RuntimeError("inner")
    outer.__cause__, inner.__cause__ = inner, outer
    assert user_error(outer) is None
