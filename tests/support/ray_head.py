"""A real Ray head on this machine, with its dashboard, as `ray start` makes it."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from ray_forks import ray_program

START_S = 120
STARTED = b"Ray runtime started"


@contextmanager
def ray_head(env: Mapping[str, str], cpus: int = 4) -> Iterator[str]:
    """A head that lives as long as the block, inside `forking_workers`; gives its dashboard's address.

    Args:
        env: Variables beside those of this process; jobs inherit them.
        cpus: Logical CPUs it offers.
    """
    ports = free_ports(5)
    binaries = str(Path(sys.executable).parent)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    clean |= {"PATH": f"{binaries}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    # Sockets lie in there, and their paths have to be short.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        options = {
            "port": ports[0],
            "dashboard-port": ports[1],
            "dashboard-agent-listen-port": ports[2],
            "dashboard-agent-grpc-port": ports[3],
            "ray-client-server-port": ports[4],
            "min-worker-port": 0,
            "max-worker-port": 0,
            "node-ip-address": "127.0.0.1",
            "dashboard-host": "127.0.0.1",
            "num-cpus": cpus,
            "num-gpus": 0,
            "object-store-memory": 200 * 2**20,
            "temp-dir": folder,
        }
        command = [*ray_program(), "start", "--head", "--block", "--disable-usage-stats"]
        command += [f"--{name}={value}" for name, value in options.items()]
        with tempfile.TemporaryFile() as log:
            process = psutil.Popen(command, env={**clean, **env}, stdout=log, stderr=subprocess.STDOUT)
            try:
                end = time.monotonic() + START_S
                while STARTED not in (said := os.pread(log.fileno(), 2**20, 0)):
                    assert process.poll() is None, said.decode()
                    assert time.monotonic() < end, said.decode()
                    time.sleep(0.1)
                yield f"http://127.0.0.1:{ports[1]}"
            finally:
                stop(process)


def stop(process: psutil.Process) -> None:
    """Ends a process and all that came of it."""
    family = [process, *process.children(recursive=True)] if process.is_running() else []
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=10)


def free_ports(number: int) -> list[int]:
    """Ports that nothing listens on."""
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [server.getsockname()[1] for server in servers]
