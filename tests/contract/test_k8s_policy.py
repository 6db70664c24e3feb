"""Rules for everything that k8s/ renders to; each is shown to find the fault it is there for."""

from collections.abc import Callable
from typing import Any

import pytest

import api_rules
import kuberay_rules
import network_rules
import policy_rules
from api_rules import Rule
from manifests import OVERLAYS, Manifest, objects

RULES: dict[str, Rule] = {**api_rules.RULES, **kuberay_rules.RULES, **policy_rules.RULES}
PRODUCTION_RULES: dict[str, Rule] = {**policy_rules.PRODUCTION_RULES, **network_rules.RULES}
Change = Callable[[list[Manifest]], Any]


def world(overlay: str) -> list[Manifest]:
    """All that an overlay may put into a cluster."""
    return objects(f"overlays/{overlay}") + objects(f"overlays/{overlay}/jobs")


def full_world() -> list[Manifest]:
    """Production with everything that is optional."""
    return objects("overlays/prod", "kueue", "external-secrets") + objects("overlays/prod/jobs", "kueue/jobs")


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("rule", RULES)
def test_rule_holds(rule, overlay):
    assert list(RULES[rule](world(overlay))) == []


@pytest.mark.parametrize("rule", {**RULES, **PRODUCTION_RULES})
def test_rule_holds_with_all_that_is_optional(rule):
    assert list({**RULES, **PRODUCTION_RULES}[rule](full_world())) == []


@pytest.mark.parametrize("rule", PRODUCTION_RULES)
def test_rule_of_production_holds(rule):
    assert list(PRODUCTION_RULES[rule](world("prod"))) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_jobs_run_on_the_shape_of_the_overlays_cluster(overlay):
    shape = spec(objects(f"overlays/{overlay}"), "RayCluster")
    jobs = [t for t in objects(f"overlays/{overlay}/jobs") if t["kind"] == "RayJob"]
    assert jobs
    assert all(job["spec"]["rayClusterSpec"] == shape for job in jobs)


def get(things: list[Manifest], kind: str, name: str = "") -> Manifest:
    """The first object of a kind."""
    return next(t for t in things if t["kind"] == kind and name in ("", t["metadata"]["name"]))


def spec(things: list[Manifest], kind: str, name: str = "") -> Manifest:
    return get(things, kind, name)["spec"]


def pod(things: list[Manifest], kind: str = "Deployment", name: str = "") -> Manifest:
    name = name or {"Deployment": "mlflow"}.get(kind, "")
    found = spec(things, kind, name)
    return found["headGroupSpec"]["template"]["spec"] if kind == "RayCluster" else found["template"]["spec"]


def box(things: list[Manifest], kind: str = "Deployment", name: str = "") -> Manifest:
    """The first container of the first pod of a kind."""
    return pod(things, kind, name)["containers"][0]


def put(target: Any, *path: Any, value: Any) -> None:
    *way, last = path
    for step in way:
        target = target.setdefault(step, {}) if isinstance(target, dict) else target[step]
    if isinstance(target, list):
        target.insert(last, value)
    else:
        target[last] = value


def env(things: list[Manifest], kind: str, name: str, value: str) -> None:
    put(box(things, kind).setdefault("env", []), 0, value={"name": name, "value": value})


def workers(things: list[Manifest]) -> Manifest:
    return spec(things, "RayCluster")["workerGroupSpecs"][0]


def policy(things: list[Manifest], name: str) -> Manifest:
    return spec(things, "NetworkPolicy", name)


def delete_rules(*rules: tuple[str, int]) -> list[Manifest]:
    return [{"policy": p, "condition": {"jobStatus": "SUCCEEDED", "ttlSeconds": s}} for p, s in rules]


SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "protclip"}}
PLANTED: list[tuple[str, str, Change]] = [
    ("names_are_allowed", "underscore", lambda w: put(get(w, "Service"), "metadata", "name", value="a_b")),
    ("names_are_allowed", "digit first", lambda w: put(get(w, "Service"), "metadata", "name", value="1a")),
    ("names_are_allowed", "container", lambda w: put(box(w), "name", value="A")),
    (
        "names_are_allowed",
        "port",
        lambda w: put(box(w), "ports", 0, value={"name": "x" * 16, "containerPort": 1}),
    ),
    ("names_stand_once", "object", lambda w: w.append(get(w, "Service"))),
    ("names_stand_once", "container", lambda w: pod(w)["containers"].append(box(w))),
    ("names_stand_once", "mount", lambda w: box(w)["volumeMounts"].append(box(w)["volumeMounts"][0])),
    ("labels_are_allowed", "key", lambda w: put(get(w, "Service"), "metadata", "labels", "a b", value="c")),
    (
        "labels_are_allowed",
        "value",
        lambda w: put(get(w, "Service"), "metadata", "labels", "a", value="x" * 64),
    ),
    ("choices_are_known", "pull policy", lambda w: put(box(w), "imagePullPolicy", value="Sometimes")),
    ("resources_are_quantities", "unit", lambda w: put(box(w), "resources", "limits", "memory", value="1Gb")),
    (
        "requests_are_within_limits",
        "memory",
        lambda w: put(box(w), "resources", "requests", "memory", value="1Ti"),
    ),
    (
        "requests_are_within_limits",
        "GPU",
        lambda w: put(box(w), "resources", "requests", "nvidia.com/gpu", value="1"),
    ),
    ("environment_is_well_formed", "name", lambda w: env(w, "Deployment", "A-B", "1")),
    (
        "environment_is_well_formed",
        "two sources",
        lambda w: put(box(w), "env", 0, value={"name": "A", "value": "1", "valueFrom": {"fieldRef": {}}}),
    ),
    ("volumes_are_complete", "no volume", lambda w: put(pod(w), "volumes", value=[])),
    ("volumes_are_complete", "no source", lambda w: pod(w)["volumes"].append({"name": "empty"})),
    ("volumes_are_complete", "unused", lambda w: pod(w)["volumes"].append({"name": "a", "emptyDir": {}})),
    (
        "probes_are_well_formed",
        "port",
        lambda w: put(box(w), "readinessProbe", value={"httpGet": {"port": "no"}}),
    ),
    (
        "probes_are_well_formed",
        "handler",
        lambda w: put(box(w), "readinessProbe", value={"periodSeconds": 1}),
    ),
    (
        "probes_are_well_formed",
        "threshold",
        lambda w: put(box(w), "livenessProbe", "successThreshold", value=2),
    ),
    (
        "selectors_match_their_templates",
        "label",
        lambda w: put(spec(w, "Deployment"), "selector", "matchLabels", value={"a": "b"}),
    ),
    ("restarts_fit_the_kind", "Deployment", lambda w: put(pod(w), "restartPolicy", value="Never")),
    ("schedules_are_valid", "hour 24", lambda w: put(spec(w, "CronJob"), "schedule", value="0 24 * * *")),
    ("schedules_are_valid", "four fields", lambda w: put(spec(w, "CronJob"), "schedule", value="0 2 * *")),
    (
        "namespaces_are_set",
        "other",
        lambda w: put(get(w, "Service"), "metadata", "namespace", value="default"),
    ),
    ("namespaces_are_set", "none", lambda w: get(w, "Service")["metadata"].pop("namespace")),
    ("priorities_are_allowed", "unknown", lambda w: put(pod(w), "priorityClassName", value="huge")),
    ("priorities_are_allowed", "system's", lambda w: put(get(w, "PriorityClass"), "value", value=2 * 10**9)),
    ("names_leave_room", "RayJob", lambda w: put(get(w, "RayJob"), "metadata", "name", value="j" * 48)),
    ("names_leave_room", "RayCluster", lambda w: put(get(w, "RayCluster"), "metadata", "name", value="1c")),
    (
        "groups_are_well_formed",
        "twice",
        lambda w: spec(w, "RayCluster")["workerGroupSpecs"].append(workers(w)),
    ),
    (
        "groups_are_well_formed",
        "resources",
        lambda w: workers(w).update(rayStartParams={"num-cpus": "1"}, resources={"CPU": "1"}),
    ),
    ("groups_are_well_formed", "labels", lambda w: put(workers(w), "rayStartParams", "labels", value="a=b")),
    ("replicas_are_consistent", "order", lambda w: put(workers(w), "replicas", value=10**4)),
    (
        "replicas_are_consistent",
        "fixed",
        lambda w: (
            put(workers(w), "maxReplicas", value=99),
            spec(w, "RayCluster").pop("enableInTreeAutoscaling"),
        ),
    ),
    (
        "fault_tolerance_is_set_in_one_place",
        "variable",
        lambda w: env(w, "RayCluster", "RAY_REDIS_ADDRESS", "redis:6379"),
    ),
    (
        "fault_tolerance_is_set_in_one_place",
        "annotation",
        lambda w: put(get(w, "RayCluster"), "metadata", "annotations", "ray.io/ft-enabled", value="true"),
    ),
    ("autoscaling_is_consistent", "two", lambda w: env(w, "RayCluster", "RAY_enable_autoscaler_v2", "1")),
    (
        "autoscaling_is_consistent",
        "restart",
        lambda w: put(pod(w, "RayCluster"), "restartPolicy", value="Always"),
    ),
    ("autoscaling_is_consistent", "suspended", lambda w: put(workers(w), "suspend", value=True)),
    (
        "tokens_have_a_version_that_knows_them",
        "old",
        lambda w: spec(w, "RayCluster").update(rayVersion="2.51.1", authOptions={"mode": "token"}),
    ),
    ("jobs_are_well_formed", "no cluster", lambda w: spec(w, "RayJob").pop("rayClusterSpec")),
    (
        "jobs_are_well_formed",
        "two",
        lambda w: spec(w, "RayJob").update(clusterSelector={"ray.io/cluster": "a"}),
    ),
    (
        "jobs_are_well_formed",
        "suspend",
        lambda w: spec(w, "RayJob").update(suspend=True, shutdownAfterJobFinishes=0),
    ),
    (
        "jobs_are_well_formed",
        "interactive",
        lambda w: spec(w, "RayJob").update(submissionMode="InteractiveMode", backoffLimit=1),
    ),
    ("jobs_are_well_formed", "sidecar", lambda w: spec(w, "RayJob").update(submissionMode="SidecarMode")),
    ("jobs_are_well_formed", "deadline", lambda w: spec(w, "RayJob").update(activeDeadlineSeconds=0)),
    ("jobs_are_well_formed", "environment", lambda w: spec(w, "RayJob").update(runtimeEnvYAML="- a")),
    ("deletion_is_consistent", "time", lambda w: spec(w, "RayJob").update(shutdownAfterJobFinishes=False)),
    (
        "deletion_is_consistent",
        "both",
        lambda w: put(
            spec(w, "RayJob"), "deletionStrategy", "deletionRules", value=delete_rules(("DeleteSelf", 1))
        ),
    ),
    (
        "deletion_is_consistent",
        "order",
        lambda w: put(
            spec(w, "RayJob"),
            "deletionStrategy",
            "deletionRules",
            value=delete_rules(("DeleteCluster", 9), ("DeleteSelf", 1)),
        ),
    ),
    ("images_are_pinned", "latest", lambda w: put(box(w), "image", value="docker.io/postgres:latest")),
    ("images_are_pinned", "no tag", lambda w: put(box(w), "image", value="registry:5000/postgres")),
    ("images_are_pinned", "major", lambda w: put(box(w), "image", value="postgres:18")),
    (
        "images_are_pinned",
        "other version",
        lambda w: put(box(w), "image", value="registry.example.com/protclip:9.9-cpu"),
    ),
    ("ray_is_the_pinned_one", "other", lambda w: put(spec(w, "RayCluster"), "rayVersion", value="2.59.0")),
    ("pods_are_confined", "root", lambda w: put(box(w), "securityContext", "runAsUser", value=0)),
    (
        "pods_are_confined",
        "root allowed",
        lambda w: put(box(w), "securityContext", "runAsNonRoot", value=False),
    ),
    (
        "pods_are_confined",
        "privileges",
        lambda w: box(w)["securityContext"].pop("allowPrivilegeEscalation"),
    ),
    ("pods_are_confined", "capabilities", lambda w: put(box(w), "securityContext", "capabilities", value={})),
    (
        "pods_are_confined",
        "seccomp",
        lambda w: put(box(w), "securityContext", "seccompProfile", value={"type": "Unconfined"}),
    ),
    ("pods_are_confined", "host network", lambda w: put(pod(w), "hostNetwork", value=True)),
    (
        "pods_are_confined",
        "host path",
        lambda w: pod(w)["volumes"].append({"name": "h", "hostPath": {"path": "/"}}),
    ),
    (
        "pods_are_confined",
        "autoscaler",
        lambda w: spec(w, "RayCluster")["autoscalerOptions"].pop("securityContext"),
    ),
    (
        "roots_are_read_only",
        "writable",
        lambda w: put(box(w), "securityContext", "readOnlyRootFilesystem", value=False),
    ),
    ("tokens_are_not_mounted", "default", lambda w: pod(w).pop("automountServiceAccountToken")),
    ("resources_are_set", "limit", lambda w: box(w)["resources"]["limits"].pop("memory")),
    ("resources_are_set", "init", lambda w: pod(w)["initContainers"][0].pop("resources")),
    (
        "resources_are_set",
        "autoscaler",
        lambda w: spec(w, "RayCluster")["autoscalerOptions"].pop("resources"),
    ),
    (
        "memory_volumes_are_within_limits",
        "all",
        lambda w: put(pod(w)["volumes"][-1], "emptyDir", value={"medium": "Memory", "sizeLimit": "1Ti"}),
    ),
    (
        "memory_volumes_are_within_limits",
        "endless",
        lambda w: put(pod(w)["volumes"][-1], "emptyDir", value={}),
    ),
    ("services_are_probed", "none", lambda w: box(w).pop("livenessProbe")),
    ("secrets_are_by_reference", "Secret", lambda w: w.append({**SERVICE, "kind": "Secret"})),
    ("secrets_are_by_reference", "value", lambda w: env(w, "Deployment", "DB_PASSWORD", "x")),
    (
        "secrets_are_by_reference",
        "address",
        lambda w: env(w, "Deployment", "DB", "postgresql://a:b@postgres/c"),
    ),
    ("references_are_there", "ConfigMap", lambda w: w.remove(get(w, "ConfigMap", "protclip-env"))),
    ("references_are_there", "account", lambda w: w.remove(get(w, "ServiceAccount", "ray-head"))),
    (
        "references_are_there",
        "Secret",
        lambda w: put(box(w), "envFrom", value=[{"secretRef": {"name": "protclip-s4"}}]),
    ),
    (
        "references_are_there",
        "key",
        lambda w: put(
            box(w),
            "env",
            0,
            value={"name": "A", "valueFrom": {"secretKeyRef": {"name": "postgres", "key": "pw"}}},
        ),
    ),
    (
        "references_are_there",
        "claim",
        lambda w: pod(w)["volumes"].append({"name": "p", "persistentVolumeClaim": {"claimName": "gone"}}),
    ),
    ("services_lead_to_pods", "label", lambda w: put(spec(w, "Service"), "selector", value={"a": "b"})),
    (
        "services_lead_to_pods",
        "port",
        lambda w: put(spec(w, "Service")["ports"][0], "targetPort", value="htpp"),
    ),
    (
        "services_lead_to_pods",
        "StatefulSet",
        lambda w: put(spec(w, "StatefulSet"), "serviceName", value="none"),
    ),
    (
        "addresses_are_of_services",
        "name",
        lambda w: put(
            get(w, "ConfigMap", "protclip-env"), "data", "MLFLOW_TRACKING_URI", value="http://mlfow:5000"
        ),
    ),
    (
        "addresses_are_of_services",
        "port",
        lambda w: put(
            get(w, "ConfigMap", "protclip-env"), "data", "MLFLOW_TRACKING_URI", value="http://mlflow:5001"
        ),
    ),
    (
        "budgets_match_pods",
        "label",
        lambda w: put(spec(w, "PodDisruptionBudget"), "selector", "matchLabels", value={"a": "b"}),
    ),
    (
        "gpus_have_the_image_for_them",
        "CPU image",
        lambda w: put(box(w), "resources", "limits", "nvidia.com/gpu", value="1"),
    ),
    (
        "pods_outlive_their_notice",
        "grace",
        lambda w: put(pod(w, "RayCluster"), "terminationGracePeriodSeconds", value=30),
    ),
    ("everything_is_labelled", "object", lambda w: get(w, "Service")["metadata"].pop("labels")),
    (
        "pods_of_production_are_placed",
        "spread",
        lambda w: workers(w)["template"]["spec"].pop("topologySpreadConstraints"),
    ),
    ("pods_of_production_are_placed", "priority", lambda w: pod(w).pop("priorityClassName")),
    (
        "queues_take_every_job",
        "label",
        lambda w: put(get(w, "RayJob"), "metadata", "labels", "kueue.x-k8s.io/queue-name", value="no"),
    ),
    (
        "queues_take_every_job",
        "resource",
        lambda w: spec(w, "ClusterQueue")["resourceGroups"][0]["coveredResources"].pop(),
    ),
    ("queues_take_every_job", "flavor", lambda w: w.remove(get(w, "ResourceFlavor"))),
    (
        "every_policy_selects_pods",
        "label",
        lambda w: put(policy(w, "redis"), "podSelector", value={"matchLabels": {"a": "b"}}),
    ),
    ("needed_connections_are_allowed", "operator", lambda w: policy(w, "ray")["ingress"].pop(1)),
    ("needed_connections_are_allowed", "names", lambda w: policy(w, "default").pop("egress")),
    (
        "needed_connections_are_allowed",
        "port",
        lambda w: put(policy(w, "postgres")["ingress"][0]["ports"][0], "port", value=5433),
    ),
    ("other_connections_are_forbidden", "everyone", lambda w: policy(w, "mlflow").update(ingress=[{}])),
    (
        "other_connections_are_forbidden",
        "other namespaces",
        lambda w: policy(w, "redis").update(ingress=[{"from": [{"namespaceSelector": {}}]}]),
    ),
    (
        "every_pod_is_behind_a_policy",
        "all",
        lambda w: [w.remove(t) for t in list(w) if t["kind"] == "NetworkPolicy"],
    ),
]


@pytest.mark.parametrize(("rule", "what", "change"), PLANTED, ids=[f"{r}-{what}" for r, what, _ in PLANTED])
def test_rule_finds_a_planted_fault(rule, what, change):
    check = {**RULES, **PRODUCTION_RULES}[rule]
    things = full_world()
    before = set(check(things))
    change(things)
    assert set(check(things)) - before


def test_every_rule_has_a_planted_fault():
    assert {rule for rule, _, _ in PLANTED} == {*RULES, *PRODUCTION_RULES}
