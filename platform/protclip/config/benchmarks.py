"""Configuration of benchmarks: preparing their data, running a suite, comparing results."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from protclip.config.base import Config, Count, TrackingConfig, Uri

Seed = Annotated[int, Field(ge=0)]


class PrepareBenchmarksConfig(Config):
    """Official files of benchmarks to tables (`protclip prepare-benchmarks`)."""

    suite: str | None = Field(
        default=None, description="name of a file in conf/suites, whose benchmarks are taken"
    )
    benchmarks: tuple[str, ...] = Field(
        default=(), description="names of files in conf/benchmarks, comma-separated"
    )
    raw: Uri = Field(description="URI under which the official files lie, or are put by downloading")
    output: Uri = Field(description="URI for the tables, one folder per benchmark")
    download: bool = Field(default=True, description="fetch official files that are not under raw")
    accept_other_versions: bool = Field(
        default=False, description="take official files whose size or checksum is not the published one"
    )
    overwrite: bool = Field(default=False, description="prepare again what is prepared already")

    @model_validator(mode="after")
    def _names_some(self) -> Self:
        if not self.suite and not self.benchmarks:
            raise ValueError("give suite=NAME or benchmarks=A,B")
        return self


class SuiteConfig(Config):
    """Benchmarks to run on a checkpoint (`protclip benchmark`)."""

    benchmarks: tuple[str, ...] = Field(
        min_length=1, description="names of files in conf/benchmarks, comma-separated"
    )
    checkpoint: Uri = Field(description="URI of a checkpoint or of a run, whose newest one is used")
    output: Uri = Field(description="directory for the report")
    data_root: Uri = Field(default="data/benchmarks", description="URI of the prepared benchmarks")
    pairs: Uri | None = Field(
        default=None, description="pairs for held-out retrieval and leaks; default those of the checkpoint"
    )
    seeds: tuple[Seed, ...] = Field(
        default=(0,), min_length=1, description="seeds, comma-separated; results are means over them"
    )
    protocols: tuple[Literal["frozen", "finetune"], ...] = Field(
        default=("frozen",),
        min_length=1,
        description="what is done with the encoder where a benchmark leaves the choice, comma-separated",
    )
    baselines: bool = Field(default=True, description="run what the model is held against, too")
    leaks: bool = Field(default=True, description="look for test proteins among the pre-training pairs")
    results: Uri | None = Field(
        default=None,
        description="URI where finished runs and embeddings are kept and found again, by this or another "
        "suite; default results/ in output",
    )
    resamples: Count = Field(default=1000, description="bootstrap resamples for confidence intervals")
    batch_size: Count = Field(default=64, description="sequences embedded at once")
    cpus_per_run: Annotated[float, Field(gt=0)] = Field(default=1, description="CPUs reserved per run")
    gpus_per_run: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="share of a GPU per run; null: 0.25 if the cluster has any"
    )
    tracking: TrackingConfig = TrackingConfig()


class CompareConfig(Config):
    """Results of several checkpoints side by side (`protclip compare`)."""

    reports: tuple[Uri, ...] = Field(
        min_length=2, description="outputs of protclip benchmark, comma-separated; the first is the reference"
    )
    output: Uri = Field(description="directory for the comparison")
    resamples: Count = Field(default=2000, description="paired bootstrap resamples")
    seed: Seed = Field(default=0, description="seed of the resampling")
    level: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.05, description="significance level, corrected for the number of benchmarks (Holm)"
    )
    tracking: TrackingConfig = TrackingConfig()
