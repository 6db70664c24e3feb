"""Models of the smallest size and the plainest of training, for tests that look at parameters."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from protclip.config.schema import LossConfig, ModelConfig, PdaConfig
from protclip.model.build import build
from protclip.model.protclip import ProtCLIP
from protclip.tensors import CLS, EOS

GC_ONLY = LossConfig(gc=1, bsr=0, mlm=0, pda=PdaConfig(weight=0))
VOCAB = 40


def model_config(
    protein: dict[str, object] | None = None, text: dict[str, object] | None = None
) -> ModelConfig:
    """Two layers in each tower, both trained unless told otherwise."""
    return ModelConfig.model_validate(
        {
            "protein": {"source": "esm2-tiny"} | (protein or {}),
            "text": {"source": "bert-tiny", "trainable": True} | (text or {}),
            "projection_dim": 16,
            "num_prototypes": 8,
            "fusion_heads": 2,
        }
    )


def tiny_model(config: ModelConfig, loss: LossConfig = GC_ONLY) -> ProtCLIP:
    """The model of a configuration, always with the same weights."""
    return build(config, loss, VOCAB, seed=0)


def tiny_loss(model: ProtCLIP) -> Tensor:
    """How badly the embeddings of four fixed proteins and texts match."""
    generator = torch.Generator().manual_seed(0)
    tokens_BL = torch.randint(4, 24, (4, 12), generator=generator)
    tokens_BL[:, 0], tokens_BL[:, -1] = CLS, EOS
    text_BT = torch.randint(5, VOCAB, (4, 7), generator=generator)
    protein_BD = model.embed_protein(tokens_BL)
    text_BD = model.embed_text(text_BT, torch.ones_like(text_BT, dtype=torch.bool))
    return cross_entropy(model.scale() * protein_BD @ text_BD.T, torch.arange(4))
