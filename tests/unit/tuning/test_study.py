"""Sweeps on real Optuna stores: what is tried, stopped, remembered, continued and refused."""

import contextlib
import itertools
import re
import shutil
import statistics

import optuna
import pytest

from protclip.config.load import load_config
from protclip.config.study import SweepConfig
from protclip.errors import ConfigError
from protclip.tuning.study import Study
from sweeps import CONF, GOAL, TWO, ended, sweep, template

TOTAL = "valid/loss/total"
EARLY = {"method": "asha", "min_steps": 50, "reduction_factor": 2}


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """A store without studies: making its tables takes a second."""
    path = tmp_path_factory.mktemp("store") / "optuna.db"
    optuna.storages.RDBStorage(f"sqlite:///{path}").engine.dispose()
    return path


@pytest.fixture
def begin(tmp_path, empty_store):
    """Submits a sweep, by default the same one to the same store."""
    shutil.copy(empty_store, tmp_path / "optuna.db")

    def begin(**keys) -> Study:
        config = sweep(**{"study": f"sqlite:///{tmp_path}/optuna.db", **keys})
        return Study(config, template(config))

    return begin


@pytest.fixture
def in_memory(monkeypatch):
    """Nothing is remembered, for what takes many trials."""

    class Memory(contextlib.nullcontext):
        def __init__(self, _):
            super().__init__()
            self.storage = optuna.storages.InMemoryStorage()

    monkeypatch.setattr("protclip.tuning.study.Store", Memory)


@pytest.fixture
def begin_in_memory(in_memory):
    """Submits a sweep of which nothing is remembered."""

    def begin(**keys) -> Study:
        config = sweep(**keys)
        return Study(config, template(config))

    return begin


def quality(params):
    """Best at λ1 = 0.7 and θ = 0.3."""
    return 1 - (params["loss.bsr"] - 0.7) ** 2 - (params["loss.pda.theta"] - 0.3) ** 2


def train(study, count=10**6, score=quality):
    """Runs trials to their end; returns their candidates."""
    done = []
    while len(done) < count and (candidate := study.next()):
        study.finish(ended(candidate.name, t2p_r10=score(candidate.varied)))
        done.append(candidate)
    return done


def test_study_gives_named_trials_whose_configurations_have_the_values(begin):
    study = begin(num_trials=3)
    assert (study.total, study.finished) == (3, 0)
    names = []
    while candidate := study.next():
        names.append(candidate.name)
        loss = candidate.pretrain.loss
        assert candidate.varied == {"loss.bsr": loss.bsr, "loss.pda.theta": loss.pda.theta}
        assert candidate.pretrain.run.name == candidate.name
    assert names == ["s-0000", "s-0001", "s-0002"]
    for name in names:
        study.finish(ended(name, t2p_r10=0.5))
    assert (study.finished, study.next()) == (3, None)


def test_study_continues_with_the_trials_a_dead_driver_left(begin):
    study = begin(num_trials=4)
    first, second, third = (study.next() for _ in range(3))
    study.observe(first.name, {GOAL: 0.1, TOTAL: 1.0}, 100)
    study.finish(ended(second.name, t2p_r10=0.7))
    del study

    again = begin(num_trials=4)
    assert again.finished == 1
    given = [again.next() for _ in range(3)]
    assert [c.name for c in given] == [first.name, third.name, "s-0003"]
    assert [c.varied for c in given[:2]] == [first.varied, third.varied]
    assert given[0].pretrain == first.pretrain
    assert again.next() is None
    # It goes on from its checkpoint, and may report a step twice.
    assert not again.observe(first.name, {GOAL: 0.2, TOTAL: 1.0}, 100)
    for candidate in given:
        again.finish(ended(candidate.name, t2p_r10=quality(candidate.varied)))
    tried = begin(num_trials=4).results().tried
    assert [t.number for t in tried] == [0, 1, 2, 3]
    assert [t.outcome.state for t in tried] == ["complete"] * 4
    assert tried[1].values == (0.7,)


def test_study_leaves_what_the_user_stopped_to_the_next_submission(begin):
    study = begin(num_trials=2)
    stopped = study.next()
    study.finish(ended(stopped.name, "stopped", step=40))
    other = study.next()
    assert other.name == "s-0001"
    assert study.next() is None
    study.finish(ended(other.name, t2p_r10=0.5))
    again = begin(num_trials=2)
    assert again.next().varied == stopped.varied


def test_study_does_not_repeat_its_suggestions_when_it_continues(begin):
    first = train(begin(sampler="random"), 1)[0]
    parts = [first, *(train(begin(sampler="random"), 1)[0] for _ in range(2))]
    assert len({tuple(c.varied.values()) for c in parts}) == 3
    assert train(begin(sampler="random", name="same"), 1)[0].varied == first.varied


def test_study_may_be_given_more_trials_and_other_means(begin):
    train(begin(num_trials=2))
    more = begin(
        num_trials=3,
        concurrency=7,
        retries=0,
        register_as=None,
        pretrain=["quickstart", "scaling.num_workers=1"],
    )
    assert [c.name for c in train(more)] == ["s-0002"]


OTHERS = {
    "space.loss.bsr.low: 0.1 -> 0.2": {"space": {**TWO, "loss.bsr": {"low": 0.2, "high": 1}}},
    "space.loss.pda.theta: {": {"space": {"loss.bsr": TWO["loss.bsr"]}},
    'objectives.valid/t2p_r10: "maximize" -> null': {"objectives": {"valid/t2p_r1": "maximize"}},
    'sampler: "tpe" -> "random"; seed: 0 -> 1': {"sampler": "random", "seed": 1},
    'pruning.method: "none" -> "median"': {"pruning": {"method": "median"}},
    "pretrain.train.max_steps: 300 -> 400": {"pretrain": ["quickstart", "train.max_steps=400"]},
    'data: "': {"data": "/others"},
    '-> "/elsewhere"': {"storage": "/elsewhere"},
    "suite: null -> {": {"suite": ["smoke"]},
}


def test_study_refuses_other_settings_under_the_same_name(begin):
    begin()
    for message, keys in OTHERS.items():
        with pytest.raises(ConfigError, match=re.escape(message)) as raised:
            begin(**keys)
        assert "sweep 's' exists in sqlite:///" in str(raised.value)
        assert "choose another name or undo: " in str(raised.value)
    begin()


def test_study_refuses_a_study_that_is_no_sweep(begin, tmp_path):
    optuna.create_study(storage=f"sqlite:///{tmp_path}/optuna.db", study_name="s", direction="minimize")
    with pytest.raises(
        ConfigError, match="has a study of this name that is no sweep of ours; choose another"
    ):
        begin()


def test_study_fails_values_that_contradict_each_other_and_goes_on(begin_in_memory, caplog):
    lengths = {"low": 3, "high": 12}
    study = begin_in_memory(
        space={"masking.segment_min": lengths, "masking.segment_max": lengths},
        sampler="random",
        num_trials=30,
    )
    trained = train(study, score=lambda _: 0.5)
    assert all(c.varied["masking.segment_min"] <= c.varied["masking.segment_max"] for c in trained)
    failures = study.failures
    assert 0 < len(failures) == 30 - len(trained)
    assert {f.error for f in failures} == {"masking: segment_min is above segment_max; swap them"}
    assert f"{failures[0].name}: its values contradict each other: masking: segment_min" in caplog.text
    assert study.finished == 30


def test_study_gives_up_a_space_of_contradictions(begin_in_memory):
    space = {
        "model.protein.unfreeze_at": {"low": 0, "high": 10**9},
        "train.max_steps": {"low": 1, "high": 10**9 + 1, "log": True},
    }
    study = begin_in_memory(space=space, sampler="random")
    with pytest.raises(
        ConfigError, match=r"20 combinations in a row .* model\.protein\.unfreeze_at=\d+ is past"
    ):
        train(study, score=lambda _: 0.5)


def test_study_fails_a_trial_without_a_finite_objective(begin):
    study = begin()
    absent, infinite = study.next(), study.next()
    assert study.observe(absent.name, {GOAL: float("nan")}, 100) is False
    study.finish(ended(absent.name, loss__gc=1.0, t2p_r5=0.5))
    study.finish(ended(infinite.name, t2p_r10=float("inf")))
    assert [f.error for f in study.failures] == [
        f"no finite {GOAL} at the end; did you mean valid/t2p_r5? there are valid/loss/gc, valid/t2p_r5",
        f"no finite {GOAL} at the end; there are none",
    ]
    assert study.results().best == []


def test_study_stops_the_sweep_when_the_objective_is_not_measured(begin):
    study = begin()
    name = study.next().name
    with pytest.raises(
        ConfigError, match=f"objectives.{GOAL}: validation does not measure it; did you mean valid/t2p_r1"
    ):
        study.observe(name, {"valid/t2p_r1": 0.1, TOTAL: 1.0}, 100)


def test_study_keeps_what_came_of_a_trial_where_people_look(begin):
    study = begin(num_trials=2)
    good = ended(study.next().name, t2p_r10=0.5, loss__gc=2.0)
    bad = ended(study.next().name, "failed", step=7)
    study.finish(good)
    study.finish(type(bad)(bad.name, "failed", checkpoint="s3://c", run_id="abc", error="out of memory"))
    study.run_id = "parent"
    again = begin(num_trials=2)
    assert again.run_id == "parent"
    assert again.failures == [
        type(bad)(bad.name, "failed", checkpoint="s3://c", run_id="abc", error="out of memory")
    ]
    results = again.results()
    assert results.tried[0].outcome == good
    assert results.tried[0].started is not None
    attributes = results.study.trials[1].user_attrs
    assert (attributes["checkpoint"], attributes["run_id"], attributes["error"]) == (
        "s3://c",
        "abc",
        "out of memory",
    )


def curve(study, name, value, steps=(50, 100, 150, 200)):
    """Steps of a flat curve after which a trial was stopped, all of them if it never was."""
    for step in steps:
        if study.observe(name, {GOAL: value, TOTAL: 1.0}, step):
            return step
    return steps[-1]


@pytest.mark.parametrize("method", ["asha", "hyperband", "median"])
def test_study_stops_trials_that_others_are_ahead_of(begin_in_memory, method):
    pruning = {"method": method, "min_steps": 50, "reduction_factor": 2, "min_trials": 3}
    study = begin_in_memory(pruning=pruning, pretrain=["quickstart", "train.max_steps=200"], sampler="random")
    ran = {}
    for value in (0.5, 0.6, 0.7, 0.1, 0.2, 0.8, 0.15, 0.9, 0.05, 0.12, 0.95, 0.01):
        name = study.next().name
        ran[value] = curve(study, name, value)
        state = "pruned" if ran[value] < 200 else "complete"
        study.finish(ended(name, state, step=ran[value], t2p_r10=value))
    assert all(ran[value] == 200 for value in (0.7, 0.8, 0.9, 0.95))
    if method == "hyperband":  # whose brackets begin later, the last one at the last step
        assert any(steps < 200 for steps in ran.values())
    else:
        assert ran[0.05] == ran[0.01] == 50
    results = study.results()
    assert results.best[0].values == (0.95,)
    assert [t.values is None for t in results.tried] == [t.outcome.state == "pruned" for t in results.tried]


def test_study_stops_nothing_before_min_steps_nor_at_the_last_step(begin):
    study = begin(pruning=EARLY, pretrain=["quickstart", "train.max_steps=100"])
    best, worst = study.next().name, study.next().name
    assert curve(study, best, 0.9, (25, 49, 100)) == 100
    assert not study.observe(worst, {GOAL: 0.0, TOTAL: 1.0}, 49)
    assert not study.observe(worst, {GOAL: 0.0, TOTAL: 1.0}, 100)


def test_study_minds_the_direction(begin):
    loss = "valid/loss/gc"
    study = begin(pruning=EARLY, objectives={loss: "minimize"})
    low, high = study.next().name, study.next().name
    assert not study.observe(low, {loss: 1.0, TOTAL: 1.0}, 60)
    assert study.observe(high, {loss: 2.0, TOTAL: 1.0}, 60)


def test_study_stops_a_diverged_trial_and_remembers_that_it_did(begin):
    study = begin(pruning=EARLY)
    name = study.next().name
    assert study.observe(name, {"valid/t2p_r1": 0.0}, 60)
    del study
    again = begin(pruning=EARLY)
    assert again.next().name == name
    # At a rung that it has passed already a pruner would let it go on.
    assert again.observe(name, {GOAL: 0.9, TOTAL: 1.0}, 60)


def test_tpe_comes_closer_than_chance(begin_in_memory):
    def late(sampler, seed):
        done = train(begin_in_memory(sampler=sampler, seed=seed, num_trials=30, name=f"{sampler}{seed}"))
        return statistics.mean(quality(c.varied) for c in done[15:])

    assert late("tpe", 0) > late("random", 0) + 0.05


def test_cmaes_runs_and_comes_closer(begin_in_memory):
    done = train(begin_in_memory(sampler="cmaes", num_trials=40))
    late, early = ([1 - quality(c.varied) for c in part] for part in (done[30:], done[:10]))
    assert statistics.mean(late) < 0.8 * statistics.mean(early)


def test_grid_covers_exactly_the_product_over_several_submissions(begin):
    space = {
        "loss.bsr": {"low": 0.1, "high": 0.7, "step": 0.3},
        "masking.corruption": {"choices": ["shared", "separate"]},
    }
    keys = {"space": space, "sampler": "grid", "num_trials": None}
    study = begin(**keys)
    assert study.total == 6
    part = train(study, 2, score=lambda _: 0.5)
    left = study.next()
    del study
    rest = train(begin(**keys), score=lambda _: 0.5)
    assert rest[0].varied == left.varied
    seen = [tuple(c.varied[key] for key in space) for c in (*part, *rest)]
    assert sorted(seen) == sorted(itertools.product((0.1, 0.4, 0.7), ("shared", "separate")))


def test_grid_goes_no_further_than_num_trials(begin_in_memory):
    keys = {"space": {"train.seed": {"low": 0, "high": 99}}, "sampler": "grid"}
    assert begin_in_memory(**keys, num_trials=3).total == 3
    seeds = [
        c.varied["train.seed"] for c in train(begin_in_memory(**keys, num_trials=3), score=lambda _: 0.5)
    ]
    assert len(set(seeds)) == 3
    assert seeds != [0, 1, 2]


def test_results_have_the_pareto_front_by_the_first_objective(begin):
    study = begin(objectives={GOAL: "maximize", "valid/loss/mlm": "minimize"}, num_trials=5)
    for t2p, mlm in ((0.1, 1.0), (0.9, 3.0), (0.5, 2.0), (0.4, 2.5), (0.5, 2.2)):
        name = study.next().name
        assert not study.observe(name, {GOAL: t2p, "valid/loss/mlm": mlm, TOTAL: 1.0}, 100)
        study.finish(ended(name, t2p_r10=t2p, loss__mlm=mlm))
    results = study.results()
    assert [t.values for t in results.best] == [(0.9, 3.0), (0.5, 2.0), (0.1, 1.0)]
    assert set(results.importance) == {GOAL, "valid/loss/mlm"}


def test_results_say_which_dimension_mattered(begin_in_memory):
    study = begin_in_memory(num_trials=20, sampler="random")
    train(study, score=lambda params: params["loss.bsr"] + 0.01 * params["loss.pda.theta"])
    shares = study.results().importance[GOAL]
    assert list(shares) == ["loss.bsr", "loss.pda.theta"]
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["loss.bsr"] > 0.9
    best = study.results().best
    assert len(best) == 1
    assert best[0].params["loss.bsr"] == max(t.params["loss.bsr"] for t in study.results().tried)


def test_results_know_the_importance_of_conditional_dimensions(begin_in_memory):
    when = {"masking.corruption": ["separate"]}
    space = {
        "masking.corruption": {"choices": ["separate", "shared"]},
        "masking.segment_rate": {"low": 0.05, "high": 0.4, "when": when},
        "masking.mlm_rate": {"low": 0.05, "high": 0.4},
    }
    study = begin_in_memory(space=space, num_trials=40, sampler="random")
    train(
        study, score=lambda params: params.get("masking.segment_rate", 0) + 0.001 * params["masking.mlm_rate"]
    )
    shares = study.results().importance[GOAL]
    assert set(shares) == set(space)
    assert shares["masking.mlm_rate"] < 0.1 < shares["masking.segment_rate"]


def test_results_claim_no_importance_from_few_or_equal_trials(begin_in_memory):
    few = begin_in_memory(num_trials=3)
    train(few)
    assert few.results().importance == {}
    equal = begin_in_memory(name="equal", num_trials=6)
    train(equal, score=lambda _: 0.5)
    assert equal.results().importance == {}
    assert len(equal.results().best) == 1


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {
                "sampler": "cmaes",
                "objectives": {GOAL: "maximize", TOTAL: "minimize"},
                "space": {"optim.lr": {"low": 1e-5, "high": 1}},
            },
            "sampler=cmaes seeks one objective, there are 2; take sampler=tpe",
        ),
        (
            {"sampler": "cmaes", "space": {"train.compile": {"choices": [True, False]}}},
            "sampler=cmaes needs ranges",
        ),
        (
            {"sampler": "cmaes", "space": {"loss.bsr": TWO["loss.bsr"]}},
            "sampler=cmaes needs at least two dimensions",
        ),
        ({"pruning": {"method": "asha", "min_steps": 300}}, "nothing is stopped before step 300"),
        (
            {"pruning": {"method": "hyperband"}, "pretrain": ["quickstart", "train.valid_every=150"]},
            "before step 300 (pruning.min_steps, or two validations), but train.max_steps=300 ends training",
        ),
    ],
)
def test_study_refuses_methods_that_could_not_work(begin_in_memory, keys, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        begin_in_memory(**keys)


@pytest.mark.parametrize("path", sorted((CONF / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_ready_sweep_gives_trials(path, in_memory):
    assert f"protclip sweep --config conf/sweeps/{path.name} " in path.read_text()
    given = ["sample=sample_paper,source=s,target_pairs=9"] if path.stem == "sampling" else ["data=d"]
    config = load_config(SweepConfig, path, given)
    study = Study(config, template(config))
    assert config.name == path.stem
    assert study.next().name == f"{path.stem}-0000"
