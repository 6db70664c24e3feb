"""Joining a Ray cluster, or starting one on this machine."""

import logging
import os
import re
import socket

import ray
from ray.exceptions import AuthenticationError

from protclip.errors import ConfigError

log = logging.getLogger(__name__)

VERSION = re.compile(r"^ +(Ray|Python): (\S+)$", re.MULTILINE)
AUTH_REMEDY = (
    "set RAY_AUTH_MODE=token and the cluster's token as RAY_AUTH_TOKEN, or its file as RAY_AUTH_TOKEN_PATH"
)
VERSION_REMEDY = (
    "use the image that belongs to this code (k8s/image/Dockerfile), or the code that belongs to the image"
)

PROBE_S = 5.0
"""A cluster that does not take a connection for so long is away; Ray itself tries for minutes."""


def connect(min_cpus: int = 2) -> None:
    """Joins the cluster of `RAY_ADDRESS` or of the surrounding job; starts a local one otherwise.

    A second call, or one inside a program that is connected already, does nothing. Workers have the
    environment of the job or of their node, a local cluster's that of this process: credentials are
    never copied into a job's description.

    Args:
        min_cpus: Logical CPUs a local cluster offers at least, so that work which needs several
            workers also runs on a small machine.

    Raises:
        ConfigError: No cluster answers at `RAY_ADDRESS`, not to us, or it runs other versions.
    """
    if ray.is_initialized():
        return
    if is_named():
        address = os.environ.get("RAY_ADDRESS", "auto")
        _join(address)
        log.info("joined the Ray cluster: %s", _size())
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # The driver shows progress and errors itself; what Ray's own processes say stays in its log files.
    ray.init(
        address="local",
        num_cpus=max(os.cpu_count() or 1, min_cpus),
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    log.info("started a local Ray cluster: %s", _size())


def is_named() -> bool:
    """Whether there is a cluster to join, named by `RAY_ADDRESS` or around this job."""
    return bool(os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_JOB_ID"))


def _join(address: str) -> None:
    """Connects to a cluster that exists."""
    where = f"RAY_ADDRESS={address}"
    try:
        probe(address)
    except OSError as error:
        raise ConfigError(
            f"{where}: no Ray cluster answers there; start it, mend the address, or unset RAY_ADDRESS to run "
            "on this machine"
        ) from error
    try:
        # Workers report to the driver through this package; what else they print is in Ray's log files.
        ray.init(address="auto", logging_level=logging.WARNING, log_to_driver=False)
    except (AuthenticationError, OSError) as error:
        # To a wrong token Ray says no more than that it could not connect.
        reason = str(error).partition(". ")[0]
        raise ConfigError(f"{where}: {reason}; if the cluster wants a token, {AUTH_REMEDY}") from error
    except RuntimeError as error:
        if "Version mismatch" not in str(error):
            raise
        said = [f"{name} {version}" for name, version in VERSION.findall(str(error))]
        theirs, ours = (" with ".join(said[part]) for part in (slice(2), slice(2, None)))
        raise ConfigError(
            f"{where}: the cluster runs {theirs}, this process {ours}; {VERSION_REMEDY}"
        ) from error


def probe(address: str) -> None:
    """Opens a connection to an address, if it is one of a host and a port, and closes it.

    Raises:
        OSError: Nothing answers there.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), PROBE_S).close()


def _size() -> str:
    """CPUs, GPUs and nodes in words."""
    total = ray.cluster_resources()
    nodes = sum(key.startswith("node:") and not key.endswith("__") for key in total)
    return f"{total.get('CPU', 0):.0f} CPUs, {total.get('GPU', 0):.0f} GPUs, {nodes} node(s)"


def has_gpu() -> bool:
    """True when the cluster offers a GPU."""
    return ray.cluster_resources().get("GPU", 0) > 0
