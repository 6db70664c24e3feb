"""Whether the cluster has room for workers, what is said where it has none, and how that is awaited."""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.autoscaler.v2.schema import ClusterStatus, NodeInfo
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.exceptions import RpcError
from ray.util.placement_group import placement_group, remove_placement_group

from protclip.errors import ConfigError

log = logging.getLogger(__name__)

START_S = 1800.0
"""How long jobs wait for the first of their workers to have a place; a node may take many minutes to come."""
SAY_S = 60.0
"""How often it is said that a job waits."""
POLL_S = 1.0
NODE_GROUP = "ray.io/node-group"
"""Label of nodes that KubeRay or Ray's cluster launcher has made; those started by hand have none."""
SHOWN = ("CPU", "GPU")
ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Need:
    """Workers that a job needs.

    Attributes:
        count: How many, at least.
        each: Resources of one, which must be on one node.
        remedy: What its user can do to need less.
    """

    count: int
    each: Mapping[str, float]
    remedy: str

    def __str__(self) -> str:
        return f"{self.count} worker{'s' * (self.count > 1)} of {_amounts(self.each)}"


def places(each: Mapping[str, float]) -> int:
    """How many workers of these resources the nodes have room for, whoever may be at work there now."""
    return _places(each, [node.total_resources() for node in _nodes(_status())])


def grows() -> bool:
    """Whether further nodes may come by themselves: somebody keeps those that there are."""
    return any(NODE_GROUP in (node.labels or {}) for node in _nodes(_status()))


def check_room(need: Need) -> None:
    """Refuses what can never find room: more than the nodes have, where no further node will come.

    Raises:
        ConfigError: There is no room.
    """
    if not grows() and places(need.each) < need.count:
        raise ConfigError(
            f"no room: {shortage(need)}; no further node comes by itself: {need.remedy}, or start more "
            "nodes first"
        )


def await_room(need: Need, limit_s: float = START_S) -> None:
    """Waits until the nodes have room, whoever may be at work there; asks the autoscaler for it.

    Raises:
        ConfigError: It does not come in time, or never will.
    """
    check_room(need)
    if places(need.each) >= need.count:
        return
    begin = said = time.monotonic()
    # An autoscaler goes by what waits.
    demand = placement_group([dict(need.each)] * need.count)
    log.info("waiting for nodes: %s", shortage(need))
    try:
        while places(need.each) < need.count:
            now = time.monotonic()
            if now - begin > limit_s:
                raise ConfigError(f"no room within {limit_s:g} s: {explain(need)}")
            if now - said > SAY_S:
                said = now
                log.info("waiting for nodes: %s", shortage(need))
            time.sleep(POLL_S)
    finally:
        remove_placement_group(demand)


def shortage(need: Need) -> str:
    """What is need, what the cluster has, what of it is free, and what Ray's autoscaler says, in a line."""
    try:
        status = _status()
    except RpcError:
        return f"wanted: {need}; the cluster's head does not answer"
    nodes = _nodes(status)
    groups = Counter(((n.labels or {}).get(NODE_GROUP, ""), _amounts(n.total_resources())) for n in nodes)
    has = "; ".join(
        f"{count} node{'s' * (count > 1)}{f' {group!r}' * bool(group)} of {amounts}"
        for (group, amounts), count in sorted(groups.items())
    )
    free = [node.available_resources() for node in nodes]
    text = (
        f"wanted: {need}; the cluster has {has}, room for {_places(need.each, free)} now: free are "
        f"{_amounts(_sum(free))} of {_amounts(_sum(n.total_resources() for n in nodes))}"
    )
    coming = Counter(node.ray_node_type_name for node in status.pending_nodes)
    for launch in status.pending_launches:
        coming[launch.ray_node_type_name] += launch.count
    if coming:
        text += "; coming: " + ", ".join(f"{count} {group!r}" for group, count in sorted(coming.items()))
    failed = {f"{f.ray_node_type_name!r} {f.details or ''}".strip() for f in status.failed_launches}
    if failed:
        text += "; could not be started: " + ", ".join(sorted(failed))
    return text


def explain(need: Need) -> str:
    """The shortage, who holds the rest, and what to do about it."""
    held = "".join(f"; {job} holds {_amounts(amounts)}" for job, amounts in sorted(_held().items()))
    return (
        f"{shortage(need)}{held}. See why nodes do not come (kubectl get pods, kubectl "
        f"describe raycluster, kubectl describe pod of one that is Pending), free some, or {need.remedy}"
    )


def _status() -> ClusterStatus:
    """What Ray's control store knows of nodes, demands and the autoscaler's doings."""
    return get_cluster_status(ray.get_runtime_context().gcs_address)


def _nodes(status: ClusterStatus) -> list[NodeInfo]:
    """Those alive."""
    return [*status.active_nodes, *status.idle_nodes]


def _places(each: Mapping[str, float], nodes: Iterable[Mapping[str, float]]) -> int:
    """How many workers find room on nodes of these resources."""
    needed = {name: amount for name, amount in each.items() if amount}
    return sum(
        min(int(node.get(name, 0) / amount + ROUNDING) for name, amount in needed.items()) for node in nodes
    )


def _sum(resources: Iterable[Mapping[str, float]]) -> Counter[str]:
    """All together."""
    total: Counter[str] = Counter()
    for one in resources:
        total.update(one)
    return total


def _amounts(resources: Mapping[str, float]) -> str:
    """CPUs and GPUs in words."""
    amounts = {name: resources.get(name, 0) for name in SHOWN}
    shown = {name: amount for name, amount in amounts.items() if amount or name == "CPU"}
    return ", ".join(f"{amount:g} {name}{'s' * (amount != 1)}" for name, amount in shown.items())


def _held() -> dict[str, Counter[str]]:
    """What each job holds, as far as Ray's dashboard tells: placement groups, and actors outside of them."""
    # Workers import this module, but have no use for this.
    from ray.util.state import list_actors, list_jobs, list_placement_groups
    from ray.util.state.exception import RayStateApiException

    address = ray.get_runtime_context().gcs_address
    held: dict[str, Counter[str]] = defaultdict(Counter)
    try:
        names = {job.job_id: job.submission_id or job.entrypoint for job in list_jobs(address, detail=True)}
        groups: list[Any] = list_placement_groups(address, [("state", "=", "CREATED")], detail=True)
        actors: list[Any] = list_actors(address, [("state", "=", "ALIVE")], detail=True)
        for group in groups:
            for bundle in group.bundles or []:
                held[group.creator_job_id or ""].update(bundle["unit_resources"])
        for actor in actors:
            if not actor.placement_group_id:
                held[actor.job_id or ""].update(actor.required_resources or {})
    except RayStateApiException as error:
        log.debug("no dashboard tells who holds what: %s", error)
        return {}
    return {names.get(job) or job: amounts for job, amounts in held.items() if any(amounts[n] for n in SHOWN)}
