"""What a benchmark of cross-modal transformation may say: from a node of one type to its tails of another."""

from typing import Generic, Literal, Self

from pydantic import Field, model_validator

from protclip.config.base import Config, Count, Share, Weight
from protclip.evaluation.spec.base import Benchmark, DataT, Positive


class Question(Config):
    """What is asked: the tails of a head, one relation at a time."""

    head: str = Field(description="type of the nodes that are given")
    tail: str = Field(description="type of the nodes that are looked for")
    relations: tuple[str, ...] = Field(min_length=1, description="relations, each ranked by itself")


class BridgeProtocol(Config):
    """How the bridge is built and trained; the defaults are those of BioBridge's repository."""

    proteins: Literal["features", "projected"] = Field(
        default="features", description="mean of the encoder's residue states, or the projected embedding"
    )
    texts: Literal["text_features", "texts"] = Field(
        default="text_features",
        description="for nodes that come without a vector: mean of the text encoder's token states, or the "
        "projected embedding",
    )
    max_residues: Count = Field(default=1022, description="longer sequences are cut")
    standardise: bool = Field(
        default=False, description="vectors of each type to mean 0 and deviation 1, by what is trained on"
    )
    split_seed: int = Field(default=42, ge=0, description="decides which heads are held out")
    test_share: Share = Field(default=0.1, description="share of the heads of each type that is held out")
    train_on: Literal["all", "own"] = Field(
        default="all", description="triples of all types and relations, or those of the question alone"
    )
    drop_swapped: bool = Field(
        default=False,
        description="leave training triples out whose tail is a held-out head: each edge stands twice",
    )
    frequent: Count = Field(default=50, description="fewest links of a tail in the *_frequent metrics")
    width: Count = Field(default=768, description="width of the bridge")
    layers: Count = Field(default=6, description="layers of the bridge")
    heads: Count = Field(default=12, description="attention heads of the bridge")
    feedforward: Count = Field(default=2048, description="width of its feed-forward blocks")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="dropout in the bridge")
    temperature: Positive = Field(default=0.1, description="temperature of InfoNCE")
    negatives: Count = Field(default=5, description="wrong tails beside each right one")
    lr: Positive = Field(default=1.6e-3, description="highest learning rate of AdamW")
    weight_decay: Weight = Field(default=1e-4, description="of matrices")
    warmup: Share = Field(default=0.1, description="share of the updates over which the rate rises")
    clip_norm: Positive = Field(default=1.0, description="largest norm of the gradient")
    batch: Count = Field(default=4096, description="triples per update")
    epochs: Count = Field(default=10, description="epochs; the last one counts, there is no validation part")

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}; change one of them")
        return self


class TransformationSpec(Benchmark[DataT], Generic[DataT]):
    """Retrieval of tails by a bridge between frozen vectors of two modalities."""

    kind: Literal["transformation"]
    question: Question
    protocol: BridgeProtocol = BridgeProtocol()
