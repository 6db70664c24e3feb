"""Everything that changes while training, and how it is saved and restored."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from protclip import checkpoint
from protclip.config.schema import PretrainConfig
from protclip.data.dataset import Position
from protclip.errors import CheckpointError
from protclip.model.protclip import ProtCLIP
from protclip.provenance import git_sha
from protclip.training.optim import make_optimizer, make_schedule


@dataclass(slots=True)
class TrainState:
    """Model, optimizer, schedule and position.

    Attributes:
        model: The bare model.
        optimizer: Its optimizer.
        schedule: Its learning-rate schedule.
        step: Updates done.
        position: Next global batch.
    """

    model: ProtCLIP
    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    step: int = 0
    position: Position = field(default_factory=Position)

    @classmethod
    def create(cls, model: ProtCLIP, config: PretrainConfig) -> "TrainState":
        """A fresh state around a model."""
        optimizer = make_optimizer(model, config.optim)
        schedule = make_schedule(optimizer, config.train.max_steps, config.optim)
        return cls(model, optimizer, schedule)

    def save(
        self,
        directory: Path,
        config: PretrainConfig,
        tokenizer_json: str,
        data_manifest: str,
        run_id: str | None,
    ) -> None:
        """Writes a complete checkpoint into a local directory.

        Random states need no place in it: masks, order, noise and dropout are functions of the
        seed, the step and the position.
        """
        checkpoint.save(
            directory,
            weights=self.model.state_dict(),
            state={"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()},
            config=config,
            architecture=self.model.architecture.to_dict(),
            tokenizer_json=tokenizer_json,
            step=self.step,
            epoch=self.position.epoch,
            batch_index=self.position.batch_index,
            run_id=run_id,
            data_manifest=data_manifest,
            git_sha=git_sha(),
        )

    def restore(self, directory: Path, uri: str) -> None:
        """Continues from a local checkpoint directory; `uri` is what messages name.

        Raises:
            CheckpointError: It is damaged or belongs to another model.
        """
        meta = checkpoint.read_meta(directory, uri)
        _load_weights(self.model, checkpoint.load_weights(directory), uri)
        state = checkpoint.load_state(directory)
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"{uri}: the optimizer state does not fit ({error}); start a new run under another run.name"
            ) from error
        self.schedule.load_state_dict(state["schedule"])
        self.step = meta.step
        self.position = Position(meta.epoch, meta.batch_index)


def _load_weights(model: nn.Module, weights: dict[str, torch.Tensor], uri: str) -> None:
    """Loads parameters, every one of them, or says that they are another model's."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{uri}: these weights belong to another model ({detail}); check the model section of the "
            "configuration"
        ) from error
