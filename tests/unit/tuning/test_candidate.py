"""A study's candidates: their configurations, and what is refused before anything starts."""

from pathlib import Path
from typing import Any

import pytest

from protclip.config.study import SweepConfig
from protclip.errors import ConfigError
from protclip.evaluation.metrics.validation import lower_is_better
from protclip.tuning.candidate import SERVER_WAIT_S, Template

CONF = Path(__file__).resolve().parents[3] / "conf"


def template(tmp_path: Path, **keys: Any) -> Template:
    given = {
        "name": "study",
        "storage": str(tmp_path),
        "pretrain": ["quickstart", "train.max_steps=7"],
        "data": str(tmp_path / "pairs"),
        "space": {"loss.bsr": {"low": 0, "high": 1}},
        "objectives": {"valid/t2p_r10": "maximize"},
        "num_trials": 1,
    }
    return Template(SweepConfig.model_validate(given | keys), CONF)


def drawing(tmp_path: Path, **keys: Any) -> Template:
    given = {"data": None, "sample": ["sample", f"source={tmp_path / 'strata'}"]}
    return template(tmp_path, **given | keys)


def test_candidate_is_the_base_with_its_settings_in_a_place_of_its_own(tmp_path: Path) -> None:
    made = template(tmp_path).make("one", ["loss.bsr=0.25", "train.max_steps=9"], {"loss.bsr": 0.25})
    assert (made.pretrain.loss.bsr, made.pretrain.train.max_steps) == (0.25, 9)
    assert made.pretrain.model.protein.source == "esm2-tiny"
    assert made.pretrain.data == str(tmp_path / "pairs")
    assert made.pretrain.run.name == "one"
    assert made.pretrain.run.storage == str(tmp_path / "study" / "runs")
    assert made.pretrain.tracking.wait_s == SERVER_WAIT_S
    assert (made.sample, made.suite, made.varied) == (None, None, {"loss.bsr": 0.25})


def test_candidates_share_pairs_exactly_when_they_draw_the_same(tmp_path: Path) -> None:
    study = drawing(tmp_path)
    names = {
        name: study.make(name, settings).pretrain.data
        for name, settings in {
            "plain": [],
            "seed": ["train.seed=3"],
            "uniform": ["sampling.exponents.confidence=0"],
            "again": ["sampling.exponents.confidence=0.0", "loss.bsr=0"],
        }.items()
    }
    assert names["plain"] == names["seed"] == study.base.pretrain.data
    assert names["uniform"] == names["again"] != names["plain"]
    made = study.make("uniform", ["sampling.exponents.confidence=0"])
    assert made.sample is not None
    assert made.sample.output == made.pretrain.data
    assert made.sample.sampling.exponents.confidence == 0


def test_every_model_is_tested_on_the_pairs_the_base_holds_out(tmp_path: Path) -> None:
    study = drawing(tmp_path, suite=["smoke", "seeds=0,1", "leaks=true"])
    made = study.make("uniform", ["sampling.exponents.confidence=0"])
    assert made.suite is not None
    assert made.suite.pairs == study.base.pretrain.data != made.pretrain.data
    assert made.suite.checkpoint == str(tmp_path / "study/runs/uniform")
    assert made.suite.output == str(tmp_path / "study/benchmarks/uniform")
    assert (made.suite.leaks, made.suite.baselines) == (True, False)


@pytest.mark.parametrize(
    ("keys", "settings", "message"),
    [
        ({"pretrain": ["nothing"]}, [], "no file .*nothing.yaml; .*quickstart"),
        ({"pretrain": ["train.max_steps=3"]}, [], "the first must be the name"),
        ({"pretrain": ["quickstart", "run.name=x"]}, [], "run.name is decided by the study"),
        ({"pretrain": ["quickstart", "tracking.uri=x"]}, [], "tracking.uri is decided by the study"),
        ({"suite": ["smoke", "output=x"]}, [], "output is decided by the study"),
        ({}, ["loss.bsx=1"], "did you mean 'loss.bsr'"),
        ({}, ["loss.bsr=much"], "loss.bsr: expected number"),
        ({}, ["sampling.exponents.date=1"], "how they are drawn cannot be varied; give sample=FILE"),
        ({}, ["data=elsewhere"], "data is decided by the study"),
    ],
)
def test_template_refuses_and_says_what_to_do(
    tmp_path: Path, keys: dict[str, Any], settings: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        template(tmp_path, **keys).make("one", settings)


def test_what_is_held_out_cannot_be_varied_where_models_are_tested_on_it(tmp_path: Path) -> None:
    settings = ["splits.test_share=0.2"]
    assert drawing(tmp_path).make("one", settings).sample is not None
    with pytest.raises(ConfigError, match=r"splits\.test_share=0\.2: .* cannot be varied"):
        drawing(tmp_path, suite=["smoke"]).make("one", settings)


def test_study_needs_pairs_or_a_way_to_draw_them(tmp_path: Path) -> None:
    for keys in ({"data": None}, {"sample": ["sample", "source=s"]}):
        with pytest.raises(ValueError, match="give either data=URI of pairs or sample="):
            template(tmp_path, **keys)


def test_lower_is_better_for_losses_ranks_and_what_should_be_far() -> None:
    assert [name for name in VALIDATION if lower_is_better(name)] == [
        "valid/loss/gc",
        "valid/t2p_median_rank",
        "valid/mismatched_cosine",
        "valid/seconds",
    ]


VALIDATION = (
    *("valid/loss/gc", "valid/t2p_r10", "valid/t2p_mrr", "valid/t2p_median_rank", "valid/mlm_accuracy"),
    *("valid/matched_cosine", "valid/mismatched_cosine", "valid/seconds"),
)
