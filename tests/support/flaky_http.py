"""A web server on this machine that serves files, ranges and faults, and remembers what it sent."""

import hashlib
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

Query = Mapping[str, list[str]]
Answer = tuple[Mapping[str, str], bytes]
PIECE = 2**14


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one answer; nothing by default.

    Attributes:
        status: Answer this status and no file.
        headers: Send these as well.
        cut: Announce everything, send so many bytes, drop the connection.
        short: Announce so many bytes of the body and send no more.
        stall_s: Be silent for so long before the body, or where it is cut.
        content: Serve this instead of the file.
        ignore_range: Send the whole file whatever is asked for.
    """

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    short: int | None = None
    stall_s: float = 0.0
    content: bytes | None = None
    ignore_range: bool = False


class FlakyServer:
    """Serves `files` by path and `routes` by path and query.

    Attributes:
        files: Content by path; its MD5 is the ETag.
        routes: Functions from a query to headers and content.
        always: The fault of every answer for a path that has no other.
        ranges: The first byte asked for by each request, per path.
        sent: Bytes of bodies sent, per path.
        piece_pause_s: Pause after each 16 kB, for a slow server.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.routes: dict[str, Callable[[Query], Answer]] = {}
        self.always: dict[str, Fault] = {}
        self.ranges: defaultdict[str, list[int]] = defaultdict(list)
        self.sent: Counter[str] = Counter()
        self.piece_pause_s = 0.0
        self._faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Says nothing."""

        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._httpd.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._httpd.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator["FlakyServer"]:
        serve = partial(self._httpd.serve_forever, poll_interval=0.02)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._httpd.shutdown()
            self._httpd.server_close()
            thread.join()

    def fail(self, path: str, *faults: Fault) -> None:
        """The next answers for `path` have these faults, one each."""
        self._faults[path].extend(faults)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answers one request."""
        parts = urlsplit(request.path)
        path = parts.path
        wanted = request.headers.get("Range", "")
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        self.ranges[path].append(start)
        fault = self._faults[path].popleft() if self._faults[path] else self.always.get(path, Fault())
        headers: dict[str, str] = {}
        if path in self.routes and not fault.status:
            made, content = self.routes[path](parse_qs(parts.query))
            headers.update(made)
            start = 0
        else:
            content = self.files.get(path) if fault.content is None else fault.content
        if fault.status or content is None:
            self._send(request, fault.status or 404, dict(fault.headers), b"", Fault())
            return
        status = 200
        if path in self.files:
            etag = f'"{hashlib.md5(content).hexdigest()}"'
            headers["ETag"] = etag
            same = request.headers.get("If-Range", etag) == etag
            if start and same and not fault.ignore_range:
                total, status = len(content), 206 if start < len(content) else 416
                span = f"{start}-{total - 1}" if status == 206 else "*"
                headers["Content-Range"] = f"bytes {span}/{total}"
                content = content[start:]
        self._send(request, status, headers | dict(fault.headers), content, fault, path)

    def _send(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        headers: Mapping[str, str],
        content: bytes,
        fault: Fault,
        path: str = "",
    ) -> None:
        content = content[: fault.short]
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        for begin in range(0, len(content[: fault.cut]), PIECE):
            piece = content[: fault.cut][begin : begin + PIECE]
            try:
                request.wfile.write(piece)
            except OSError:
                request.close_connection = True
                return
            self.sent[path] += len(piece)
            time.sleep(self.piece_pause_s)
        time.sleep(fault.stall_s)
        if fault.cut is not None:
            request.close_connection = True
