"""What we ask of our own objects: pinned, confined, sized, and nothing refers to what is not there."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from urllib.parse import urlsplit

from api_rules import Rule, pods, quantity, walk
from manifests import REPO, Manifest, containers, name_of, objects
from protclip import __version__

REGISTRY = "registry.example.com/protclip"
OWN_IMAGES = {f"{REGISTRY}:{__version__}-{kind}" for kind in ("cpu", "cuda")}
GPU = "nvidia.com/gpu"
WRITABLE_ROOT: Mapping[str, str] = {}
"""Containers that write to their root file system, by image, with the reason."""
MAY_CALL_THE_API = {"events": "it reads the events of the namespace"}
"""Service accounts whose pods have a token, with the reason."""
OPERATORS_SECRETS = {"protclip": {"auth_token"}}
"""Made in the cluster: KubeRay's token for a cluster of this name."""
CLUSTERS_CONFIG_MAPS = {"kube-root-ca.crt": {"ca.crt"}}
VOLUMES = {
    "configMap", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet"}
RAY = {"RayCluster", "RayJob"}


def pin(package: str) -> str:
    """The version in constraints.txt."""
    match = re.search(rf"^{package}==(.+)$", (REPO / "constraints.txt").read_text(), re.MULTILINE)
    assert match, f"constraints.txt has no {package}"
    return match[1]


@cache
def known_secrets() -> dict[str, set[str]]:
    """The keys of every Secret that may be referred to: those that the external-secrets component makes."""
    made = [t for t in objects("overlays/prod", "kueue", "external-secrets") if t["kind"] == "ExternalSecret"]
    keys = {t["spec"]["target"]["name"]: {entry["secretKey"] for entry in t["spec"]["data"]} for t in made}
    return keys | OPERATORS_SECRETS


def all_containers(things: Sequence[Manifest]) -> Iterator[tuple[str, Manifest, Manifest, Manifest]]:
    """Place, object, pod template and container."""
    for place, thing, template in pods(things):
        for container in containers(template):
            yield f"{place}: {container['name']}", thing, template, container


def images_are_pinned(things: Sequence[Manifest]) -> Iterator[str]:
    for thing in things:
        for key, image in walk(thing):
            if key != "image" or not isinstance(image, str):
                continue
            name, _, tag = image.partition("@")[0].rpartition(":")
            if not name or "/" in tag or not re.search(r"\d+\.\d+", tag) or "latest" in tag:
                yield f"{name_of(thing)}: {image} has no full version"
            if "protclip" in image and image not in OWN_IMAGES:
                yield f"{name_of(thing)}: {image} is none of {', '.join(sorted(OWN_IMAGES))}"


def ray_is_the_pinned_one(things: Sequence[Manifest]) -> Iterator[str]:
    for thing in things:
        for key, value in walk(thing):
            if key == "rayVersion" and value != pin("ray"):
                yield f"{name_of(thing)}: rayVersion {value}, constraints.txt has {pin('ray')}"


def pods_are_confined(things: Sequence[Manifest]) -> Iterator[str]:
    """Pod Security "restricted", which the namespace enforces, and a user by number."""
    for place, _, template in pods(things):
        spec = template["spec"]
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(key):
                yield f"{place}: {key}"
        for volume in spec.get("volumes", []):
            if not volume.keys() - {"name"} <= VOLUMES:
                yield f"{place}: a volume of kind {', '.join(volume.keys() - {'name'})}"
    for place, _, template, container in all_containers(things):
        pod, own = template["spec"].get("securityContext", {}), container.get("securityContext", {})
        both = {**pod, **own}
        capabilities = own.get("capabilities", {})
        wrong = {
            "may be root": both.get("runAsNonRoot") is not True or both.get("runAsUser", 0) == 0,
            "may gain privileges": own.get("allowPrivilegeEscalation") is not False or own.get("privileged"),
            "keeps capabilities": capabilities.get("drop") != ["ALL"] or capabilities.get("add"),
            "has no seccomp profile": both.get("seccompProfile", {}).get("type") != "RuntimeDefault",
            "has a port of the host": any("hostPort" in port for port in container.get("ports", [])),
        }
        yield from (f"{place} {what}" for what, is_wrong in wrong.items() if is_wrong)


def roots_are_read_only(things: Sequence[Manifest]) -> Iterator[str]:
    for place, _, _, container in all_containers(things):
        read_only = container.get("securityContext", {}).get("readOnlyRootFilesystem")
        if not read_only and container.get("image", "").rpartition(":")[0] not in WRITABLE_ROOT:
            yield f"{place} can write to its root file system"


def tokens_are_not_mounted(things: Sequence[Manifest]) -> Iterator[str]:
    for place, _, template in pods(things):
        spec = template["spec"]
        if spec.get("automountServiceAccountToken") is not False and (
            spec.get("serviceAccountName") not in MAY_CALL_THE_API
        ):
            yield f"{place} mounts a token of the Kubernetes API"


def resources_are_set(things: Sequence[Manifest]) -> Iterator[str]:
    for place, _, _, container in all_containers(things):
        for kind in ("requests", "limits"):
            missing = {"cpu", "memory"} - container.get("resources", {}).get(kind, {}).keys()
            if missing:
                yield f"{place} has no {kind} of {', '.join(sorted(missing))}"


def memory_volumes_are_within_limits(things: Sequence[Manifest]) -> Iterator[str]:
    for place, _, template in pods(things):
        for volume in template["spec"].get("volumes", []):
            source = volume.get("emptyDir")
            if source is None:
                continue
            if "sizeLimit" not in source:
                yield f"{place}: {volume['name']} has no sizeLimit"
            elif source.get("medium") == "Memory":
                users = [
                    container
                    for container in containers(template)
                    if volume["name"] in {mount["name"] for mount in container.get("volumeMounts", [])}
                ]
                for user in users:
                    limit = user.get("resources", {}).get("limits", {}).get("memory", 0)
                    if quantity(source["sizeLimit"]) >= quantity(limit):
                        yield f"{place}: {volume['name']} may take all memory of {user['name']}"


def services_are_probed(things: Sequence[Manifest]) -> Iterator[str]:
    """Of Ray's pods KubeRay does it."""
    for place, thing, template in pods(things):
        if thing["kind"] in WORKLOADS:
            for container in template["spec"]["containers"]:
                wanted = {"readinessProbe", "livenessProbe"} if container.get("ports") else set()
                for probe in sorted(wanted - container.keys()):
                    yield f"{place}: {container['name']} has no {probe}"


def secrets_are_by_reference(things: Sequence[Manifest]) -> Iterator[str]:
    for thing in things:
        if thing["kind"] == "Secret":
            yield f"{name_of(thing)}: Secrets are made outside"
    words = re.compile(r"(?i)(password|passwd|secret|token|access_key)(?!.*(path|_uri|_file|mode))")
    for place, _, _, container in all_containers(things):
        for entry in container.get("env", []):
            if words.search(entry["name"]) and entry.get("value"):
                yield f"{place}: {entry['name']} has its value in the open"
            if re.search(r"://[^/@\s]*:[^/@\s]+@", entry.get("value", "")):
                yield f"{place}: {entry['name']} has a password in its address"


def references(things: Sequence[Manifest]) -> Iterator[tuple[str, str, str, set[str], bool]]:
    """Place, kind, name, keys and whether it may be missing, of every reference by pods."""
    kinds = {"secretKeyRef": "Secret", "configMapKeyRef": "ConfigMap", "secretRef": "Secret"}
    kinds |= {"configMapRef": "ConfigMap", "configMap": "ConfigMap", "secret": "Secret"}
    for place, _, template in pods(things):
        for key, value in walk(template):
            if key in kinds and isinstance(value, dict) and ("name" in value or "secretName" in value):
                used = {value["key"]} if "key" in value else {i["key"] for i in value.get("items", [])}
                name = value.get("name") or value["secretName"]
                yield place, kinds[key], name, used, value.get("optional", False)
            if key == "persistentVolumeClaim" and "claimName" in value:
                yield place, "PersistentVolumeClaim", value["claimName"], set(), False
            if key == "serviceAccountName":
                yield place, "ServiceAccount", value, set(), False
            if key == "imagePullSecrets":
                yield from ((place, "Secret", entry["name"], set[str](), False) for entry in value)
    for thing in things:
        if thing["kind"] in RAY:
            redis = (thing["spec"].get("rayClusterSpec", thing["spec"])).get("gcsFaultToleranceOptions", {})
            for reference in (redis.get("redisPassword", {}).get("valueFrom", {})).values():
                yield name_of(thing), "Secret", reference["name"], {reference["key"]}, False


def references_are_there(things: Sequence[Manifest]) -> Iterator[str]:
    there: dict[tuple[str, str], set[str] | None] = {
        ("ConfigMap", name): keys for name, keys in CLUSTERS_CONFIG_MAPS.items()
    }
    for thing in things:
        keys = thing.get("data", {}).keys() | thing.get("binaryData", {}).keys()
        there[thing["kind"], thing["metadata"]["name"]] = set(keys)
    there |= {("Secret", name): keys for name, keys in known_secrets().items()}
    for place, kind, name, keys, optional in references(things):
        if (kind, name) not in there:
            if kind != "PersistentVolumeClaim" or not _claimed(things, name):
                yield f"{place}: no {kind} {name!r}"
        elif not optional and (missing := keys - (there[kind, name] or set())):
            yield f"{place}: {kind} {name!r} has no {', '.join(sorted(missing))}"


def _claimed(things: Sequence[Manifest], name: str) -> bool:
    """Whether a StatefulSet makes a claim of this name."""
    return any(
        re.fullmatch(rf"{claim['metadata']['name']}-{thing['metadata']['name']}-\d+", name)
        for thing in things
        if thing["kind"] == "StatefulSet"
        for claim in thing["spec"].get("volumeClaimTemplates", [])
    )


def pod_labels(place: str, thing: Manifest, template: Manifest) -> dict[str, str]:
    """A pod's labels with those that its controller adds."""
    own = template.get("metadata", {}).get("labels", {})
    name = thing["metadata"]["name"]
    if thing["kind"] in RAY and "GroupSpec" in place:
        head = "headGroupSpec" in place
        ray = {"ray.io/is-ray-node": "yes", "ray.io/node-type": "head" if head else "worker"}
        ray["ray.io/cluster"] = name if thing["kind"] == "RayCluster" else f"{name}-a1b2c"
        kuberay = {"app.kubernetes.io/name": "kuberay", "app.kubernetes.io/created-by": "kuberay-operator"}
        return {**kuberay, **own, **ray}
    if thing["kind"] in {"Job", "CronJob"} or "submitter" in place:
        return {**own, "batch.kubernetes.io/job-name": name, "job-name": name}
    return own


def services_lead_to_pods(things: Sequence[Manifest]) -> Iterator[str]:
    for service in things:
        if service["kind"] != "Service" or "selector" not in service["spec"]:
            continue
        wanted = service["spec"]["selector"].items()
        chosen = [t for place, o, t in pods(things) if wanted <= pod_labels(place, o, t).items()]
        if not chosen:
            yield f"{name_of(service)}: no pod has {dict(wanted)}"
        for template in chosen:
            ports = [port for c in template["spec"]["containers"] for port in c.get("ports", [])]
            known = {p.get("name") for p in ports} | {p["containerPort"] for p in ports}
            for port in service["spec"]["ports"]:
                if (target := port.get("targetPort", port["port"])) not in known:
                    yield f"{name_of(service)}: its pods have no port {target!r}"
    services = {t["metadata"]["name"] for t in things if t["kind"] == "Service"}
    for thing in things:
        if thing["kind"] == "StatefulSet" and thing["spec"]["serviceName"] not in services:
            yield f"{name_of(thing)}: no Service {thing['spec']['serviceName']!r}"


def addresses_are_of_services(things: Sequence[Manifest]) -> Iterator[str]:
    """Every URL in the environment of a pod, and the port in it."""
    services = {
        t["metadata"]["name"]: {port["port"] for port in t["spec"]["ports"]}
        for t in things
        if t["kind"] == "Service"
    }
    clusters = {f"{t['metadata']['name']}-head-svc" for t in things if t["kind"] == "RayCluster"}
    values = [(name_of(t), v) for t in things if t["kind"] == "ConfigMap" for v in t.get("data", {}).values()]
    values += [
        (p, e["value"]) for p, _, _, c in all_containers(things) for e in c.get("env", []) if "value" in e
    ]
    values += [(name_of(t), v) for t in things for key, v in walk(t) if key == "redisAddress"]
    for place, value in values:
        for address in re.findall(r"(?<![\w/])[a-z][\w+]*://[^\s\"',;)]+", str(value)):
            parts = urlsplit(address)
            host = (
                (parts.hostname or "")
                .removesuffix(".protclip.svc.cluster.local")
                .removesuffix(".protclip.svc")
            )
            outside = parts.scheme in {"s3", "sqlite", "file"} or "." in host or "$" in parts.netloc
            if outside or not host or host in {"localhost"} | clusters:
                continue
            if host not in services:
                yield f"{place}: {address} names no Service"
            elif parts.port and parts.port not in services[host]:
                yield f"{place}: {address} names no port of the Service"


def budgets_match_pods(things: Sequence[Manifest]) -> Iterator[str]:
    for thing in things:
        if thing["kind"] == "PodDisruptionBudget":
            wanted = thing["spec"]["selector"].get("matchLabels", {}).items()
            if not wanted or not any(wanted <= pod_labels(*pod).items() for pod in pods(things)):
                yield f"{name_of(thing)}: no pod has {dict(wanted)}"


def gpus_have_the_image_for_them(things: Sequence[Manifest]) -> Iterator[str]:
    for place, _, template, container in all_containers(things):
        if container in template["spec"].get("initContainers", []):
            continue  # it has the image that is on such nodes, and no use for what they have
        has_gpu = GPU in container.get("resources", {}).get("limits", {})
        image = container.get("image", "")
        if image in OWN_IMAGES and has_gpu != image.endswith("-cuda"):
            yield f"{place}: {GPU} and the image {image} do not go together"
        if has_gpu and GPU not in {entry.get("key") for entry in template["spec"].get("tolerations", [])}:
            yield f"{place}: does not tolerate the taint {GPU} that keeps other pods off such nodes"


def pods_outlive_their_notice(things: Sequence[Manifest]) -> Iterator[str]:
    """A checkpoint is written between the notice and the kill."""
    name = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
    notices = [t["data"][name] for t in things if t["kind"] == "ConfigMap" and name in t.get("data", {})]
    for place, thing, template in pods(things):
        if thing["kind"] in RAY and "GroupSpec" in place:
            grace = template["spec"].get("terminationGracePeriodSeconds", 30)
            if not notices or float(notices[0]) >= grace:
                yield f"{place}: killed after {grace} s, {name} is {notices[0] if notices else 'not set'}"


def everything_is_labelled(things: Sequence[Manifest]) -> Iterator[str]:
    labelled = [(name_of(t), t["metadata"].get("labels", {})) for t in things]
    labelled += [(place, t.get("metadata", {}).get("labels", {})) for place, _, t in pods(things)]
    for place, labels in labelled:
        if labels.get("app.kubernetes.io/part-of") != "protclip":
            yield f"{place}: app.kubernetes.io/part-of is not protclip"


def pods_of_production_are_placed(things: Sequence[Manifest]) -> Iterator[str]:
    """Priorities, and a spread where several do the same; a training's pods are better together."""
    for place, thing, template in pods(things):
        spec = template["spec"]
        if "priorityClassName" not in spec:
            yield f"{place} has no priority class"
        limits = spec["containers"][0].get("resources", {}).get("limits", {})
        several = "workerGroupSpecs" in place and GPU not in limits
        several |= thing["kind"] == "Deployment" and thing["spec"].get("replicas", 1) > 1
        if several and not spec.get("topologySpreadConstraints"):
            yield f"{place} has no topologySpreadConstraints"


def queues_take_every_job(things: Sequence[Manifest]) -> Iterator[str]:
    """Kueue never admits what asks for a resource that no quota covers, and does not say so."""
    queues = {t["metadata"]["name"]: t for t in things if t["kind"] == "ClusterQueue"}
    local = {t["metadata"]["name"]: t["spec"]["clusterQueue"] for t in things if t["kind"] == "LocalQueue"}
    classes = {t["metadata"]["name"] for t in things if t["kind"] == "WorkloadPriorityClass"}
    flavors = {t["metadata"]["name"] for t in things if t["kind"] == "ResourceFlavor"}
    for thing in things:
        labels = thing["metadata"].get("labels", {})
        if thing["kind"] != "RayJob" or not queues:
            continue
        if (queue := local.get(labels.get("kueue.x-k8s.io/queue-name", ""))) not in queues:
            yield f"{name_of(thing)}: its label leads to no queue"
            continue
        if labels.get("kueue.x-k8s.io/priority-class", next(iter(classes))) not in classes:
            yield f"{name_of(thing)}: its label names no priority class"
        groups = queues[queue]["spec"]["resourceGroups"]
        used = {flavor["name"] for group in groups for flavor in group["flavors"]}
        yield from (f"{queue}: no flavor {name!r}" for name in sorted(used - flavors))
        covered = {resource for group in groups for resource in group["coveredResources"]}
        for place, _, _, container in all_containers([thing]):
            asked = container.get("resources", {}).get("requests", {}).keys()
            yield from (f"{place}: {queue} does not cover {name}" for name in sorted(asked - covered))


PRODUCTION_RULES: Mapping[str, Rule] = {pods_of_production_are_placed.__name__: pods_of_production_are_placed}
RULES: Mapping[str, Rule] = {
    rule.__name__: rule
    for rule in (
        images_are_pinned,
        ray_is_the_pinned_one,
        pods_are_confined,
        roots_are_read_only,
        tokens_are_not_mounted,
        resources_are_set,
        memory_volumes_are_within_limits,
        services_are_probed,
        secrets_are_by_reference,
        references_are_there,
        services_lead_to_pods,
        addresses_are_of_services,
        budgets_match_pods,
        gpus_have_the_image_for_them,
        pods_outlive_their_notice,
        everything_is_labelled,
        queues_take_every_job,
    )
}
