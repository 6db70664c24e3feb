"""What the checks of `protclip doctor` are told, and what they answer."""

import hashlib
import importlib.metadata
import platform
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import protclip
from protclip.config.base import TrackingConfig
from protclip.config.doctor import PlannedConfig
from protclip.provenance import git_sha

Verdict = Literal["ok", "warn", "fail", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes:
        verdict: `warn` is what a job may survive, `fail` what it will not; `skipped` says nothing.
        found: The facts; of a skipped check, why.
        remedy: What to do about a warning or a failure.
    """

    verdict: Verdict
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Code:
    """What a process runs.

    Attributes:
        python: Version of Python.
        packages: Version of every installed package, by normalised name.
        digest: Of the source of protclip, which lies at `place`.
        sha: Its commit, if it is a checkout.
    """

    python: str
    packages: Mapping[str, str]
    digest: str
    place: str
    sha: str | None

    @property
    def shown(self) -> str:
        """The commit, shortened, or the digest where no commit says it all."""
        return self.sha[:10] if self.sha and not self.sha.endswith("-dirty") else self.digest

    @classmethod
    def here(cls) -> Self:
        """That of this process."""
        root = Path(protclip.__file__).parent
        digest = hashlib.sha256()
        for path in sorted(root.rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
        found = importlib.metadata.distributions()
        return cls(
            python=platform.python_version(),
            packages={normalized(d.name): d.version for d in found if d.name},
            digest=digest.hexdigest()[:10],
            place=str(root),
            sha=git_sha(),
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a check is done.

    Attributes:
        name: For people.
        key: Another for every process.
        resources: What Ray believes the node has; empty for the driver.
    """

    name: str
    key: str
    resources: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_driver(self) -> bool:
        """True for the process that was called."""
        return not self.resources

    @classmethod
    def driver(cls) -> Self:
        """This process."""
        return cls(f"driver ({socket.gethostname()})", "driver")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be looked at.

    Attributes:
        token: Random; names what is laid down in storages for the time being.
        storage: URIs that jobs write to.
        data: URIs that jobs read.
        tracking: The tracking server.
        study: The Optuna store, if any.
        pretrain: The training that is planned, if any.
        code: The driver's.
        pins: Versions that constraints.txt asks for, by normalised name; none without such a file.
    """

    token: str
    storage: tuple[str, ...]
    data: tuple[str, ...]
    tracking: TrackingConfig
    study: str | None
    pretrain: PlannedConfig | None
    code: Code
    pins: Mapping[str, str]


def normalized(package: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", package).lower()


def read_pins(path: Path) -> dict[str, str]:
    """The `name==version` lines of a constraints file; none when it is not there."""
    lines = path.read_text().splitlines() if path.is_file() else []
    split = (line.split(";")[0].split("#")[0].partition("==") for line in lines)
    return {normalized(name.strip()): version.strip() for name, _, version in split if version.strip()}


def some(names: list[str], most: int = 5) -> str:
    """The first few."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def size(num_bytes: float) -> str:
    """Bytes in words, 1 GB = 10⁹."""
    unit, by = next(
        (u, b)
        for u, b in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1))
        if num_bytes >= b or b == 1
    )
    return f"{num_bytes / by:.3g} {unit}"
