"""Making a ProtCLIP: from encoders' sources, from a whole model, or as a checkpoint has it."""

from typing import Any

import torch

from protclip.checkpoint import LoadedCheckpoint
from protclip.config.schema import LossConfig, ModelConfig
from protclip.errors import CheckpointError, ConfigError
from protclip.model import weights
from protclip.model.adapters import Adapters
from protclip.model.esm2 import Esm2Sizes
from protclip.model.protclip import Architecture, ProtCLIP
from protclip.model.text import BertSizes


def build(
    config: ModelConfig, loss: LossConfig, vocab_size: int, seed: int, tokenizer_json: str | None = None
) -> ProtCLIP:
    """The model of a configuration, pre-trained weights loaded, adapters fresh, on the CPU.

    Args:
        config: Encoders and sizes, or a whole model to start from.
        loss: Objectives.
        vocab_size: Vocabulary of the text tokenizer.
        seed: Seed of all random weights; torch's global random state is left as it was.
        tokenizer_json: The text tokenizer; a whole model that has one must have the same pieces.

    Raises:
        ConfigError: A source does not exist, or sizes or vocabularies do not go together.
        CheckpointError: Weights are damaged or of another kind.
    """
    if config.projection_dim % config.fusion_heads:
        raise ConfigError(
            f"model.fusion_heads={config.fusion_heads} does not divide "
            f"model.projection_dim={config.projection_dim}; choose a divisor"
        )
    if config.init:
        whole = weights.start(config.init)
        whole.check(config, vocab_size, tokenizer_json)
        sources, protein, text = None, whole.protein, whole.text
    else:
        whole = None
        sources = (
            weights.protein_encoder(config.protein.source),
            weights.text_encoder(config.text.source, vocab_size),
        )
        protein, text = sources[0].sizes, sources[1].sizes
    _check_limits(config, protein, text)
    architecture = Architecture(
        protein, text, config.projection_dim, config.num_prototypes, config.fusion_heads
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = ProtCLIP(
            architecture,
            loss,
            checkpointing=config.protein.checkpointing,
            text_checkpointing=config.text.checkpointing,
        )
        if whole:
            whole.load_into(model)
            model.limit_scales()
        if sources:
            sources[0].load_into(model.protein_encoder)
            sources[1].load_into(model.text_encoder)
        lora = config.protein.lora
        if lora.rank:
            model.adapt(Adapters(lora.rank, lora.alpha, lora.targets))
    return model


def _check_limits(config: ModelConfig, protein: Esm2Sizes, text: BertSizes) -> None:
    """Refuses more tokens or layers than the encoders have."""
    if config.text.max_tokens > text.max_tokens:
        raise ConfigError(
            f"model.text.max_tokens={config.text.max_tokens}: {config.init or config.text.source} takes at "
            f"most {text.max_tokens} tokens; lower it"
        )
    for name, tower, sizes in (("protein", config.protein, protein), ("text", config.text, text)):
        if tower.train_layers and tower.train_layers > sizes.num_layers:
            raise ConfigError(
                f"model.{name}.train_layers={tower.train_layers}: {config.init or tower.source} has "
                f"{sizes.num_layers} layers; give at most as many, or null to train the embedding as well"
            )


def blank(architecture: dict[str, Any], config: ModelConfig, loss: LossConfig, uri: str) -> ProtCLIP:
    """A model whose weights are still to come from its checkpoint; no encoder's source is read.

    Args:
        architecture: What the checkpoint says of itself.
        config: What the run says now.
        loss: Objectives.
        uri: The checkpoint, for messages.

    Raises:
        CheckpointError: The two disagree, or the checkpoint is from another version.
    """
    try:
        sizes = Architecture.from_dict(architecture)
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{uri}: its architecture is from another version ({error!r})") from error
    lora = config.protein.lora
    wanted = {
        "projection_dim": config.projection_dim,
        "num_prototypes": config.num_prototypes,
        "fusion_heads": config.fusion_heads,
        "adapters": Adapters(lora.rank, lora.alpha, lora.targets) if lora.rank else None,
    }
    for name, value in wanted.items():
        if (there := getattr(sizes, name)) != value:
            raise CheckpointError(
                f"{uri}: it belongs to another model, {name} is {there} there and {value} here; undo that in "
                "the model section or choose another run.name"
            )
    return ProtCLIP(
        sizes,
        loss,
        checkpointing=config.protein.checkpointing,
        text_checkpointing=config.text.checkpointing,
    )


def rebuild(loaded: LoadedCheckpoint) -> ProtCLIP:
    """The model of a checkpoint, low-rank adapters folded into its weights.

    Raises:
        CheckpointError: The weights do not fit the architecture stored beside them.
    """
    try:
        model = ProtCLIP(Architecture.from_dict(loaded.architecture))
        model.load_state_dict(loaded.weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        detail = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{loaded.uri}: the weights belong to a model of another size than its architecture.json "
            f"({detail}); use another checkpoint"
        ) from error
    model.merge_adapters()
    return model
