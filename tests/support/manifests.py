"""What k8s/ renders to, and whether the API server would take it as far as schemas can say."""

import importlib.resources
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError, validators
from referencing import Registry, Resource

from crd_schemas import Platform, schemas

REPO = Path(__file__).resolve().parents[2]
K8S = REPO / "k8s"
OVERLAYS = tuple(sorted(path.name for path in (K8S / "overlays").iterdir()))
DIRECTORIES = tuple(f"overlays/{name}{part}" for name in OVERLAYS for part in ("", "/cluster", "/jobs"))
COMBINATIONS = (
    *((directory,) for directory in DIRECTORIES),
    *((f"overlays/{name}", "kueue", "external-secrets") for name in ("gpu", "prod")),
    *((f"overlays/{name}/jobs", "kueue/jobs") for name in ("gpu", "prod")),
)
"""What is applied: a directory, alone or with components that are optional; queues are for GPUs."""
PLATFORM = Platform.load()
CORE = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema"
CORE_GROUPS = {"v1", "apps/v1", "batch/v1", "policy/v1"}
"""And every group under k8s.io."""
POD_TEMPLATE = "io.k8s.api.core.v1.PodTemplateSpec"
OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
Manifest = dict[str, Any]


def kubectl(*arguments: str) -> str:
    """What kubectl prints; the environment's own stands before the one on PATH.

    Raises:
        AssertionError: There is none, or it fails; its message is in it.
    """
    own = Path(sys.executable).with_name("kubectl")
    program = str(own) if own.exists() else shutil.which("kubectl")
    assert program, "kubectl is missing: `make .venv/bin/kubectl` gets one, `make test` does so by itself"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout


@cache
def render(directory: str, *components: str) -> str:
    """The YAML of a directory of k8s/, also with components added to those that it names itself."""
    if not components:
        return kubectl("kustomize", str(K8S / directory))
    with tempfile.TemporaryDirectory() as folder:
        copied = shutil.copytree(K8S, Path(folder) / "k8s") / directory
        file = copied / "kustomization.yaml"
        content = yaml.safe_load(file.read_text())
        added = [os.path.relpath(Path(folder) / "k8s" / "components" / name, copied) for name in components]
        content["components"] = [*content.get("components", []), *added]
        file.write_text(yaml.safe_dump(content))
        return kubectl("kustomize", str(copied))


def objects(directory: str, *components: str) -> list[Manifest]:
    """The objects of a directory of k8s/, which a caller may change."""
    return json.loads(_parsed(directory, *components))


@cache
def _parsed(directory: str, *components: str) -> str:
    """As JSON, which is read faster than YAML."""
    return json.dumps(list(yaml.load_all(render(directory, *components), Loader=yaml.CSafeLoader)))


def name_of(thing: Mapping[str, Any]) -> str:
    return f"{thing.get('kind')}/{thing.get('metadata', {}).get('name')}"


def group_of(thing: Mapping[str, Any]) -> str:
    """The group of an object's apiVersion; empty for the core's."""
    return thing["apiVersion"].rpartition("/")[0]


def is_core(thing: Mapping[str, Any]) -> bool:
    """Whether Kubernetes itself knows the object's group."""
    return thing["apiVersion"] in CORE_GROUPS or group_of(thing).endswith(".k8s.io")


def pod_templates(thing: Any, path: str = "") -> Iterator[tuple[str, Manifest]]:
    """Every pod template in an object, with where it is."""
    if isinstance(thing, dict):
        if isinstance(thing.get("spec"), dict) and "containers" in thing["spec"]:
            yield path, thing
        else:
            for key, value in thing.items():
                yield from pod_templates(value, f"{path}.{key}")
    elif isinstance(thing, list):
        for number, value in enumerate(thing):
            yield from pod_templates(value, f"{path}[{number}]")


def containers(template: Manifest) -> Iterator[Manifest]:
    """All containers of a pod, the ones that run first included."""
    yield from template["spec"].get("initContainers", [])
    yield from template["spec"]["containers"]


def schema_faults(thing: Manifest) -> list[str]:
    """Why the API server of the oldest or the newest supported version would not take an object as written.

    Raises:
        LookupError: The schema of a listed operator's resource is not at hand.
    """
    if not is_core(thing):
        return _custom_faults(thing)
    return [
        f"{name_of(thing)} ({version}): {fault}"
        for version in (PLATFORM.oldest, PLATFORM.newest)
        for fault in _core_faults(version, json.dumps(thing, sort_keys=True))
    ]


def _custom_faults(thing: Manifest) -> list[str]:
    """By the definition of the resource; pods in it also by the core's."""
    group = group_of(thing)
    if group not in {operator.group for operator in PLATFORM.operators}:
        return [f"{name_of(thing)}: nothing in k8s/operators.yaml serves {thing['apiVersion']}"]
    known = {version_kind for version_kind in schemas() if version_kind[0].startswith(f"{group}/")}
    if not known:
        raise LookupError(f"no schema of {group} here; `make k8s-schemas` fetches it")
    if (key := (thing["apiVersion"], thing["kind"])) not in known:
        return [f"{name_of(thing)}: {group} has no {thing['kind']} in {thing['apiVersion']}"]
    faults = _messages(_custom_validator(*key), thing)
    parts = [(OBJECT_META, "metadata", thing["metadata"])]
    parts += [(POD_TEMPLATE, path, template) for path, template in pod_templates(thing)]
    for version in (PLATFORM.oldest, PLATFORM.newest):
        for definition, path, part in parts:
            found = _part_faults(version, definition, json.dumps(part, sort_keys=True))
            faults += [f"{path} ({version}): {fault}" for fault in found]
    return [f"{name_of(thing)}: {fault}" for fault in faults]


def _unique_keys(
    _: Any, keys: Sequence[str], items: Any, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    """What `x-kubernetes-list-map-keys` asks: no two entries agree in all keys."""
    if not isinstance(items, list):
        return
    found = [tuple(item.get(key) for key in keys) for item in items if isinstance(item, dict)]
    for twice in {entry for entry in found if found.count(entry) > 1}:
        yield ValidationError(f"{dict(zip(keys, twice, strict=True))} stands twice")


StrictValidator = validators.extend(Draft202012Validator, {"x-kubernetes-list-map-keys": _unique_keys})


@cache
def _custom_validator(api_version: str, kind: str) -> Any:
    return StrictValidator(schemas()[api_version, kind])


@cache
def _definitions(version: str) -> tuple[Registry, str]:
    """The shared part of a version's schemas, and its address."""
    content = json.loads((CORE / f"v{version}.0-local-strict" / "_definitions.json").read_text())
    return Resource.from_contents(content) @ Registry(), content["$id"]


@cache
def _core_faults(version: str, text: str) -> tuple[str, ...]:
    """Of a whole object."""
    thing = json.loads(text)
    group = group_of(thing).split(".")[0]
    file = "-".join(filter(None, [thing["kind"].lower(), group, thing["apiVersion"].rpartition("/")[2]]))
    path = CORE / f"v{version}.0-local-strict" / f"{file}.json"
    if not path.is_file():
        return (f"Kubernetes has no {thing['kind']} in {thing['apiVersion']}",)
    registry, _ = _definitions(version)
    schema = json.loads(path.read_text())
    return tuple(
        _messages(StrictValidator(schema, registry=Resource.from_contents(schema) @ registry), thing)
    )


@cache
def _part_faults(version: str, definition: str, text: str) -> tuple[str, ...]:
    """Of a part of an object, for example a pod template."""
    registry, address = _definitions(version)
    schema = {"$ref": f"{address}#/$defs/{definition}"}
    return tuple(_messages(StrictValidator(schema, registry=registry), json.loads(text)))


def _messages(validator: Any, thing: Manifest) -> list[str]:
    """Where and what, also what the schemas let pass as "null", which YAML makes of a forgotten value."""
    errors = sorted(validator.iter_errors(thing), key=lambda error: list(map(str, error.absolute_path)))
    found = [f"{error.json_path}: {error.message[:300]}" for error in errors]
    return found + [f"{path}: has no value" for path in _nulls(thing, "$")]


def _nulls(thing: Any, path: str) -> Iterator[str]:
    if thing is None:
        yield path
    elif isinstance(thing, dict):
        for key, value in thing.items():
            yield from _nulls(value, f"{path}.{key}")
    elif isinstance(thing, list):
        for number, value in enumerate(thing):
            yield from _nulls(value, f"{path}[{number}]")
