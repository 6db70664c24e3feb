"""What KubeRay's operator asks of its objects beyond their schemas; it says so only in a cluster's events.

Source: ray-operator/controllers/ray/utils/validation.go and constant.go in ray-project/kuberay.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from api_rules import LABEL_VALUE, QUALIFIED, Rule
from manifests import Manifest, name_of

MAX_CLUSTER_NAME = 53
MAX_JOB_NAME = MAX_CLUSTER_NAME - 6
"""A job's cluster has its name and six characters more."""
FIRST_WITH_TOKENS = (2, 52, 0)
RESOURCE_PARAMETERS = {"num-cpus", "num-gpus", "memory", "resources"}
FT_ANNOTATIONS = {"ray.io/ft-enabled", "ray.io/external-storage-namespace"}
REDIS_VARIABLES = {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME"}
REDIS_PARAMETERS = {"redis-password", "redis-username"}
V2 = "RAY_enable_autoscaler_v2"
DELETION_ORDER = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")


def clusters(things: Sequence[Manifest]) -> Iterator[tuple[str, Manifest, Manifest]]:
    """Every specification of a cluster, with its name and object."""
    for thing in things:
        if thing["kind"] == "RayCluster":
            yield name_of(thing), thing["spec"], thing
        if thing["kind"] == "RayJob" and "rayClusterSpec" in thing["spec"]:
            yield name_of(thing), thing["spec"]["rayClusterSpec"], thing


def groups(spec: Manifest) -> Iterator[tuple[str, Manifest]]:
    """The head's group and the workers', by name."""
    yield "head", spec["headGroupSpec"]
    yield from ((group["groupName"], group) for group in spec.get("workerGroupSpecs", []))


def ray_container(group: Manifest) -> Manifest:
    """The first, by the operator's convention."""
    return group["template"]["spec"]["containers"][0]


def _environment(group: Manifest) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", "") for entry in ray_container(group).get("env", [])}


def names_leave_room(things: Sequence[Manifest]) -> Iterator[str]:
    for thing in things:
        limit = {"RayCluster": MAX_CLUSTER_NAME, "RayJob": MAX_JOB_NAME}.get(thing["kind"])
        name = thing["metadata"]["name"]
        if limit and (len(name) > limit or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)):
            yield f"{name_of(thing)}: a DNS label of at most {limit} characters is needed"


def groups_are_well_formed(things: Sequence[Manifest]) -> Iterator[str]:
    for place, spec, _ in clusters(things):
        for name, count in Counter(name for name, _ in groups(spec)).items():
            if count > 1:
                yield f"{place}: {count} groups are named {name!r}"
        for name, group in groups(spec):
            parameters = group.get("rayStartParams", {})
            if RESOURCE_PARAMETERS & parameters.keys() and group.get("resources"):
                yield f"{place}: {name}: resources stand in both rayStartParams and resources"
            if "labels" in parameters:
                yield f"{place}: {name}: labels stand in rayStartParams"
            for key, value in group.get("labels", {}).items():
                if not re.fullmatch(QUALIFIED, key) or not re.fullmatch(LABEL_VALUE, value):
                    yield f"{place}: {name}: {key}={value} is no label"


def replicas_are_consistent(things: Sequence[Manifest]) -> Iterator[str]:
    for place, spec, _ in clusters(things):
        for group in spec.get("workerGroupSpecs", []):
            low, now, high = (group.get(key) for key in ("minReplicas", "replicas", "maxReplicas"))
            if low is None or now is None or high is None or not 0 <= low <= now <= high:
                yield f"{place}: {group['groupName']}: needs minReplicas <= replicas <= maxReplicas"
            elif not spec.get("enableInTreeAutoscaling") and not low == now == high:
                yield f"{place}: {group['groupName']}: without autoscaling all three are equal"


def fault_tolerance_is_set_in_one_place(things: Sequence[Manifest]) -> Iterator[str]:
    for place, spec, thing in clusters(things):
        options = spec.get("gcsFaultToleranceOptions")
        annotations = FT_ANNOTATIONS & thing["metadata"].get("annotations", {}).keys()
        variables = REDIS_VARIABLES & _environment(spec["headGroupSpec"]).keys()
        parameters = REDIS_PARAMETERS & spec["headGroupSpec"].get("rayStartParams", {}).keys()
        if options is not None:
            for key in sorted(annotations | variables | parameters):
                yield f"{place}: {key} and gcsFaultToleranceOptions are both set"
            if options.get("backend", "redis") == "redis" and not options.get("redisAddress"):
                yield f"{place}: gcsFaultToleranceOptions lack redisAddress"
        elif "RAY_REDIS_ADDRESS" in variables or "REDIS_USERNAME" in variables:
            yield f"{place}: Redis is set without gcsFaultToleranceOptions"


def autoscaling_is_consistent(things: Sequence[Manifest]) -> Iterator[str]:
    for place, spec, _ in clusters(things):
        variable = _environment(spec["headGroupSpec"]).get(V2)
        version = spec.get("autoscalerOptions", {}).get("version")
        if not spec.get("enableInTreeAutoscaling"):
            if variable in {"1", "true"}:
                yield f"{place}: {V2} needs enableInTreeAutoscaling"
            continue
        if variable is not None and version is not None:
            yield f"{place}: autoscalerOptions.version and {V2} are both set"
        for name, group in groups(spec):
            if group.get("suspend"):
                yield f"{place}: {name}: a group cannot be suspended with autoscaling"
            restart = group["template"]["spec"].get("restartPolicy", "Never")
            if (version == "v2" or variable in {"1", "true"}) and restart != "Never":
                yield f"{place}: {name}: restartPolicy must be Never with autoscaler v2"


def tokens_have_a_version_that_knows_them(things: Sequence[Manifest]) -> Iterator[str]:
    for place, spec, _ in clusters(things):
        if spec.get("authOptions", {}).get("mode") == "token":
            match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", str(spec.get("rayVersion")))
            if not match or tuple(map(int, match.groups())) < FIRST_WITH_TOKENS:
                yield f"{place}: tokens need a rayVersion of 2.52.0 or later"


def jobs_are_well_formed(things: Sequence[Manifest]) -> Iterator[str]:
    for thing in things:
        if thing["kind"] != "RayJob":
            continue
        spec, place = thing["spec"], name_of(thing)
        mode, selector = spec.get("submissionMode", "K8sJobMode"), spec.get("clusterSelector", {})
        if spec.get("suspend") and (selector or not spec.get("shutdownAfterJobFinishes")):
            yield f"{place}: suspend needs shutdownAfterJobFinishes and no clusterSelector"
        if bool(selector) == ("rayClusterSpec" in spec):
            yield f"{place}: exactly one of rayClusterSpec and clusterSelector is needed"
        if selector and not selector.get("ray.io/cluster"):
            yield f"{place}: clusterSelector names no ray.io/cluster"
        if spec.get("backoffLimit", 0) and (selector or mode == "InteractiveMode"):
            yield f"{place}: backoffLimit excludes clusterSelector and InteractiveMode"
        if mode == "SidecarMode":
            if selector or {"submitterPodTemplate", "submitterConfig"} & spec.keys():
                yield f"{place}: SidecarMode takes neither clusterSelector nor a submitter"
            head = spec.get("rayClusterSpec", {}).get("headGroupSpec", {"template": {"spec": {}}})
            if head["template"]["spec"].get("restartPolicy", "Never") != "Never":
                yield f"{place}: restartPolicy of the head must be Never in SidecarMode"
        for key, low in (("backoffLimit", 0), ("activeDeadlineSeconds", 1), ("preRunningDeadlineSeconds", 1)):
            if spec.get(key, low) < low:
                yield f"{place}: {key} must be at least {low}"
        environment = yaml.safe_load(spec.get("runtimeEnvYAML", "{}"))
        if not isinstance(environment, dict):
            yield f"{place}: runtimeEnvYAML is no mapping"


def deletion_is_consistent(things: Sequence[Manifest]) -> Iterator[str]:
    for thing in things:
        if thing["kind"] != "RayJob":
            continue
        spec, place = thing["spec"], name_of(thing)
        shutdown, after = spec.get("shutdownAfterJobFinishes", False), spec.get("ttlSecondsAfterFinished", 0)
        if after < 0 or (after and not shutdown):
            yield f"{place}: ttlSecondsAfterFinished needs shutdownAfterJobFinishes"
        if "deletionStrategy" not in spec:
            continue
        rules = spec["deletionStrategy"].get("deletionRules", [])
        if not rules:
            yield f"{place}: deletionStrategy has no deletionRules"
        if rules and shutdown:
            yield f"{place}: deletionRules exclude shutdownAfterJobFinishes"
        by_status: dict[str, dict[str, int]] = {}
        for rule in rules:
            condition = rule["condition"]
            status = str(condition.get("jobStatus") or condition.get("jobDeploymentStatus"))
            known = by_status.setdefault(status, {})
            if rule["policy"] in known:
                yield f"{place}: {rule['policy']} stands twice for {status}"
            if rule["policy"] == "DeleteWorkers" and spec.get("rayClusterSpec", {}).get(
                "enableInTreeAutoscaling"
            ):
                yield f"{place}: DeleteWorkers excludes autoscaling"
            known[rule["policy"]] = condition.get("ttlSeconds", 0)
        for status, policies in by_status.items():
            times = [policies[policy] for policy in DELETION_ORDER if policy in policies]
            if times != sorted(times):
                yield f"{place}: for {status} workers go first, then the cluster, then the job"


RULES: Mapping[str, Rule] = {
    rule.__name__: rule
    for rule in (
        names_leave_room,
        groups_are_well_formed,
        replicas_are_consistent,
        fault_tolerance_is_set_in_one_place,
        autoscaling_is_consistent,
        tokens_have_a_version_that_knows_them,
        jobs_are_well_formed,
        deletion_is_consistent,
    )
}
