"""Who may talk to whom in production, worked out from the NetworkPolicies as a network plugin does it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from api_rules import Rule, pods
from manifests import PLATFORM, Manifest, name_of
from policy_rules import pod_labels

NAMESPACE = "protclip"


@dataclass(frozen=True)
class End:
    """One end of a connection.

    Attributes:
        labels: Of the pod.
        namespace: Its namespace; empty for an address outside the cluster.
        address: Of what is outside.
        ports: The numbers of the pod's named ports.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str = NAMESPACE
    address: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)


def ends(things: Sequence[Manifest]) -> dict[str, End]:
    """Every pod by its place, as policies see it."""
    found = {}
    for place, thing, template in pods(things):
        boxes = template["spec"]["containers"]
        ports = {p["name"]: p["containerPort"] for box in boxes for p in box.get("ports", []) if "name" in p}
        found[place] = End(pod_labels(place, thing, template), ports=ports)
    return found


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a selector fits labels; an empty one fits all."""
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    tests = {
        "In": lambda value, values: value in values,
        "NotIn": lambda value, values: value not in values,
        "Exists": lambda value, _: value is not None,
        "DoesNotExist": lambda value, _: value is None,
    }
    return all(
        tests[expression["operator"]](labels.get(expression["key"]), expression.get("values", ()))
        for expression in selector.get("matchExpressions", [])
    )


def _is_peer(peer: Mapping[str, Any], end: End) -> bool:
    """Whether an entry of `from` or `to` means this end."""
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        address = ip_address(end.address) if end.address else None
        inside = address is not None and address in ip_network(block["cidr"])
        return inside and not any(address in ip_network(part) for part in block.get("except", []))
    if not end.namespace:
        return False
    if "namespaceSelector" in peer:
        names = {"kubernetes.io/metadata.name": end.namespace}
        if not selects(peer["namespaceSelector"], names):
            return False
    elif end.namespace != NAMESPACE:
        return False
    return selects(peer.get("podSelector", {}), end.labels)


def _is_port(entry: Mapping[str, Any], port: int, protocol: str, target: End) -> bool:
    if entry.get("protocol", "TCP") != protocol:
        return False
    if "port" not in entry:
        return True
    first = target.ports.get(entry["port"], -1) if isinstance(entry["port"], str) else entry["port"]
    return first <= port <= entry.get("endPort", first)


def policies_of(things: Sequence[Manifest], end: End, direction: str) -> list[Manifest]:
    """The policies that hold for a pod in one direction, "Ingress" or "Egress"."""
    return [
        thing
        for thing in things
        if thing["kind"] == "NetworkPolicy"
        and end.namespace == NAMESPACE
        and direction in thing["spec"].get("policyTypes", ["Ingress"])
        and selects(thing["spec"].get("podSelector", {}), end.labels)
    ]


def allowed(things: Sequence[Manifest], source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection is let out of its source and into its target."""
    for mine, other, direction, key in (
        (source, target, "Egress", "to"),
        (target, source, "Ingress", "from"),
    ):
        held = policies_of(things, mine, direction)
        if held and not any(
            (not rule.get(key) or any(_is_peer(peer, other) for peer in rule[key]))
            and (not rule.get("ports") or any(_is_port(p, port, protocol, target) for p in rule["ports"]))
            for policy in held
            for rule in policy["spec"].get(direction.lower(), [])
        ):
            return False
    return True


STORE = End(namespace="", address="52.216.1.1")
API_SERVER = End(namespace="", address="10.96.0.1")
DNS = End({"k8s-app": "kube-dns"}, namespace="kube-system")
STRANGER = End({"app": "stranger"}, namespace="default")
OPERATORS = {
    operator.name: End({"app.kubernetes.io/name": operator.name}, namespace=operator.namespace)
    for operator in PLATFORM.operators
}
HEAD, WORKER = "headGroupSpec", "workerGroupSpecs"
NEEDED: Sequence[tuple[str | End, str | End, tuple[int, ...]]] = (
    (HEAD, HEAD, (6379, 8265, 10002, 19999)),
    (HEAD, WORKER, (10002, 19999)),
    (WORKER, HEAD, (6379, 8265, 10002, 19999)),
    (WORKER, WORKER, (10002, 19999, 29500)),
    ("submitter", HEAD, (8265,)),
    (HEAD, "Deployment/mlflow", (5000,)),
    (WORKER, "Deployment/mlflow", (5000,)),
    (HEAD, "StatefulSet/postgres", (5432,)),
    (HEAD, "StatefulSet/redis", (6379,)),
    ("Deployment/mlflow", "StatefulSet/postgres", (5432,)),
    ("CronJob/", "StatefulSet/postgres", (5432,)),
    (HEAD, STORE, (443,)),
    (WORKER, STORE, (443,)),
    ("Deployment/mlflow", STORE, (443,)),
    ("CronJob/", STORE, (443,)),
    (HEAD, API_SERVER, (443, 6443)),
    (OPERATORS["kuberay-operator"], HEAD, (8265,)),
    (OPERATORS["prometheus-operator"], HEAD, (8080,)),
    (OPERATORS["prometheus-operator"], WORKER, (8080,)),
)
"""Source, target and ports; a text means all pods whose place has it."""
FORBIDDEN: Sequence[tuple[str | End, str | End, tuple[int, ...]]] = (
    (STRANGER, "", (5000, 5432, 6379, 8265, 10001)),
    ("submitter", "StatefulSet/", (5432, 6379)),
    ("StatefulSet/", STORE, (80, 443)),
    (OPERATORS["prometheus-operator"], "StatefulSet/", (5432, 6379)),
)


def _each(pods_by_place: Mapping[str, End], end: str | End) -> list[tuple[str, End]]:
    if isinstance(end, End):
        return [(next(iter(end.labels.values()), end.address), end)]
    return [(place, found) for place, found in pods_by_place.items() if end in place]


def _connections(
    things: Sequence[Manifest], flows: Sequence[tuple[str | End, str | End, tuple[int, ...]]]
) -> Iterator[tuple[str, End, End, int]]:
    """Every connection of some flows; of Ray's only those in one cluster."""
    known = ends(things)
    for source, target, ports in flows:
        for source_name, one in _each(known, source):
            for target_name, other in _each(known, target):
                both_ray = all(
                    "GroupSpec" in name or "submitter" in name for name in (source_name, target_name)
                )
                if both_ray and source_name.split(".")[0] != target_name.split(".")[0]:
                    continue
                yield from ((f"{source_name} to {target_name}:{port}", one, other, port) for port in ports)


def every_pod_is_behind_a_policy(things: Sequence[Manifest]) -> Iterator[str]:
    for place, end in ends(things).items():
        for direction in ("Ingress", "Egress"):
            if not policies_of(things, end, direction):
                yield f"{place}: no NetworkPolicy holds its {direction.lower()}"


def every_policy_selects_pods(things: Sequence[Manifest]) -> Iterator[str]:
    known = ends(things).values()
    for thing in things:
        if thing["kind"] == "NetworkPolicy":
            selector = thing["spec"].get("podSelector", {})
            if not any(selects(selector, end.labels) for end in known):
                yield f"{name_of(thing)}: selects no pod"


def needed_connections_are_allowed(things: Sequence[Manifest]) -> Iterator[str]:
    known = ends(things)
    for source, target, _ in NEEDED:
        for end in (source, target):
            if not _each(known, end):
                yield f"no pod is {end!r}"
    for what, source, target, port in _connections(things, NEEDED):
        if not allowed(things, source, target, port):
            yield f"{what} is forbidden"
    for place, end in known.items():
        for protocol in ("UDP", "TCP"):
            if not allowed(things, end, DNS, 53, protocol):
                yield f"{place} cannot ask for names over {protocol}"


def other_connections_are_forbidden(things: Sequence[Manifest]) -> Iterator[str]:
    for what, source, target, port in _connections(things, FORBIDDEN):
        if allowed(things, source, target, port):
            yield f"{what} is allowed"


RULES: Mapping[str, Rule] = {
    rule.__name__: rule
    for rule in (
        every_pod_is_behind_a_policy,
        every_policy_selects_pods,
        needed_connections_are_allowed,
        other_connections_are_forbidden,
    )
}
