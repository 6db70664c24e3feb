"""One training among several that are compared: its configurations, and what came of it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from pydantic import BaseModel

from protclip import storage
from protclip.config.benchmarks import SuiteConfig
from protclip.config.data import SampleConfig
from protclip.config.keys import Plain
from protclip.config.load import load_config
from protclip.config.schema import PretrainConfig
from protclip.config.study import StudyConfig
from protclip.errors import ConfigError

T = TypeVar("T", bound=BaseModel)

PAIRS, RUNS, REPORTS = "pairs", "runs", "benchmarks"
"""Folders of a study."""

SERVER_WAIT_S = 900.0
"""How long a study waits for a tracking server that is away between its trainings."""

Param = Plain
State = Literal["complete", "pruned", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A training with its pairs before and its benchmarks after it.

    Attributes:
        name: Of its run, of its report and in the study; trained again under the same name, it continues.
        pretrain: Its training.
        sample: Draws its pairs, unless they are there; None when they must be.
        suite: What the trained model is run on.
        varied: What it differs by from the others, by key.
    """

    name: str
    pretrain: PretrainConfig
    sample: SampleConfig | None = None
    suite: SuiteConfig | None = None
    varied: Mapping[str, Param] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a candidate.

    Attributes:
        name: The candidate's.
        state: "complete"; "pruned" because others did better; "failed", and why; "stopped" by the user,
            to be continued.
        step: Optimisation steps done.
        metrics: Validation metrics `valid/…` at the last validation, and `bench/BENCHMARK/METRIC`.
        best: Best value of each validation metric and its step.
        checkpoint: URI of the newest checkpoint; None when there is none.
        report: URI of the suite's report; None without a suite.
        model: URI of the MLflow model; None when it was not logged.
        run_id: Its MLflow run.
        seconds: Wall-clock time of the last attempt.
        error: Why it failed.
    """

    name: str
    state: State
    step: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    best: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    checkpoint: str | None = None
    report: str | None = None
    model: str | None = None
    run_id: str | None = None
    seconds: float = 0.0
    error: str = ""


class Source(Protocol):
    """Says what is tried next and learns what came of it; called from one thread."""

    @property
    def total(self) -> int:
        """Candidates in all, those of earlier submissions included."""
        ...

    @property
    def finished(self) -> int:
        """How many of them need nothing more."""
        ...

    def next(self) -> Candidate | None:
        """A candidate that is neither finished nor running; None when there is no more."""
        ...

    def observe(self, name: str, metrics: Mapping[str, float], step: int) -> bool:
        """Takes validation metrics of a running candidate; returns whether it shall be stopped.

        Raises:
            ConfigError: A metric that is needed is not among them.
        """
        ...

    def finish(self, outcome: Outcome) -> None:
        """Takes what came of a candidate, and keeps it."""
        ...


class Template:
    """The configurations that a study's candidates differ from by some settings.

    Attributes:
        place: URI of the study.
        base: The candidate without settings; its held-out pairs are those every model is tested on.

    Args:
        config: The study.
        conf_dir: Directory of `pretrain/`, `data/` and `suites/`.

    Raises:
        ConfigError: A file or a key is wrong.
    """

    def __init__(self, config: StudyConfig, conf_dir: Path) -> None:
        self._config = config
        self._conf_dir = conf_dir
        self.place = storage.join(config.storage, config.name)
        waiting = max(config.tracking.wait_s, SERVER_WAIT_S)
        self._tracking = {"tracking": config.tracking.model_copy(update={"wait_s": waiting})}
        self.base = self.make("base", ())

    def make(self, name: str, settings: Sequence[str], varied: Mapping[str, Param] = {}) -> Candidate:
        """A candidate.

        Args:
            name: Its name.
            settings: `key=value`, each of the training or of the sampling.
            varied: See `Candidate`.

        Raises:
            ConfigError: A setting is wrong, or contradicts another.
        """
        config = self._config
        drawing = SampleConfig.model_fields.keys() - {"seed", "tracking"}
        sampled = [s for s in settings if _section(s) in drawing]
        sample, data = None, config.data
        if config.sample:
            draft = self._load(SampleConfig, "data", config.sample, sampled, {"output": self.place})
            data = storage.join(self.place, PAIRS, _digest(draft))
            sample = draft.model_copy(update={"output": data} | self._tracking)
            if config.suite and (splitting := [s for s in sampled if _section(s) == "splits"]):
                raise ConfigError(
                    f"{splitting[0]}: models are tested on pairs that all hold out, so how they are split "
                    "cannot be varied; give it to sample, or leave the suite out"
                )
        elif sampled:
            raise ConfigError(
                f"{sampled[0]}: pairs are given by data={config.data}, so how they are drawn cannot be "
                "varied; give sample=FILE,source=URI instead"
            )
        pretrain = self._load(
            PretrainConfig,
            "pretrain",
            config.pretrain,
            [s for s in settings if s not in sampled],
            {"data": str(data), "run.name": name, "run.storage": storage.join(self.place, RUNS)},
        ).model_copy(update=self._tracking)
        suite = None
        if config.suite:
            run = storage.join(pretrain.run.storage, name)
            reports = storage.join(self.place, REPORTS)
            file, *given = config.suite
            suite = self._load(
                SuiteConfig,
                "suites",
                # What is the same for all, or said by the study itself, is not measured for each.
                (file, "baselines=false", "leaks=false", f"results={storage.join(reports, 'kept')}", *given),
                (),
                {"checkpoint": run, "output": storage.join(reports, name)},
            )
            held_out = suite.pairs or (self.base.pretrain.data if name != "base" else data)
            suite = suite.model_copy(update={"pairs": held_out} | self._tracking)
        return Candidate(name, pretrain, sample, suite, varied)

    def _load(
        self,
        schema: type[T],
        folder: str,
        given: Sequence[str],
        settings: Sequence[str],
        own: Mapping[str, str],
    ) -> T:
        """A file of the configuration directory with what is given for it, and what the study decides."""
        file, *overrides = given
        for key in (o.partition("=")[0] for o in (*overrides, *settings)):
            if key in own or key.partition(".")[0] == "tracking":
                raise ConfigError(f"{folder}: {key} is decided by the study; leave it out")
        path = self._conf_dir / folder / f"{file}.yaml"
        if "=" in file or not path.is_file():
            known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
            raise ConfigError(f"{folder}: no file {path}; the first must be the name of one there: {known}")
        return load_config(schema, path, [*overrides, *settings, *(f"{k}={v}" for k, v in own.items())])


def _section(setting: str) -> str:
    """The first part of a setting's key."""
    return setting.partition("=")[0].partition(".")[0]


def _digest(config: SampleConfig) -> str:
    """Names the pairs that a configuration draws."""
    text = config.model_dump_json(exclude={"output", "overwrite", "tracking"})
    return hashlib.sha256(text.encode()).hexdigest()[:12]
