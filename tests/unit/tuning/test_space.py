"""What a space takes and refuses, and that values reach the configuration as they were suggested."""

import re

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protclip.errors import ConfigError
from protclip.records import Property
from protclip.tuning.space import Space
from sweeps import space, sweep, template

UNIT = {"low": 0, "high": 1}
SHARED = {"choices": ["separate", "shared"]}
DRAWN = {"sample": ["sample", "source=strata"]}


def suggested(made: Space, count=1, seed=0):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    return [made.suggest(study.ask()) for _ in range(count)]


@pytest.mark.parametrize(
    ("dimensions", "message"),
    [
        ({"loss.bsrr": UNIT}, "space.loss.bsrr: unknown key 'loss.bsrr'; did you mean 'loss.bsr'?"),
        ({"loss.gc": UNIT, "optim.rl": UNIT}, "space.optim.rl: unknown key 'optim.rl'; known keys here: lr"),
        ({"loss.gc": {"low": -1, "high": 1}}, "space.loss.gc: loss.gc: expected number ≥ 0, got -1"),
        (
            {"masking.mlm_rate": {"low": 0.5, "high": 1.5}},
            "masking.mlm_rate: expected number from 0 to 1, got 1.5",
        ),
        ({"optim.lr": {"choices": [1e-3, "fast"]}}, "optim.lr: expected number > 0, got 'fast'"),
        ({"train.max_steps": {"low": 1.5, "high": 3}}, "expected whole number ≥ 1, got 1.5"),
        ({"train.max_steps": {"low": 10, "high": 20, "step": 2.5}}, "step=2.5 is not a whole number"),
        (
            {"loss.gc": {"low": 0.1, "high": 1, "step": 0.4}},
            "0.4 from low=0.1 miss high=1; the last one is 0.9",
        ),
        ({"model.protein.source": UNIT}, "space.model.protein.source: takes no number; give choices"),
        ({"masking.corruption": UNIT}, "expected one of separate, shared, got '0'"),
        ({"train.compile": UNIT}, "space.train.compile: train.compile: expected true or false, got 0"),
        ({"optim.betas": UNIT}, "optim.betas: expected list of 2 numbers"),
        ({"loss": UNIT}, "space.loss: loss: expected a section with keys of its own"),
        ({"loss.pda.theta.function": UNIT | {"high": 0.5}}, "must name all four; missing: protein_name"),
        ({"run.name": {"choices": ["a", "b"]}}, "run.name is decided by the study; leave it out"),
        ({"tracking.enabled": {"choices": [True, False]}}, "tracking.enabled is decided by the study"),
        ({"sampling.exponents.confidence": UNIT}, "give sample=FILE,source=URI instead"),
        (
            {"loss.pda.theta": UNIT, "loss.pda.theta.function": UNIT},
            "space.loss.pda.theta: loss.pda.theta.function is a part of it; drop one of the two",
        ),
        (
            {"loss.gc": UNIT | {"when": {"masking.corruptoin": ["shared"]}}},
            "space.loss.gc: when names masking.corruptoin, which is no dimension; there are loss.gc",
        ),
        (
            {"loss.gc": UNIT, "loss.mlm": UNIT | {"when": {"loss.gc": [1]}}},
            "space.loss.mlm: when names loss.gc, a range; a dimension can depend on choices only",
        ),
        (
            {"masking.corruption": SHARED, "loss.gc": UNIT | {"when": {"masking.corruption": ["shred"]}}},
            "space.loss.gc: when names masking.corruption: shred is not among separate, shared",
        ),
        (
            {
                "masking.corruption": SHARED | {"when": {"train.compile": [True]}},
                "train.compile": {"choices": [True, False], "when": {"masking.corruption": ["shared"]}},
            },
            "when goes round in a circle: ",
        ),
    ],
)
def test_space_refuses_before_anything_starts(dimensions, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as raised:
        space(dimensions)
    assert str(raised.value).startswith("space.")
    assert "command line" not in str(raised.value)


def test_space_names_the_dimension_at_fault_wherever_it_stands():
    for dimensions in (
        {"loss.gc": UNIT, "loss.bsr": {"low": -1, "high": 1}},
        {"loss.bsr": UNIT, "loss.gcc": UNIT},
    ):
        wrong = list(dimensions)[1]
        with pytest.raises(ConfigError, match=rf"^space\.{wrong}: "):
            space(dimensions)


def test_space_takes_thresholds_of_all_properties_together():
    made = space({f"loss.pda.theta.{name}": {"low": 0.1, "high": 0.6} for name in Property})
    params = suggested(made)[0]
    thetas = template(sweep()).make("x", made.settings(params)).pretrain.loss.pda.thetas
    assert thetas == tuple(params[f"loss.pda.theta.{name}"] for name in Property)


def test_space_takes_ends_that_only_some_of_the_others_allow():
    dimensions = {
        "masking.segment_min": {"low": 3, "high": 8},
        "masking.segment_max": {"low": 6, "high": 15},
    }
    assert set(space(dimensions)) == set(dimensions)
    with pytest.raises(ConfigError, match=r"^space\.masking\.segment_m.*: segment_min is above segment_max"):
        space(dimensions | {"masking.segment_min": {"low": 3, "high": 16}})


def test_space_gives_whole_numbers_where_the_key_wants_them():
    dimensions = {
        "masking.segment_max": {"low": 10, "high": 30, "step": 5},
        "model.num_prototypes": {"low": 16, "high": 512, "log": True},
        "loss.gc": {"low": 1, "high": 3},
        "sampling.min_coverage": {"low": 1, "high": 4},
    }
    found = suggested(space(dimensions, **DRAWN), 40)
    assert {p["masking.segment_max"] for p in found} == {10, 15, 20, 25, 30}
    assert {p["sampling.min_coverage"] for p in found} == {1, 2, 3, 4}
    assert all(type(p[key]) is int for p in found for key in dimensions if key != "loss.gc")
    assert len({p["loss.gc"] for p in found}) == 40


def test_space_gives_steps_without_what_rounding_leaves_behind():
    values = {
        p["loss.bsr"] for p in suggested(space({"loss.bsr": {"low": 0.1, "high": 1, "step": 0.1}}), 100)
    }
    assert sorted(values) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


def test_space_has_a_conditional_dimension_only_where_its_condition_holds():
    made = space(
        {
            "masking.segment_rate": {"low": 0.1, "high": 0.3, "when": {"masking.corruption": ["separate"]}},
            "masking.corruption": SHARED | {"when": {"train.compile": [False]}},
            "train.compile": {"choices": [True, False]},
        }
    )
    assert list(made) == ["train.compile", "masking.corruption", "masking.segment_rate"]
    assert made.conditional
    assert not made.is_numeric
    found = suggested(made, 60)
    for params in found:
        assert ("masking.corruption" in params) == (params["train.compile"] is False)
        assert ("masking.segment_rate" in params) == (params.get("masking.corruption") == "separate")
    assert {len(params) for params in found} == {1, 2, 3}


def test_space_checks_a_conditional_dimension_where_it_is_there():
    with pytest.raises(
        ConfigError, match=r"^space\.masking\.segment_rate: .* expected number from 0 to 1, got 2"
    ):
        space(
            {
                "masking.corruption": SHARED,
                "masking.segment_rate": {"low": 0, "high": 2, "when": {"masking.corruption": ["shared"]}},
            }
        )


def test_space_takes_choices_as_on_the_command_line():
    by_property = "{protein_name: 0.1, function: 0.2, subcellular_location: 0.3, similarity: 0.4}"
    made = space(
        {
            "loss.pda.theta": {"choices": [0.3, by_property]},
            "train.micro_batch": {"choices": ["null", 8]},
            "model.protein.lora.targets": {"choices": ["q_proj", "q_proj,v_proj"]},
        }
    )
    make = template(sweep()).make
    candidates = [make("x", made.settings(params)).pretrain for params in made.grid()]
    assert {c.loss.pda.thetas for c in candidates} == {(0.3,) * 4, (0.1, 0.2, 0.3, 0.4)}
    assert {c.train.micro_batch for c in candidates} == {None, 8}
    assert {c.model.protein.lora.targets for c in candidates} == {("q_proj",), ("q_proj", "v_proj")}


finite = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=25, deadline=None)
@given(
    rate=st.floats(0, 1),
    lr=finite.filter(lambda value: value > 0),
    exponent=finite,
    steps=st.integers(1, 10**15),
    compiled=st.booleans(),
    corruption=st.sampled_from(["separate", "shared"]),
)
def test_settings_give_the_configuration_the_same_values(rate, lr, exponent, steps, compiled, corruption):
    params = {
        "masking.mlm_rate": rate,
        "optim.lr": lr,
        "sampling.exponents.confidence": exponent,
        "train.max_steps": steps,
        "train.compile": compiled,
        "masking.corruption": corruption,
    }
    made = template(sweep(**DRAWN)).make("x", Space.settings(params))
    config = made.pretrain
    assert made.sample is not None
    assert made.sample.sampling.exponents.confidence == exponent
    assert (config.masking.mlm_rate, config.optim.lr, config.train.max_steps) == (rate, lr, steps)
    assert (config.train.compile, config.masking.corruption) == (compiled, corruption)


def test_grid_is_every_combination():
    made = space(
        {
            "loss.bsr": {"low": 0.1, "high": 0.5, "step": 0.2},
            "masking.segment_max": {"low": 10, "high": 12},
            "train.compile": {"choices": [True, False]},
        }
    )
    assert [tuple(params.values()) for params in made.grid()] == [
        (bsr, longest, compiled)
        for bsr in (0.1, 0.3, 0.5)
        for longest in (10, 11, 12)
        for compiled in (True, False)
    ]


@pytest.mark.parametrize(
    ("dimensions", "message"),
    [
        ({"loss.gc": UNIT}, "space.loss.gc: sampler=grid needs choices, or low, high and step"),
        (
            {"masking.segment_max": {"low": 10, "high": 20, "log": True}},
            "needs choices, or low, high and step",
        ),
        (
            {
                "masking.corruption": SHARED,
                "train.compile": {"choices": [True], "when": {"masking.corruption": ["shared"]}},
            },
            "space.train.compile: sampler=grid has every dimension in every trial; drop when",
        ),
        (
            {"train.seed": {"low": 0, "high": 999}, "train.max_steps": {"low": 1, "high": 999}},
            "999000 combinations",
        ),
    ],
)
def test_grid_refuses_what_has_no_end(dimensions, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        space(dimensions).grid()
