"""Sweeps over the quickstart's training, without one being run."""

import json
from pathlib import Path

from protclip.config.study import SweepConfig
from protclip.tuning.candidate import Outcome, Template
from protclip.tuning.space import Space

CONF = Path(__file__).resolve().parents[2] / "conf"
GOAL = "valid/t2p_r10"
TWO = {"loss.bsr": {"low": 0.1, "high": 1.0}, "loss.pda.theta": {"low": 0.1, "high": 0.9}}


def sweep(**keys) -> SweepConfig:
    """A sweep's configuration; its name, training, data and objective need not be given."""
    given = {
        "name": "s",
        "pretrain": ["quickstart"],
        "space": TWO,
        "objectives": {GOAL: "maximize"},
        **({} if "sample" in keys else {"data": "pairs"}),
        **({} if "num_trials" in keys else {"num_trials": 100}),
        **keys,
    }
    return SweepConfig.model_validate_json(json.dumps(given), strict=True)


def template(config: SweepConfig) -> Template:
    return Template(config, CONF)


def space(dimensions, **keys) -> Space:
    config = sweep(space=dimensions, **keys)
    return Space(config.space, template(config))


def ended(name: str, state="complete", step=300, **metrics) -> Outcome:
    """What came of a trial, by default with `t2p_r10` only."""
    measured = {f"valid/{key.replace('__', '/')}": value for key, value in metrics.items()}
    return Outcome(name, state, step=step, metrics=measured, best={m: (v, step) for m, v in measured.items()})
