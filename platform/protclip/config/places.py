"""Places that a job on a cluster cannot use, because they go with it."""

from pathlib import Path

from pydantic import BaseModel

from protclip.config.keys import flatten, keys_of
from protclip.errors import ConfigError

IN_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Variable that Ray sets for a submitted job's own process."""
WRITTEN = ("output", "storage")
"""Keys that say where results go."""


def check_places(config: BaseModel, root: Path) -> None:
    """Refuses relative paths in a job whose working directory is an upload, removed when it ends.

    Args:
        config: The job's configuration, validated with `root` as the current directory: `Uri` keys hold
            absolute paths.
        root: The job's working directory.

    Raises:
        ConfigError: Keys name places in it that were not uploaded.
    """
    lost: list[str] = []
    keys = keys_of(type(config)).by_name
    for name, value in flatten(config).items():
        inside = [p for p in map(Path, str(value).split(",")) if p.is_relative_to(root) and not p.exists()]
        shown = ",".join(str(place.relative_to(root)) for place in inside)
        # Where something is read by default may be of no use to this job.
        unused = name in keys and keys[name].default == shown and name.rpartition(".")[2] not in WRITTEN
        if inside and not unused:
            lost.append(f"{name}={shown}")
    if lost:
        raise ConfigError(
            f"{', '.join(lost)}: a relative path lies in the job's upload, which is removed when the job "
            "ends; give an object store's URI (s3://…), or an absolute path that every node mounts"
        )
