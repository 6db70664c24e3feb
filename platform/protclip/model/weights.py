"""Where an encoder's architecture and weights come from.

A source is one of

- a preset name: the architecture with random weights (all presets; nothing is downloaded for them),
- a fair-esm `.pt` file, local or s3:// (protein only),
- a Hugging Face directory (`config.json`, `model.safetensors`), local or s3://,
- a Hugging Face hub name, `facebook/esm2_t33_650M_UR50D`.

No pickle is ever executed: `.pt` files load through torch's weights-only reader.
"""

import argparse
import logging
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import BertConfig, BertModel, EsmConfig, EsmModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from protclip import storage
from protclip.errors import CheckpointError, ConfigError, DataError
from protclip.model.esm2 import PRESETS as PROTEIN_PRESETS
from protclip.model.esm2 import Esm2Sizes
from protclip.model.text import PRESETS as TEXT_PRESETS
from protclip.model.text import BertSizes
from protclip.tensors import MASK, PAD, VOCAB_SIZE

log = logging.getLogger(__name__)

Sizes = TypeVar("Sizes")

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
NAMES_SHOWN = 4

ESM2_REQUIRES: dict[str, object] = {
    "position_embedding_type": "rotary",
    "token_dropout": True,
    "emb_layer_norm_before": False,
    "layer_norm_eps": 1e-5,
    "vocab_size": VOCAB_SIZE,
    "pad_token_id": PAD,
    "mask_token_id": MASK,
}
"""Entries of a Hugging Face configuration without which a model of type esm is not an ESM-2."""

FROM_HUGGING_FACE: tuple[tuple[str, str], ...] = (
    ("embeddings.word_embeddings.", "embed_tokens."),
    ("encoder.emb_layer_norm_after.", "emb_layer_norm_after."),
    ("encoder.layer.", "layers."),
    (".attention.self.query.", ".self_attn.q_proj."),
    (".attention.self.key.", ".self_attn.k_proj."),
    (".attention.self.value.", ".self_attn.v_proj."),
    (".attention.output.dense.", ".self_attn.out_proj."),
    (".attention.LayerNorm.", ".self_attn_layer_norm."),
    (".intermediate.dense.", ".fc1."),
    (".output.dense.", ".fc2."),
    (".LayerNorm.", ".final_layer_norm."),
)
"""Replacements, in this order, that turn `EsmModel`'s parameter names into fair-esm's."""


@dataclass(frozen=True, slots=True)
class EncoderSource(Generic[Sizes]):
    """An encoder to be built.

    Attributes:
        name: The source as configured.
        sizes: Its architecture.
        weights: Its parameters by our names; None for random ones.
    """

    name: str
    sizes: Sizes
    weights: dict[str, Tensor] | None = None

    def load_into(self, encoder: nn.Module) -> None:
        """Fills an encoder of these sizes; leaves it as it is when the weights are random.

        Weights without a place are logged by name.

        Raises:
            CheckpointError: Parameters are missing or have another shape.
        """
        if self.weights is None:
            return
        expected = encoder.state_dict()
        missing = [name for name in expected if name not in self.weights]
        if missing:
            raise CheckpointError(
                f"{self.name}: {len(missing)} of {len(expected)} parameters of {self.sizes} are missing: "
                f"{_some(missing)}; the file is incomplete or of another architecture"
            )
        wrong = [
            f"{name} is {_shape(self.weights[name].shape)}, expected {_shape(tensor.shape)}"
            for name, tensor in expected.items()
            if self.weights[name].shape != tensor.shape
        ]
        if wrong:
            raise CheckpointError(
                f"{self.name}: {len(wrong)} of {len(expected)} parameters do not have the shape they have in "
                f"{self.sizes}: {_some(wrong)}"
            )
        _log_unused(self.name, set(self.weights) - set(expected))
        encoder.load_state_dict({name: self.weights[name] for name in expected})


def protein_encoder(source: str) -> EncoderSource[Esm2Sizes]:
    """The protein tower a source means.

    Raises:
        ConfigError: There is no such source.
        CheckpointError: It is damaged, unsafe, or not an ESM-2.
    """
    if source in PROTEIN_PRESETS:
        _say_random(source)
        return EncoderSource(source, PROTEIN_PRESETS[source])
    if source.endswith(".pt"):
        return _from_fair_esm(source)
    config, weights = _from_hugging_face(source, EsmConfig, EsmModel, tuple(PROTEIN_PRESETS))
    for key, needed in ESM2_REQUIRES.items():
        if (found := getattr(config, key)) != needed:
            raise CheckpointError(f"{source}: not an ESM-2: {key} is {found!r}, needed is {needed!r}")
    sizes = Esm2Sizes(config.num_hidden_layers, config.hidden_size, config.num_attention_heads)
    return EncoderSource(source, sizes, {_fair_esm_name(name): w for name, w in weights.items()})


def text_encoder(source: str, vocab_size: int) -> EncoderSource[BertSizes]:
    """The biotext tower a source means, for a tokenizer's vocabulary.

    Raises:
        ConfigError: There is no such source, or it has another vocabulary.
        CheckpointError: It is damaged or not a BERT.
    """
    if source in TEXT_PRESETS:
        _say_random(source)
        return EncoderSource(source, replace(TEXT_PRESETS[source], vocab_size=vocab_size))
    config, weights = _from_hugging_face(source, BertConfig, BertModel, tuple(TEXT_PRESETS))
    if config.vocab_size != vocab_size:
        raise ConfigError(
            f"{source}: its vocabulary has {config.vocab_size} tokens, the pairs' tokenizer has "
            f"{vocab_size}; sample the pairs with tokenizer={source}"
        )
    return EncoderSource(source, BertSizes.of(config), {f"bert.{name}": w for name, w in weights.items()})


def _say_random(source: str) -> None:
    """A preset that bears the name of a published model is no such model, and the log says so."""
    if source.endswith("-tiny"):
        log.info("%s: random weights", source)
    else:
        log.warning(
            "%s: this name means the architecture with RANDOM weights; for the pre-trained ones give a "
            "fair-esm .pt file, a Hugging Face directory, or the hub name facebook/%s",
            source,
            source,
        )


def _from_fair_esm(source: str) -> EncoderSource[Esm2Sizes]:
    """Reads a file of fair-esm's layout, `{"cfg": {"model": Namespace}, "model": {name: tensor}}`."""
    with _explained(source), storage.open_input(source) as file:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(file, map_location="cpu", weights_only=True)
    try:
        settings, raw = content["cfg"]["model"], content["model"]
        sizes = Esm2Sizes(
            settings.encoder_layers, settings.encoder_embed_dim, settings.encoder_attention_heads
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{source}: not a fair-esm ESM-2 file ({error} is missing); give one of the esm2_*.pt files"
        ) from error
    names = (name.removeprefix("encoder.").removeprefix("sentence_encoder.") for name in raw)
    return EncoderSource(source, sizes, dict(zip(names, raw.values(), strict=True)))


ConfigT = TypeVar("ConfigT", bound=PreTrainedConfig)


def _from_hugging_face(
    source: str, config_class: type[ConfigT], model_class: type[PreTrainedModel], presets: tuple[str, ...]
) -> tuple[ConfigT, dict[str, Tensor]]:
    """Configuration and float32 parameters of a directory or a hub name."""
    local = storage.is_local(source)
    if not local or Path(source.removeprefix("file://")).expanduser().is_dir():
        with _explained(source), storage.local_directory(source) as directory:
            return _read_hugging_face(source, str(directory), config_class, model_class)
    if not HUB_NAME.fullmatch(source):
        raise ConfigError(f"{source}: no such file or directory; presets are {', '.join(presets)}")
    with _explained(source):
        try:
            return _read_hugging_face(source, source, config_class, model_class)
        except OSError as error:
            raise ConfigError(
                f"{source}: not a preset ({', '.join(presets)}), no directory here, and not to be had from "
                f"the Hugging Face hub ({_first_line(error)}). Without access to the hub, run `hf download "
                f"{source} --local-dir DIR` elsewhere, bring DIR here and give its path as the source"
            ) from error


def _read_hugging_face(
    source: str, place: str, config_class: type[ConfigT], model_class: type[PreTrainedModel]
) -> tuple[ConfigT, dict[str, Tensor]]:
    """Reads through transformers, which knows sharded, prefixed and legacy layouts."""
    settings, _ = config_class.get_config_dict(place)
    if settings.get("model_type") != config_class.model_type:
        raise CheckpointError(
            f"{source}: not a {config_class.model_type} model: config.json is missing or has model_type "
            f"{settings.get('model_type')!r}"
        )
    config = config_class.from_dict(settings)
    with _quiet_transformers():
        model, report = cast(
            "tuple[PreTrainedModel, dict[str, set]]",
            model_class.from_pretrained(
                place,
                config=config,
                add_pooling_layer=False,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            ),
        )
    _log_unused(source, report["unexpected_keys"])
    weights = {name: w for name, w in model.state_dict().items() if name not in report["missing_keys"]}
    # The file's shape stands in for a tensor that did not fit, for `load_into` to report.
    weights |= {n: torch.empty(found, device="meta") for n, found, _ in report["mismatched_keys"]}
    return config, weights


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Holds back transformers' loading table; what it says is checked and logged here."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def _fair_esm_name(name: str) -> str:
    """An `EsmModel` parameter's name in fair-esm."""
    for theirs, ours in FROM_HUGGING_FACE:
        name = name.replace(theirs, ours)
    return name


@contextmanager
def _explained(source: str) -> Iterator[None]:
    """Turns what readers raise on a damaged or unsafe source into one message."""
    try:
        yield
    except DataError as error:
        raise ConfigError(str(error)) from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{source}: refused, because reading it would run code or it is no PyTorch file; "
            "give the publisher's own file or a safetensors directory"
        ) from error
    except (OSError, EOFError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{source}: cannot be read as encoder weights: {_first_line(error)}") from error


def _log_unused(source: str, names: set[str]) -> None:
    """Names weights that nothing here takes, such as language-model and contact heads."""
    if unused := sorted(name for name in names if not name.endswith("inv_freq")):
        log.info("%s: weights without a place here: %s", source, ", ".join(unused))


def _first_line(error: Exception) -> str:
    """The first line of an error's text, or its class name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _shape(shape: torch.Size) -> str:
    """A shape as 33×320."""
    return "×".join(map(str, shape))


def _some(names: list[str]) -> str:
    """The first few names."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
