import numpy as np
import pyarrow as pa
import pytest
import torch

from protclip.config.base import Config
from protclip.errors import BenchmarkError
from protclip.evaluation.kinds import few_shot
from protclip.evaluation.kinds.few_shot import KIND, draw, prototype_scores
from protclip.evaluation.prepared import SCHEMAS, Prepared
from protclip.evaluation.spec.few_shot import FewShotSpec

LETTERS = "ACDEF"
"""A protein is of the class that its second residue names."""


def spec(**settings) -> FewShotSpec[Config]:
    return FewShotSpec[Config].model_validate(
        {
            "name": "planted",
            "title": "t",
            "group": "g",
            "kind": "few_shot",
            "metric": "accuracy",
            "citation": "c",
            "licence": "l",
            "data": {},
            "prompts": {f"class {letter}": (f"{letter} one",) for letter in LETTERS},
            "shots": 4,
            "lr": 1e-2,
            "epochs": 30,
            **settings,
        }
    )


def prepared(test: str, train: str = LETTERS * 10) -> Prepared:
    """Proteins by the letters of their classes."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "id": f"{split}{i}",
            "split": split,
            "sequence": f"M{letter}" + "".join(rng.choice(list("KLMNP"), 20)),
            "label": f"class {letter}",
        }
        for split, letters in (("train", train), ("test", test))
        for i, letter in enumerate(letters)
    ]
    table = pa.Table.from_pylist(rows, SCHEMAS["few_shot"]["examples"])
    return Prepared({"examples": table}, labels=(), digest="d")


class Planted:
    """Features, and embeddings shared with prompts, lie around a class's direction, each as far as told."""

    name = "planted"

    def __init__(self, noise: float, prompt_noise: float = 0.1) -> None:
        self.noise = {"features": noise, "projected": prompt_noise, "texts": prompt_noise}
        self.directions = np.random.default_rng(1).normal(size=(len(LETTERS), 16))
        self.asked = {}
        self.embedder = self
        self.scale, self.device = 10.0, torch.device("cpu")

    def vectors(self, what, items):
        self.asked.setdefault(what, []).append(list(items))
        classes = [LETTERS.index(item[0] if what == "texts" else item[1]) for item in items]
        noise = [np.random.default_rng([len(what), *item.encode()]).normal(size=16) for item in items]
        return (self.directions[classes] + self.noise[what] * np.array(noise)).astype(np.float32)


def run(data, encoder, seed=0, **settings):
    return KIND.run(spec(**settings), data, encoder, "frozen", seed)


def test_few_shot_finds_planted_classes_in_every_way():
    outcome = run(prepared(LETTERS * 20), Planted(0.1))
    assert KIND.score(outcome.units) == dict.fromkeys(KIND.metrics, 1.0)
    assert outcome.ids == [f"test{i}" for i in range(100)]
    assert outcome.counts == {"test": 100, "classes": 5, "shots": 4}


def test_few_shot_by_noise_is_at_chance():
    planted = Planted(1.0, prompt_noise=1.0)
    planted.directions[:] = 0
    metrics = KIND.score(run(prepared(LETTERS * 100), planted, shots=10).units)
    for name in ("accuracy", "prototype_accuracy", "ensemble_accuracy"):
        assert metrics[name] == pytest.approx(1 / 5, abs=0.07), name
    assert abs(metrics["mcc"]) < 0.08


def test_ensemble_weighs_the_zero_shot_logits_with_alpha_and_scale():
    data, encoder = prepared(LETTERS * 20), Planted(50.0)
    head, both = (KIND.score(run(data, encoder, alpha=alpha).units) for alpha in (0.0, 1000.0))
    assert head["ensemble_accuracy"] == head["accuracy"] < 0.5
    assert both["ensemble_accuracy"] == 1
    assert both["accuracy"] == head["accuracy"]
    encoder.scale = 1e4
    assert KIND.score(run(data, encoder).units)["ensemble_accuracy"] == 1


def test_more_shots_are_better():
    data = prepared(LETTERS * 40, train=LETTERS * 40)
    one, many = (KIND.score(run(data, Planted(1.2), shots=k).units) for k in (1, 32))
    assert many["accuracy"] > one["accuracy"] + 0.1
    assert many["prototype_accuracy"] > one["prototype_accuracy"] + 0.1


def test_few_shot_repeats_with_the_same_seed_only():
    data = prepared(LETTERS * 40)
    runs = [run(data, Planted(1.2), seed=seed).units for seed in (3, 3, 4)]
    for name in runs[0]:
        np.testing.assert_array_equal(runs[0][name], runs[1][name])
    assert (runs[0]["predicted"] != runs[2]["predicted"]).any()
    assert (runs[0]["by_prototype"] != runs[2]["by_prototype"]).any()


def test_few_shot_leaves_the_global_random_state_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    run(prepared(LETTERS), Planted(1.0), epochs=1)
    assert torch.equal(before, torch.get_rng_state())


def test_head_measures_its_last_epoch(monkeypatch):
    def counted(*arguments):
        epochs.append(few_shot_fit(*arguments))
        return epochs[-1]

    epochs, few_shot_fit = [], few_shot.fit
    monkeypatch.setattr(few_shot, "fit", counted)
    run(prepared(LETTERS), Planted(0.1), epochs=17)
    assert epochs == [17]


def test_draw_takes_each_class_k_times_and_repeats_only_where_it_must():
    class_N = np.array([0, 1, 1, 0, 2, 1, 1])
    rows = draw(class_N, shots=3, num_classes=3, rng=np.random.default_rng(0))
    assert rows.shape == (3, 3)
    np.testing.assert_array_equal(class_N[rows], [[0] * 3, [1] * 3, [2] * 3])
    assert len(set(rows[1])) == 3
    assert set(rows[2]) == {4}
    draws = [tuple(draw(class_N, 1, 3, np.random.default_rng(seed))[:2, 0]) for seed in range(40)]
    assert {a for a, _ in draws} == {0, 3}
    assert {b for _, b in draws} == {1, 2, 5, 6}


def test_prototype_scores_equal_the_published_sum_where_that_can_be_computed():
    rng = np.random.default_rng(0)
    test, shots = rng.normal(size=(6, 3)), rng.normal(size=(8, 3))
    expected = [
        [sum(np.exp(-((x - s) ** 2).sum()) for s in shots[4 * c : 4 * c + 4]) for c in (0, 1)] for x in test
    ]
    np.testing.assert_allclose(prototype_scores(test, shots, 2), np.log(expected))


def test_prototype_scores_do_not_underflow():
    far = prototype_scores(np.zeros((1, 1280)), np.stack([np.full(1280, 10.0), np.full(1280, 9.0)]), 2)
    np.testing.assert_allclose(far, [[-128_000, -103_680]])


def test_few_shot_embeds_the_examples_it_drew_and_what_it_said_it_needs():
    data, encoder = prepared(LETTERS * 3, train=LETTERS * 50), Planted(0.1)
    run(data, encoder)
    needs = KIND.needs(spec(), data)
    assert {what: asked[-1] for what, asked in encoder.asked.items()} == needs
    drawn, _ = encoder.asked["features"]
    assert [s[1] for s in drawn] == [c for c in LETTERS for _ in range(4)]


def test_few_shot_refuses_a_class_without_training_examples():
    with pytest.raises(BenchmarkError, match="planted: no training example of class E, class F"):
        run(prepared("AC", train="ACD" * 4), Planted(0.1))


def test_baselines_are_measured_like_the_head():
    data = prepared(LETTERS * 40, train=LETTERS * 40 + "A" * 8)
    outcomes = {name: run(spec(shots=16), data, 0) for name, run in KIND.baselines.items()}
    scores = {name: KIND.score(outcome.units) for name, outcome in outcomes.items()}
    assert {tuple(score) for score in scores.values()} == {("accuracy", "mcc", "macro_f1")}
    assert {tuple(outcome.ids) for outcome in outcomes.values()} == {tuple(f"test{i}" for i in range(200))}
    assert scores["majority"]["accuracy"] == 1 / 5
    assert scores["chance"]["accuracy"] == pytest.approx(1 / 5, abs=0.08)
    # One residue of 22 tells the class.
    assert scores["composition"]["accuracy"] > 0.9


def test_few_shot_resamples_as_it_scores():
    units = run(prepared(LETTERS * 6), Planted(1.2)).units
    counts = np.random.default_rng(0).multinomial(30, np.full(30, 1 / 30), size=3)
    together = KIND.resample(units, counts)
    for r, counts_N in enumerate(counts):
        drawn = {name: np.repeat(array, counts_N) for name, array in units.items()}
        assert {name: values[r] for name, values in together.items()} == pytest.approx(KIND.score(drawn))
