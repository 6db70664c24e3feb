"""Which file system serves a URI."""

import functools
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyarrow import fs as pafs

from protclip.errors import DataError
from protclip.storage.failures import REFUSED, answer_of, code_of, endpoint, explained, first_line

if TYPE_CHECKING:
    from aiobotocore.session import AioSession
    from s3fs import S3FileSystem

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 32
"""Open at once per process and endpoint."""


def _s3(bucket: str) -> "S3FileSystem":
    """This process's S3 client, once it is known that the bucket answers."""
    _check_bucket(endpoint(), bucket)
    return _s3_client(endpoint(), connect_timeout=5, read_timeout=60, max_attempts=5)


@functools.cache
def _s3_client(
    endpoint: str | None, *, connect_timeout: float, read_timeout: float, max_attempts: int, retries: int = 4
) -> "S3FileSystem":
    """One client per process and endpoint; a random read asks for what is wanted and no more."""
    import s3fs

    client = s3fs.S3FileSystem(
        endpoint_url=endpoint,
        default_cache_type="none",
        use_listings_cache=False,
        skip_instance_cache=True,
        session=_session(),
        config_kwargs=client_options(connect_timeout, read_timeout, max_attempts),
    )
    # s3fs repeats a request that botocore gave up, 20 attempts in all, and alone one whose answer broke off.
    client.retries = retries
    return client


@functools.cache
def _session() -> "AioSession":
    """What finds the settings and credentials of this process, and renews those that expire."""
    from aiobotocore.session import AioSession

    return AioSession()


def client_options(connect_timeout: float, read_timeout: float, max_attempts: int) -> dict[str, Any]:
    """What an S3 client is told beside what the AWS variables and the profile say; times in seconds."""
    return {
        "connect_timeout": connect_timeout,
        "read_timeout": read_timeout,
        "max_pool_connections": MAX_CONNECTIONS,
        # The standard mode stops repeating requests for good once a longer disturbance used up its quota.
        "retries": {"total_max_attempts": max_attempts, "mode": "legacy"},
        # Google and older servers refuse the checksums that newer clients send unasked.
        "request_checksum_calculation": os.environ.get("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required"),
        "response_checksum_validation": os.environ.get("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required"),
    }


@functools.cache
def _check_bucket(endpoint: str | None, bucket: str) -> None:
    """Asks once per process, on a short fuse: a dead endpoint costs seconds, real work keeps its patience."""
    client = _s3_client(endpoint, connect_timeout=3, read_timeout=5, max_attempts=3, retries=1)
    with explained(f"s3://{bucket}", "reaching the bucket"):
        try:
            client.call_s3("head_bucket", Bucket=bucket)
        except FileNotFoundError as error:
            raise DataError(f"s3://{bucket}: no such bucket (endpoint: {endpoint or 'AWS'})") from error
        except OSError as error:
            if answer_of(error) is None:
                raise
            # It answers, but to HEAD without a reason. One that may be over when it matters, or is of no
            # concern to work that lists nothing, stops nobody.
            log.debug("s3://%s: %s", bucket, error)
            if not code_of(error).startswith("5"):
                _ask_why(client, bucket)
        except ValueError as error:
            # Of an endpoint or a region that is none.
            raise DataError(f"s3://{bucket}: {first_line(error)}; check the AWS settings") from error


def _ask_why(client: "S3FileSystem", bucket: str) -> None:
    """Asks a store that refused something for its reason, which is an error unless a right is missing."""
    try:
        client.call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)
    except OSError as error:
        if code_of(error) not in REFUSED:
            raise


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
