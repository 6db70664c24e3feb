"""The commands of a page, as a shell would run them: the programs are replaced by some that write down."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RECORD = """#!/bin/bash
# What is piped to it is read to its end: otherwise the writer dies of it, if it happens to be slower.
[[ ! -p /dev/stdin ]] || while read -r; do :; done
entry=$(printf '%s\\x1f' "${0##*/}" "$@")
printf '%s\\x1e' "$entry" >> "$RECORDED"
echo x
"""
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = (
    "aws", "base64", "cat", "curl", "date", "docker", "git", "grep", "gunzip", "gzip", "head", "helm", "jq",
    "kind", "kubectl", "ls", "make", "mkdir", "mlflow", "openssl", "pg_dump", "pg_restore", "pip", "protclip",
    "psql", "python", "ray", "sed", "sleep", "sort", "tail", "tar", "tee", "tr", "wc", "xargs",
)  # fmt: skip


@dataclass(frozen=True)
class Block:
    """A fenced part of a page.

    Attributes:
        line: Where it begins.
        language: What follows the fence.
        text: What is in it.
        before: The page's text before it.
    """

    line: int
    language: str
    text: str
    before: str


def blocks(page: str) -> Iterator[Block]:
    """The fenced parts in their order."""
    for match in FENCE.finditer(page):
        before = page[: match.start()]
        yield Block(before.count("\n") + 2, match[1], match[2], before)


def commands(script: str, folder: Path) -> list[list[str]]:
    """What a script starts, each with its arguments as the shell hands them over.

    Raises:
        AssertionError: It does not parse, uses a variable that is not set, or starts another program.
    """
    programs = folder / "programs"
    programs.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        program = programs / name
        program.write_text(RECORD)
        program.chmod(0o755)
    record = folder / "recorded"
    record.write_text("")
    place = folder / "checkout"
    place.mkdir(exist_ok=True)
    done = subprocess.run(
        ["/bin/bash", "--norc", "-eu", "-o", "pipefail", "-c", script],
        capture_output=True,
        text=True,
        cwd=place,
        env={"PATH": str(programs), "RECORDED": str(record), "HOME": str(place)},
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    return [entry.split("\x1f")[:-1] for entry in record.read_text().split("\x1e")[:-1]]
