"""Configuration of the pre-flight checks."""

from typing import Literal

from pydantic import Field

from protclip.config.base import Config, TrackingConfig, Uri
from protclip.config.schema import PretrainConfig, RunConfig

CheckName = Literal[
    "storage",
    "data",
    "mlflow",
    "study",
    "pretrain",
    "versions",
    "gpus",
    "compute",
    "disk",
    "shm",
    "open_files",
    "weights",
    "clock",
    "network",
]


class PlannedRun(RunConfig):
    """A run that may have no name yet."""

    name: str = Field(default="doctor", description="name of the run")


class PlannedConfig(PretrainConfig):
    """A pre-training that is looked at before it has data or a name."""

    data: Uri | None = Field(default=None, description="URI of the pairs")  # pyright: ignore[reportIncompatibleVariableOverride]
    run: PlannedRun = PlannedRun()  # pyright: ignore[reportIncompatibleVariableOverride]


class DoctorConfig(Config):
    """Whether everything is ready for a job (`protclip doctor`)."""

    pretrain: tuple[str, ...] = Field(
        default=(),
        description="the pre-training that is planned: a file like conf/pretrain/paper.yaml, then key=value; "
        "its storage, data, tracking, encoders and number of workers are looked at",
    )
    storage: tuple[Uri, ...] = Field(
        default=(), description="URIs that jobs write to; default run.storage of pretrain, or outputs/runs"
    )
    data: tuple[Uri, ...] = Field(
        default=(), description="URIs that jobs only read; default data of pretrain"
    )
    study: str | None = Field(
        default=None, description="SQLAlchemy URL of the sweeps' Optuna store; null: not looked at"
    )
    checks: tuple[CheckName, ...] = Field(default=(), description="only these checks; empty: all")
    skip: tuple[CheckName, ...] = Field(default=(), description="checks left out")
    nodes: bool = Field(
        default=True, description="look at every node of the cluster too; false: from this process alone"
    )
    tracking: TrackingConfig = TrackingConfig()
