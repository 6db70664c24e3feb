"""A model from elsewhere as a checkpoint of ours, ready to be evaluated, embedded with, or trained on."""

import math

import torch

from protclip import storage
from protclip.config.export import ImportConfig
from protclip.config.schema import (
    LossConfig,
    ModelConfig,
    PretrainConfig,
    ProteinEncoderConfig,
    RunConfig,
    TextEncoderConfig,
)
from protclip.data.tokenizer import TextTokenizer
from protclip.errors import DataError
from protclip.model.protclip import Architecture, ProtCLIP
from protclip.model.weights import Start, start
from protclip.training.replica import Replica
from protclip.training.state import TrainState
from protclip.training.store import CheckpointStore

UNKNOWN_PAIRS = "pairs-of-this-model-are-unknown"


def import_model(config: ImportConfig) -> dict[str, object]:
    """Writes the authors' published weights, or an exported model, as a checkpoint at step 0.

    Returns:
        The checkpoint's run directory; by name the parameters that the source lacks, which are fresh, and
        its weights that have no place here.

    Raises:
        ConfigError: There is no such model or tokenizer, or they do not go together.
        CheckpointError: The weights are damaged or of another kind.
        DataError: The output is there already, or cannot be written.
    """
    if storage.exists(config.output) and storage.list_files(config.output):
        raise DataError(f"{config.output}: something is there already; choose another output")
    source = start(config.checkpoint)
    tokenizer = (
        TextTokenizer.from_json(source.tokenizer_json)
        if source.tokenizer_json
        else TextTokenizer.load(config.tokenizer)
    )
    trained = _trained(config, source)
    source.check(trained.model, tokenizer.vocab_size, tokenizer.to_json())
    architecture = Architecture(
        source.protein,
        source.text,
        source.projection_dim,
        source.num_prototypes,
        trained.model.fusion_heads,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(trained.train.seed)
        model = ProtCLIP(architecture, trained.loss)
    transfer = source.load_into(model)
    state = TrainState.create(Replica(model, trained, torch.device("cpu")), trained)
    with CheckpointStore(config.output, keep_last=1, keep_best=0, best_metric="") as store:
        store.save(state, trained, tokenizer.to_json(), "", None, {})
    return {
        "checkpoint": config.output,
        "source": config.checkpoint,
        "fresh": list(transfer.fresh),
        "unused": list(transfer.unused),
    }


def _trained(config: ImportConfig, source: Start) -> PretrainConfig:
    """The configuration that stands in the checkpoint; most of how the authors trained is not known here."""
    known = source.trained
    model = ModelConfig(
        init=config.checkpoint,
        protein=ProteinEncoderConfig(max_tokens=known.model.protein.max_tokens)
        if known
        else ProteinEncoderConfig(),
        text=TextEncoderConfig(
            source=config.tokenizer,
            max_tokens=known.model.text.max_tokens if known else source.text.max_tokens,
        ),
        projection_dim=source.projection_dim,
        num_prototypes=source.num_prototypes,
        fusion_heads=source.fusion_heads or math.gcd(ModelConfig().fusion_heads, source.projection_dim),
    )
    pairs = config.pairs or (known and known.data) or storage.join(config.output, UNKNOWN_PAIRS)
    return PretrainConfig(
        data=pairs,
        run=RunConfig(name="imported", storage=config.output),
        model=model,
        loss=known.loss if known else LossConfig(),
    )
