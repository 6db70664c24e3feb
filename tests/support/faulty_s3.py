"""An S3 server (moto) in a thread of this process that fails as it is told."""

import asyncio
import functools
import inspect
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from werkzeug.wsgi import get_input_stream

from protclip.storage import filesystems

if TYPE_CHECKING:
    from s3fs import S3FileSystem

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Fault = Callable[[App, dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def reply(status: str, body: str) -> Fault:
    """Does nothing and answers this."""

    def answer(_: App, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        get_input_stream(environ).read()
        start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body.encode()]

    return answer


def error(status: str, code: str) -> Fault:
    """Does nothing and answers an error of S3."""
    return reply(status, f"<Error><Code>{code}</Code><Message>made fault</Message></Error>")


INTERNAL_ERROR = error("500 Internal Server Error", "InternalError")
SLOW_DOWN = error("503 Slow Down", "SlowDown")
MISSING = error("404 Not Found", "NoSuchKey")
ERROR_IN_OK = error("200 OK", "InternalError")
"""What S3 answers when the completion of an upload fails after it has begun to answer."""


def ignore_condition(
    app: App, environ: dict[str, Any], start_response: Callable[..., Any]
) -> Iterable[bytes]:
    """Writes whether or not something is there."""
    environ.pop("HTTP_IF_NONE_MATCH", None)
    return app(environ, start_response)


def google(app: App, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """As Google's: no checksums of newer clients, no conditions, no joint deletion, no copied parts."""
    names = " ".join(environ).lower()
    query = environ["QUERY_STRING"]
    if "amz_checksum" in names or "amz_sdk_checksum" in names or "amz_trailer" in names:
        return error("403 Forbidden", "SignatureDoesNotMatch")(app, environ, start_response)
    if "HTTP_X_AMZ_COPY_SOURCE" in environ or query.startswith("delete"):
        return error("501 Not Implemented", "NotImplemented")(app, environ, start_response)
    if environ["REQUEST_METHOD"] == "DELETE" and "uploadId" not in query:
        # Here another client would have removed it already.
        b"".join(app(environ.copy(), lambda *_: None))
        return MISSING(app, environ, start_response)
    return ignore_condition(app, environ, start_response)


def drop(_: App, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Closes the connection instead of doing anything."""
    get_input_stream(environ).read()
    return _close(environ)


def lose_answer(app: App, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Does what is asked, then closes the connection instead of saying so."""
    b"".join(app(environ, lambda *_: None))
    return _close(environ)


def _close(environ: dict[str, Any]) -> NoReturn:
    """Ends the connection; the server takes the error for the client's doing."""
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError


def cut(app: App, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Closes the connection in the middle of the answer."""
    body = b"".join(app(environ, start_response))
    return [body[: len(body) // 2]]


def short(app: App, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Sends half of the answer, and headers that call it the whole; without a checksum, as many stores do."""
    seen: list[tuple[str, list[tuple[str, str]]]] = []
    body = b"".join(app(environ, lambda status, headers, *_: seen.append((status, headers))))
    body = body[: len(body) // 2]
    status, headers = seen[0]
    kept = [(k, v) for k, v in headers if not re.match("content-(length|range)|x-amz-checksum", k.lower())]
    start_response(status, [*kept, ("Content-Length", str(len(body)))])
    return [body]


def wait(seconds: float) -> Fault:
    """Answers after a while."""

    def answer(app: App, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        time.sleep(seconds)
        return app(environ, start_response)

    return answer


class Hold:
    """Keeps requests waiting until it is let go, then closes their connections.

    Attributes:
        reached: Set when there is one.
    """

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._released = threading.Event()

    def __call__(
        self, app: App, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        get_input_stream(environ).read()
        self.reached.set()
        self._released.wait()
        return _close(environ)

    def release(self) -> None:
        """Lets them go."""
        self._released.set()


@dataclass
class Rule:
    """Requests that get a fault: the first `times` that match, or a share of them.

    Attributes:
        request: What "METHOD bucket/key?query" must contain.
        fault: What they get.
        after: Matching requests that are let through before.
        times: Requests that get it; None for all.
        share: Probability of each.
        done: How many got it.
    """

    request: re.Pattern[str]
    fault: Fault
    after: int
    times: int | None
    share: float
    random: Random
    done: int = 0


@dataclass(frozen=True)
class Request:
    """A request that came.

    Attributes:
        line: "METHOD bucket/key?query".
        num_bytes: Size of its body.
        user: Access key it is signed with.
        copies: Whether the store is to copy an object.
    """

    line: str
    num_bytes: int
    user: str
    copies: bool


@dataclass
class FaultyS3:
    """The server and its rules; the first rule that takes a request decides.

    Attributes:
        endpoint: Its URL.
        seen: The requests since the last `reset`, as lines.
        requests: The same with what else is known of them.
    """

    endpoint: str = ""
    seen: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    _rules: list[Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, certificate: tuple[str, str] | None = None) -> Callable[[], None]:
        """Serves until the function returned is called; with a certificate and its key by TLS."""
        from moto.moto_server.werkzeug_app import (
            DomainDispatcherApplication,
            MotoRequestHandler,
            create_backend_app,
        )
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        app = DomainDispatcherApplication(create_backend_app)

        def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            fault = self._take(environ)
            return app(environ, start_response) if fault is None else fault(app, environ, start_response)

        server = make_server(
            "127.0.0.1", 0, serve, threaded=True, request_handler=MotoRequestHandler, ssl_context=certificate
        )
        self.endpoint = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, name="s3", daemon=True)
        thread.start()

        def stop() -> None:
            server.shutdown()
            thread.join()
            server.server_close()

        return stop

    def fail(
        self,
        request: str,
        fault: Fault,
        *,
        after: int = 0,
        times: int | None = None,
        share: float = 1,
        seed: int = 0,
    ) -> Rule:
        """Adds a rule; see `Rule`."""
        rule = Rule(re.compile(request), fault, after, times, share, Random(seed))
        with self._lock:
            self._rules.append(rule)
        return rule

    def count(self, request: str) -> int:
        """Requests seen that contain a pattern."""
        with self._lock:
            return sum(re.search(request, line) is not None for line in self.seen)

    def reset(self) -> None:
        """Forgets rules and requests."""
        with self._lock:
            self._rules.clear()
            self.seen.clear()
            self.requests.clear()

    def _take(self, environ: dict[str, Any]) -> Fault | None:
        """Notes a request and finds what it gets."""
        line = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO'].lstrip('/')}?{environ['QUERY_STRING']}"
        with self._lock:
            self.seen.append(line)
            self.requests.append(
                Request(
                    line,
                    int(environ.get("CONTENT_LENGTH") or 0),
                    environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].partition("/")[0],
                    "HTTP_X_AMZ_COPY_SOURCE" in environ,
                )
            )
            for rule in self._rules:
                if not rule.request.search(line) or rule.done == rule.times:
                    continue
                if rule.after:
                    rule.after -= 1
                elif rule.random.random() < rule.share:
                    rule.done += 1
                    return rule.fault
        return None


@functools.cache
def hasty_client(endpoint: str, read_timeout: float) -> "S3FileSystem":
    """A client of the package that asks three times at each level."""
    make = inspect.unwrap(filesystems._s3_client)
    return make(endpoint, connect_timeout=5, read_timeout=read_timeout, max_attempts=3, retries=3)


@contextmanager
def haste(endpoint: str) -> Iterator[None]:
    """The package's client is a hasty one, and waits but a moment for the next attempt."""
    sleep = asyncio.sleep
    client = hasty_client(endpoint, read_timeout=60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "sleep", lambda seconds, *rest: sleep(min(seconds, 0.001), *rest))
        patch.setattr(filesystems, "_s3_client", lambda *_, **__: client)
        yield
