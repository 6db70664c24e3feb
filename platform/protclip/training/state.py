"""Everything that changes while training, and how it is restored."""

from dataclasses import dataclass, field

import torch
from torch.optim.lr_scheduler import LambdaLR

from protclip.checkpoint import Found
from protclip.config.schema import PretrainConfig
from protclip.data.dataset import Position
from protclip.errors import CheckpointError
from protclip.model.protclip import ProtCLIP
from protclip.training.optim import make_optimizer, make_schedule
from protclip.training.replica import Replica
from protclip.training.sharding import load_moments, load_parameters


@dataclass(slots=True)
class TrainState:
    """Model, optimizer, schedule and position.

    Random states need no place in it: masks, order, noise and dropout are functions of the seed, the
    step and the position. Neither does the schedule, a function of the step.

    Attributes:
        model: The bare model, under FSDP with sharded parameters.
        optimizer: Its optimizer.
        schedule: Its learning-rate schedule.
        step: Steps done.
        position: Next global batch.
        skipped: Steps among them whose update was left out, since a gradient was not finite.
    """

    model: ProtCLIP
    optimizer: torch.optim.AdamW
    schedule: LambdaLR
    step: int = 0
    position: Position = field(default_factory=Position)
    skipped: int = 0

    @classmethod
    def create(cls, replica: Replica, config: PretrainConfig) -> "TrainState":
        """A fresh state around a model that is in its place."""
        optimizer = make_optimizer(replica.bare, config.model, config.optim)
        schedule = make_schedule(optimizer, config.train.max_steps, config.optim)
        return cls(replica.bare, optimizer, schedule)

    def restore(self, found: Found) -> None:
        """Continues from a checkpoint, whatever the number of ranks and the strategy that wrote it.

        Every rank calls it.

        Raises:
            CheckpointError: It belongs to another model.
        """
        try:
            load_parameters(self.model, found.parameters)
            load_moments(self.optimizer, self.model, found.moments)
        except CheckpointError as error:
            raise CheckpointError(f"{found.uri}: {error}") from error
        self.step = found.meta.step
        self.position = Position(found.meta.epoch, found.meta.batch_index)
        self.skipped = found.meta.skipped
        self.schedule.last_epoch = self.step
        rates = zip(self.schedule.base_lrs, self.schedule.lr_lambdas, strict=True)
        for group, (rate, factor) in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor(self.step)
