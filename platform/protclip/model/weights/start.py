"""A whole model to start from: one of our checkpoints, an exported model, or the authors' weights."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn

from protclip import checkpoint, storage
from protclip.config.schema import ModelConfig, PretrainConfig
from protclip.errors import CheckpointError, ConfigError, DataError
from protclip.model import adapters
from protclip.model.esm2 import Esm2, Esm2Sizes
from protclip.model.text import BertSizes
from protclip.model.weights import authors
from protclip.model.weights.names import to_fair_esm
from protclip.model.weights.source import check_shapes, explained, some

log = logging.getLogger(__name__)

CONFIG, HEADS, TOWER = "config.json", "protclip.safetensors", "model.safetensors"
TOKENIZER = "tokenizer.json"
PROTEIN, TEXT = "protein", "text"
OURS = "protclip"
"""Model type of an exported model."""
PROTEIN_PARTS, TEXT_PARTS = "protein_encoder.", "text_encoder.bert."
NEEDED = ("protein_encoder.", "text_encoder.", "protein_projection.", "text_projection.")
"""Parts without which a model is none; the others may begin fresh."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """What became of the weights.

    Attributes:
        fresh: Our parameters that the source does not have; they keep their fresh values.
        unused: The source's weights that have no place here, by its own names.
    """

    fresh: tuple[str, ...]
    unused: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Start:
    """A model to start from.

    Attributes:
        uri: Where it is.
        protein: ESM-2's sizes.
        text: BERT's sizes.
        projection_dim: Width of the shared space.
        num_prototypes: Size of PDA's bank.
        weights: Parameters by our names.
        names: Our names to the source's, where they differ.
        fusion_heads: Heads of BSR's cross-attention; None when it has none like ours.
        tokenizer_json: Its text tokenizer, if it is known.
        trained: How it was trained, if that is known.
    """

    uri: str
    protein: Esm2Sizes
    text: BertSizes
    projection_dim: int
    num_prototypes: int
    weights: Mapping[str, Tensor]
    names: Mapping[str, str] = field(default_factory=dict)
    fusion_heads: int | None = None
    tokenizer_json: str | None = None
    trained: PretrainConfig | None = None

    def check(self, config: ModelConfig, vocab_size: int, tokenizer_json: str | None) -> None:
        """Holds a configuration and the pairs' tokenizer against it.

        Raises:
            ConfigError: They do not go together.
        """
        for key in ("projection_dim", "num_prototypes", "fusion_heads"):
            found = getattr(self, key)
            if found is not None and found != getattr(config, key):
                raise ConfigError(
                    f"model.{key}={getattr(config, key)}: {self.uri}, which model.init names, has {found}; "
                    f"set model.{key}={found}"
                )
        if self.text.vocab_size != vocab_size:
            raise ConfigError(
                f"{self.uri}: its vocabulary has {self.text.vocab_size} tokens, the pairs' tokenizer has "
                f"{vocab_size}; sample the pairs with the tokenizer of this model"
            )
        if self.tokenizer_json and tokenizer_json:
            theirs, ours = _pieces(self.tokenizer_json), _pieces(tokenizer_json)
            if other := sorted(piece for piece, i in ours.items() if theirs.get(piece) != i):
                raise ConfigError(
                    f"{self.uri}: its vocabulary is not that of the pairs' tokenizer: {len(other):,} of "
                    f"{len(ours):,} pieces differ, {other[0]!r} for example; sample the pairs with the "
                    "tokenizer of this model"
                )

    def load_into(self, model: nn.Module) -> Transfer:
        """Fills a model of these sizes without adapters, and logs what did not fit by name.

        Raises:
            CheckpointError: A tower or projection is incomplete, or something has another shape.
        """
        expected = model.state_dict()
        fresh = [name for name in expected if name not in self.weights]
        if missing := [name for name in fresh if name.startswith(NEEDED)]:
            raise CheckpointError(
                f"{self.uri}: {len(missing)} of {len(expected)} parameters are missing: {some(missing)}; the "
                "file is incomplete or of another architecture"
            )
        check_shapes(self.uri, self.weights, expected, f"{self.protein}, {self.text}")
        found = {name: tensor for name, tensor in self.weights.items() if name in expected}
        model.load_state_dict(found, strict=False)
        unused = sorted(
            self.names.get(name, name)
            for name in self.weights
            if name not in expected and not name.endswith("inv_freq")
        )
        if unused:
            log.warning("%s: weights without a place here: %s", self.uri, ", ".join(unused))
        if fresh:
            log.warning("%s: it lacks these, which start fresh: %s", self.uri, ", ".join(fresh))
        return Transfer(tuple(fresh), tuple(unused))


def start(uri: str) -> Start:
    """Reads a whole model.

    Args:
        uri: A checkpoint of this platform or a run, whose newest one is taken; an exported model; or a
            directory with the authors' `config.json` and `model.safetensors`.

    Raises:
        ConfigError: There is nothing, or nothing that is known.
        CheckpointError: It is damaged.
    """
    config_uri = storage.join(uri, CONFIG)
    try:
        if not storage.exists(config_uri):
            return _from_checkpoint(uri)
        config = storage.read_json(config_uri)
    except DataError as error:
        raise ConfigError(f"model.init: {error}") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in READERS:
        raise ConfigError(
            f"{uri}: config.json names a model of type {kind!r}, known are {', '.join(READERS)}; an encoder "
            "alone is given as model.protein.source or model.text.source"
        )
    return READERS[kind](uri, config)


def _from_checkpoint(uri: str) -> Start:
    """A checkpoint of ours, its adapters folded in."""
    loaded = checkpoint.load(uri)
    sizes, weights = loaded.architecture, dict(loaded.weights)
    protein = Esm2Sizes(**sizes["protein"])
    if sizes["adapters"]:
        encoder = Esm2(protein)
        adapters.inject(encoder, adapters.Adapters.from_dict(sizes["adapters"]))
        names = [name for name in weights if name.startswith(PROTEIN_PARTS)]
        encoder.load_state_dict({n.removeprefix(PROTEIN_PARTS): weights.pop(n) for n in names})
        adapters.merge(encoder)
        weights |= {PROTEIN_PARTS + name: tensor for name, tensor in encoder.state_dict().items()}
    return _ours(loaded.uri, sizes, weights, loaded.tokenizer_json, loaded.config)


def _from_export(uri: str, config: Mapping[str, Any]) -> Start:
    """A model that `protclip export` wrote."""
    with explained(uri):
        directory = storage.cached_directory(uri)
        protein, text, heads = (
            load_file(directory / name) for name in (f"{PROTEIN}/{TOWER}", f"{TEXT}/{TOWER}", HEADS)
        )
        tokenizer_json = (directory / TOKENIZER).read_text("utf-8")
    weights = {PROTEIN_PARTS + to_fair_esm(name): tensor for name, tensor in protein.items()}
    weights |= {TEXT_PARTS + name: tensor for name, tensor in text.items()}
    try:
        trained = PretrainConfig.model_validate(config["training"])
    except ValidationError as error:
        raise CheckpointError(f"{uri}: {CONFIG} is from another version: {error}") from error
    return _ours(uri, config["architecture"], weights | heads, tokenizer_json, trained)


def _ours(
    uri: str,
    sizes: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    tokenizer_json: str,
    trained: PretrainConfig,
) -> Start:
    """A model of ours from its architecture as plain values."""
    return Start(
        uri=uri,
        protein=Esm2Sizes(**sizes["protein"]),
        text=BertSizes(**sizes["text"]),
        projection_dim=sizes["projection_dim"],
        num_prototypes=sizes["num_prototypes"],
        fusion_heads=sizes["fusion_heads"],
        weights=weights,
        tokenizer_json=tokenizer_json,
        trained=trained,
    )


def _from_authors(uri: str, config: Mapping[str, Any]) -> Start:
    """The authors' published weights."""
    with explained(uri):
        directory = storage.cached_directory(uri, suffixes=(CONFIG, authors.WEIGHTS))
    found = authors.read(directory, uri, config)
    return Start(
        uri=uri,
        protein=found.protein,
        text=found.text,
        projection_dim=found.projection_dim,
        num_prototypes=found.num_prototypes,
        weights=found.weights,
        names=found.names,
    )


def _pieces(tokenizer_json: str) -> dict[str, int]:
    """The vocabulary of a Hugging Face tokenizer."""
    return json.loads(tokenizer_json)["model"]["vocab"]


READERS = {OURS: _from_export, "FST": _from_authors, "protein_text_clip": _from_authors}
"""Model type in `config.json` to what reads it."""
