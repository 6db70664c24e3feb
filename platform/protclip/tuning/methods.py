"""How a sweep chooses values, when it stops a trial, and which dimensions mattered: Optuna's methods."""

import warnings

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from protclip.config.schema import PretrainConfig
from protclip.config.study import SweepConfig
from protclip.errors import ConfigError
from protclip.tuning.space import Space

FEWEST_FOR_IMPORTANCE = 4
"""Complete trials."""


def check_sampler(config: SweepConfig, space: Space) -> None:
    """Refuses CMA-ES where Optuna would quietly take random values instead.

    Raises:
        ConfigError: There are several objectives, choices, conditions, or a single dimension.
    """
    if config.sampler != "cmaes":
        return
    remedy = "; take sampler=tpe"
    if len(config.objectives) > 1:
        raise ConfigError(f"sampler=cmaes seeks one objective, there are {len(config.objectives)}{remedy}")
    if space.conditional or not space.is_numeric:
        raise ConfigError(f"sampler=cmaes needs ranges in every trial, without choices and when{remedy}")
    if len(config.space) == 1:
        raise ConfigError(f"sampler=cmaes needs at least two dimensions{remedy}")


def make_sampler(config: SweepConfig, begun: int) -> BaseSampler:
    """A sampler; of a grid all values are given, so that nothing is left to it.

    Args:
        config: The sweep.
        begun: Trials there are: with the same seed again a continued sweep would repeat its suggestions.
    """
    seed = int(np.random.SeedSequence((config.seed, begun)).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if config.sampler == "tpe":
            return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
        if config.sampler == "cmaes":
            # Trials that halving stops are most of all; those that the median stops had few steps.
            halved = config.pruning.method in {"asha", "hyperband"}
            return CmaEsSampler(seed=seed, consider_pruned_trials=halved)
    return RandomSampler(seed=seed)


def make_pruner(config: SweepConfig, base: PretrainConfig) -> BasePruner:
    """A pruner whose resource is training steps.

    Raises:
        ConfigError: Training would be over before anything could be stopped.
    """
    pruning, train = config.pruning, base.train
    if pruning.method == "none":
        return NopPruner()
    first = pruning.min_steps or 2 * train.valid_every
    if first >= train.max_steps:
        raise ConfigError(
            f"pruning: nothing is stopped before step {first} (pruning.min_steps, or two validations), but "
            f"train.max_steps={train.max_steps} ends training; lower pruning.min_steps or train.valid_every"
        )
    if pruning.method == "median":
        return MedianPruner(n_startup_trials=pruning.min_trials, n_warmup_steps=first)
    if pruning.method == "asha":
        return SuccessiveHalvingPruner(min_resource=first, reduction_factor=pruning.reduction_factor)
    return HyperbandPruner(
        min_resource=first, max_resource=train.max_steps, reduction_factor=pruning.reduction_factor
    )


def importance(study: optuna.Study, config: SweepConfig, space: Space) -> dict[str, dict[str, float]]:
    """Share of each dimension in the variance of each objective, the largest first.

    By fANOVA (Hutter et al. 2014); by PED-ANOVA (Watanabe et al. 2023), which says what distinguishes the
    best tenth, where dimensions are not in every trial.

    Returns:
        Key to share by objective; one with fewer than four complete trials, or whose trials do not differ,
        is not there.
    """
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    found: dict[str, dict[str, float]] = {}
    for index, (objective, direction) in enumerate(config.objectives.items()):
        sign = -1 if direction == "maximize" else 1

        def target(trial: FrozenTrial, index: int = index, sign: int = sign) -> float:
            return sign * trial.values[index]

        if len(trials) < FEWEST_FOR_IMPORTANCE or len(set(map(target, trials))) == 1:
            continue
        evaluator = (
            PedAnovaImportanceEvaluator()
            if space.conditional
            else FanovaImportanceEvaluator(seed=config.seed)
        )
        with warnings.catch_warnings():
            # It warns that low is good, which the sign sees to.
            warnings.simplefilter("ignore", UserWarning)
            raw = evaluator.evaluate(study, target=target)
        if (whole := sum(raw.values())) > 0:
            found[objective] = {
                key: float(raw[key] / whole) for key in sorted(raw, key=lambda key: raw[key], reverse=True)
            }
    return found
