"""A small model and batches for it."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pytest
import torch

from protclip.config.schema import (
    LossConfig,
    MaskingConfig,
    ModelConfig,
    ProteinEncoderConfig,
    TextEncoderConfig,
)
from protclip.data.collate import Collator, TextTokens
from protclip.model.build import build
from protclip.model.protclip import ProtCLIP
from protclip.records import PAIRS_SCHEMA, PROPERTIES
from protclip.tensors import Batch
from protclip.training import freezing

VOCAB = 60
NUM_PROTOTYPES = 16

MakeBatch = Callable[..., Batch]
MakeModel = Callable[..., ProtCLIP]


@pytest.fixture
def make_batch() -> MakeBatch:
    """Batches of random proteins; each pair's name is longer than its other properties."""

    def make(
        lengths: Sequence[int] = (30, 12, 50),
        absent: Sequence[tuple[int, str]] = ((1, "function"), (1, "similarity"), (2, "subcellular_location")),
        seed: int = 0,
    ) -> Batch:
        rng = np.random.default_rng(seed)
        rows = [
            {
                "accession": f"P{i}",
                "sequence": "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), n)),
                **{
                    str(p): [] if (i, p) in absent else rng.integers(5, VOCAB, 6 - k).tolist()
                    for k, p in enumerate(PROPERTIES)
                },
                "length": n,
                "confidence": 1,
                "coverage": 4,
                "sampling_key": i,
            }
            for i, n in enumerate(lengths)
        ]
        collate = Collator(MaskingConfig(), TextTokens(0, 2, 3), 80, 32, seed=0)
        return collate(pa.Table.from_pylist(rows, schema=PAIRS_SCHEMA), epoch=0)

    return make


@pytest.fixture
def make_model() -> MakeModel:
    """Tiny models with random weights, frozen where they are at the start of training."""

    def make(loss: LossConfig | None = None, *, text_trainable: bool = False, seed: int = 0) -> ProtCLIP:
        config = ModelConfig(
            protein=ProteinEncoderConfig(source="esm2-tiny"),
            text=TextEncoderConfig(source="bert-tiny", trainable=text_trainable),
            projection_dim=24,
            num_prototypes=NUM_PROTOTYPES,
            fusion_heads=4,
        )
        model = build(config, loss or LossConfig(), VOCAB, seed)
        freezing.apply(model, config, step=0)
        return model

    return make


@pytest.fixture
def gumbel() -> Callable[[int], torch.Tensor]:
    """Noise for a number of pairs."""

    def draw(num_pairs: int) -> torch.Tensor:
        uniform = torch.rand(num_pairs, 4, NUM_PROTOTYPES, generator=torch.Generator().manual_seed(3))
        return -torch.log(-torch.log(uniform))

    return draw
