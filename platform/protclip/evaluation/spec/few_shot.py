"""What a benchmark of classification by a few examples of each class may say."""

from typing import Generic

from pydantic import Field

from protclip.config.base import Count, Weight
from protclip.evaluation.spec.base import DataT, Positive
from protclip.evaluation.spec.zero_shot import Prompted


class FewShotSpec(Prompted[DataT], Generic[DataT]):
    """One class per sequence, learnt from a few examples of each; defaults are ProtST's protocol."""

    shots: Count = Field(description="training examples of each class, drawn by seed")
    alpha: Weight = Field(default=1.0, description="weight of the zero-shot logits in the ensemble")
    lr: Positive = Field(default=5e-5, description="learning rate of the head")
    batch: Count = Field(default=8, description="examples per update")
    epochs: Count = Field(default=100, description="epochs; the last one is measured")
