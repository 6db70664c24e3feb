"""Which objectives a sweep refuses before it starts, and that the metrics it knows are those measured."""

import re

import pytest
import torch

from protclip.config.schema import LossConfig
from protclip.data.collate import Collator, TextTokens
from protclip.data.tokenizer import TextTokenizer
from protclip.errors import ConfigError
from protclip.model.build import build
from protclip.training.replica import Replica
from protclip.training.validate import Validation
from protclip.tuning.objectives import METRICS, WEIGHTS, check_objectives
from protclip.tuning.space import Space
from sweeps import TWO, sweep, template
from watched_runs import settings

LR = {"optim.lr": {"low": 1e-5, "high": 1e-3}}
RETRIEVAL = "bench/heldout_retrieval/t2p_r10"


def check(metric, **keys):
    config = sweep(objectives={metric: "maximize"}, **keys)
    made = template(config)
    check_objectives(config, made.base, Space(config.space, made))


@pytest.mark.parametrize(
    ("metric", "keys", "message"),
    [
        ("valid/t2p_r20", {}, "no such metric; did you mean valid/t2p_r10? there are valid/"),
        ("train/loss/gc", {}, "no such metric; did you mean valid/loss/gc? there are valid/"),
        (
            "valid/loss/total",
            {},
            "totals under different weights cannot be compared, and the smallest loss.bsr would win",
        ),
        (
            "valid/mlm_accuracy",
            {"pretrain": ["quickstart", "loss.mlm=0"]},
            "not measured, for loss.mlm=0 switches the term off; give loss.mlm a weight",
        ),
        (
            "valid/loss/bsr_without_text",
            {"space": {"loss.bsr": {"low": 0, "high": 1}}},
            "not measured in trials with loss.bsr=0; keep space.loss.bsr above 0",
        ),
        (
            "valid/loss/pda",
            {
                "pretrain": ["quickstart", "loss.pda.weight=0"],
                "space": {
                    "masking.corruption": {"choices": ["shared", "separate"]},
                    "loss.pda.weight": {"low": 0.5, "high": 1, "when": {"masking.corruption": ["shared"]}},
                },
            },
            "not measured, for loss.pda.weight=0 switches the term off",
        ),
        (RETRIEVAL, {}, "no benchmark is run; give suite=FILE with heldout_retrieval in it"),
        (
            "bench/heldout_retreival/t2p_r10",
            {"suite": ["smoke"]},
            "heldout_retreival is not in the suite; did you mean heldout_retrieval? there are",
        ),
        (
            "bench/made_location/",
            {"suite": ["smoke"]},
            "which of its metrics? give bench/made_location/METRIC",
        ),
        (
            RETRIEVAL,
            {"suite": ["smoke"], "pruning": {"method": "median"}},
            "benchmarks are run after training, so nothing could be stopped by them; set pruning.method=none",
        ),
    ],
)
def test_objective_is_refused(metric, keys, message):
    with pytest.raises(ConfigError, match=re.escape(f"objectives.{metric}: {message}")):
        check(metric, **keys)


@pytest.mark.parametrize(
    ("metric", "keys"),
    [
        ("valid/loss/total", {"space": LR}),
        ("valid/loss/bsr", {"space": TWO, "pretrain": ["quickstart", "loss.bsr=0"]}),
        (RETRIEVAL, {"suite": ["smoke"]}),
        ("valid/mlm_accuracy", {"pruning": {"method": "asha"}}),
    ],
)
def test_objective_is_taken(metric, keys):
    check(metric, **keys)


def test_metrics_are_those_of_a_validation(tiny_pairs, tmp_path):
    config = settings(tiny_pairs, tmp_path, valid_pairs=8)
    tokenizer = TextTokenizer.load("builtin")
    tokens = TextTokens(tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id)
    collate = Collator(
        config.masking, tokens, config.model.protein.max_tokens, config.model.text.max_tokens, 0
    )
    model = build(config.model, config.loss, tokenizer.vocab_size, 0)
    measured = Validation(config, collate)(Replica(model, config, torch.device("cpu")))
    assert {f"valid/{name}" for name in measured} == set(METRICS)


def test_weights_are_those_of_the_loss():
    values = template(sweep()).make("x", [f"{key}={i + 1}" for i, key in enumerate(WEIGHTS.values())])
    assert values.pretrain.loss.weights == {term: i + 1 for i, term in enumerate(WEIGHTS)}
    assert list(LossConfig().weights) == list(WEIGHTS)
