"""What can be configured about reports on what a checkpoint's segments look at."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from protclip.config.base import Config, Count, Uri
from protclip.config.schema import Theta

Criterion = Literal["above", "first", "accuracy", "enrichment"]
"""Measures that have a chance level and of which more is better."""


class EntriesConfig(Config):
    """A checkpoint, the entries it is looked at with, and a place for the report."""

    checkpoint: Uri = Field(description="URI of a checkpoint or of a run, whose newest one is used")
    evidence: Literal["strip", "keep"] | None = Field(
        default=None, description="evidence tags in the texts; null: as in the checkpoint's training pairs"
    )


class SegmentsConfig(EntriesConfig):
    """What a checkpoint's segments look at, held against annotated sites (`protclip segments`)."""

    entries: Uri = Field(description="UniProtKB flat file with FT lines, plain or gzip")
    output: Uri = Field(description="directory for table and picture")
    limit: Count = Field(default=2000, description="most proteins measured, the first with annotated sites")
    accessions: tuple[str, ...] = Field(
        default=(), description="proteins to draw, comma-separated; default three with many kinds of sites"
    )


class ThetaReportConfig(EntriesConfig):
    """How good the alignment is at each threshold θ, by property and family (`protclip theta-report`)."""

    entries: Uri = Field(
        description="UniProtKB flat file, plain or gzip, best not those of training; FT lines "
        "add the overlap with annotated sites"
    )
    output: Uri = Field(description="directory for theta.html, theta.md, theta.json and theta.png")
    thetas: tuple[Theta, ...] = Field(
        default=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        description="thresholds measured, comma-separated; those of training are added",
    )
    criterion: Criterion = Field(
        default="above",
        description="what the best θ is best at: above (share of other proteins' texts that agree less than "
        "its own), first (its own before all of them), accuracy (PDA's task), enrichment (annotated sites)",
    )
    limit: Count = Field(default=2000, description="most proteins measured, drawn from the whole file")
    pool: Annotated[int, Field(ge=2)] = Field(
        default=64,
        description="texts of a property that a protein's own one is held against, itself included",
    )
    min_family: Annotated[int, Field(ge=4)] = Field(
        default=20, description="families of fewer proteins are put together"
    )
    max_families: Count = Field(default=12, description="most families told apart, the largest")
    resamples: Annotated[int, Field(ge=200)] = Field(default=2000, description="bootstrap resamples")
    seed: int = Field(default=0, ge=0, description="seed of the pool, the halves and the resamples")

    @model_validator(mode="after")
    def _something_to_compare(self) -> Self:
        if len(set(self.thetas)) < 2:
            raise ValueError("thetas needs two different thresholds or more; give 0.0,0.3,0.6 for example")
        return self
