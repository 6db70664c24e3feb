"""What can be configured about the data jobs: one frozen model per job (see `config.schema`)."""

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from protclip.config.base import Config, Count, Share, TrackingConfig, Uri


class PrepareConfig(Config):
    """UniProtKB files to strata (`protclip prepare`)."""

    inputs: tuple[Uri, ...] = Field(
        min_length=1, description="UniProtKB files (local, s3:// or https://) or directories, comma-separated"
    )
    output: Uri = Field(description="URI of the strata to write")
    format: Literal["auto", "flat", "xml", "tsv", "json", "protanno"] = Field(
        default="auto", description="input format; auto decides per file by name and content"
    )
    release: str | None = Field(
        default=None,
        description="UniProt release of the inputs; default what their download's release.json states",
    )
    missing_confidence: Annotated[int, Field(ge=1, le=5)] | None = Field(
        default=5,
        description="level for entries that state no protein existence; null rejects them",
    )
    max_rejected_share: Share = Field(
        default=0.05,
        description="stop with an error when more than this share of the entries cannot be used; "
        "repeated accessions, of which the first is kept, do not count",
    )
    block_mb: Count | None = Field(
        default=None,
        description="decompressed MB one parser task takes; default 64, with more than 25 GB of input up to "
        "512, which takes about 2 GB of memory per core",
    )
    rows_per_file: Count = Field(
        default=250_000, description="rows of one part of the strata, about; a part has a file per stratum"
    )
    overwrite: bool = Field(default=False, description="replace an output that is already there")
    tracking: TrackingConfig = TrackingConfig()


class ExponentsConfig(Config):
    """Exponents of the sampling factors; an entry's weight is their product, 0 switches a factor off.

    An entry without date, family or score counts as the median of the entries that have one and can
    become pairs.
    """

    confidence: float = Field(default=-3.0, description="exponent of C, 1 best to 5 worst [P]")
    coverage: float = Field(default=0.5, description="exponent of R = properties present / 4 [P]")
    date: float = Field(
        default=0.0,
        description="exponent of 1 / (1 + years since the last annotation); above 0 favours new ones",
    )
    family: float = Field(
        default=0.0,
        description="exponent of the number of entries of the same family (table `clusters`, else similarity "
        "text) that can become pairs; -0.5 or -1 balances",
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
        description="share of the entries whose C is replaced by one of the other four levels at random "
        "before rates are applied (the robustness check); the pairs keep their true C",
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
        "(similarity text), or cluster (the table `clusters`); those without one go by their sequence",
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
    data_root: Uri = Field(default="data/benchmarks", description="URI of the prepared benchmarks")
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
        description="table of accession and cluster (UniRef50): TSV, UniProt's idmapping_selected.tab (both "
        "also .gz) or Parquet; the family factor then counts these clusters",
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
    rows_per_shard: Count = Field(
        default=262_144, description="rows of one output file, about 100 MB; only the last one is smaller"
    )
    row_group_rows: Count = Field(default=8192, description="rows training reads at once, about 3 MB")
    overwrite: bool = Field(default=False, description="replace an output that is already there")
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _has_its_tables(self) -> Self:
        if self.splits.by == "cluster" and self.clusters is None:
            raise ValueError("splits.by=cluster needs a table of clusters; give clusters=URI")
        if self.sampling.exponents.consistency and self.consistency is None:
            raise ValueError(
                "sampling.exponents.consistency needs scores; give consistency=URI, made by protclip embed"
            )
        if self.rows_per_shard % self.row_group_rows and self.rows_per_shard > self.row_group_rows:
            raise ValueError(
                f"rows_per_shard={self.rows_per_shard} is not a multiple of row_group_rows="
                f"{self.row_group_rows}, so that row groups would differ in size; make it one"
            )
        return self


DIVISIONS = (
    *("archaea", "bacteria", "fungi", "human", "invertebrates", "mammals"),
    *("plants", "rodents", "unclassified", "vertebrates", "viruses"),
)
"""UniProt's taxonomic divisions of a section."""


class DownloadConfig(Config):
    """UniProtKB from UniProt to local disk or object storage (`protclip download`)."""

    output: Uri = Field(description="directory or s3:// URI to write the files to")
    release: Annotated[str, Field(pattern=r"^(current|\d{4}_\d{2})$")] = Field(
        default="current", description="UniProt release; one that is not current comes as tarballs"
    )
    sections: tuple[str, ...] = Field(
        default=(),
        description="parts to fetch, comma-separated: sprot, trembl or, of the current release, their "
        "taxonomic divisions like trembl_bacteria",
    )
    query: str | None = Field(
        default=None,
        description="instead of sections: entries this query finds on the UniProt website, for trials",
    )
    limit: Count | None = Field(default=None, description="the most entries to take of what the query finds")
    mirrors: tuple[str, ...] = Field(
        default=("https://ftp.uniprot.org/pub/databases/uniprot",),
        min_length=1,
        description="where the files are, comma-separated; the next one is asked when one fails",
    )
    service: str = Field(default="https://rest.uniprot.org", description="web service that answers queries")
    connections: Count = Field(default=2, description="files fetched at the same time")
    retries: int = Field(default=8, ge=0, description="attempts after a failed one, as long as no byte comes")
    backoff_s: float = Field(
        default=1.0, ge=0, description="seconds before the first of them; doubled each time, up to 60"
    )
    timeout_s: float = Field(default=60.0, gt=0, description="seconds without a byte that count as a failure")

    @model_validator(mode="after")
    def _asks_for_one_thing(self) -> Self:
        if bool(self.sections) == (self.query is not None):
            raise ValueError("give either sections=sprot,trembl,… or query=…")
        if self.query is None and self.limit is not None:
            raise ValueError("limit goes with query; sections are fetched whole")
        if self.query is not None and self.release != "current":
            raise ValueError("a query is answered from the current release only; leave release out")
        return self

    @model_validator(mode="after")
    def _names_sections_once(self) -> Self:
        for section in self.sections:
            whole, _, division = section.partition("_")
            if whole not in {"sprot", "trembl"} or division not in {"", *DIVISIONS}:
                raise ValueError(
                    f"no section {section!r}; there are sprot and trembl, and of each the divisions, like "
                    f"trembl_bacteria: {', '.join(DIVISIONS)}"
                )
            if self.sections.count(section) > 1:
                raise ValueError(f"section {section} is named twice")
            if division and whole in self.sections:
                raise ValueError(f"section {section} is a part of {whole}; name one of the two")
        return self


class StatsConfig(Config):
    """What a data set holds, from its manifest and its files' footers (`protclip stats`)."""

    source: Uri = Field(description="URI of strata or pairs; may be given without its name")
    output: Uri | None = Field(
        default=None,
        description="directory or URI of the report; default outputs/stats/ and the name of the data set",
    )


class SynthesizeConfig(Config):
    """A made sample of UniProtKB with something to learn in it (`protclip synthesize`)."""

    output: Uri = Field(description="directory or URI to write the files to")
    num_reviewed: Count = Field(default=3000, description="entries of the reviewed section (Swiss-Prot)")
    num_unreviewed: Count = Field(default=6000, description="entries of the unreviewed section (TrEMBL)")
    seed: int = Field(default=0, ge=0, description="seed; the same seed writes the same bytes")
