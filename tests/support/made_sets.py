"""Data sets on the test server that a fault-free run of the jobs made, and the jobs that make them again."""

from dataclasses import dataclass

from protclip import storage
from protclip.config.data import PrepareConfig, SampleConfig


@dataclass(frozen=True)
class MadeSets:
    """Where they are on the test server, all below one bucket.

    Attributes:
        bucket: URI of the bucket.
        raw: Three files of entries, 300 of which come twice.
        strata: What became of them.
        pairs: Drawn from these.
    """

    bucket: str
    raw: str
    strata: str
    pairs: str

    def prepare_config(self, name: str) -> PrepareConfig:
        """The same job with another output."""
        return PrepareConfig.model_validate(
            {
                "inputs": [self.raw],
                "output": storage.join(self.bucket, name),
                "block_mb": 1,
                "rows_per_file": 600,
                "tracking": {"enabled": False},
            }
        )

    def sample_config(self, name: str) -> SampleConfig:
        """The same job with another output."""
        return SampleConfig.model_validate(
            {
                "source": self.strata,
                "output": storage.join(self.bucket, name),
                "rows_per_shard": 150,
                "row_group_rows": 50,
                "tracking": {"enabled": False},
            }
        )


def content(uri: str) -> dict[str, str]:
    """All that is told and kept in a data set: digests of its files, pictures left out."""
    files = {f.uri.removeprefix(uri): storage.sha256(f.uri) for f in storage.list_files(uri)}
    return {name: digest for name, digest in files.items() if not name.endswith(".png")}
