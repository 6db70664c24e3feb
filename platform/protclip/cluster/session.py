"""Joining a Ray cluster, or starting one on this machine."""

import logging
import os

import ray

log = logging.getLogger(__name__)

FORWARDED = ("AWS_", "MLFLOW_", "HF_")
"""Prefixes of the variables that workers on other machines need as the driver has them."""


def connect(min_cpus: int = 2) -> None:
    """Joins the cluster of `RAY_ADDRESS` or of the surrounding job; starts a local one otherwise.

    A second call, or one inside a program that is connected already, does nothing.

    Args:
        min_cpus: Logical CPUs a local cluster offers at least, so that work which needs several
            workers also runs on a small machine.
    """
    if ray.is_initialized():
        return
    env_vars = {k: v for k, v in os.environ.items() if k.startswith(FORWARDED)}
    runtime_env = {"env_vars": env_vars}
    if os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_JOB_ID"):
        ray.init(address="auto", runtime_env=runtime_env, logging_level=logging.WARNING)
        log.info("joined the Ray cluster: %s", _size())
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # The driver shows progress and errors itself; what Ray's own processes say stays in its log files.
    ray.init(
        address="local",
        num_cpus=max(os.cpu_count() or 1, min_cpus),
        include_dashboard=False,
        runtime_env=runtime_env,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    log.info("started a local Ray cluster: %s", _size())


def _size() -> str:
    """CPUs, GPUs and nodes in words."""
    total = ray.cluster_resources()
    nodes = sum(key.startswith("node:") and not key.endswith("__") for key in total)
    return f"{total.get('CPU', 0):.0f} CPUs, {total.get('GPU', 0):.0f} GPUs, {nodes} node(s)"


def has_gpu() -> bool:
    """True when the cluster offers a GPU."""
    return ray.cluster_resources().get("GPU", 0) > 0


def disconnect() -> None:
    """Leaves the cluster; a local one ends."""
    ray.shutdown()
