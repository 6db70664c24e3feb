"""Which file system serves a URI, and what its failures mean."""

import errno
import functools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pyarrow import fs as pafs

from protclip.errors import DataError

if TYPE_CHECKING:
    from s3fs import S3FileSystem

log = logging.getLogger(__name__)


def _s3(bucket: str) -> "S3FileSystem":
    """This process's S3 client, once it is known that the bucket answers."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    _check_bucket(endpoint, bucket)
    return _s3_client(endpoint, connect_timeout=5, read_timeout=60, max_attempts=5)


@functools.cache
def _s3_client(
    endpoint: str | None, *, connect_timeout: float, read_timeout: float, max_attempts: int
) -> "S3FileSystem":
    """One client per process and endpoint; a random read asks for what is wanted and no more."""
    import s3fs

    return s3fs.S3FileSystem(
        endpoint_url=endpoint,
        default_cache_type="none",
        use_listings_cache=False,
        skip_instance_cache=True,
        config_kwargs={
            "connect_timeout": connect_timeout,
            "read_timeout": read_timeout,
            # The standard mode stops repeating requests for good once a longer disturbance used up its quota.
            "retries": {"total_max_attempts": max_attempts, "mode": "legacy"},
        },
    )


@functools.cache
def _check_bucket(endpoint: str | None, bucket: str) -> None:
    """Asks once per process, on a short fuse: a dead endpoint costs seconds, real work keeps its patience."""
    from botocore.exceptions import ClientError

    client = _s3_client(endpoint, connect_timeout=3, read_timeout=5, max_attempts=3)
    client.retries = 1
    with explained(f"s3://{bucket}", "reaching the bucket"):
        try:
            client.call_s3("head_bucket", Bucket=bucket)
        except FileNotFoundError as error:
            raise DataError(f"s3://{bucket}: no such bucket{_endpoint_hint('s3://')}") from error
        except OSError as error:
            if not isinstance(error.__cause__, ClientError):
                raise
            # It answers: with a refusal to list it, or an error that may be over when it matters.
            log.debug("s3://%s: %s", bucket, error)


def filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The pyarrow file system that serves a URI, and the path to ask it for.

    Raises:
        DataError: The scheme is not supported, or the bucket cannot be reached.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return pafs.LocalFileSystem(), str(Path(uri).expanduser().absolute())
    if scheme == "file":
        return pafs.LocalFileSystem(), rest
    if scheme == "s3":
        bucket = rest.partition("/")[0]
        if not bucket:
            raise DataError(f"{uri}: names no bucket; write s3://bucket/key")
        return pafs.PyFileSystem(pafs.FSSpecHandler(_s3(bucket))), rest.rstrip("/")
    raise DataError(f"{uri}: unknown storage scheme {scheme!r}; use a local path or s3://bucket/key")


def is_local(uri: str) -> bool:
    """True when the URI names a file of this machine."""
    return "://" not in uri or uri.startswith("file://")


def absolute(uri: str) -> str:
    """The same place, named so that a worker in another directory finds it too."""
    return str(Path(uri).expanduser().absolute()) if "://" not in uri else uri


def join(uri: str, *parts: str) -> str:
    """The URI of something inside a directory."""
    return "/".join([uri.rstrip("/"), *parts])


def basename(uri: str) -> str:
    """The last component of a URI."""
    return uri.rstrip("/").rpartition("/")[2]


@contextmanager
def explained(uri: str, doing: str) -> Iterator[None]:
    """Turns a storage failure into one message that names the URI."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{uri}: no such file or directory; check the path and its spelling") from error
    except PermissionError as error:
        raise DataError(f"{uri}: {doing} is not permitted; check the credentials and rights") from error
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DataError(f"{uri}: {doing} failed: the disk is full; make room and run again") from error
        raise DataError(f"{uri}: {doing} failed: {first_line(error)}{_endpoint_hint(uri)}") from error
    except Exception as error:
        # botocore and aiohttp raise families of their own from inside the S3 client.
        if type(error).__module__.split(".")[0] in {"botocore", "aiobotocore", "aiohttp", "s3fs"}:
            raise DataError(f"{uri}: {doing} failed: {first_line(error)}{_endpoint_hint(uri)}") from error
        raise


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its class name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _endpoint_hint(uri: str) -> str:
    """What to look at when an object store does not answer."""
    if not uri.startswith("s3://"):
        return ""
    endpoint = os.environ.get("AWS_ENDPOINT_URL") or "the AWS default"
    return f" (endpoint: {endpoint}; check AWS_ENDPOINT_URL and the AWS credentials, or try again later)"
