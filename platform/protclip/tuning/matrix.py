"""An ablation's trainings: every variant with every seed, all checked before the first one starts."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from protclip import storage
from protclip.config.keys import flatten, show
from protclip.config.study import AblationConfig
from protclip.errors import ConfigError, DataError
from protclip.tuning.candidate import Candidate, Outcome, Param, Template

T = TypeVar("T", bound=BaseModel)

RECORD, OUTCOMES = "run.json", "outcomes"
VARIANT, SEED = "variant", "train.seed"
OWN = ("run.", "tracking.", "output", "overwrite", SEED)
"""Keys that the ablation decides, or that say nothing of what is trained."""
FREE = (
    *("scaling.", "model.protein.checkpointing", "model.text.checkpointing"),
    *("train.log_every", "train.checkpoint_every", "train.keep_", "train.best_metric"),
    *("train.nonfinite_limit", "train.peak_tflops", "train.micro_batch", "train.compile"),
)
"""Keys that a later submission may change: how and where is computed, what is kept."""
FREE_OF_SUITES = (
    *("checkpoint", "output", "results", "tracking.", "data_root"),
    *("batch_size", "cpus_per_run", "gpus_per_run"),
)
VARIANT_NAME = re.compile(r"[A-Za-z0-9._-]+")
MOST_NAMED = 8

Settings = Mapping[str, Param]


class _Record(BaseModel):
    """What all submissions of an ablation share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_id: str | None


class _Kept(BaseModel):
    """An outcome, and what was trained and evaluated how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: dict[str, Param]
    suite: dict[str, Param]
    outcome: Outcome


class Matrix:
    """Candidates of an ablation, a `Source`.

    Each seed's round has all variants, the reference first, so that an early look is paired already.
    Outcomes are kept in `<place>/outcomes/<candidate>.json`. A later submission finds them again: what is
    complete stays, unless the suite has changed; what has failed or was stopped is tried again.

    Attributes:
        run_id: MLflow run of earlier submissions, None before the first.
        candidates: All of them by variant and seed.
        varied: Value of every key in which variants differ, by variant; None where a variant lacks the key.

    Args:
        config: The ablation.
        template: Its configurations.

    Raises:
        ConfigError: A variant is wrong, or the same as another, or was trained otherwise before.
        DataError: The storage fails, or what an earlier submission left cannot be read.
    """

    def __init__(self, config: AblationConfig, template: Template) -> None:
        if not config.suite and not config.metrics:
            raise ConfigError("there is nothing to compare variants by; give suite=NAME or metrics=valid/…")
        self._config = config
        self._place = template.place
        order = sorted(config.variants, key=lambda variant: variant != config.reference)
        plain = {
            (variant, seed): _candidate(config, template, variant, seed)
            for seed in config.seeds
            for variant in order
        }
        self.varied = _varied({v: _settings(plain[v, config.seeds[0]]) for v in config.variants})
        self.candidates = {
            (variant, seed): replace(candidate, varied={VARIANT: variant, SEED: seed, **self.varied[variant]})
            for (variant, seed), candidate in plain.items()
        }
        self._by_name = {candidate.name: candidate for candidate in self.candidates.values()}
        uri = storage.join(self._place, RECORD)
        self.run_id = _read(uri, _Record).run_id if storage.exists(uri) else None
        found = ((name, self._read_outcome(candidate)) for name, candidate in self._by_name.items())
        self.outcomes = {name: outcome for name, outcome in found if outcome is not None}
        self._left = [c for c in self.candidates.values() if not self._is_complete(c.name)]

    def begin(self, run_id: str | None) -> None:
        """Remembers the MLflow run for later submissions.

        Raises:
            DataError: The storage fails.
        """
        self.run_id = run_id or self.run_id
        storage.write_json(storage.join(self._place, RECORD), _Record(run_id=self.run_id).model_dump())

    @property
    def total(self) -> int:
        """Variants times seeds."""
        return len(self.candidates)

    @property
    def finished(self) -> int:
        """How many are complete."""
        return sum(map(self._is_complete, self._by_name))

    def next(self) -> Candidate | None:
        """The next one that is neither complete nor was begun by this submission."""
        return self._left.pop(0) if self._left else None

    def observe(self, name: str, metrics: Mapping[str, float], step: int) -> bool:
        """Never stops a training.

        Raises:
            ConfigError: A metric that is to be compared is not reported.
        """
        missing = [metric for metric in self._config.metrics if metric not in metrics]
        if missing:
            raise ConfigError(
                f"metrics: {name} does not report {', '.join(missing)}; it reports "
                f"{', '.join(sorted(metrics)) or 'nothing'} (terms of the loss only where they are on)"
            )
        return False

    def finish(self, outcome: Outcome) -> None:
        """Keeps what came of a candidate.

        Raises:
            DataError: The storage fails.
        """
        self.outcomes[outcome.name] = outcome
        candidate = self._by_name[outcome.name]
        kept = _Kept(settings=_settings(candidate), suite=_suite(candidate), outcome=outcome)
        text = kept.model_dump_json(indent=2) + "\n"
        storage.write_bytes(self._outcome_uri(outcome.name), text.encode())

    def complete(self) -> dict[tuple[str, int], Outcome]:
        """Outcomes of what was trained and evaluated to the end, by variant and seed."""
        return {
            key: self.outcomes[candidate.name]
            for key, candidate in self.candidates.items()
            if self._is_complete(candidate.name)
        }

    def incomplete(self) -> dict[str, str]:
        """Why each of the others is not complete, by candidate."""
        found = {name: self.outcomes.get(name) for name in self._by_name if not self._is_complete(name)}
        return {
            name: "not run yet" if outcome is None else outcome.error or outcome.state
            for name, outcome in found.items()
        }

    def _is_complete(self, name: str) -> bool:
        """Whether a candidate needs nothing more."""
        return name in self.outcomes and self.outcomes[name].state == "complete"

    def _outcome_uri(self, name: str) -> str:
        """Where a candidate's outcome is kept."""
        return storage.join(self._place, OUTCOMES, f"{name}.json")

    def _read_outcome(self, candidate: Candidate) -> Outcome | None:
        """What came of a candidate in an earlier submission; None where it is run anew."""
        uri = self._outcome_uri(candidate.name)
        if not storage.exists(uri):
            return None
        kept = _read(uri, _Kept)
        changes = list(_changes(kept.settings, _settings(candidate)))
        if changes and kept.outcome.checkpoint is None:
            return None
        if changes:
            more = f" (and {len(changes) - MOST_NAMED} more)" if len(changes) > MOST_NAMED else ""
            raise ConfigError(
                f"{uri}: {candidate.name} was trained with other settings: "
                f"{'; '.join(changes[:MOST_NAMED])}{more}. Take them back, or give the variant or the "
                "ablation another name; variants and seeds may be added"
            )
        return kept.outcome if kept.suite == _suite(candidate) else None


def _read(uri: str, schema: type[T]) -> T:
    """A file that an earlier submission left."""
    try:
        return schema.model_validate_json(storage.read_bytes(uri))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{uri}: not a file that this release can read ({where}: {first['msg']}); give another name, or "
            "remove it to run again what it stands for"
        ) from error


def _candidate(config: AblationConfig, template: Template, variant: str, seed: int) -> Candidate:
    """A variant with a seed."""
    settings = config.variants[variant]
    if not VARIANT_NAME.fullmatch(variant):
        raise ConfigError(
            f"variants: {variant!r} cannot be part of a run's name; use letters, digits, dots, dashes and "
            "underscores"
        )
    if any(setting.partition("=")[0] == SEED for setting in settings):
        raise ConfigError(f"variants.{variant}: {SEED} is decided by seeds; leave it out")
    try:
        return template.make(f"{config.name}-{variant}-s{seed}", (*settings, f"{SEED}={seed}"))
    except ConfigError as error:
        raise ConfigError(f"variants.{variant}: {error}") from error


def _settings(candidate: Candidate) -> dict[str, Param]:
    """What a candidate is trained on, and how, by dotted key."""
    found = flatten(candidate.pretrain)
    if candidate.sample is not None:
        # Its pairs lie where their settings say.
        del found["data"]
        found |= flatten(candidate.sample)
    return _without(found, OWN)


def _suite(candidate: Candidate) -> dict[str, Param]:
    """What a candidate is evaluated on."""
    return {} if candidate.suite is None else _without(flatten(candidate.suite), FREE_OF_SUITES)


def _without(settings: Settings, prefixes: tuple[str, ...]) -> dict[str, Param]:
    """Settings but for some."""
    return {key: value for key, value in settings.items() if not key.startswith(prefixes)}


def _varied(settings: Mapping[str, Settings]) -> Mapping[str, Settings]:
    """Of each variant the keys in which variants differ.

    Raises:
        ConfigError: Two do not differ.
    """
    keys = dict.fromkeys(key for own in settings.values() for key in own)
    differing = [key for key in keys if len({repr(own.get(key)) for own in settings.values()}) > 1]
    varied = {variant: {key: own.get(key) for key in differing} for variant, own in settings.items()}
    first: dict[str, str] = {}
    for variant, own in varied.items():
        if (other := first.setdefault(repr(own), variant)) != variant:
            raise ConfigError(f"variants: {other} and {variant} are the same training; drop one of them")
    return varied


def _changes(before: Settings, now: Settings) -> Iterator[str]:
    """What is not as it was in an earlier submission."""
    for key in dict.fromkeys((*before, *now)):
        if before.get(key) != now.get(key) and not key.startswith(FREE):
            yield f"{key} is {show(now.get(key))}, was {show(before.get(key))}"
