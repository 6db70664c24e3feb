"""What the failures of a disk or an object store mean, in words that say what to do."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from protclip.errors import DataError

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

READ, WRITE, LIST = "s3:GetObject", "s3:PutObject", "s3:ListBucket"
RIGHTS = {
    "GetObject": READ,
    "HeadObject": READ,
    "PutObject": WRITE,
    "CreateMultipartUpload": WRITE,
    "UploadPart": WRITE,
    "UploadPartCopy": f"{READ} and {WRITE}",
    "CompleteMultipartUpload": WRITE,
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "HeadBucket": LIST,
    "ListObjectsV2": LIST,
}
"""What a policy calls the right to a request."""

REFUSED = {"AccessDenied", "AllAccessDisabled", "Forbidden", "403"}
ELSEWHERE = {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "301", "307"}
MEANINGS = {
    ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken"): (
        "the credentials have expired or are not valid; renew them (keys from the environment never renew "
        "themselves, those of a role do)"
    ),
    ("InvalidAccessKeyId",): (
        "the store does not know this access key; check AWS_ACCESS_KEY_ID or the profile, and that it is "
        "one of this endpoint"
    ),
    ("SignatureDoesNotMatch",): (
        "the secret key is wrong, or a proxy changes the requests; check AWS_SECRET_ACCESS_KEY or the profile"
    ),
    ("RequestTimeTooSkewed", "RequestExpired"): (
        "the clocks of this machine and the store differ too much; set this machine's clock (NTP)"
    ),
    (
        "QuotaExceeded",
        "XMinioStorageFull",
        "XMinioAdminBucketQuotaExceeded",
        "InsufficientStorage",
        "507",
    ): "the store is full or the bucket's quota is used up; make room or have the quota raised",
    ("SlowDown", "ServiceUnavailable", "RequestLimitExceeded", "TooManyRequests", "429", "503"): (
        "the store is overloaded and refused every attempt; use fewer workers, or try again later"
    ),
    ("PreconditionFailed", "412"): "the object has changed while it was read; run again",
    ("NotImplemented", "501"): "this server does not know such a request",
    ("400",): "the store gives no reason, as it does for credentials that have expired; renew them",
}
NO_CREDENTIALS = (
    "no credentials were found; looked for AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile "
    "(AWS_PROFILE, ~/.aws/credentials, ~/.aws/config), a web identity (AWS_ROLE_ARN and "
    "AWS_WEB_IDENTITY_TOKEN_FILE), container credentials "
    "(AWS_CONTAINER_CREDENTIALS_FULL_URI or _RELATIVE_URI) and the instance's role"
)
CLIENT_PACKAGES = {"botocore", "aiobotocore", "aiohttp", "s3fs"}


@contextmanager
def explained(uri: str, doing: str) -> Iterator[None]:
    """Turns a storage failure into one message that names the URI."""
    try:
        yield
    except FileNotFoundError as error:
        answer = answer_of(error)
        if code_of(error) == "NoSuchBucket":
            raise DataError(f"{uri}: {doing} failed: no such bucket{_at()}") from error
        # As an answer to another request it means that the store lost something, not that the path is wrong.
        if answer and RIGHTS.get(answer.operation_name) not in {READ, LIST}:
            raise DataError(f"{uri}: {_meaning(uri, doing, error)}") from error
        raise DataError(f"{uri}: no such file or directory; check the path and its spelling") from error
    except OSError as error:
        raise DataError(f"{uri}: {_meaning(uri, doing, error)}") from error
    except Exception as error:
        # botocore and aiohttp raise families of their own from inside the S3 client.
        if type(error).__module__.split(".")[0] not in CLIENT_PACKAGES:
            raise
        raise DataError(f"{uri}: {_meaning(uri, doing, error)}") from error


def endpoint() -> str | None:
    """The S3 server that the environment names; a profile may name another."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def answer_of(error: BaseException | None) -> "ClientError | None":
    """What an object store answered, if that is what an error comes from."""
    from botocore.exceptions import ClientError

    while error is not None and not isinstance(error, ClientError):
        error = error.__cause__ or error.__context__
    return error


def code_of(error: BaseException) -> str:
    """The code an object store answered with, a status where it gave no other; empty without an answer."""
    answer = answer_of(error)
    return answer.response.get("Error", {}).get("Code", "") if answer else ""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its class name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _meaning(uri: str, doing: str, error: Exception) -> str:
    """What failed, why, and what to do about it."""
    from botocore.exceptions import NoCredentialsError, SSLError

    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"{doing} failed: the disk is full; make room and run again"
    if isinstance(error, NoCredentialsError):
        return f"{doing} failed: {NO_CREDENTIALS}"
    if not uri.startswith("s3://"):
        refused = isinstance(error, PermissionError)
        return (
            f"{doing} is not permitted; check the rights"
            if refused
            else f"{doing} failed: {first_line(error)}"
        )
    answer = answer_of(error)
    if answer is None:
        advice = "check AWS_ENDPOINT_URL, the network and the AWS settings, or try again later"
        if isinstance(error, SSLError):
            advice = "name the authority that signed the server's certificate by AWS_CA_BUNDLE"
        return f"{doing} failed: {first_line(error)}{_at()}; {advice}"
    code, request = code_of(error), answer.operation_name
    said = f" ({request}: {code}: {answer.response['Error'].get('Message', '')}{_at()})"
    if code in REFUSED:
        return f"{doing} is not permitted: the credentials lack {_right(uri, request)}{said}"
    if code in ELSEWHERE:
        region = _region(answer)
        place, value = (f"region {region}", region) if region else ("another region", "its region")
        return f"{doing} failed: the bucket is in {place}; set AWS_DEFAULT_REGION={value}{said}"
    for codes, meaning in MEANINGS.items():
        if code in codes:
            return f"{doing} failed: {meaning}{said}"
    return f"{doing} failed: the store refuses{said}; try again later"


def _right(uri: str, request: str) -> str:
    """The right that a request needs, and where, as a policy would say it."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    whole = f"arn:aws:s3:::{bucket}"
    folder = key.rpartition("/")[0]
    right = RIGHTS.get(request, f"the right to {request}")
    if right == LIST:
        return f"{right} on {whole}"
    inside = f"{right} on {whole}/{folder}/*" if folder else f"{right} on {whole}/*"
    if request == "HeadObject":
        return (
            f"{inside}, or {LIST} on {whole}, without which a store does not say that an object is not there"
        )
    return inside


def _region(answer: "ClientError") -> str:
    """The region a bucket is said to be in; empty when nothing is said."""
    headers = answer.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return headers.get("x-amz-bucket-region", "") or answer.response.get("Error", {}).get("Region", "")


def _at() -> str:
    """The endpoint, in words that end a clause."""
    return f"; endpoint: {endpoint() or 'that of the profile or of AWS'}"
