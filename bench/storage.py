"""How fast large objects go to and come from an S3 server, as JSON lines.

    python bench/storage.py --mb 512
    python bench/storage.py --mb 512 --answer-ms 50 --stream-mb-s 100

The peers are Arrow's own S3 client, s3fs as it is, and boto3's `upload_fileobj` and `download_fileobj`. The
server is a process of its own that forgets what it is sent and answers with zeros, so that the clients are
what is measured; `--answer-ms` and `--stream-mb-s` make it as slow as a real one is for each request and
each connection. `over` is our speed over the peer's in the same run, the median of `--repeats`; `peak_mb` is
what a client took of memory beyond what it had before, `cpu_s` its processor time.
"""

import argparse
import functools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import psutil

MB = 10**6
BLOCK = bytes(2**20)
UPLOAD = "<{0}><Bucket>bench</Bucket><Key>large</Key><UploadId>1</UploadId><ETag>1</ETag></{0}>"


class Server(BaseHTTPRequestHandler):
    """Enough of S3 to send and fetch one object that nobody keeps."""

    protocol_version = "HTTP/1.1"
    num_bytes: ClassVar[int]
    answer_s: ClassVar[float]
    bytes_per_s: ClassVar[float]

    def do_HEAD(self) -> None:
        """The object or the bucket is there."""
        self._answer(200, {"Content-Length": str(self.num_bytes), "ETag": '"1"'})

    def do_GET(self) -> None:
        """A range of zeros, or an empty listing."""
        if "list-type" in self.path or "location" in self.path:
            self._answer(200, {}, b"<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>")
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(found[1]), int(found[2] or self.num_bytes)) if found else (0, self.num_bytes - 1)
        end = min(end, self.num_bytes - 1)
        place = {"Content-Range": f"bytes {start}-{end}/{self.num_bytes}"} if found else {}
        self._answer(206 if found else 200, {"Content-Length": str(end + 1 - start), "ETag": '"1"', **place})
        begun, left = time.monotonic(), end + 1 - start
        while left:
            self.wfile.write(BLOCK[:left])
            left -= len(BLOCK[:left])
            self._keep_pace(begun, end + 1 - start - left)

    def do_PUT(self) -> None:
        """Takes a part or an object."""
        self._take()
        self._answer(200, {"ETag": '"1"', "Content-Length": "0"})

    def do_POST(self) -> None:
        """Begins or completes an upload."""
        self._take()
        step = "Complete" if "uploadId" in self.path else "Initiate"
        self._answer(200, {}, UPLOAD.format(f"{step}MultipartUploadResult").encode())

    def _take(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        begun, size = time.monotonic(), int(self.headers.get("Content-Length") or 0)
        left = size
        while left:
            left -= len(self.rfile.read(min(left, len(BLOCK))))
            self._keep_pace(begun, size - left)

    def _keep_pace(self, begun: float, num_bytes: int) -> None:
        time.sleep(max(0.0, begun + num_bytes / self.bytes_per_s - time.monotonic()))

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        time.sleep(self.answer_s)
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        """Nothing is written down."""


def serve(num_bytes: int, answer_s: float, bytes_per_s: float) -> None:
    """Serves until the process is ended; prints the port."""
    Server.num_bytes, Server.answer_s, Server.bytes_per_s = num_bytes, answer_s, bytes_per_s
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


def blocks(num_bytes: int) -> list[bytes]:
    """What is written, in pieces of 16 MiB as a checkpoint is."""
    return [bytes(16 * 2**20)] * (num_bytes // (16 * 2**20))


def ours_up(num_bytes: int) -> None:
    """`storage.atomic_writer`, sha256 included."""
    from protclip import storage

    with storage.atomic_writer("s3://bench/large") as sink:
        for block in blocks(num_bytes):
            sink.write(block)


def ours_down(num_bytes: int) -> None:
    """`storage.cached`: to a file, sha256 and MD5 included."""
    from protclip import storage

    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        assert storage.cached("s3://bench/large").stat().st_size == num_bytes


def ours_through(num_bytes: int) -> None:
    """`storage.open_input`: from the first byte to the last, in pieces of 1 MiB."""
    from protclip import storage

    with storage.open_input("s3://bench/large") as file:
        assert sum(len(block) for block in iter(lambda: file.read(2**20), b"")) == num_bytes


@functools.cache
def _s3fs() -> object:
    import s3fs

    return s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"], use_listings_cache=False)


def s3fs_up(num_bytes: int) -> None:
    """A file of s3fs opened for writing."""
    with _s3fs().open("bench/large", "wb") as sink:  # pyright: ignore[reportAttributeAccessIssue]
        for block in blocks(num_bytes):
            sink.write(block)


def s3fs_through(num_bytes: int) -> None:
    """A file of s3fs opened for reading, in pieces of 1 MiB."""
    with _s3fs().open("bench/large", "rb") as file:  # pyright: ignore[reportAttributeAccessIssue]
        assert sum(len(block) for block in iter(lambda: file.read(2**20), b"")) == num_bytes


@functools.cache
def _arrow() -> object:
    from pyarrow.fs import S3FileSystem

    return S3FileSystem(endpoint_override=os.environ["AWS_ENDPOINT_URL"], region="us-east-1")


def arrow_up(num_bytes: int) -> None:
    """A stream of Arrow's client, which sends in the background."""
    with _arrow().open_output_stream("bench/large") as sink:  # pyright: ignore[reportAttributeAccessIssue]
        for block in blocks(num_bytes):
            sink.write(block)


def arrow_through(num_bytes: int) -> None:
    """A stream of Arrow's client, in pieces of 1 MiB, with a buffer of 16."""
    with _arrow().open_input_stream("bench/large", buffer_size=16 * 2**20) as file:  # pyright: ignore[reportAttributeAccessIssue]
        assert sum(len(block) for block in iter(lambda: file.read(2**20), b"")) == num_bytes


@functools.cache
def _boto() -> object:
    import boto3

    return boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])


def boto_up(num_bytes: int) -> None:
    """boto3, from a file: parts of 8 MiB, ten at once."""
    with tempfile.TemporaryFile() as source:
        os.truncate(source.fileno(), num_bytes)
        _boto().upload_fileobj(source, "bench", "large")  # pyright: ignore[reportAttributeAccessIssue]


def boto_down(num_bytes: int) -> None:
    """boto3, to a file: ranges of 8 MiB, ten at once."""
    with tempfile.TemporaryFile() as sink:
        _boto().download_fileobj("bench", "large", sink)  # pyright: ignore[reportAttributeAccessIssue]
        assert sink.seek(0, os.SEEK_END) == num_bytes


CLIENTS: dict[str, dict[str, Callable[[int], None]]] = {
    "upload": {"ours": ours_up, "boto3": boto_up, "s3fs": s3fs_up, "arrow": arrow_up},
    "download": {"ours": ours_down, "boto3": boto_down},
    "read through": {"ours": ours_through, "s3fs": s3fs_through, "arrow": arrow_through},
}


def measure(act: Callable[[int], None], num_bytes: int) -> tuple[float, float, float]:
    """Seconds, those of the processor, and how many bytes of memory were taken at most."""
    process = psutil.Process()
    before = peak = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun, worked = time.perf_counter(), time.process_time()
    act(num_bytes)
    took_s, cpu_s = time.perf_counter() - begun, time.process_time() - worked
    done.set()
    watcher.join()
    return took_s, cpu_s, peak - before


def main() -> None:
    """Measures in turn and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--mb", type=int, default=512, help="MiB of the object, a multiple of 16")
    parser.add_argument("--answer-ms", type=float, default=0, help="time the server takes to answer")
    parser.add_argument("--stream-mb-s", type=float, default=1e6, help="speed of one connection, MB/s")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    num_bytes = args.mb * 2**20
    if args.serve:
        serve(num_bytes, args.answer_ms / 1000, args.stream_mb_s * MB)
        return
    server = subprocess.Popen([sys.executable, *sys.argv, "--serve"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    os.environ.update(
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{server.stdout.readline().strip()}",
        AWS_ACCESS_KEY_ID="bench",
        AWS_SECRET_ACCESS_KEY="bench",
        AWS_DEFAULT_REGION="us-east-1",
    )
    try:
        for what, clients in CLIENTS.items():
            taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in clients}
            for act in clients.values():
                act(num_bytes)
            for _ in range(args.repeats):
                for name, act in clients.items():
                    taken[name].append(measure(act, num_bytes))
            speeds = {
                name: num_bytes / MB / statistics.median(row[0] for row in rows)
                for name, rows in taken.items()
            }
            for name, rows in taken.items():
                line = {
                    "what": what,
                    "client": name,
                    "mib": args.mb,
                    "answer_ms": args.answer_ms,
                    "stream_mb_s": args.stream_mb_s,
                    "mb_per_s": round(speeds[name], 1),
                    "over": round(speeds["ours"] / speeds[name], 2),
                    "cpu_s": round(statistics.median(row[1] for row in rows), 2),
                    "peak_mb": round(max(row[2] for row in rows) / MB),
                }
                sys.stdout.write(json.dumps(line) + "\n")
                sys.stdout.flush()
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
