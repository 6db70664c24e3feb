"""The process that does a node's checks, and checks between nodes: clocks, an all-reduce by a real group."""

import datetime
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from protclip.cluster.doctor_plan import Finding, Place, Plan, some

IMPORT_S, REACH_S, MEET_S, GROUP_S = 20.0, 5.0, 7.0, 10.0
"""Time-outs: for importing torch, for reaching the first process, for all to do so, for each operation."""
TENSOR_BYTES = {"gloo": 16 * 2**20, "nccl": 256 * 2**20}
SLOW_BYTES_PER_S = {"gloo": 50e6, "nccl": 1e9}
"""Below these, gradients of 650 M parameters take most of a step."""
ROUNDS = 3
PINGS = 5
SKEW_WARN_S = 5.0
_INTERFACE = {
    "gloo": "GLOO_SOCKET_IFNAME",
    "nccl": "NCCL_SOCKET_IFNAME (and see NCCL_DEBUG=INFO)",
}

Check = Callable[[Plan, Place], list[Finding]]
Row = tuple[str, Finding]
"""Where, and what."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node, and the process that does its checks.

    Attributes:
        place: Its name and what Ray believes of it.
        node_id: Ray's identifier.
        probe: The actor.
    """

    place: Place
    node_id: str
    probe: Any


@dataclass(frozen=True, slots=True)
class Met:
    """What a rank found out.

    Attributes:
        missing: Ranks that did not come; then nothing else was done.
        bytes_per_s: Bus bandwidth of the all-reduce, 2(n−1)/n · size/time; 0 for one rank alone.
    """

    missing: tuple[int, ...] = ()
    bytes_per_s: float = 0.0


class Probe:
    """A process on a node; its methods run side by side."""

    def hello(self) -> None:
        """Answers."""

    def run(self, check: Check, plan: Plan, place: Place) -> list[Finding]:
        """Does a check here."""
        return check(plan, place)

    def now(self) -> float:
        """This machine's clock, seconds since 1970."""
        return time.time()

    def address(self) -> tuple[str, int]:
        """This node's address, and a port that is free; afterwards the process can meet others at once."""
        import torch.distributed  # noqa: F401  the first time takes long, on some nodes longer than on others

        with socket.socket() as free:
            free.bind(("", 0))
            return ray.util.get_node_ip_address(), free.getsockname()[1]

    def meet(self, rank: int, world: int, address: tuple[str, int], backend: str) -> Met:
        """Joins a process group, sums a tensor over it, and checks the sum."""
        import torch
        import torch.distributed as dist

        # Otherwise it would wait for all, and not know for whom.
        store = dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage]
            *address,
            is_master=rank == 0,
            timeout=datetime.timedelta(seconds=REACH_S),
            wait_for_workers=False,
        )
        store.set(f"here/{rank}", "")
        end = time.monotonic() + MEET_S
        while missing := tuple(r for r in range(world) if not store.check([f"here/{r}"])):
            if time.monotonic() > end:
                return Met(missing)
            time.sleep(0.05)
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=world, timeout=datetime.timedelta(seconds=GROUP_S)
        )
        try:
            device = torch.device("cuda" if backend == "nccl" else "cpu")
            tensor_N = torch.empty(TENSOR_BYTES[backend] // 4, device=device)
            took_s = float("inf")
            for _ in range(1 + ROUNDS):
                tensor_N.fill_(rank + 1)
                dist.barrier()
                begun = time.perf_counter()
                dist.all_reduce(tensor_N)
                # Reading it waits for a GPU to be done.
                total = tensor_N[-1].item()
                took_s = min(took_s, time.perf_counter() - begun)
                if total != world * (world + 1) / 2:
                    raise ValueError(f"the sum over {world} ranks is {total:g}")
        finally:
            dist.destroy_process_group()
        return Met(bytes_per_s=2 * (world - 1) / world * TENSOR_BYTES[backend] / took_s)


def start_probe(node_id: str, num_gpus: int = 0) -> Any:
    """A process on a node, which takes no CPU from jobs."""
    # One thread for each check, the clock and the process group.
    return (
        ray.remote(Probe)
        .options(
            num_cpus=0,
            num_gpus=num_gpus,
            max_concurrency=32,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        )
        .remote()
    )


def ask(
    nodes: Sequence[Node], checks: Mapping[str, tuple[Check, float]], plan: Plan, end: float
) -> Iterator[tuple[str, str, Finding]]:
    """Has every node do its checks, all side by side.

    Args:
        nodes: The nodes.
        checks: What to do, and the seconds it may take, by name.
        plan: What they are told.
        end: When none is waited for any longer, on the monotonic clock.

    Yields:
        Name, node and finding.
    """
    now = time.monotonic()
    calls = {
        node.probe.run.remote(check, plan, node.place): (name, node.place.name, min(now + limit_s, end))
        for node in nodes
        for name, (check, limit_s) in checks.items()
    }
    while calls:
        wait_s = min(until for *_, until in calls.values()) - time.monotonic()
        done, _ = ray.wait(list(calls), num_returns=1, timeout=max(0.0, wait_s))
        for call in done:
            name, where, _ = calls.pop(call)
            try:
                found = ray.get(call)
            except RayError as error:
                found = [Finding("fail", line_of(error), "see the node's pod and its log")]
            yield from ((name, where, finding) for finding in found)
        if done:
            continue
        for call, (name, where, until) in list(calls.items()):
            if until <= time.monotonic():
                del calls[call]
                yield name, where, silent(until - now)


def silent(after_s: float) -> Finding:
    """What is said of a check that did not end."""
    return Finding(
        "fail",
        f"no answer within {after_s:.0f} s",
        "see that it runs, is not overloaded, and that network policies let this through",
    )


def check_clock(_: Plan, nodes: Sequence[Node]) -> list[Row]:
    """How far each node's clock is from the driver's, by the quickest of a few round trips."""
    return [(node.place.name, _clock(node)) for node in nodes]


def _clock(node: Node) -> Finding:
    trips = []
    try:
        for _ in range(PINGS):
            begun = time.time()
            there = float(ray.get(node.probe.now.remote(), timeout=REACH_S))
            ended = time.time()
            trips.append((ended - begun, there - (begun + ended) / 2))
    except (GetTimeoutError, RayError) as error:
        return Finding("fail", line_of(error), "see the node's pod and its log")
    return judge_clock(*min(trips))


def judge_clock(round_trip_s: float, skew_s: float) -> Finding:
    """Whether a clock is that of the driver, as far as a round trip lets one see."""
    facts = f"{skew_s:+.3f} s ± {round_trip_s / 2:.3f} s against the driver"
    if abs(skew_s) - round_trip_s / 2 > SKEW_WARN_S:
        return Finding("warn", facts, "set the node's clock (NTP); S3 refuses what is 15 minutes off")
    return Finding("ok", facts)


def check_network(_: Plan, nodes: Sequence[Node]) -> list[Row]:
    """An all-reduce over all free GPUs, or over one process per node where there are none."""
    names = [node.place.name for node in nodes]
    where = some(names, 3)
    offered = [int(node.place.resources.get("GPU", 0)) for node in nodes]
    if not any(offered):
        if len(nodes) < 2:
            return [(where, Finding("skipped", "one node without GPUs has no network to try"))]
        return judge_network(*_meet([(node.place.name, node.probe) for node in nodes], "gloo"))
    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    alive = (*status.active_nodes, *status.idle_nodes)
    free = {node.node_id: int(node.available_resources().get("GPU", 0)) for node in alive}
    counts = [free.get(node.node_id, 0) for node in nodes]
    rows: list[Row] = []
    if sum(counts) < sum(offered):
        rows.append(
            (
                where,
                Finding(
                    "warn",
                    f"{sum(offered) - sum(counts)} of {sum(offered)} GPUs are left out: other jobs hold them",
                    "run it again when they are free",
                ),
            )
        )
    ranks = [
        (node.place.name, start_probe(node.node_id, num_gpus=1))
        for node, count in zip(nodes, counts, strict=True)
        for _ in range(count)
    ]
    try:
        return rows + (judge_network(*_meet(ranks, "nccl")) if ranks else [])
    finally:
        for rank in ranks:
            ray.kill(rank[1])


def _meet(ranks: list[tuple[str, Any]], backend: str) -> tuple[list[str], list[Met | str], str, str]:
    """Has the processes meet at the first of them.

    Returns:
        The ranks' nodes, what each found or why it did not, the meeting place and the backend.
    """
    names, probes = [name for name, _ in ranks], [probe for _, probe in ranks]
    there: list[tuple[str, int] | str] = _gather([probe.address.remote() for probe in probes], IMPORT_S)
    if failed := {name: said for name, said in zip(names, there, strict=True) if isinstance(said, str)}:
        return list(failed), list(failed.values()), "", backend
    calls = [probe.meet.remote(i, len(ranks), there[0], backend) for i, probe in enumerate(probes)]
    found: list[Met | str] = _gather(calls, REACH_S + MEET_S + GROUP_S)
    return names, found, "{}:{}".format(*there[0]), backend


def _gather(calls: list[Any], limit_s: float) -> list[Any]:
    """What each call returns, or why it does not."""
    ray.wait(calls, num_returns=len(calls), timeout=limit_s)
    found = []
    for call in calls:
        try:
            found.append(ray.get(call, timeout=0.1))
        except (GetTimeoutError, RayError) as error:
            found.append(line_of(error))
    return found


def judge_network(names: list[str], found: list[Met | str], address: str, backend: str) -> list[Row]:
    """Who did not come, who failed, or how fast it was.

    Args:
        names: Each rank's node; that of the first is where all meet.
        found: What each rank found, or why it found nothing.
        address: Where they met.
        backend: `gloo` or `nccl`.
    """
    first = found[0]
    if isinstance(first, Met) and first.missing:
        remedy = (
            f"see those nodes' network policies and firewalls (all ports between Ray's pods), or set "
            f"{_INTERFACE[backend]} to the interface of the pods' network"
        )
        return [
            (name, Finding("fail", f"does not reach {names[0]} at {address}", remedy))
            for name in dict.fromkeys(names[rank] for rank in first.missing)
        ]
    failed = {name: said for name, said in zip(names, found, strict=True) if isinstance(said, str)}
    if failed:
        remedy = (
            f"set {_INTERFACE[backend]} to the interface of the pods' network; see MTU, network policies and "
            "shared memory"
        )
        return [
            (name, Finding("fail", f"{backend} all-reduce: {said}", remedy)) for name, said in failed.items()
        ]
    where = some(list(dict.fromkeys(names)), 3)
    speed = min(met.bytes_per_s for met in found if isinstance(met, Met))
    facts = f"{backend} all-reduce over {len(found)} processes: {speed / 1e9:.3g} GB/s"
    if len(found) > 1 and speed < SLOW_BYTES_PER_S[backend]:
        remedy = f"set {_INTERFACE[backend]} to the fast network, or use fewer, larger nodes"
        return [(where, Finding("warn", f"{facts}, slow", remedy))]
    return [(where, Finding("ok", facts))]


def line_of(error: BaseException) -> str:
    """Why, on one line: the cause's last words, without the remote traceback."""
    if isinstance(error, GetTimeoutError):
        return "no answer in time"
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [""]
    return f"{type(cause).__name__}: {lines[-1] if cause is error else lines[0]}"[:300]
