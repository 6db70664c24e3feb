"""What a benchmark of labelled sequences may say: one class, several labels, or a number per protein."""

from typing import Generic, Literal

from pydantic import Field

from protclip.config.base import Config, Count, Share
from protclip.evaluation.spec.base import Benchmark, DataT, Positive


class HeadProtocol(Config):
    """How a two-layer head is trained (Linear, ReLU, Linear; Adam without decay, as in ProtST's protocol)."""

    features: Literal["pooled", "projected"] = Field(
        default="pooled", description="mean of the encoder's residue states, or the projected embedding"
    )
    max_residues: Count = Field(default=1022, description="longer sequences are cut")
    window: Literal["start", "random"] = Field(
        default="start",
        description="which part of a longer sequence is used: the first, or one drawn by seed",
    )
    hidden: Count | None = Field(
        default=None, description="width of the hidden layer; null: that of the features"
    )
    lr: Positive = Field(default=1e-3, description="learning rate of the head")
    encoder_lr_factor: Positive = Field(default=0.02, description="factor on lr for the encoder (finetune)")
    batch: Count = Field(default=32, description="sequences per update")
    epochs: Count = Field(default=100, description="most epochs")
    patience: Count = Field(
        default=10, description="epochs without a better validation metric before stopping"
    )


class _Labelled(Benchmark[DataT], Generic[DataT]):
    """Sequences with something to predict."""

    frozen: HeadProtocol = HeadProtocol()
    finetune: HeadProtocol = HeadProtocol(lr=2e-4, batch=8)
    valid_share: Share = Field(
        default=0.1,
        description="share cut from train, by a hash of the sequence, when there is no valid split",
    )


class ClassificationSpec(_Labelled[DataT], Generic[DataT]):
    """One class per sequence, by a head on the protein encoder."""

    kind: Literal["classification"]


class MultilabelSpec(_Labelled[DataT], Generic[DataT]):
    """Any number of labels per sequence, by a head on the protein encoder."""

    kind: Literal["multilabel"]
    identity: Count | None = Field(
        default=None,
        description="only test proteins under this identity to training, in percent; null: all of them",
    )


class RegressionSpec(_Labelled[DataT], Generic[DataT]):
    """A number per sequence, by a head on the protein encoder."""

    kind: Literal["regression"]
