"""Which code made a number."""

import functools
import os
import subprocess
from pathlib import Path

GIT_SHA = "PROTCLIP_GIT_SHA"
"""Variable that names the commit where the code is without its repository, on a cluster."""


@functools.cache
def git_sha() -> str | None:
    """Commit of this source tree, with "-dirty" when it has uncommitted changes; None when unknown."""
    if sha := os.environ.get(GIT_SHA):
        return sha
    here = str(Path(__file__).parent)
    try:
        sha = subprocess.run(  # noqa: S603 - a fixed command
            ["git", "-C", here, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return sha.stdout.strip() or None
