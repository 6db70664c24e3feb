"""Encoders of their own: presets, fair-esm files, Hugging Face models."""

import argparse
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import Tensor
from transformers import BertConfig, BertModel, EsmConfig, EsmModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from protclip import storage
from protclip.errors import CheckpointError, ConfigError, DataError
from protclip.model.esm2 import PRESETS as PROTEIN_PRESETS
from protclip.model.esm2 import Esm2Sizes
from protclip.model.text import PRESETS as TEXT_PRESETS
from protclip.model.text import BertSizes
from protclip.model.weights.names import to_fair_esm
from protclip.model.weights.source import EncoderSource, explained, log_unused
from protclip.tensors import MASK, PAD, VOCAB_SIZE

log = logging.getLogger(__name__)

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
READABLE = (".json", ".txt", ".safetensors", ".bin")

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
    directory = _directory(source, tuple(PROTEIN_PRESETS))
    config, weights = _read_hugging_face(source, directory, EsmConfig, EsmModel)
    renamed = {to_fair_esm(name): weight for name, weight in weights.items()}
    return EncoderSource(source, esm2_sizes(config, source), renamed)


def text_encoder(source: str, vocab_size: int) -> EncoderSource[BertSizes]:
    """The biotext tower a source means, for a tokenizer's vocabulary.

    Raises:
        ConfigError: There is no such source, or its vocabulary has another size.
        CheckpointError: It is damaged or not a BERT.
    """
    if source in TEXT_PRESETS:
        _say_random(source)
        return EncoderSource(source, replace(TEXT_PRESETS[source], vocab_size=vocab_size))
    directory = _directory(source, tuple(TEXT_PRESETS))
    config, weights = _read_hugging_face(source, directory, BertConfig, BertModel)
    if config.vocab_size != vocab_size:
        raise ConfigError(
            f"{source}: its vocabulary has {config.vocab_size} tokens, the pairs' tokenizer has "
            f"{vocab_size}; sample the pairs with tokenizer={source}"
        )
    return EncoderSource(source, BertSizes.of(config), {f"bert.{name}": w for name, w in weights.items()})


def esm2_sizes(config: EsmConfig, source: str) -> Esm2Sizes:
    """The sizes in a Hugging Face configuration.

    Raises:
        CheckpointError: It is not an ESM-2's.
    """
    for key, needed in ESM2_REQUIRES.items():
        if (found := getattr(config, key)) != needed:
            raise CheckpointError(f"{source}: not an ESM-2: {key} is {found!r}, needed is {needed!r}")
    return Esm2Sizes(config.num_hidden_layers, config.hidden_size, config.num_attention_heads)


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
    with explained(source):
        path = storage.cached(source)
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
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


def _directory(source: str, presets: tuple[str, ...]) -> Path:
    """The local folder of a Hugging Face directory or hub name."""
    with explained(source):
        if not storage.is_local(source) or Path(source.removeprefix("file://")).expanduser().is_dir():
            return storage.cached_directory(source, suffixes=READABLE)
        if not HUB_NAME.fullmatch(source):
            raise ConfigError(f"{source}: no such file or directory; presets are {', '.join(presets)}")
        try:
            return storage.hub_directory(source)
        except DataError as error:
            raise ConfigError(
                f"{error}. It is no preset ({', '.join(presets)}) and no directory here. Without access to "
                f"the hub, run `hf download {source} --local-dir DIR` elsewhere, bring DIR here and give its "
                "path as the source"
            ) from error


ConfigT = TypeVar("ConfigT", bound=PreTrainedConfig)


def _read_hugging_face(
    source: str, directory: Path, config_class: type[ConfigT], model_class: type[PreTrainedModel]
) -> tuple[ConfigT, dict[str, Tensor]]:
    """Configuration and float32 parameters, read by transformers, which knows all layouts there were."""
    with explained(source):
        settings, _ = config_class.get_config_dict(str(directory))
    if settings.get("model_type") != config_class.model_type:
        raise CheckpointError(
            f"{source}: not a {config_class.model_type} model: config.json is missing or has model_type "
            f"{settings.get('model_type')!r}"
        )
    config = config_class.from_dict(settings)
    with explained(source), _quiet_transformers():
        model, report = cast(
            "tuple[PreTrainedModel, dict[str, set]]",
            model_class.from_pretrained(
                directory,
                config=config,
                add_pooling_layer=False,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            ),
        )
    log_unused(source, report["unexpected_keys"])
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
