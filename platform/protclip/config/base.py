"""What all configuration models share: the base class, common types, tracking."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from protclip import storage

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Uri = Annotated[str, AfterValidator(storage.absolute)]
"""A place that means the same to a worker in another directory."""


class Config(BaseModel):
    """Base of every section: unknown keys are errors, values are finite and never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


class TrackingConfig(Config):
    """Where the run is remembered."""

    enabled: bool = Field(default=True, description="log to MLflow")
    uri: str | None = Field(
        default=None,
        description="MLflow tracking URI; default MLFLOW_TRACKING_URI, else a SQLite file in outputs/",
    )
    experiment: str = Field(default="protclip", description="MLflow experiment")
    wait_s: float = Field(
        default=0.0,
        ge=0,
        description="seconds to wait for a server that is away when a run begins or its model is logged",
    )
