"""Configuration of studies, many trainings that are compared: sweeps and ablations."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from protclip.config.base import Config, Count, TrackingConfig, Uri
from protclip.config.benchmarks import Seed

Value = bool | int | float | str
"""Of a configuration key, as it stands in YAML."""


class StudyConfig(Config):
    """What sweeps and ablations share: the training that is varied, and how many are run at a time."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="name; submitting the same name and storage again continues, finished trainings are kept",
    )
    storage: Uri = Field(
        default="outputs/studies", description="URI under which NAME/ keeps checkpoints, pairs and the report"
    )
    pretrain: tuple[str, ...] = Field(
        min_length=1,
        description="what is varied, comma-separated: name of a file in conf/pretrain, then key=value",
    )
    data: Uri | None = Field(
        default=None, description="URI of the pairs all trainings use; null when sample draws them"
    )
    sample: tuple[str, ...] = Field(
        default=(),
        description="instead of data: name of a file in conf/data, then key=value (source=… is needed); "
        "pairs are drawn once for each setting that differs",
    )
    suite: tuple[str, ...] = Field(
        default=(),
        description="benchmarks every trained model is run on: name of a file in conf/suites, then key=value",
    )
    concurrency: Count | None = Field(
        default=None,
        description="trainings at the same time; null: as many as the cluster has room for, at least one",
    )
    retries: int = Field(
        default=2, ge=0, description="times a training is begun again whose driver died or that had a bug"
    )
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _has_pairs(self) -> Self:
        if (self.data is None) == (not self.sample):
            raise ValueError("give either data=URI of pairs or sample=FILE,source=URI of strata")
        return self


class Dimension(Config):
    """Values of one configuration key: a range by `low` and `high`, or `choices`."""

    low: float | None = Field(default=None, description="smallest value of a range")
    high: float | None = Field(default=None, description="largest value of a range")
    step: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="distance of a range's values; null: any, whole numbers for whole-number keys",
    )
    log: bool = Field(default=False, description="orders of magnitude count: for learning rates and the like")
    choices: tuple[Value, ...] | None = Field(default=None, min_length=1, description="the values themselves")
    when: dict[str, tuple[Value, ...]] = Field(
        default={}, description="only in trials where these other dimensions have one of these values"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.choices is not None:
            if (self.low, self.high, self.step, self.log) != (None, None, None, False):
                raise ValueError("choices stand alone; drop low, high, step and log, or choices")
            if len(set(map(repr, self.choices))) < len(self.choices):
                raise ValueError("a choice is given twice")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        if self.low >= self.high:
            raise ValueError(f"low={self.low:g} is not below high={self.high:g}; swap them")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs low above 0 and no step")
        return self


class PruningConfig(Config):
    """When a trial is stopped that will not be among the best."""

    method: Literal["none", "asha", "hyperband", "median"] = Field(
        default="none",
        description="none; asha: the best share goes on at each rung (successive halving); hyperband: "
        "several such with other first rungs; median: worse than the median of the trials before it",
    )
    min_steps: Count | None = Field(
        default=None, description="training steps no trial is stopped before; null: two validations"
    )
    reduction_factor: Annotated[int, Field(ge=2)] = Field(
        default=3, description="of asha and hyperband: one in so many goes on, to so many times the steps"
    )
    min_trials: Count = Field(
        default=5, description="of median: trials that are finished before any is stopped"
    )


class SweepConfig(StudyConfig):
    """Search for the best values of configuration keys (`protclip sweep`)."""

    space: dict[str, Dimension] = Field(
        min_length=1,
        description="dimensions by dotted key of conf/pretrain or conf/data, like loss.pda.theta",
    )
    objectives: dict[str, Literal["minimize", "maximize"]] = Field(
        min_length=1,
        description="what is sought: valid/… at the last step, or bench/BENCHMARK/METRIC with a suite; for "
        "several the Pareto front is found",
    )
    sampler: Literal["tpe", "cmaes", "random", "grid"] = Field(
        default="tpe", description="how values are chosen (grid: every combination of choices and steps)"
    )
    num_trials: Count | None = Field(
        default=None, description="trials in all, those of earlier submissions included; null: the whole grid"
    )
    pruning: PruningConfig = PruningConfig()
    seed: Seed = Field(default=0, description="seed of the sampler")
    study: str | None = Field(
        default=None,
        description="SQLAlchemy URL of the Optuna store, sqlite:///FILE or postgresql://…; passwords belong "
        "in PGPASSWORD or ~/.pgpass; default a SQLite file in outputs/",
    )
    register_as: str | None = Field(
        default="protclip",
        description="name in MLflow's model registry for the best trial's model, with the alias best-NAME; "
        "null: not registered",
    )

    @model_validator(mode="after")
    def _trials_are_bounded(self) -> Self:
        if self.num_trials is None and self.sampler != "grid":
            raise ValueError(f"sampler={self.sampler} goes on for ever; give num_trials")
        if len(self.objectives) > 1 and self.pruning.method != "none":
            raise ValueError("pruning needs one objective; drop the others or set pruning.method=none")
        return self


class AblationConfig(StudyConfig):
    """Named configurations by seeds, each held against a reference (`protclip ablate`)."""

    variants: dict[str, tuple[str, ...]] = Field(
        min_length=2,
        description="key=value of conf/pretrain or conf/data by variant; none for pretrain as it is",
    )
    reference: str = Field(description="the variant others are held against")
    seeds: tuple[Seed, ...] = Field(
        default=(0, 1, 2), min_length=1, description="train.seed of each variant's runs, comma-separated"
    )
    metrics: tuple[str, ...] = Field(
        default=("valid/t2p_r10", "valid/mlm_accuracy"),
        description="validation metrics at the last step that are compared beside the suite's",
    )
    resamples: Count = Field(default=2000, description="paired bootstrap resamples over test units")
    level: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.05, description="significance level, corrected for a variant's number of rows (Holm)"
    )

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        if self.reference not in self.variants:
            raise ValueError(
                f"reference={self.reference} is not a variant; there are {', '.join(self.variants)}"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is given twice")
        return self
