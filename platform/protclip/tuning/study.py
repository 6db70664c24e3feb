"""A sweep as an Optuna study, which a store remembers from one submission to the next."""

import json
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import TypeAdapter

from protclip.config.study import SweepConfig
from protclip.errors import ConfigError
from protclip.tuning.candidate import Candidate, Outcome, State, Template
from protclip.tuning.methods import check_sampler, importance, make_pruner, make_sampler
from protclip.tuning.objectives import VALID, check_measured, check_objectives, listed
from protclip.tuning.space import Space
from protclip.tuning.store import Store
from protclip.tuning.tried import Results, Tried

log = logging.getLogger(__name__)

MOST_CONTRADICTIONS = 20
"""Combinations in a row that contradict the configuration before a sweep is given up."""

_STATES: dict[State, TrialState] = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
_FREE_PRETRAIN = {
    **dict.fromkeys(("data", "run", "tracking", "scaling"), True),
    "train": {"micro_batch", "compile", "log_every", "checkpoint_every", "keep_checkpoints", "peak_tflops"},
    "model": {"protein": {"checkpointing"}, "text": {"checkpointing"}},
}
"""What another submission may change: how a training is computed and what is kept of it."""

_FREE_SAMPLE = {"output", "overwrite", "tracking", "rows_per_shard"}
_FREE_SUITE = {"checkpoint", "output", "results", "tracking", "batch_size", "cpus_per_run", "gpus_per_run"}
_SETTINGS, _RUN_ID, _OUTCOME, _PRUNED = "settings", "run_id", "outcome", "pruned_at_step"
_OUTCOMES = TypeAdapter(Outcome)


@dataclass(frozen=True, slots=True)
class _Running:
    """A trial that is being trained, the steps it has reported, and its last one."""

    trial: optuna.Trial
    reported: set[int]
    last_step: int


class Study:
    """Gives the trials of a sweep, as a `Source` does, and remembers what came of them.

    Trials that a driver did not finish are given again before new ones, with their numbers and values, and
    so with their checkpoints. Values that contradict each other make a failed trial.

    Args:
        config: The sweep.
        template: Makes its candidates.

    Raises:
        ConfigError: The space, the objectives, sampler or pruning cannot be as they are, or the sweep
            exists with other settings.
        DataError: The store cannot be used.
    """

    def __init__(self, config: SweepConfig, template: Template) -> None:
        self._config, self._template = config, template
        self._space = Space(config.space, template)
        check_objectives(config, template.base, self._space)
        check_sampler(config, self._space)
        pruner = make_pruner(config, template.base.pretrain)
        self._grid = self._space.grid() if config.sampler == "grid" else None
        if self._grid is not None:
            # So that a part of the grid is not one corner of it.
            order = np.random.default_rng(config.seed).permutation(len(self._grid))
            self._grid = [self._grid[index] for index in order]
        self._running: dict[str, _Running] = {}
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._store = Store(config.study)
        with self._store:
            self._study = optuna.create_study(
                storage=self._store.storage,
                study_name=config.name,
                directions=list(config.objectives.values()),
                pruner=pruner,
                load_if_exists=True,
            )
            trials = self._trials()
            self._hold_settings(is_new=not trials)
        self._study.sampler = make_sampler(config, len(trials))
        self._left = [trial for trial in trials if trial.state == TrialState.RUNNING]

    @property
    def total(self) -> int:
        """Trials in all, those of earlier submissions included."""
        bounds = (self._config.num_trials, None if self._grid is None else len(self._grid))
        return min(bound for bound in bounds if bound is not None)

    @property
    def finished(self) -> int:
        """How many are complete, pruned or failed."""
        with self._store:
            return len(self._ended())

    @property
    def store(self) -> str:
        """Where it is remembered, for people."""
        return str(self._store)

    @property
    def failures(self) -> list[Outcome]:
        """What came of the trials that failed."""
        with self._store:
            return [self._outcome(trial) for trial in self._ended() if trial.state == TrialState.FAIL]

    @property
    def run_id(self) -> str | None:
        """MLflow run of the sweep, once it is set."""
        with self._store:
            return self._study.user_attrs.get(_RUN_ID)

    @run_id.setter
    def run_id(self, run_id: str | None) -> None:
        with self._store:
            self._study.set_user_attr(_RUN_ID, run_id)

    def next(self) -> Candidate | None:
        """A trial to be trained; None when there is no more.

        Raises:
            ConfigError: One combination of values after the other contradicts itself.
            DataError: The store cannot be used.
        """
        text = ""
        for _ in range(MOST_CONTRADICTIONS):
            with self._store:
                if (asked := self._ask()) is None:
                    return None
                trial, reported = asked
                params = self._space.suggest(trial)
            name = self._name(trial.number)
            try:
                candidate = self._template.make(name, self._space.settings(params), params)
            except ConfigError as error:
                text = str(error).replace("command line: ", "")
                log.warning("%s: its values contradict each other: %s", name, text)
                self._tell(trial, Outcome(name, "failed", error=text))
            else:
                self._running[name] = _Running(trial, reported, candidate.pretrain.train.max_steps)
                return candidate
        raise ConfigError(
            f"space: {MOST_CONTRADICTIONS} combinations in a row contradict the configuration, the last one: "
            f"{text}; narrow its dimensions"
        )

    def observe(self, name: str, metrics: Mapping[str, float], step: int) -> bool:
        """Takes validation metrics of a running trial; returns whether it shall be stopped.

        Raises:
            ConfigError: What is sought is not measured.
            DataError: The store cannot be used.
        """
        finite = _finite(metrics)
        check_measured(self._config.objectives, finite)
        objective, *others = self._config.objectives
        if others or not objective.startswith(VALID):
            return False
        running = self._running[name]
        with self._store:
            if _PRUNED in running.trial.user_attrs:
                return True
            if step not in running.reported:
                running.reported.add(step)
                running.trial.report(finite.get(objective, math.nan), step)
            stop = step < running.last_step and running.trial.should_prune()
            if stop:
                # A rung is asked for once: a driver that took over now would let the trial go on.
                running.trial.set_user_attr(_PRUNED, step)
        return stop

    def finish(self, outcome: Outcome) -> None:
        """Takes what came of a trial; one that the user stopped is left to the next submission.

        Raises:
            DataError: The store cannot be used.
        """
        running = self._running.pop(outcome.name)
        if outcome.state != "stopped":
            self._tell(running.trial, replace(outcome, metrics=_finite(outcome.metrics)))

    def results(self) -> Results:
        """What has been tried so far.

        Raises:
            DataError: The store cannot be used.
        """
        objectives = self._config.objectives
        with self._store:
            tried = [
                Tried(
                    number=trial.number,
                    params=self._space.read(trial.params),
                    values=tuple(trial.values) if trial.state == TrialState.COMPLETE else None,
                    outcome=self._outcome(trial),
                    started=trial.datetime_start,
                )
                for trial in self._ended()
            ]
            front = {trial.number for trial in self._study.best_trials}
            shares = importance(self._study, self._config, self._space)
        sign = -1 if next(iter(objectives.values())) == "maximize" else 1
        found = [(sign * t.values[0], t) for t in tried if t.values and t.number in front]
        best = [one for _, one in sorted(found, key=lambda pair: pair[0])]
        return Results(
            name=self._config.name,
            objectives=objectives,
            tried=tried,
            best=best[:1] if len(objectives) == 1 else best,
            importance=shares,
            study=self._study,
        )

    def candidate(self, tried: Tried) -> Candidate:
        """A trial as it was trained."""
        return self._template.make(tried.outcome.name, self._space.settings(tried.params), tried.params)

    def _ask(self) -> tuple[optuna.Trial, set[int]] | None:
        """A trial and the steps it has reported: one that was left, or a new one."""
        trials = self._trials()
        begun = [trial for trial in trials if trial.state != TrialState.WAITING]
        if len(self._ended()) + len(self._running) >= self.total:
            return None
        if self._left:
            left = self._left.pop(0)
            return optuna.Trial(self._study, left._trial_id), set(left.intermediate_values)
        if len(begun) >= self.total:
            return None
        if self._grid is not None and len(begun) == len(trials):
            self._study.enqueue_trial(self._grid[len(begun)])
        return self._study.ask(), set()

    def _tell(self, trial: optuna.Trial, outcome: Outcome) -> None:
        """Keeps what came of a trial; it has failed if it does not have what is sought."""
        values = None
        if outcome.state == "complete":
            missing = [metric for metric in self._config.objectives if metric not in outcome.metrics]
            if missing:
                error = f"no finite {missing[0]} at the end; {listed(missing[0], outcome.metrics)}"
                outcome = replace(outcome, state="failed", error=error)
            else:
                values = [outcome.metrics[metric] for metric in self._config.objectives]
        shown = {"checkpoint": outcome.checkpoint, "run_id": outcome.run_id, "error": outcome.error}
        with self._store:
            # Before the state: what ends in between is told again.
            for key, value in {_OUTCOME: _OUTCOMES.dump_python(outcome, mode="json"), **shown}.items():
                if value:
                    trial.set_user_attr(key, value)
            self._study.tell(trial, values, _STATES[outcome.state])

    def _hold_settings(self, *, is_new: bool) -> None:
        """Keeps the settings that trials have in common, or holds them against those kept.

        Raises:
            ConfigError: They differ, or the study of this name is another program's.
        """
        config, base = self._config, self._template.base
        shared = {"space", "objectives", "sampler", "pruning", "seed", "data", "storage"}
        now: dict[str, Any] = {
            **config.model_dump(mode="json", include=shared),
            "pretrain": base.pretrain.model_dump(mode="json", exclude=_FREE_PRETRAIN),
            "sample": base.sample and base.sample.model_dump(mode="json", exclude=_FREE_SAMPLE),
            "suite": base.suite and base.suite.model_dump(mode="json", exclude=_FREE_SUITE),
        }
        before = self._study.user_attrs.get(_SETTINGS)
        directions = [direction.name.lower() for direction in self._study.directions]
        if before is None and is_new and directions == list(config.objectives.values()):
            self._study.set_user_attr(_SETTINGS, now)
        elif before is None:
            raise ConfigError(
                f"name={config.name}: {self._store} has a study of this name that is no sweep of "
                "ours; choose another name or another study=…"
            )
        elif differing := list(_differences(before, now)):
            raise ConfigError(
                f"sweep {config.name!r} exists in {self._store} with other settings; choose another name or "
                f"undo: {'; '.join(differing)}"
            )

    def _name(self, number: int) -> str:
        """A trial's name."""
        return f"{self._config.name}-{number:04d}"

    def _trials(self) -> list[FrozenTrial]:
        """All trials by number."""
        return self._study.get_trials(deepcopy=False)

    def _ended(self) -> list[FrozenTrial]:
        """Those that need nothing more."""
        return [trial for trial in self._trials() if trial.state.is_finished()]

    def _outcome(self, trial: FrozenTrial) -> Outcome:
        """What came of a trial; little is known of one that another program ended."""
        if kept := trial.user_attrs.get(_OUTCOME):
            return _OUTCOMES.validate_python(kept)
        state: State = next(ours for ours, theirs in _STATES.items() if theirs == trial.state)
        return Outcome(self._name(trial.number), state, error="ended by another program")


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics without those that are not finite."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _differences(before: object, now: object, key: str = "") -> Iterator[str]:
    """Each setting that differs, as "key: before -> now"."""
    if isinstance(before, dict) and isinstance(now, dict):
        for part in dict.fromkeys((*before, *now)):
            yield from _differences(before.get(part), now.get(part), f"{key}.{part}" if key else part)
    elif before != now:
        yield f"{key}: {json.dumps(before)} -> {json.dumps(now)}"
