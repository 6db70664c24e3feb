"""Whether a kubectl command line is one that kubectl takes, and names only what k8s/ has."""

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from manifests import OVERLAYS, PLATFORM, REPO, kubectl, objects
from policy_rules import known_secrets

GROUPS = {"create": 1, "rollout": 1, "config": 1, "auth": 1, "set": 1, "top": 1, "create secret": 2}
"""Commands that have commands, and how many words those are."""
BY_KIND = {"get", "describe", "delete", "wait", "annotate", "edit", "patch", "scale"}
"""Commands whose first word may be a kind, the next its objects."""
RENDERED = {
    "clusterqueue", "configmap", "cronjob", "deployment", "job", "localqueue", "networkpolicy",
    "poddisruptionbudget", "raycluster", "rayjob", "service", "serviceaccount", "statefulset",
}  # fmt: skip
SHORT = {"deploy": "deployment", "sts": "statefulset", "svc": "service", "cm": "configmap"}
FOREIGN = {"kube-system", *(operator.namespace for operator in PLATFORM.operators)}
"""Namespaces whose objects are not ours."""
COMPONENT = re.compile(r"app\.kubernetes\.io/component=([\w-]+)$")


@dataclass
class Line:
    """A command line in its parts.

    Attributes:
        command: The command, with what is under it.
        flags: With their values; empty for a switch.
        words: What else there is.
    """

    command: str = ""
    flags: list[tuple[str, str]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def get(self, *names: str) -> str:
        """The value of the last flag of these names."""
        return next((value for name, value in reversed(self.flags) if name in names), "")


@cache
def _flags(*command: str) -> Mapping[str, bool]:
    """Flags of a command, those of all without any; each with whether it takes a value."""
    text = kubectl(*command, "--help") if command else kubectl("options")
    found = {}
    for short, name, default in re.findall(r"^ +(?:-(\w), )?--([\w-]+)=(\S*):$", text, re.MULTILINE):
        for spelling in (f"--{name}", f"-{short}")[: 2 if short else 1]:
            found[spelling] = default not in {"true", "false"}
    return found


@cache
def _commands(*group: str) -> frozenset[str]:
    """What is under a group of commands."""
    text = kubectl(*group, "--help")
    listed = text[text.index("Available Commands:") :] if "Available Commands:" in text else text
    return frozenset(re.findall(r"^  ([a-z][\w-]*) ", listed, re.MULTILINE))


def read(arguments: Sequence[str]) -> Line:
    """The parts of a command line, up to `--`.

    Raises:
        AssertionError: kubectl has no such command or flag, or a flag lacks its value.
    """
    line, command, waiting = Line(), [], ""
    for word in arguments:
        if word == "--":
            break
        if waiting:
            line.flags.append((waiting, word))
            waiting = ""
        elif word.startswith("-") and word != "-":
            name, equals, value = word.partition("=")
            known = {**_flags(), **(_flags(*command) if command else {})}
            assert name in known, f"kubectl {' '.join(command)} has no flag {name}"
            if equals or not known[name]:
                line.flags.append((name, value))
            else:
                waiting = name
        elif not command or len(command) <= GROUPS.get(" ".join(command[:2]), GROUPS.get(command[0], 0)):
            assert not command or word in _commands(*command), f"kubectl {' '.join(command)} has no {word}"
            command.append(word)
        else:
            line.words.append(word)
    assert not waiting, f"{waiting} has no value"
    line.command = " ".join(command)
    assert _flags(*command), f"kubectl has no command {line.command}"
    return line


@cache
def names(kind: str) -> frozenset[str]:
    """Those of a kind's objects in any overlay, and those that KubeRay gives its Services."""
    sources = [(f"overlays/{name}{part}",) for name in OVERLAYS for part in ("", "/jobs")]
    sources += [("overlays/prod", "kueue", "external-secrets")]
    things = [thing for source in sources for thing in objects(*source)]
    found = {thing["metadata"]["name"] for thing in things if thing["kind"].lower() == kind}
    if kind == "service":
        found |= {f"{name}-head-svc" for name in names("raycluster")}
    return frozenset(found)


def check(arguments: Sequence[str], made: Container[str]) -> None:
    """The command, its flags, and the directories, objects, labels and Secrets that it names.

    Args:
        arguments: What follows `kubectl`.
        made: Directories to apply and names of objects that whoever reads the page makes.

    Raises:
        AssertionError: One of them does not exist.
    """
    line = read(arguments)
    namespace = line.get("-n", "--namespace") or "default"
    assert namespace in {"protclip", "default"} | FOREIGN, f"no namespace {namespace!r}"
    folders = [line.get("-k", "--kustomize"), *(line.words[:1] if line.command == "kustomize" else [])]
    for folder in filter(None, folders):
        there = (REPO / folder / "kustomization.yaml").is_file()
        assert there or folder.rstrip("/") in made or _is_release(folder), f"no kustomization in {folder}"
        selected = COMPONENT.match(line.get("-l", "--selector"))
        assert not selected or selected[1] in names("rayjob"), f"{selected} selects no RayJob"
    file = line.get("-f", "--filename")
    assert not file or file == "-" or "://" in file or (REPO / file).exists(), f"no file {file}"
    if line.command == "create secret generic":
        keys = {value.partition("=")[0] for name, value in line.flags if name.startswith("--from-")}
        name = line.words[0]
        assert keys <= known_secrets().get(name, set()), f"no Secret {name!r} with {', '.join(sorted(keys))}"
    if namespace not in FOREIGN:
        for kind, name in _objects(line):
            known = known_secrets().keys() if kind == "secret" else names(kind)
            assert name in made or name in known or any(name.startswith(f"{one}-") for one in known), (
                f"no {kind} {name!r}"
            )


def _is_release(folder: str) -> bool:
    """Whether a directory is one of an operator's repository, in the version that k8s/operators.yaml has."""
    repository, _, version = folder.removeprefix("https://").partition("?ref=v")
    parts = repository.split("/")[1:3]
    return any(o.version == version and parts == o.crds[0].split("/")[3:5] for o in PLATFORM.operators)


def _objects(line: Line) -> list[tuple[str, str]]:
    """Kind and name of every object that a line names; a name in capitals stands for one."""
    found = [word.split("/", 1) for word in (*line.words, line.get("--from")) if "/" in word]
    if line.command in BY_KIND and line.words and "/" not in line.words[0]:
        found += [[line.words[0], name] for name in line.words[1:]]
    kinds = [(SHORT.get(kind.removesuffix("s"), kind.removesuffix("s")), name) for kind, name in found]
    return [(k, n) for k, n in kinds if k in {*RENDERED, "secret"} and re.fullmatch(r"[a-z0-9.-]+", n)]
