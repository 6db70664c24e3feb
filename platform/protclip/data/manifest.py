"""Manifests: what a data set holds, so that nothing ever counts by scanning rows.

A data set exists once its `manifest.json` does; it is always written last.
"""

from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from protclip import storage
from protclip.errors import DataError
from protclip.storage import StoredFile

MANIFEST_NAME = "manifest.json"
TOKENIZER_NAME = "tokenizer.json"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Model):
    """One Parquet file of a data set, path relative to the manifest."""

    path: str
    rows: int
    row_groups: tuple[int, ...]
    num_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: str, stored: StoredFile, rows: int, row_group_rows: int) -> Self:
        """The entry of a file just written in row groups of `row_group_rows`, the last one smaller."""
        full, rest = divmod(rows, row_group_rows)
        return cls(
            path=path,
            rows=rows,
            row_groups=(row_group_rows,) * full + ((rest,) if rest else ()),
            num_bytes=stored.num_bytes,
            sha256=stored.sha256,
        )


class StratumCount(_Model):
    """Entries of one (confidence, coverage) stratum, split by section."""

    confidence: int
    coverage: int
    reviewed: int
    unreviewed: int

    @property
    def total(self) -> int:
        """Entries of both sections."""
        return self.reviewed + self.unreviewed


class _Manifest(_Model):
    @classmethod
    def load(cls, uri: str) -> Self:
        """Reads the manifest of the data set at `uri`.

        Raises:
            DataError: There is none, or it is not of this kind.
        """
        path = storage.join(uri, MANIFEST_NAME)
        if not storage.exists(path):
            raise DataError(f"{uri}: no {MANIFEST_NAME} here; give the output of a finished job")
        raw = storage.read_json(path)
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(p) for p in first["loc"])
            raise DataError(
                f"{path}: not a {cls.__name__} ({where}: {first['msg']}); is this the right data set?"
            ) from error

    @staticmethod
    def digest(uri: str) -> str:
        """sha256 of the manifest file, which identifies the data set."""
        return storage.sha256(storage.join(uri, MANIFEST_NAME))

    def save(self, uri: str) -> StoredFile:
        """Writes the manifest, which makes the data set at `uri` visible."""
        return storage.write_json(storage.join(uri, MANIFEST_NAME), self.model_dump(mode="json"))


class StrataManifest(_Manifest):
    """All entries that were read, by stratum.

    Attributes:
        kind: Always "strata".
        release: UniProt release, when it was given.
        inputs: The files read, in order.
        strata: Entry counts per (C, R).
        files: `confidence=C/coverage=R/part-*.parquet`.
        rejected: Rejected entries per reason; the entries are kept in `rejected.parquet`.
        missing_confidence: Entries whose level was assumed because the source stated none.
    """

    kind: str = "strata"
    release: str | None
    inputs: tuple[str, ...]
    strata: tuple[StratumCount, ...]
    files: tuple[FileEntry, ...]
    rejected: dict[str, int]
    missing_confidence: int

    @property
    def rows(self) -> int:
        """Entries kept."""
        return sum(s.total for s in self.strata)


class SampledStratum(_Model):
    """One stratum before and after sampling; `rate` is the one for unreviewed entries."""

    confidence: int
    coverage: int
    rate: float
    before: StratumCount
    after: StratumCount


class TokenizerEntry(_Model):
    """Which text tokenizer made the token lists; the tokenizer itself lies in `tokenizer.json`."""

    source: str
    fingerprint: str
    vocab_size: int


class Split(_Model):
    """One split's shards in reading order."""

    rows: int
    files: tuple[FileEntry, ...]


class PairsManifest(_Manifest):
    """Sampled, tokenised, shuffled pairs.

    Attributes:
        kind: Always "pairs".
        source: URI of the strata.
        source_manifest_sha256: Digest of the strata's manifest.
        seed: Seed of selection, split and order.
        evidence: "strip" or "keep".
        tokenizer: The text tokenizer.
        strata: Counts and rates per (C, R).
        splits: "train", "valid", "test".
        resamples: The training split of each further sample of the same law, see `train`.
    """

    kind: str = "pairs"
    source: str
    source_manifest_sha256: str
    seed: int
    evidence: str
    tokenizer: TokenizerEntry
    strata: tuple[SampledStratum, ...]
    splits: dict[str, Split]
    resamples: tuple[Split, ...] = ()

    @property
    def rows(self) -> int:
        """Pairs of all splits, further samples not counted."""
        return sum(s.rows for s in self.splits.values())

    def train(self, epoch: int) -> Split:
        """What is trained on in an epoch: the samples take turns."""
        return (self.splits["train"], *self.resamples)[epoch % (1 + len(self.resamples))]
