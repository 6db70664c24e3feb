"""What a benchmark of semantic similarity may say."""

from typing import Generic, Literal

from pydantic import Field

from protclip.evaluation.spec.base import Benchmark, DataT

SUBSETS = "sparse", "200", "500", "mf", "bp", "cc"
"""Sets of pairs that readers give."""

Subset = Literal["sparse", "200", "500", "mf", "bp", "cc"]


class SimilaritySpec(Benchmark[DataT], Generic[DataT]):
    """Similarity of embeddings against similarity of annotations."""

    kind: Literal["similarity"]
    features: Literal["pooled", "projected"] = Field(
        default="pooled", description="mean of the encoder's residue states, or the projected embedding"
    )
    primary: Subset | None = Field(
        default=None, description="the set of pairs that the primary metric is of; null: mean over all sets"
    )
