"""The weights that the authors of ProtCLIP published: `model.safetensors` beside `config.json`.

Their model is a transformers one of type FST (or `protein_text_clip`, the one without segments). Names
and shapes were read in their `src/model/pretrain_model.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import BertConfig, EsmConfig

from protclip.errors import CheckpointError
from protclip.model.esm2 import Esm2Sizes
from protclip.model.text import BertSizes
from protclip.model.weights.encoders import esm2_sizes
from protclip.model.weights.names import to_fair_esm
from protclip.model.weights.source import explained

WEIGHTS = "model.safetensors"
NUM_PROTOTYPES = 512

PARTS: dict[str, str] = {
    "protein_model.": "protein_encoder.",
    "text_model.": "text_encoder.bert.",
    "protein_projection.": "protein_projection.",
    "text_projection.": "text_projection.",
    "mlm_head.": "mlm_head.",
    "t2p_mlm_head.": "bsr_head.",
    "proto_bank.prototype.weight": "prototypes.bank_PD",
    "logit_scale": "log_scale",
    "local_logit_scale": "log_pda_scale",
}
"""Beginnings of their parameters' names to those of ours.

Without a place here: the poolers, the contact head and the unused position embedding of transformers'
ESM; BSR's attention (`decoder`), which theirs never trains, of one head and without a residual;
`local_cross_attention` and `predictor`, which their loss does not use; the heads of a variant (`mmp`).
"""


@dataclass(frozen=True, slots=True)
class Published:
    """What is in their directory.

    Attributes:
        protein: ESM-2's sizes.
        text: BERT's sizes.
        projection_dim: Width of the shared space.
        num_prototypes: Size of PDA's bank.
        weights: float32 parameters, by our names where there is one for their part.
        names: Our name to theirs.
    """

    protein: Esm2Sizes
    text: BertSizes
    projection_dim: int
    num_prototypes: int
    weights: Mapping[str, Tensor]
    names: Mapping[str, str]


def read(directory: Path, uri: str, config: Mapping[str, object]) -> Published:
    """Reads their directory.

    Args:
        directory: Local copy.
        uri: What messages call it.
        config: Its `config.json`.

    Raises:
        CheckpointError: Something is missing, damaged, or not an ESM-2 or a BERT.
    """
    path = directory / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"{uri}: {WEIGHTS} is missing; put it beside config.json")
    with explained(uri):
        theirs = load_file(path)
    try:
        protein = EsmConfig.from_dict(_section(config, "protein_model_config"))
        text = BertConfig.from_dict(_section(config, "text_model_config"))
        projection_dim = int(str(config["projection_dim"]))
        num_prototypes = int(str(config.get("proto_num", NUM_PROTOTYPES)))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{uri}: config.json is not that of ProtCLIP's authors: {error}") from error
    names = {_our_name(name): name for name in theirs}
    return Published(
        protein=esm2_sizes(protein, uri),
        text=BertSizes.of(text),
        projection_dim=projection_dim,
        num_prototypes=num_prototypes,
        weights={ours: _as_ours(ours, theirs[name]) for ours, name in names.items()},
        names=names,
    )


def _section(config: Mapping[str, object], key: str) -> dict[str, object]:
    """An encoder's configuration."""
    section = config[key]
    if not isinstance(section, dict):
        raise TypeError(f"{key} is not a section")
    return section


def _our_name(theirs: str) -> str:
    """Our name of a parameter; theirs when none of our parts is meant."""
    for part, ours in PARTS.items():
        if theirs.startswith(part):
            rest = theirs.removeprefix(part)
            return ours + (to_fair_esm(rest) if part == "protein_model." else rest)
    return theirs


def _as_ours(name: str, tensor: Tensor) -> Tensor:
    """float32, temperatures of shape (1,); of the two of their local loss the first is used."""
    tensor = tensor.to(torch.float32)
    return tensor.reshape(-1)[:1] if name in {"log_scale", "log_pda_scale"} else tensor
