"""The image is pinned, runs as a user, and holds nothing that should stay outside."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import PurePosixPath

import pytest
import yaml

from manifests import K8S, REPO, containers, objects, pod_templates
from policy_rules import OWN_IMAGES
from protclip import __version__

DOCKERFILE = (K8S / "image" / "Dockerfile").read_text()
IGNORE = (REPO / ".dockerignore").read_text()
STAGE = re.compile(r"^FROM (\S+) AS (\S+)$")


def stages(text: str) -> dict[str, list[str]]:
    """Each target's instructions, those of the stages under it first."""
    found: dict[str, list[str]] = {}
    lines = re.sub(r"\\\n(\s*#.*\n)*", " ", text).splitlines()
    for line in lines:
        if match := STAGE.match(line):
            name = match[2]
            found[name] = [*found.get(match[1], []), line]
        elif line.startswith("FROM"):
            found[line] = [line]
        elif found and line.strip() and not line.startswith("#"):
            found[list(found)[-1]].append(line)
    return found


def faults(text: str) -> Iterator[str]:
    """What is wrong with a Dockerfile."""
    made = stages(text)
    if not {"cpu", "cuda"} <= made.keys():
        yield f"targets are {', '.join(made)}"
    for name, lines in made.items():
        for line in lines:
            word, _, rest = line.partition(" ")
            if word == "FROM" and rest.split()[0] not in made:
                image, _, tag = rest.split()[0].rpartition(":")
                if not image or not re.match(r"\d+\.\d+\.\d+", tag):
                    yield f"{name}: {rest.split()[0]} has no full version"
            if word == "RUN" and "pip install" in rest and "--constraint constraints.txt" not in rest:
                yield f"{name}: installs without constraints.txt: {rest}"
            if word == "RUN" and re.search(r"\b(curl|wget|git) .*\w+://|huggingface|hf download|sudo", rest):
                yield f"{name}: fetches something: {rest}"
            if word == "ADD" or re.search(r"(?i)(secret|password|token|access_key)\w*=", line):
                yield f"{name}: {line}"
        if name in {"cpu", "cuda"}:
            users = [line.split()[1] for line in lines if line.startswith("USER ")]
            if not users or not re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", users[-1]):
                yield f"{name}: runs as {users[-1] if users else 'root'}, not as a numbered user"
            if "WORKDIR /opt/protclip" not in lines:
                yield f"{name}: not in /opt/protclip"


def test_dockerfile_has_no_fault():
    assert list(faults(DOCKERFILE)) == []


@pytest.mark.parametrize(
    ("pattern", "instead"),
    [
        (r"python:[\w.-]+", "python:latest"),
        (r"python:[\w.-]+", "python:3.11-slim"),
        (r"USER 1000:1000", "USER root"),
        (r"USER 1000:1000", ""),
        (r" AS cuda", " AS gpu"),
        (r"--constraint constraints.txt", ""),
        (r"COPY \. \.", "ADD . ."),
        (r"COPY \. \.", "RUN curl -LO https://example.org/esm2.pt"),
        (r"COPY \. \.", "ENV AWS_SECRET_ACCESS_KEY=a"),
        (r"WORKDIR /opt/protclip", "WORKDIR /srv"),
    ],
)
def test_a_planted_fault_of_the_dockerfile_is_found(pattern, instead):
    changed = re.sub(pattern, instead, DOCKERFILE)
    assert changed != DOCKERFILE
    assert list(faults(changed))


def test_image_has_the_python_that_is_supported_and_the_user_of_the_pods():
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    version = re.search(r"FROM python:(\d+\.\d+)\.", DOCKERFILE)
    assert version
    assert project["requires-python"] == f">={version[1]}"
    (user,) = set(re.findall(r"^USER (\d+)", DOCKERFILE, re.MULTILINE))
    for thing in objects("overlays/gpu") + objects("overlays/gpu/jobs"):
        for _, template in pod_templates(thing):
            if any(container.get("image") in OWN_IMAGES for container in containers(template)):
                assert template["spec"]["securityContext"]["runAsUser"] == int(user)


def test_image_installs_extras_that_exist():
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    asked = {e for group in re.findall(r"'\.\[([\w,]+)\]'", DOCKERFILE) for e in group.split(",")}
    assert asked
    assert asked <= project["optional-dependencies"].keys()


def test_tags_are_the_packages_version():
    content = yaml.safe_load((K8S / "components" / "images" / "kustomization.yaml").read_text())
    assert {f"{image['newName']}:{image['newTag']}" for image in content["images"]} == OWN_IMAGES
    assert set(re.findall(r"protclip:(\S+?)-(?:cpu|cuda)\b", DOCKERFILE)) <= {__version__}


def ignored(path: str, rules: str = IGNORE) -> bool:
    """Whether Docker leaves a file out: the last rule that fits it or a folder above it decides."""
    verdict = False
    places = [path, *map(str, list(PurePosixPath(path).parents)[:-1])]
    for line in filter(None, map(str.strip, rules.splitlines())):
        if line.startswith("#"):
            continue
        pattern = re.escape(line.removeprefix("!").strip("/"))
        pattern = pattern.replace(r"\*\*/", "(.*/)?").replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
        if any(re.fullmatch(pattern, place) for place in places):
            verdict = not line.startswith("!")
    return verdict


NEEDED = [
    "platform/protclip/cli.py",
    "platform/protclip/data/vocab/wordpiece.txt",
    "jobs/pretrain.py",
    "conf/pretrain/paper.yaml",
    "constraints.txt",
    "pyproject.toml",
    "README.md",
]
KEPT_OUT = [
    ".git/config",
    ".venv/bin/python",
    ".cache/k8s-schemas/sources.json",
    "outputs/runs/a/model.pt",
    "data/uniprot.dat.gz",
    "tests/conftest.py",
    "docs/kubernetes.md",
    "k8s/overlays/prod/secrets.yaml",
    "secret-key.txt",
    ".env",
    "platform/.env",
    "esm2_t33_650M_UR50D.pt",
    "platform/protclip.egg-info/PKG-INFO",
    "platform/protclip/__pycache__/cli.cpython-311.pyc",
]


@pytest.mark.parametrize("path", NEEDED)
def test_dockerignore_lets_in_what_jobs_need(path):
    assert not ignored(path)


@pytest.mark.parametrize("path", KEPT_OUT)
def test_dockerignore_keeps_out(path):
    assert ignored(path)


def test_every_copied_file_is_let_in():
    sources = [
        source
        for line in stages(DOCKERFILE)["cpu"]
        if line.startswith("COPY") and "--from" not in line
        for source in line.split()[1:-1]
        if source != "."
    ]
    assert sources
    for source in sources:
        assert (REPO / source).exists(), source
        assert not ignored(source), source


def test_ignored_follows_dockers_rules():
    assert ignored("a/b/c.pt", "**/*.pt")
    assert not ignored("a/b/c.pt", "*.pt")
    assert ignored("a/b", "a")
    assert not ignored("a/b", "*\n!a")
    assert ignored("a/.x/b", "*\n!a\n**/.*")
    assert not ignored("k/other", "k/file")
