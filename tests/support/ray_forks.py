"""Ray workers forked from a process that has imported what takes each of them seconds.

Ray runs this file in place of its `setup_worker.py`; that has the server fork, and lasts as long as the fork.
One server serves all clusters of a session.
"""

import array
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SOCKET = "TEST_RAY_FORKS"
PRELOAD = (
    *("grpc", "jsonschema", "matplotlib.figure", "pandas", "s3fs"),
    *("protclip.evaluation.runner", "protclip.tracking.mlflow", "protclip.training.loop"),
)
"""What is imported beforehand: nothing of Ray, which takes its settings from the environment when it is."""


@contextlib.contextmanager
def forking_workers(folder: Path) -> Iterator[None]:
    """Ray clusters that are started inside fork their workers."""
    from unittest import mock

    from ray._private import ray_constants

    place = str(folder / "forks")
    with subprocess.Popen([sys.executable, __file__, place], stdin=subprocess.PIPE) as server:
        try:
            while not Path(place).exists():
                assert server.poll() is None
                time.sleep(0.01)
            with (
                mock.patch.dict(os.environ, {SOCKET: place}),
                mock.patch.object(ray_constants, "SETUP_WORKER_FILENAME", __file__),
            ):
                yield
        finally:
            server.kill()


def ray_program() -> list[str]:
    """The command `ray` whose nodes, started inside `forking_workers`, fork their workers too."""
    code = f"from ray._private import ray_constants as c; c.SETUP_WORKER_FILENAME = {__file__!r}"
    return [sys.executable, "-c", f"{code}; from ray.scripts.scripts import main; main()"]


def ask() -> None:
    """Has the server fork a worker with the arguments, environment and files of this process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.connect(os.environ[SOCKET])
        files = array.array("i", [1, 2])
        server.sendmsg([b" "], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
        server.sendall(json.dumps([sys.argv[1:], dict(os.environ), str(Path.cwd())]).encode())
        server.shutdown(socket.SHUT_WR)
        server.recv(1)


def serve(place: str) -> None:
    """Forks whenever it is asked to, until its standard input ends, which the tests hold."""
    import importlib
    import select
    import signal

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(f"{place}.new")
    listener.listen(64)
    # Who asks from now on waits, and a head can start in the meantime.
    Path(f"{place}.new").rename(place)
    for name in PRELOAD:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            sys.exit(become_worker(connection))
        connection.close()


def become_worker(connection: socket.socket) -> None:
    """Goes on as Ray's own script would."""
    import random
    import runpy

    import numpy as np

    _, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(8))
    for number, file in enumerate(array.array("i", ancillary[0][2]), start=1):
        os.dup2(file, number)
        os.close(file)
    with connection.makefile("rb") as sent:
        arguments, environment, folder = json.loads(sent.read())
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    os.setpgid(0, 0)  # Ray ends a worker with its process group.
    random.seed()
    np.random.seed()  # noqa: NPY002  like that of a new process

    from ray._private.runtime_env.context import RuntimeEnvContext
    from ray._private.utils import update_envs
    from ray._private.workers import setup_worker

    def run(context: Any, given: list[str], _: object) -> None:
        update_envs(context.env_vars)
        if context.command_prefix:
            enter_upload(*context.command_prefix)
        sys.argv, sys.path[0] = given, str(Path(given[0]).parent)
        runpy.run_path(given[0], run_name="__main__")

    RuntimeEnvContext.exec_worker = run
    sys.argv = [setup_worker.__file__, *arguments]
    runpy.run_path(setup_worker.__file__, run_name="__main__")


def enter_upload(_cd: str, folder: str, _and: str) -> None:
    """Works with the code that was submitted, as a new process would, and not with that of this checkout."""
    os.chdir(folder)
    sys.path[1:1] = [str(Path(place).absolute()) for place in os.environ["PYTHONPATH"].split(os.pathsep)]
    for name in [name for name in sys.modules if name.partition(".")[0] == "protclip"]:
        del sys.modules[name]


if __name__ == "__main__":
    if os.environ.get(SOCKET):
        ask()
    else:
        serve(sys.argv[1])
