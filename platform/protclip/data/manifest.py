"""Manifests: what a data set holds, so that nothing ever counts by scanning rows.

A data set exists once its `manifest.json` does; it is always written last.
"""

from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from protclip import storage
from protclip.config.base import Config
from protclip.config.data import SamplingConfig, SplitsConfig
from protclip.data.summary import Summary
from protclip.errors import DataError
from protclip.storage import StoredFile

MANIFEST_NAME = "manifest.json"
TOKENIZER_NAME = "tokenizer.json"
TAXA_NAME = "taxa.parquet"
FURTHER_TRAIN = "train-epoch-"
"""What the names of the training splits of further samples begin with."""


def train_split(sample: int) -> str:
    """Name of the training split of a sample."""
    return f"{FURTHER_TRAIN}{sample:03d}" if sample else "train"


class FileEntry(Config):
    """One Parquet file of a data set, path relative to the manifest."""

    path: str
    rows: int
    row_groups: tuple[int, ...]
    num_bytes: int
    sha256: str

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if sum(self.row_groups) != self.rows:
            raise ValueError(f"{self.path} has {self.rows} rows, but {sum(self.row_groups)} in row groups")
        return self

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


class StratumCount(Config):
    """Entries of one (confidence, coverage) stratum, split by section."""

    confidence: int
    coverage: int
    reviewed: int
    unreviewed: int

    @property
    def total(self) -> int:
        """Entries of both sections."""
        return self.reviewed + self.unreviewed


def _read(uri: str) -> tuple[str, Any]:
    """URI and content of a data set's manifest."""
    path = storage.join(uri, MANIFEST_NAME)
    if not storage.exists(path):
        raise DataError(f"{uri}: no {MANIFEST_NAME} here; give the output of a finished job")
    return path, storage.read_json(path)


class Manifest(Config):
    """Base of all manifests."""

    @classmethod
    def load(cls, uri: str) -> Self:
        """Reads the manifest of the data set at `uri`.

        Raises:
            DataError: There is none, or it is not of this kind.
        """
        path, raw = _read(uri)
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


class StrataManifest(Manifest):
    """All entries that were read, by stratum.

    Attributes:
        kind: Always "strata".
        release: UniProt release, when it was given.
        inputs: The files read, in order.
        strata: Entry counts per (C, R).
        files: `confidence=C/coverage=R/part-*.parquet`.
        rejected: Rejected entries per reason; the entries are kept in `rejected.parquet`.
        missing_confidence: Entries whose level was assumed because the source stated none.
        summary: What the entries are like.
    """

    kind: str = "strata"
    release: str | None
    inputs: tuple[str, ...]
    strata: tuple[StratumCount, ...]
    files: tuple[FileEntry, ...]
    rejected: dict[str, int]
    missing_confidence: int
    summary: Summary | None = None

    @property
    def rows(self) -> int:
        """Entries kept."""
        return sum(s.total for s in self.strata)


class SampledStratum(Config):
    """One stratum before and after sampling.

    Attributes:
        confidence: C.
        coverage: Number of properties.
        rate: Mean probability with which unreviewed entries were kept.
        reviewed_rate: That of the reviewed ones.
        before: Entries.
        after: Pairs in the splits, further samples not counted.
    """

    confidence: int
    coverage: int
    rate: float
    reviewed_rate: float = 1.0
    before: StratumCount
    after: StratumCount

    @property
    def expected(self) -> float:
        """Expected number of pairs, before any are left out for a benchmark's sake."""
        return self.before.unreviewed * self.rate + self.before.reviewed * self.reviewed_rate


class JoinedTable(Config):
    """A table by accession that was joined.

    Attributes:
        uri: Where it lay.
        rows: Accessions with a value.
        unreadable: Rows without accession or value, or of another form.
        repeated: Rows whose accession was there before; the first one counted.
    """

    uri: str
    rows: int
    unreadable: int
    repeated: int


class Drawing(Config):
    """How pairs were drawn.

    Attributes:
        sampling: What was asked for, with the day from which annotation ages count.
        scale: What every weight was multiplied by.
        missing: Entries that could become pairs and had no value for a factor; they counted as the median.
        corrupted: Entries whose confidence was replaced before it decided.
        splits: What was held out.
        ungrouped: Pairs without family or cluster, held out by their sequence.
        tables: What was joined.
    """

    sampling: SamplingConfig = SamplingConfig()
    scale: float = 1.0
    missing: dict[str, int] = Field(default={})
    corrupted: int = 0
    splits: SplitsConfig = SplitsConfig()
    ungrouped: int = 0
    tables: dict[str, JoinedTable] = Field(default={})


class Excluded(Config):
    """Entries that were drawn and left out, because a benchmark's test set has their sequence.

    Attributes:
        total: All of them, each once.
        benchmarks: By benchmark.
    """

    total: int = 0
    benchmarks: dict[str, int] = Field(default={})


class TokenizerEntry(Config):
    """Which text tokenizer made the token lists; the tokenizer itself lies in `tokenizer.json`."""

    source: str
    fingerprint: str
    vocab_size: int


class Split(Config):
    """One split's shards in reading order."""

    rows: int
    files: tuple[FileEntry, ...]


class ConsistencyCount(Config):
    """Protein-text cosines of the entries of a stratum, or of several together, in numbers that add up.

    Attributes:
        confidence: C, None for all.
        coverage: Number of properties, None for all.
        rows: Entries.
        total: Sum of their cosines.
        squares: Sum of the squares.
        histogram: Entries per equal part of [-1, 1].
    """

    confidence: int | None
    coverage: int | None
    rows: int
    total: float
    squares: float
    histogram: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Mean cosine."""
        return self.total / self.rows

    @property
    def deviation(self) -> float:
        """Standard deviation of the cosines."""
        return max(0.0, self.squares / self.rows - self.mean**2) ** 0.5


class EmbeddingsManifest(Manifest):
    """Embeddings or scores of the entries of strata or pairs, by a checkpoint.

    Attributes:
        kind: Always "embeddings".
        source: URI of the strata or pairs.
        source_manifest_sha256: Digest of their manifest.
        checkpoint: URI of the checkpoint.
        checkpoint_sha256: Digest of its `meta.json`, which names those of its other files.
        step: Optimisation steps it was trained for.
        evidence: "strip" or "keep", as the texts were made.
        columns: `accession`, `sampling_key`, and what was asked for.
        dim: Width of the embeddings.
        consistency: Protein-text cosines per stratum that has entries, when they were asked for.
        files: One per file of the source that was embedded, under the same path.
    """

    kind: str = "embeddings"
    source: str
    source_manifest_sha256: str
    checkpoint: str
    checkpoint_sha256: str
    step: int
    evidence: Literal["strip", "keep"]
    columns: tuple[str, ...]
    dim: int
    consistency: tuple[ConsistencyCount, ...]
    files: tuple[FileEntry, ...]

    @property
    def rows(self) -> int:
        """Entries embedded."""
        return sum(file.rows for file in self.files)


class PairsManifest(Manifest):
    """Sampled, tokenised, shuffled pairs.

    Attributes:
        kind: Always "pairs".
        source: URI of the strata.
        source_manifest_sha256: Digest of the strata's manifest.
        seed: Seed of selection, split and order.
        evidence: "strip" or "keep".
        max_text_tokens: Most tokens of one property.
        tokenizer: The text tokenizer.
        strata: Counts and rates per (C, R).
        splits: "train", "valid", "test".
        resamples: The training split of each further sample of the same law; epochs take turns with them.
        drawing: How they were drawn.
        excluded: What was left out for the sake of benchmarks, in all samples together.
        summary: What the pairs are like, those of further samples not counted.
    """

    kind: str = "pairs"
    source: str
    source_manifest_sha256: str
    seed: int
    evidence: Literal["strip", "keep"]
    max_text_tokens: int
    tokenizer: TokenizerEntry
    strata: tuple[SampledStratum, ...]
    splits: dict[str, Split]
    resamples: tuple[Split, ...] = ()
    drawing: Drawing = Drawing()
    excluded: Excluded = Excluded()
    summary: Summary | None = None

    @property
    def rows(self) -> int:
        """Pairs of all splits, further samples not counted."""
        return sum(s.rows for s in self.splits.values())

    @property
    def train_samples(self) -> tuple[Split, ...]:
        """The training split of every sample."""
        return self.splits["train"], *self.resamples

    @property
    def all_splits(self) -> dict[str, Split]:
        """The splits by name, and the training splits of further samples."""
        return {**self.splits, **{train_split(n): split for n, split in enumerate(self.resamples, 1)}}


def load_manifest(uri: str) -> StrataManifest | PairsManifest:
    """Reads the manifest of the strata or pairs at `uri`.

    Raises:
        DataError: There is none, or it is that of something else.
    """
    path, raw = _read(uri)
    kind = raw.get("kind") if isinstance(raw, dict) else None
    if kind == "strata":
        return StrataManifest.load(uri)
    if kind == "pairs":
        return PairsManifest.load(uri)
    raise DataError(f"{path}: not of strata or pairs (kind: {kind!r}); give the output of one of these jobs")
