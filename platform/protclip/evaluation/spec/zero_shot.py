"""What a benchmark of classification by prompts alone may say."""

from typing import Annotated, Generic

from pydantic import Field

from protclip.config.base import Count
from protclip.evaluation.spec.base import Benchmark, DataT

Prompts = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]


class Prompted(Benchmark[DataT], Generic[DataT]):
    """Classes that are described by texts."""

    prompts: dict[str, Prompts] = Field(
        min_length=2,
        description="texts that describe each class, by its label; embeddings of several are averaged",
    )
    max_residues: Count = Field(default=1022, description="longer sequences are cut")


class ZeroShotSpec(Prompted[DataT], Generic[DataT]):
    """One class per sequence, the one whose prompts lie nearest; nothing is trained."""
