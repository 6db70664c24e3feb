"""What the API server asks of objects beyond their schemas, as its validation code has it.

Each rule takes all objects of an overlay and yields what is wrong, so that nothing is found out at
`kubectl apply`. Source: pkg/apis/core/validation and its neighbours in kubernetes/kubernetes.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from manifests import Manifest, containers, is_core, name_of, pod_templates

Rule = Callable[[Sequence[Manifest]], Iterator[str]]
LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
QUALIFIED = rf"({LABEL}(\.{LABEL})*/)?[A-Za-z0-9]([-\w.]{{0,61}}[A-Za-z0-9])?"
LABEL_VALUE = r"([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?"
PORT_NAME = r"(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?"
QUANTITY = r"([0-9]+(?:\.[0-9]*)?)(n|u|m||k|[KMGTPE]i|[MGTPE]|[eE][-+]?[0-9]+)"
SCALE = {
    **{
        suffix: Decimal(1000) ** power
        for power, suffix in enumerate(["n", "u", "m", "", "k", "M", "G", "T"], -3)
    },
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)},
}
CHOICES = {
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "protocol": {"TCP", "UDP", "SCTP"},
    "restartPolicy": {"Always", "OnFailure", "Never"},
    "whenUnsatisfiable": {"DoNotSchedule", "ScheduleAnyway"},
    "concurrencyPolicy": {"Allow", "Forbid", "Replace"},
    "terminationMessagePolicy": {"File", "FallbackToLogsOnError"},
    "preemptionPolicy": {"Never", "PreemptLowerPriority"},
    "podManagementPolicy": {"OrderedReady", "Parallel"},
    "unhealthyPodEvictionPolicy": {"IfHealthyBudget", "AlwaysAllow"},
    "effect": {"NoSchedule", "PreferNoSchedule", "NoExecute"},
    "fsGroupChangePolicy": {"OnRootMismatch", "Always"},
}
CLUSTER_WIDE = {
    "Namespace", "PriorityClass", "ClusterRole", "ClusterRoleBinding", "StorageClass", "ClusterQueue",
    "ResourceFlavor", "WorkloadPriorityClass", "Cohort", "ClusterSecretStore", "Topology", "AdmissionCheck",
}  # fmt: skip
MAX_USER_PRIORITY = 10**9


def quantity(value: Any) -> Decimal:
    """The amount of a resource; cores, bytes, pieces."""
    match = re.fullmatch(QUANTITY, str(value))
    assert match, f"{value!r} is no quantity"
    number, suffix = match.groups()
    return Decimal(number) * (SCALE[suffix] if suffix in SCALE else Decimal(f"1{suffix}"))


def pods(things: Sequence[Manifest]) -> Iterator[tuple[str, Manifest, Manifest]]:
    """Every pod template with its place and its object; heads with the autoscaler that KubeRay adds."""
    for thing in things:
        for path, template in pod_templates(thing):
            place = f"{name_of(thing)}{path}"
            cluster = thing["spec"].get("rayClusterSpec", thing["spec"])
            if path.endswith("headGroupSpec.template") and cluster.get("enableInTreeAutoscaling"):
                spec = template["spec"]
                added = {"name": "autoscaler", **cluster.get("autoscalerOptions", {})}
                yield place, thing, {**template, "spec": {**spec, "containers": [*spec["containers"], added]}}
            else:
                yield place, thing, template


def walk(thing: Any) -> Iterator[tuple[str, Any]]:
    """Every key of every mapping inside, with its value."""
    if isinstance(thing, dict):
        yield from thing.items()
        for value in thing.values():
            yield from walk(value)
    elif isinstance(thing, list):
        for value in thing:
            yield from walk(value)


def names_are_allowed(things: Sequence[Manifest]) -> Iterator[str]:
    for thing in things:
        name = thing["metadata"]["name"]
        dotted = thing["kind"] in {"ConfigMap", "Secret", "ServiceAccount", "PriorityClass"}
        pattern = rf"{LABEL}(\.{LABEL})*" if dotted else LABEL
        if thing["kind"] == "Service":
            pattern = rf"(?=[a-z]){LABEL}"
        limit = {"CronJob": 52, "StatefulSet": 52}.get(thing["kind"], 253 if dotted else 63)
        if not re.fullmatch(pattern, name) or len(name) > limit:
            yield f"{name_of(thing)}: not a name for this kind"
    for place, _, template in pods(things):
        for container in containers(template):
            if not re.fullmatch(LABEL, container["name"]):
                yield f"{place}: {container['name']!r} is no name for a container"
            for port in container.get("ports", []):
                if "name" in port and not re.fullmatch(PORT_NAME, port["name"]):
                    yield f"{place}: {port['name']!r} is no name for a port"


def names_stand_once(things: Sequence[Manifest]) -> Iterator[str]:
    counts = Counter(name_of(thing) for thing in things)
    yield from (f"{name}: {count} objects" for name, count in counts.items() if count > 1)
    for place, _, template in pods(things):
        spec = template["spec"]
        for what, found in {
            "container": [container["name"] for container in containers(template)],
            "volume": [volume["name"] for volume in spec.get("volumes", [])],
            "port": [p["name"] for c in spec["containers"] for p in c.get("ports", []) if "name" in p],
        }.items():
            yield from (f"{place}: {what} {n!r} stands {k} times" for n, k in Counter(found).items() if k > 1)
        for container in containers(template):
            paths = Counter(mount["mountPath"] for mount in container.get("volumeMounts", []))
            yield from (f"{place}: {path} is mounted {k} times" for path, k in paths.items() if k > 1)


def labels_are_allowed(things: Sequence[Manifest]) -> Iterator[str]:
    for thing in things:
        for key, value in walk(thing):
            if key not in {"labels", "matchLabels", "nodeSelector", "annotations"} or not isinstance(
                value, dict
            ):
                continue
            for label, text in value.items():
                if not re.fullmatch(QUALIFIED, label):
                    yield f"{name_of(thing)}: {label!r} is no key of {key}"
                if key != "annotations" and not re.fullmatch(LABEL_VALUE, str(text)):
                    yield f"{name_of(thing)}: {text!r} is no value of {key}"


def choices_are_known(things: Sequence[Manifest]) -> Iterator[str]:
    for thing in things:
        for key, value in walk(thing):
            if key in CHOICES and isinstance(value, str) and value not in CHOICES[key]:
                yield f"{name_of(thing)}: {key} is {value!r}, not one of {', '.join(sorted(CHOICES[key]))}"


def resources_are_quantities(things: Sequence[Manifest]) -> Iterator[str]:
    for thing in things:
        for key, value in walk(thing):
            if key in {"requests", "limits", "capacity"} and isinstance(value, dict):
                for resource, amount in value.items():
                    if not re.fullmatch(QUANTITY, str(amount)):
                        yield f"{name_of(thing)}: {resource} is {amount!r}, which is no quantity"


def requests_are_within_limits(things: Sequence[Manifest]) -> Iterator[str]:
    for place, _, template in pods(things):
        for container in containers(template):
            resources = container.get("resources", {})
            requests, limits = resources.get("requests", {}), resources.get("limits", {})
            where = f"{place}: {container['name']}"
            for resource, amount in requests.items():
                if resource in limits and quantity(amount) > quantity(limits[resource]):
                    yield f"{where} requests more {resource} than its limit"
                if "/" in resource and quantity(limits.get(resource, 0)) != quantity(amount):
                    yield f"{where}: {resource} needs a limit that equals the request"


def environment_is_well_formed(things: Sequence[Manifest]) -> Iterator[str]:
    for place, _, template in pods(things):
        for container in containers(template):
            known: set[str] = set()
            for entry in container.get("env", []):
                where = f"{place}: {container['name']}: {entry['name']}"
                if not re.fullmatch(r"[A-Za-z_][\w]*", entry["name"]):
                    yield f"{where} is no name of a variable"
                if "valueFrom" in entry and ("value" in entry or len(entry["valueFrom"]) != 1):
                    yield f"{where} has not exactly one source"
                for used in re.findall(r"(?<!\$)\$\((\w+)\)", entry.get("value", "")):
                    if used not in known and not container.get("envFrom"):
                        yield f"{where} uses {used} before it is set"
                known.add(entry["name"])


def volumes_are_complete(things: Sequence[Manifest]) -> Iterator[str]:
    for place, thing, template in pods(things):
        volumes = template["spec"].get("volumes", [])
        for volume in volumes:
            if len(volume) != 2:
                yield f"{place}: volume {volume['name']!r} has not exactly one source"
        names = {volume["name"] for volume in volumes}
        names |= {claim["metadata"]["name"] for claim in thing["spec"].get("volumeClaimTemplates", [])}
        mounts = [(c["name"], mount) for c in containers(template) for mount in c.get("volumeMounts", [])]
        for container, mount in mounts:
            if mount["name"] not in names:
                yield f"{place}: {container} mounts {mount['name']!r}, which is no volume"
            if not mount["mountPath"].startswith("/") or ":" in mount["mountPath"]:
                yield f"{place}: {container} mounts at {mount['mountPath']!r}"
        projected = {volume["name"] for volume in volumes if "projected" in volume}  # the autoscaler's
        for unused in names - projected - {mount["name"] for _, mount in mounts}:
            yield f"{place}: no container mounts {unused!r}"


def probes_are_well_formed(things: Sequence[Manifest]) -> Iterator[str]:
    handlers = {"exec", "httpGet", "tcpSocket", "grpc"}
    for place, _, template in pods(things):
        for container in containers(template):
            ports = {port.get("name") for port in container.get("ports", [])}
            for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
                if not (probe := container.get(kind)):
                    continue
                where = f"{place}: {container['name']}: {kind}"
                if len(handlers & probe.keys()) != 1:
                    yield f"{where} has not exactly one handler"
                if kind != "readinessProbe" and probe.get("successThreshold", 1) != 1:
                    yield f"{where}: successThreshold must be 1"
                port = (probe.get("httpGet") or probe.get("tcpSocket") or {}).get("port")
                if isinstance(port, str) and port not in ports:
                    yield f"{where} asks at port {port!r}, which the container does not name"


def selectors_match_their_templates(things: Sequence[Manifest]) -> Iterator[str]:
    for thing in things:
        spec = thing.get("spec", {})
        if thing["kind"] in {"Deployment", "StatefulSet", "DaemonSet"}:
            wanted = spec["selector"].get("matchLabels", {})
            if not wanted or not wanted.items() <= spec["template"]["metadata"].get("labels", {}).items():
                yield f"{name_of(thing)}: its selector does not match its own pods"
        if thing["kind"] == "PodDisruptionBudget" and ("minAvailable" in spec) == ("maxUnavailable" in spec):
            yield f"{name_of(thing)}: exactly one of minAvailable and maxUnavailable"


def restarts_fit_the_kind(things: Sequence[Manifest]) -> Iterator[str]:
    for place, thing, template in pods(things):
        policy = template["spec"].get("restartPolicy", "Always")
        if thing["kind"] in {"Deployment", "StatefulSet", "DaemonSet"} and policy != "Always":
            yield f"{place}: restartPolicy must be Always"
        if thing["kind"] in {"Job", "CronJob"} and policy == "Always":
            yield f"{place}: restartPolicy must be OnFailure or Never"


def schedules_are_valid(things: Sequence[Manifest]) -> Iterator[str]:
    bounds = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
    for thing in things:
        if thing["kind"] != "CronJob":
            continue
        fields = thing["spec"]["schedule"].split()
        numbers = [[int(n) for n in re.findall(r"(?<!/)\b\d+", field)] for field in fields]
        fit = len(fields) == 5 and all(
            low <= number <= high
            for (low, high), found in zip(bounds, numbers, strict=True)
            for number in found
        )
        if not fit or not all(re.fullmatch(r"[\d*/,-]+", field) for field in fields):
            yield f"{name_of(thing)}: {thing['spec']['schedule']!r} is no schedule"


def namespaces_are_set(things: Sequence[Manifest]) -> Iterator[str]:
    for thing in things:
        namespace = thing["metadata"].get("namespace")
        if thing["kind"] in CLUSTER_WIDE and (namespace is None or not is_core(thing)):
            continue  # kustomize sets one where it does not know the kind; the server drops it
        if thing["kind"] in CLUSTER_WIDE or namespace != "protclip":
            yield f"{name_of(thing)}: namespace is {namespace}"


def priorities_are_allowed(things: Sequence[Manifest]) -> Iterator[str]:
    classes = {t["metadata"]["name"]: t["value"] for t in things if t["kind"] == "PriorityClass"}
    for name, value in classes.items():
        if abs(value) > MAX_USER_PRIORITY:
            yield f"PriorityClass/{name}: {value} is kept for the system"
    for place, _, template in pods(things):
        name = template["spec"].get("priorityClassName")
        if name and name not in classes and not name.startswith("system-"):
            yield f"{place}: no priority class {name!r}"


RULES: Mapping[str, Rule] = {
    rule.__name__: rule
    for rule in (
        names_are_allowed,
        names_stand_once,
        labels_are_allowed,
        choices_are_known,
        resources_are_quantities,
        requests_are_within_limits,
        environment_is_well_formed,
        volumes_are_complete,
        probes_are_well_formed,
        selectors_match_their_templates,
        restarts_fit_the_kind,
        schedules_are_valid,
        namespaces_are_set,
        priorities_are_allowed,
    )
}
