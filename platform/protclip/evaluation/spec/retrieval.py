"""What a benchmark of retrieval among held-out pairs may say."""

from typing import Literal

from pydantic import Field

from protclip.config.base import Config, Count
from protclip.evaluation.spec.base import Benchmark


class HeldOutPairs(Config):
    """Pairs that pre-training did not see."""

    format: Literal["pairs"] = Field(description="pairs written by sample_data")
    split: Literal["valid", "test"] = Field(default="test", description="the held-out split")
    max_pairs: Count = Field(default=10_000, description="most pairs in the pool (they are stored shuffled)")
    max_train_pairs: Count = Field(default=20_000, description="most training pairs a baseline learns from")


class RetrievalSpec(Benchmark[HeldOutPairs]):
    """Text-protein retrieval among held-out pairs."""
