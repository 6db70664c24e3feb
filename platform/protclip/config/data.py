"""What can be configured about the data jobs: one frozen model per job (see `config.schema`)."""

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from protclip.config.base import Config, Count, Share, TrackingConfig, Uri


class PrepareConfig(Config):
    """UniProtKB files to strata (`protclip prepare`)."""

    inputs: tuple[Uri, ...] = Field(
        min_length=1, description="UniProtKB files or directories, local or s3://, comma-separated"
    )
    output: Uri = Field(description="URI of the strata to write")
    format: Literal["auto", "flat", "xml", "tsv", "json", "protanno"] = Field(
        default="auto", description="input format; auto decides per file by name and content"
    )
    release: str | None = Field(default=None, description="UniProt release the inputs belong to")
    missing_confidence: Annotated[int, Field(ge=1, le=5)] | None = Field(
        default=5,
        description="level for entries that state no protein existence; null rejects them",
    )
    max_rejected_share: Share = Field(
        default=0.05,
        description="stop with an error when more than this share of the entries cannot be used; "
        "repeated accessions, of which the first is kept, do not count",
    )
    block_mb: Count = Field(
        default=64, description="decompressed MB one parser task takes; 512 for all of TrEMBL"
    )
    rows_per_file: Count = Field(
        default=500_000, description="rows of one part of the strata, about; a part has a file per stratum"
    )
    overwrite: bool = Field(default=False, description="replace an output that is already there")
    tracking: TrackingConfig = TrackingConfig()


class ExponentsConfig(Config):
    """Exponents of the sampling factors; an entry's weight is their product, 0 switches a factor off."""

    confidence: float = Field(default=-3.0, description="exponent of C, 1 best to 5 worst [P]")
    coverage: float = Field(default=0.5, description="exponent of R = properties present / 4 [P]")
    date: float = Field(
        default=0.0, description="exponent of 1 / (1 + years since the last annotation); above 0 favours new"
    )
    family: float = Field(
        default=0.0,
        description="exponent of the number of eligible entries of the same family; -0.5 or -1 balances",
    )
    length: float = Field(default=0.0, description="exponent of residues / 350; above 0 favours long")
    consistency: float = Field(
        default=0.0,
        description="exponent of (1 + cosine of protein and text) / 2 in the table `consistency`",
    )


class SamplingConfig(Config):
    """Which entries become pairs; the defaults are the paper's."""

    exponents: ExponentsConfig = ExponentsConfig()
    max_confidence: Annotated[int, Field(ge=1, le=5)] = Field(
        default=3, description="strata with a worse (higher) C are discarded [P]"
    )
    min_coverage: Annotated[int, Field(ge=1, le=4)] = Field(
        default=3, description="strata with fewer properties are discarded [P]"
    )
    keep_reviewed: bool = Field(
        default=True, description="keep every Swiss-Prot entry, sample TrEMBL [R]; false samples both"
    )
    corrupt_confidence: Share = Field(
        default=0.0,
        description="share of the entries whose C is replaced by another level at random before the rates "
        "are applied (the robustness check)",
    )
    epochs: Count = Field(
        default=1,
        description="samples of the same law to draw; training epoch e uses sample e modulo this number",
    )
    dated: date | None = Field(
        default=None, description="day from which annotation ages count; default the newest in the strata"
    )


class SplitsConfig(Config):
    """What is held out, and what must not stand on both sides."""

    by: Literal["accession", "sequence", "family", "cluster"] = Field(
        default="accession",
        description="entries that share this go to the same split: accession, identical sequence, family "
        "(similarity text), or cluster (the table `clusters`)",
    )
    valid_share: Share = Field(default=0.05, description="share held out for validation")
    test_share: Share = Field(default=0.05, description="share held out for benchmarks")

    @model_validator(mode="after")
    def _leaves_training_data(self) -> Self:
        if self.valid_share + self.test_share >= 1:
            raise ValueError("valid_share + test_share leave nothing to train on; keep their sum under 1")
        return self


class ExcludeConfig(Config):
    """Benchmarks whose test sequences must not be trained on."""

    benchmarks: tuple[str, ...] = Field(
        default=(),
        description="names of files in conf/benchmarks, comma-separated; entries with the sequence of one of "
        "their test examples are left out of every split",
    )
    data_root: Uri = Field(default="data/benchmarks", description="URI under which benchmark data lies")
    enabled: bool = Field(default=True, description="false keeps these entries in spite of the benchmarks")


class SampleConfig(Config):
    """Strata to shuffled, tokenised pairs by property-driven sampling (`protclip sample`)."""

    source: Uri = Field(description="URI of the strata")
    output: Uri = Field(description="URI of the pairs to write")
    seed: int = Field(default=0, ge=0, description="seed of selection, split and order")
    target_pairs: Count | None = Field(
        default=None, description="expected number of pairs; scales all rates, null keeps them as they are"
    )
    sampling: SamplingConfig = SamplingConfig()
    splits: SplitsConfig = SplitsConfig()
    exclude: ExcludeConfig = ExcludeConfig()
    clusters: Uri | None = Field(
        default=None,
        description="table of accession and cluster (UniRef50): TSV, UniProt's idmapping_selected.tab (both also .gz) "
        "or Parquet; families then are these clusters",
    )
    consistency: Uri | None = Field(
        default=None, description="scores written by `protclip embed`, joined by accession"
    )
    evidence: Literal["strip", "keep"] = Field(
        default="strip", description="evidence tags and PubMed references in the texts"
    )
    tokenizer: str = Field(
        default="builtin",
        description="text tokenizer: builtin, a directory with tokenizer.json or vocab.txt, or a hub name",
    )
    max_text_tokens: Count = Field(default=510, description="most tokens kept of one property text")
    rows_per_shard: Count = Field(default=200_000, description="rows of one output file")
    row_group_rows: Count = Field(default=1024, description="rows training reads at once")
    overwrite: bool = Field(default=False, description="replace an output that is already there")
    tracking: TrackingConfig = TrackingConfig()


class SynthesizeConfig(Config):
    """A made sample of UniProtKB with something to learn in it (`protclip synthesize`)."""

    output: Uri = Field(description="directory or URI to write the files to")
    num_reviewed: Count = Field(default=3000, description="entries of the reviewed section (Swiss-Prot)")
    num_unreviewed: Count = Field(default=6000, description="entries of the unreviewed section (TrEMBL)")
    seed: int = Field(default=0, ge=0, description="seed; the same seed writes the same bytes")
