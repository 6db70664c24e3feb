"""Schemas of the custom resources that k8s/ uses, from the releases that k8s/operators.yaml names.

`make k8s-schemas` fetches them into .cache/k8s-schemas; the tests look there, then in the copy of KubeRay's
that may lie beside this checkout.
"""

import gzip
import hashlib
import json
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

REPO = Path(__file__).resolve().parents[2]
CACHE = REPO / ".cache" / "k8s-schemas"
FOLDERS = (CACHE, REPO.parent / "shared" / "k8s-schemas")
SOURCES = "sources.json"
TIMEOUT_S = 60


@dataclass(frozen=True)
class Operator:
    """A program that must run in the cluster; it brings the resources of a group.

    Attributes:
        name: Of its chart.
        version: Of its release.
        namespace: Where it runs.
        group: Of its resources.
        crds: Where the release's definitions are.
    """

    name: str
    version: str
    namespace: str
    group: str
    crds: tuple[str, ...]


@dataclass(frozen=True)
class Platform:
    """What k8s/ is written for.

    Attributes:
        oldest: Kubernetes, major and minor.
        newest: The same.
        operators: What else runs there.
    """

    oldest: str
    newest: str
    operators: tuple[Operator, ...]

    @classmethod
    def load(cls, path: Path = REPO / "k8s" / "operators.yaml") -> "Platform":
        data = yaml.safe_load(path.read_text())
        operators = tuple(Operator(**{**entry, "crds": tuple(entry["crds"])}) for entry in data["operators"])
        return cls(**data["kubernetes"], operators=operators)


def fetch(platform: Platform, folder: Path) -> list[str]:
    """Writes one file per custom resource, of the copy's form, and the SHA-256 of every source.

    A file of a release never changes; one that does is refused, and nothing is written.

    Returns:
        The names of the files.

    Raises:
        SystemExit: A source is not reached, is another than before, or defines nothing of the group.
    """
    from protclip import storage

    index = folder / SOURCES
    before: dict[str, str] = json.loads(index.read_text()) if index.is_file() else {}
    files: dict[str, bytes] = {}
    digests: dict[str, str] = {}
    for operator in platform.operators:
        for url in operator.crds:
            try:
                with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
                    content = answer.read()
            except OSError as error:
                sys.exit(f"{url}: {error}; nothing was written")
            digests[url] = hashlib.sha256(content).hexdigest()
            if before.get(url, digests[url]) != digests[url]:
                sys.exit(
                    f"{url} is not what it was: SHA-256 {digests[url]}, before {before[url]}; see {index}"
                )
            found = {
                f"{crd['spec']['names']['plural']}.{operator.group}.json.gz": _compact(crd["spec"])
                for crd in yaml.load_all(content, Loader=yaml.CSafeLoader)
                if crd
                and crd["kind"] == "CustomResourceDefinition"
                and crd["spec"]["group"] == operator.group
            }
            if not found:
                sys.exit(f"{url} defines no resource of the group {operator.group}")
            files |= found
    for name, content in {**files, SOURCES: json.dumps(digests, indent=1).encode()}.items():
        storage.write_bytes(str(folder / name), content)
    return sorted(files)


def _compact(spec: Mapping[str, Any]) -> bytes:
    """Group, kind and schemas by version, the form of the copy."""
    versions = {version["name"]: version["schema"]["openAPIV3Schema"] for version in spec["versions"]}
    content = {"group": spec["group"], "kind": spec["names"]["kind"], "versions": versions}
    return gzip.compress(json.dumps(content).encode(), mtime=0)


@cache
def schemas() -> dict[tuple[str, str], dict[str, Any]]:
    """Strict schema of each (apiVersion, kind) that is at hand; the cache stands before the copy."""
    found = {}
    for folder in reversed(FOLDERS):
        for path in sorted(folder.glob("*.json.gz")):
            content = json.loads(gzip.decompress(path.read_bytes()))
            for version, schema in content["versions"].items():
                found[f"{content['group']}/{version}", content["kind"]] = strict_root(schema)
    return found


def strict_root(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A whole resource: its metadata is checked elsewhere, its status is not ours to write."""
    properties = {key: strict(value) for key, value in schema["properties"].items() if key != "status"}
    properties |= {"metadata": {"type": "object"}}
    required = ["apiVersion", "kind", "metadata", *schema.get("required", ())]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def strict(schema: Any) -> Any:
    """JSON Schema of an OpenAPI schema as a cluster reads it, but what it would drop unsaid is forbidden."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: {name: strict(part) for name, part in value.items()} if key == "properties" else strict(value)
        for key, value in schema.items()
        if key not in {"default", "example", "nullable", "x-kubernetes-validations"}
    }
    if made.get("x-kubernetes-int-or-string"):
        made.setdefault("anyOf", [{"type": "integer"}, {"type": "string"}])
        made.pop("type", None)
    if made.get("x-kubernetes-embedded-resource"):
        resource = {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
        }
        made["properties"] = resource | made.get("properties", {})
    open_ended = made.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in made
    if made.get("type") == "object" and not open_ended:
        made["additionalProperties"] = False
    return {"anyOf": [made, {"type": "null"}]} if schema.get("nullable") else made


if __name__ == "__main__":
    sys.stderr.write("\n".join(fetch(Platform.load(), CACHE)) + f"\nare in {CACHE}\n")
