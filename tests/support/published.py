"""The authors' published directory at tiny sizes: names and shapes of their pre-training model.

Read in their src/model/pretrain_model.py, model/bank.py and model/attention.py, and in
checkpoint/config.json: the shipped one has mmp=0, t2p_mlm=1, local_contrast=1 and float16 weights.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel, EsmConfig, EsmModel

DIM, PROTOTYPES = 16, 6


def towers(vocab_size: int = 50) -> tuple[EsmModel, BertModel]:
    """Random encoders, with the poolers that `AutoModel` gives them."""
    torch.manual_seed(3)
    esm = EsmConfig(
        vocab_size=33,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        position_embedding_type="rotary",
        token_dropout=True,
        emb_layer_norm_before=False,
        layer_norm_eps=1e-5,
        pad_token_id=1,
        mask_token_id=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    bert = BertConfig(
        vocab_size=vocab_size,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
    )
    return EsmModel(esm).eval(), BertModel(bert).eval()


def head(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.LayerNorm(hidden), nn.Linear(hidden, out))


def projection(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, DIM), nn.ReLU(), nn.Linear(DIM, DIM))


def weights(esm: EsmModel, bert: BertModel) -> dict[str, Tensor]:
    """The state of their `FSTForPretrain`, by their names."""
    parts: dict[str, nn.Module] = {
        "protein_model": esm,
        "text_model": bert,
        "protein_projection": projection(32),
        "text_projection": projection(24),
        "mlm_head": head(32, DIM, 33),
        "proto_bank.prototype": nn.Embedding(PROTOTYPES, DIM),
        "t2p_mlm_head": head(DIM, DIM, 33),
        **{f"decoder.{name}": nn.Linear(DIM, DIM) for name in ("query", "key", "value")},
        **{
            f"local_cross_attention.{name}{i}": nn.Linear(DIM, DIM)
            for name in ("query", "key", "value")
            for i in (1, 2)
        },
        "predictor": nn.Sequential(nn.Linear(DIM, DIM // 2), nn.ReLU(), nn.Linear(DIM // 2, DIM)),
    }
    found = {f"{part}.{name}": t for part, module in parts.items() for name, t in module.state_dict().items()}
    # transformers 4.35 kept rotary frequencies in every layer, and an embedding that it never used.
    found.pop("protein_model.rotary_embeddings.inv_freq", None)
    for layer in range(2):
        found[f"protein_model.encoder.layer.{layer}.attention.self.rotary_embeddings.inv_freq"] = torch.ones(
            4
        )
    found["protein_model.embeddings.position_embeddings.weight"] = torch.randn(1026, 32)
    found["logit_scale"] = torch.tensor(3.5)
    found["local_logit_scale"] = torch.tensor([2.0, 9.0])
    return found


UNUSED = {
    "protein_model.embeddings.position_embeddings.weight",
    *(
        f"{model}.pooler.dense.{kind}"
        for model in ("protein_model", "text_model")
        for kind in ("weight", "bias")
    ),
    *(f"protein_model.contact_head.regression.{kind}" for kind in ("weight", "bias")),
    *(f"decoder.{name}.{kind}" for name in ("query", "key", "value") for kind in ("weight", "bias")),
    *(
        f"local_cross_attention.{name}{i}.{kind}"
        for name in ("query", "key", "value")
        for i in (1, 2)
        for kind in ("weight", "bias")
    ),
    *(f"predictor.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")),
}
"""Theirs without a place in our model."""


def write(directory: Path, vocab_size: int = 50) -> Iterator[nn.Module]:
    """Writes `model.safetensors`, in float16 as theirs, and `config.json`; gives the two towers."""
    esm, bert = towers(vocab_size)
    for module in (esm, bert):
        module.half().float()
    directory.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.half().contiguous() for name, tensor in weights(esm, bert).items()}
    save_file(state, directory / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["FSTForPretrain"],
        "fusion_num_heads": 8,
        "local_contrast": 1,
        "mmp": 0,
        "model_type": "FST",
        "projection_dim": DIM,
        "protein_model_config": esm.config.to_dict(),
        "proto_dim": DIM,
        "proto_num": PROTOTYPES,
        "t2p_mlm": 1,
        "text_model_config": bert.config.to_dict(),
        "torch_dtype": "float16",
    }
    (directory / "config.json").write_text(json.dumps(config))
    return iter((esm, bert))
