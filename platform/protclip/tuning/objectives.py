"""What a sweep seeks: which metrics there are, and which can be compared between trials."""

import difflib
from collections.abc import Collection, Mapping

from protclip.config.schema import LossConfig
from protclip.config.study import SweepConfig
from protclip.errors import ConfigError
from protclip.evaluation.metrics.retrieval import RETRIEVAL
from protclip.tuning.candidate import Candidate
from protclip.tuning.space import Space

VALID, BENCH = "valid/", "bench/"
TOTAL = "valid/loss/total"
"""The one metric that every validation gives unless the training has diverged."""

WEIGHTS = {"gc": "loss.gc", "bsr": "loss.bsr", "mlm": "loss.mlm", "pda": "loss.pda.weight"}
"""Key of each loss term's weight."""

TERM_OF = {
    **{f"{VALID}loss/{term}": term for term in WEIGHTS},
    f"{VALID}loss/bsr_without_text": "bsr",
    f"{VALID}mlm_accuracy": "mlm",
}
"""Which loss term must be on for a metric to be measured."""

METRICS = (*TERM_OF, TOTAL, f"{VALID}seconds", *(f"{VALID}{name}" for name in RETRIEVAL))
"""Every validation metric."""


def check_objectives(config: SweepConfig, base: Candidate, space: Space) -> None:
    """Refuses objectives that trials will not measure, or that cannot be compared between them.

    Args:
        config: The sweep.
        base: The candidate that its trials differ from.
        space: What they differ in.

    Raises:
        ConfigError: There is no such metric, or none of that benchmark; its loss term is off or can be; it
            is the weighted total while weights vary; or pruning would wait for what comes after training.
    """
    for metric in config.objectives:
        where = f"objectives.{metric}"
        if metric.startswith(BENCH):
            _check_benchmark(where, metric, config, base)
        elif metric not in METRICS:
            raise ConfigError(
                f"{where}: no such metric; {listed(metric, METRICS)}; or {BENCH}BENCHMARK/METRIC"
            )
        elif metric in TERM_OF:
            _check_term(where, metric, base.pretrain.loss, space)
        elif metric == TOTAL and (weights := [key for key in WEIGHTS.values() if key in space]):
            raise ConfigError(
                f"{where}: totals under different weights cannot be compared, and the smallest {weights[0]} "
                f"would win; seek {VALID}t2p_r10 or one of the terms, like {VALID}loss/gc"
            )


def check_measured(objectives: Collection[str], metrics: Mapping[str, float]) -> None:
    """Refuses to go on when validations do not measure what is sought.

    Raises:
        ConfigError: One is missing though the training has not diverged.
    """
    for metric in objectives:
        if metric.startswith(VALID) and metric not in metrics and TOTAL in metrics:
            raise ConfigError(
                f"objectives.{metric}: validation does not measure it; {listed(metric, metrics)}"
            )


def listed(metric: str, known: Collection[str]) -> str:
    """What a metric was perhaps meant to be, and what there is."""
    near = difflib.get_close_matches(metric, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{hint}there are {', '.join(sorted(known)) or 'none'}"


def _check_benchmark(where: str, metric: str, config: SweepConfig, base: Candidate) -> None:
    """Holds a benchmark's metric against the suite."""
    benchmark = metric.removeprefix(BENCH).partition("/")[0]
    if base.suite is None:
        raise ConfigError(f"{where}: no benchmark is run; give suite=FILE with {benchmark} in it")
    if benchmark not in base.suite.benchmarks:
        raise ConfigError(
            f"{where}: {benchmark} is not in the suite; {listed(benchmark, base.suite.benchmarks)}"
        )
    if not metric.removeprefix(f"{BENCH}{benchmark}").strip("/"):
        raise ConfigError(f"{where}: which of its metrics? give {BENCH}{benchmark}/METRIC")
    if config.pruning.method != "none":
        raise ConfigError(
            f"{where}: benchmarks are run after training, so nothing could be stopped by them; set "
            f"pruning.method=none or seek a {VALID}… metric"
        )


def _check_term(where: str, metric: str, loss: LossConfig, space: Space) -> None:
    """Holds a metric against the loss term without which it is not measured."""
    term = TERM_OF[metric]
    key = WEIGHTS[term]
    if not space.always(key) and loss.weights[term] == 0:
        raise ConfigError(f"{where}: not measured, for {key}=0 switches the term off; give {key} a weight")
    if key in space and 0 in space.ends(key):
        raise ConfigError(
            f"{where}: not measured in trials with {key}=0; keep space.{key} above 0 or seek another metric"
        )
