"""The encoders of a suite: a checkpoint, and the same model before its training."""

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from protclip import checkpoint, storage
from protclip.checkpoint import LoadedCheckpoint
from protclip.config.schema import PretrainConfig
from protclip.data.tokenizer import TextTokenizer
from protclip.evaluation.embed import Embedder
from protclip.evaluation.kind import Wanted
from protclip.evaluation.store import VectorStore
from protclip.evaluation.trial import CHECKPOINT, UNTOUCHED
from protclip.model.build import build

COMPUTE: dict[Wanted, Callable[[Embedder, Sequence[str]], np.ndarray]] = {
    "features": Embedder.protein_features,
    "projected": Embedder.embed_proteins,
    "text_features": Embedder.text_features,
    "texts": Embedder.embed_texts,
}


class ModelEncoder:
    """A model whose vectors are looked up where they are kept; others are computed, not kept.

    Args:
        name: How reports call it.
        load: Gives the model; called when it is first needed.
        kept: Vectors that were computed before.
    """

    def __init__(self, name: str, load: Callable[[], Embedder], kept: VectorStore) -> None:
        self.name = name
        self._load = load
        self._kept = kept

    @property
    def embedder(self) -> Embedder:
        """The model itself."""
        return self._load()

    def vectors(self, what: Wanted, items: Sequence[str]) -> np.ndarray:
        """Vectors (N, D) of sequences or texts, float32, in their order."""
        found_ND, is_found_N = self._kept.find(what, items)
        if found_ND is not None and is_found_N.all():
            return found_ND
        rest = [item for item, is_found in zip(items, is_found_N, strict=True) if not is_found]
        position = {item: i for i, item in enumerate(dict.fromkeys(rest))}
        computed_MD = COMPUTE[what](self.embedder, list(position))
        vectors_ND = np.empty((len(items), computed_MD.shape[1]), np.float32)
        vectors_ND[~is_found_N] = computed_MD[[position[item] for item in rest]]
        if found_ND is not None:
            vectors_ND[is_found_N] = found_ND[is_found_N]
        return vectors_ND


def digests(uri: str, config: PretrainConfig, tokenizer: TextTokenizer) -> dict[str, str]:
    """What identifies the weights of each encoder, wherever they lie.

    Args:
        uri: The checkpoint.
        config: What it was trained with.
        tokenizer: Its text tokenizer.

    Returns:
        sha256 of the checkpoint's `meta.json`, which names those of its files; and one of all that decides
        the weights training began from.
    """
    start = {
        "model": config.model.model_dump(mode="json"),
        "seed": config.train.seed,
        "tokenizer": tokenizer.fingerprint,
    }
    return {
        CHECKPOINT: storage.sha256(storage.join(uri, checkpoint.META)),
        UNTOUCHED: hashlib.sha256(json.dumps(start).encode()).hexdigest(),
    }


@functools.lru_cache(maxsize=1)
def load_embedder(model: str, checkpoint_uri: str, batch_size: int) -> Embedder:
    """The model of this process: `CHECKPOINT` or `UNTOUCHED`.

    Raises:
        CheckpointError: The checkpoint is damaged.
        ConfigError: What training began from is not there any more.
    """
    loaded = checkpoint.load(checkpoint_uri)
    return Embedder(untouched(loaded) if model == UNTOUCHED else loaded, batch_size=batch_size)


def untouched(loaded: LoadedCheckpoint) -> LoadedCheckpoint:
    """The checkpoint as it was at step 0: weights of its encoders' sources, fresh ones by its seed.

    Raises:
        ConfigError: A source is not there any more.
        CheckpointError: A source is damaged.
    """
    config, tokenizer = loaded.config, TextTokenizer.from_json(loaded.tokenizer_json)
    model = build(config.model, config.loss, tokenizer.vocab_size, config.train.seed, loaded.tokenizer_json)
    return replace(loaded, weights=model.state_dict())
