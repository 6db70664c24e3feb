"""Files on web servers, read from the first byte to the last whatever happens to the connection."""

import functools
import io
import logging
import re
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import urllib3
import urllib3.util
from urllib3.exceptions import HTTPError, LocationValueError

from protclip import __version__
from protclip.errors import DataError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

log = logging.getLogger(__name__)

READ_BYTES = 2**18
BUFFER_BYTES = 2**20
CONNECT_TIMEOUT_S = 15.0
LONGEST_PAUSE_S = 60.0
LONGEST_RETRY_AFTER_S = 600.0
MAX_CONNECTIONS = 32

OK, PARTIAL, BAD_REQUEST = 200, 206, 400
BEYOND_END = 416
TRANSIENT = {408, 425, 429}
SERVER_ERROR = 500
ABSENT = {404, 410}

_REDIRECTS_ONLY = urllib3.Retry(total=None, connect=False, read=False, status=False, other=False, redirect=5)
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        retries: Attempts after a failed one, as long as no new byte comes.
        backoff_s: Seconds before the first of them; doubled each time, at most `LONGEST_PAUSE_S`.
        timeout_s: Seconds without a byte that count as a failure.
    """

    retries: int = 8
    backoff_s: float = 1.0
    timeout_s: float = 60.0


class _Absent(DataError):  # noqa: N818 - said in a word
    """There is no such file."""


class _Interrupted(Exception):  # noqa: N818 - it goes on
    """The server stopped before the end, or answered that it cannot just now."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


def is_http(uri: str) -> bool:
    """True when the URI names a file on a web server."""
    return uri.startswith(("https://", "http://"))


def fetch(url: str, patience: Patience | None = None) -> tuple[Mapping[str, str], bytes]:
    """The headers and the whole content of a small file or an answer.

    Raises:
        DataError: As `HttpStream`.
    """
    with HttpStream(url, patience) as stream:
        return stream.headers, stream.read()


class HttpStream(io.RawIOBase):
    """The content of a URL; what fails on the way is tried again and goes on where it stopped.

    After a cut connection, a short body, a time-out or an answer of 429 or 5xx the rest is asked for by
    `Range`, with `If-Range` so that a file that has changed meanwhile is noticed. A server that ignores
    ranges sends the file again and what was read already is skipped. Meant for sequential reading: each
    `seek` to another place costs a request. `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are honoured.

    Args:
        url: An http:// or https:// address.
        patience: How long to wait for the server.
        pause: Waits so many seconds before another attempt.

    Raises:
        DataError: When reading: the file is not there, may not be read, has changed meanwhile, or the
            server does not answer in spite of all patience.
    """

    def __init__(
        self, url: str, patience: Patience | None = None, pause: Callable[[float], object] = time.sleep
    ) -> None:
        super().__init__()
        self.url = url
        self._pause = pause
        self._patience = patience or Patience()
        self._response: urllib3.BaseHTTPResponse | None = None
        self._headers: Mapping[str, str] | None = None
        self._size: int | None = None
        self._position = 0
        self._failures = 0

    @property
    def exists(self) -> bool:
        """Whether the server has the file."""
        try:
            return self.headers is not None
        except _Absent:
            return False

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the server's first answer, which is asked for if need be."""
        while self._headers is None:
            self._attempt(0)
        return self._headers

    @property
    def size(self) -> int | None:
        """Bytes of the whole file; None when the server does not say."""
        return self._size if self.headers else None

    @property
    def version(self) -> str:
        """What changes when the file does: ETag or date, and size."""
        stamp = self.headers.get("ETag") or self.headers.get("Last-Modified", "")
        return f"{stamp} {self._size}"

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def tell(self) -> int:
        """Bytes before the next one to be read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Goes to another place, from which the next read asks the server.

        Raises:
            DataError: The place counts from the end and the server does not say how large the file is.
        """
        if whence == io.SEEK_END and self.size is None:
            raise DataError(f"{self.url}: the server does not state the size; download the file first")
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size or 0}[whence]
        if start + offset != self._position:
            self._hang_up()
            self._position = start + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Reads up to `READ_BYTES` of the following bytes; 0 only at the end."""
        view = memoryview(buffer).cast("B")
        while (data := self._attempt(min(len(view), READ_BYTES))) is None:
            pass
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Hangs up."""
        self._hang_up()
        super().close()

    def _attempt(self, num_bytes: int) -> bytes | None:
        """The next bytes, none at the end; None after a failure that may be tried again, and a pause."""
        try:
            data = self._next(num_bytes)
        except LocationValueError as error:
            raise DataError(f"{self.url}: not an address of a file: {error}") from error
        except _Interrupted as error:
            self._give_up_or_wait(str(error), error.retry_after_s)
            return None
        except (HTTPError, OSError) as error:
            self._give_up_or_wait(_reason(error), None)
            return None
        if data:
            self._failures = 0
        return data

    def _next(self, num_bytes: int) -> bytes:
        """The next bytes of the answer under way, or of a new one."""
        if self._headers is not None and self._position == self._size:
            return b""
        response = self._response or self._ask()
        if response is None or not num_bytes:
            return b""
        data = response.read(num_bytes, decode_content=False)
        self._position += len(data)
        if not data and self._size is not None and self._position < self._size:
            raise _Interrupted(f"the body ends after {self._position:,} of {self._size:,} bytes")
        return data

    def _ask(self) -> urllib3.BaseHTTPResponse | None:
        """Sends the request for the rest; None when there is no rest."""
        known = self._headers or {}
        wanted = {"User-Agent": f"protclip/{__version__}", "Accept-Encoding": "identity"}
        if self._position:
            wanted["Range"] = f"bytes={self._position}-"
            if validator := _validator(known):
                wanted["If-Range"] = validator
        response = _pool(self.url).request(
            "GET",
            self.url,
            headers=wanted,
            preload_content=False,
            decode_content=False,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=self._patience.timeout_s),
            retries=_REDIRECTS_ONLY,
        )
        self._response = response
        start, size = self._place(response)
        self._same_file(response.headers, size)
        if response.status == BEYOND_END:
            self._hang_up()
            return None
        skipped = start
        while skipped < self._position:
            data = response.read(min(READ_BYTES, self._position - skipped), decode_content=False)
            if not data:
                raise _Interrupted("the body ends before the place that was reached")
            skipped += len(data)
        return response

    def _place(self, response: urllib3.BaseHTTPResponse) -> tuple[int, int | None]:
        """Where the answer's body begins in the file, and the file's size as far as the server says it."""
        status, headers = response.status, response.headers
        if status in TRANSIENT or status >= SERVER_ERROR:
            reason = f"status {status} {response.reason or ''}".rstrip()
            raise _Interrupted(reason, _retry_after(headers.get("Retry-After")))
        if status == OK:
            length = headers.get("Content-Length", "")
            return 0, int(length) if length.isdigit() else None
        found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        if status in {PARTIAL, BEYOND_END} and self._position and found:
            start = int(found[1] or self._position)
            size = int(found[2]) if found[2].isdigit() else None
            if start == self._position and (status == PARTIAL or size is not None):
                return start, size
        if status in ABSENT:
            raise _Absent(f"{self.url}: no such file on the server (status {status}); check the address")
        said = response.read(200).decode(errors="replace").strip() if status >= BAD_REQUEST else ""
        raise DataError(f"{self.url}: the server answers {status} {response.reason or ''} {said}".rstrip())

    def _same_file(self, headers: Mapping[str, str], size: int | None) -> None:
        """Keeps the first answer's headers and holds later ones against them."""
        if self._headers is None:
            self._headers, self._size = headers, size
            return
        for name in ("ETag", "Last-Modified"):
            before, now = self._headers.get(name), headers.get(name)
            if before and now and before != now:
                raise DataError(self._changed(f"{name} was {before}, is {now}"))
        if size is not None and self._size is not None and size != self._size:
            raise DataError(self._changed(f"it had {self._size:,} bytes, has {size:,}"))

    def _changed(self, what: str) -> str:
        return f"{self.url}: the file has changed on the server while it was read ({what}); read it again"

    def _give_up_or_wait(self, reason: str, retry_after_s: float | None) -> None:
        """Hangs up and waits before the next attempt, if there may be one."""
        self._hang_up()
        self._failures += 1
        if self._failures > self._patience.retries:
            raise DataError(
                f"{self.url}: reading failed {self._failures} times in a row at byte {self._position:,}, "
                f"last: {reason}; check the address and the network, then run again"
            )
        pause = min(self._patience.backoff_s * 2 ** (self._failures - 1), LONGEST_PAUSE_S)
        if retry_after_s is not None:
            pause = min(max(pause, retry_after_s), LONGEST_RETRY_AFTER_S)
        log.warning("%s: %s; goes on at byte %s in %.3g s", self.url, reason, f"{self._position:,}", pause)
        self._pause(pause)

    def _hang_up(self) -> None:
        """Ends the answer under way; a connection read to its end is kept for the next request."""
        if self._response is not None:
            self._response.close()
            self._response.release_conn()
            self._response = None


def _validator(headers: Mapping[str, str]) -> str | None:
    """What `If-Range` may hold: a strong ETag, else the date."""
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _retry_after(value: str | None) -> float | None:
    """Seconds that the header `Retry-After` (a number or a date) asks for."""
    if not value:
        return None
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _reason(error: Exception) -> str:
    """The first line of an error, short."""
    text = str(error.args[0] if error.args else error)
    return (text.strip().splitlines() or [type(error).__name__])[0][:200]


def _pool(url: str) -> urllib3.PoolManager:
    """The connections to use for a URL: direct ones, or those through the proxy of the environment."""
    parts = urllib3.util.parse_url(url)
    host = parts.host or ""
    bypassed = urllib.request.proxy_bypass(host)
    return _pool_through("" if bypassed else urllib.request.getproxies().get(parts.scheme or "", ""))


@functools.cache
def _pool_through(proxy: str) -> urllib3.PoolManager:
    """One pool per process and proxy."""
    if not proxy:
        return urllib3.PoolManager(maxsize=MAX_CONNECTIONS)
    auth = urllib3.util.parse_url(proxy).auth
    headers = urllib3.make_headers(proxy_basic_auth=auth) if auth else None
    return urllib3.ProxyManager(proxy, proxy_headers=headers, maxsize=MAX_CONNECTIONS)
