"""Which code made a number."""

import functools
import subprocess
from pathlib import Path


@functools.cache
def git_sha() -> str | None:
    """Commit of this source tree, with "-dirty" when it has uncommitted changes; None outside git."""
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
