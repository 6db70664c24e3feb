"""Pre-training runs of the smallest size without Ray; one pair of `tiny_pairs` can be made to break them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from protclip import storage
from protclip.config.schema import PretrainConfig
from protclip.data.tokenizer import TextTokenizer
from protclip.model.protclip import ProtCLIP
from protclip.training import loop
from protclip.training.notice import Notice
from protclip.training.state import TrainState
from protclip.training.store import CheckpointStore

PLANTED = "P00007"
"""The only training pair whose texts have the word 7."""

ONCE = {"global_batch": 8, "log_every": 1, "valid_every": 99, "checkpoint_every": 1, "keep_checkpoints": 99}


class Recorder:
    """Keeps the metrics by step."""

    def __init__(self) -> None:
        self.logged: dict[int, dict[str, float]] = {}

    def metrics(self, metrics: dict[str, float], step: int) -> None:
        self.logged.setdefault(step, {}).update(metrics)

    def progress(self, step: int, text: str) -> None: ...

    def at(self, step: int, phase: str) -> None: ...

    def notice(self) -> Notice:
        return Notice.NONE


def settings(pairs: Path, place: Path, **train: Any) -> PretrainConfig:
    """A run of batches of 8, of which an epoch has 6; it logs and saves after every step."""
    return PretrainConfig.model_validate(
        {
            "data": str(pairs),
            "run": {"name": "watched", "storage": str(place)},
            "model": {
                "protein": {"source": "esm2-tiny", "max_tokens": 50},
                "text": {"source": "bert-tiny", "trainable": True, "max_tokens": 32},
                "projection_dim": 16,
                "num_prototypes": 8,
                "fusion_heads": 2,
            },
            "optim": {"lr": 2e-3},
            "train": ONCE | train,
        }
    )


def run_uri(config: PretrainConfig) -> str:
    """Where a run keeps everything."""
    return storage.join(config.run.storage, config.run.name)


def train(config: PretrainConfig, recorder: Recorder | None = None) -> TrainState:
    """Runs it to the end, from the newest checkpoint if there is one."""
    with CheckpointStore(run_uri(config), config.train.keep_checkpoints, 0, "") as store:
        return loop.train(config, recorder or Recorder(), torch.device("cpu"), store=store)


@contextmanager
def planted() -> Iterator[None]:
    """Models made inside overflow on the texts of `PLANTED`, and on no other's; their weights are finite."""
    build = loop.build

    def planting(*args: Any) -> ProtCLIP:
        model = build(*args)
        (token,) = TextTokenizer.load("builtin").encode(["7"])[0]
        model.text_encoder.bert.embeddings.word_embeddings.weight.data[int(token)] = 3e38
        return model

    with patch.object(loop, "build", planting):
        yield
