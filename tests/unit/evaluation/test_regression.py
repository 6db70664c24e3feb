import numpy as np
import pytest

from labelled import (
    SecondLetterEncoder,
    WholeEncoder,
    made_data,
    made_spec,
    motif_rows,
    random_sequences,
    same,
)
from protclip.evaluation.embed import Embedder
from protclip.evaluation.kinds.regression import KIND

DEGREES = {"A": 40.0, "C": 50.0, "D": 62.0}


def spec(metric="spearman", **keys):
    return made_spec(KIND, "regression", metric, **keys)


def planted(size: int, seed: int):
    """Sequences whose second letter, alone, tells the temperature but for a little noise."""
    rng = np.random.default_rng(seed)
    letters = rng.choice(list("ACD"), size)
    tails = random_sequences(size, 25, rng)
    return [(f"M{c}{tail}", DEGREES[c] + rng.normal()) for c, tail in zip(letters, tails, strict=True)]


def data(**splits):
    return made_data("regression", splits)


def scores(outcome):
    return KIND.score(outcome.units)


def test_regression_finds_planted_values_in_their_own_unit():
    prepared = data(train=planted(150, 0), valid=planted(40, 2), test=planted(120, 1))
    outcome = KIND.run(spec(), prepared, SecondLetterEncoder(8.0), "frozen", 0)
    assert scores(outcome)["spearman"] > 0.85
    assert scores(outcome)["mae"] < 4
    np.testing.assert_allclose(outcome.units["truth"], [v for _, v in planted(120, 1)], rtol=1e-6)
    assert outcome.counts == {"train": 150, "valid": 40, "test": 120}
    assert KIND.metrics == tuple(scores(outcome))


def test_regression_of_random_values_is_near_zero():
    rng = np.random.default_rng(5)

    def noise(rows):
        return [(sequence, rng.normal()) for sequence, _ in rows]

    prepared = data(train=noise(planted(150, 0)), test=noise(planted(300, 1)))
    outcome = KIND.run(spec(), prepared, SecondLetterEncoder(8.0), "frozen", 0)
    assert abs(scores(outcome)["spearman"]) < 0.15


def test_regression_does_not_depend_on_the_scale_of_the_targets():
    def scaled(rows):
        return [(sequence, 1000 * value - 7) for sequence, value in rows]

    train, test = planted(80, 0), planted(60, 1)
    quick = spec(frozen={"epochs": 5})
    plain = KIND.run(quick, data(train=train, test=test), SecondLetterEncoder(3), "frozen", 0)
    scale = KIND.run(quick, data(train=scaled(train), test=scaled(test)), SecondLetterEncoder(3), "frozen", 0)
    np.testing.assert_allclose(scale.units["predicted"], 1000 * plain.units["predicted"] - 7, rtol=1e-3)


def test_regression_selects_by_an_error_that_falls():
    # The learning rate is far too large: later epochs are not better ones.
    wild = {"epochs": 12, "lr": 3.0, "patience": 12}
    prepared = data(train=planted(60, 0), valid=planted(60, 2), test=planted(60, 2))
    found = {
        direction: scores(
            KIND.run(
                spec("mae", higher_is_better=direction, frozen=wild),
                prepared,
                SecondLetterEncoder(3),
                "frozen",
                0,
            )
        )["mae"]
        for direction in (False, True)
    }
    assert found[False] < found[True]


def test_mean_is_that_of_train_and_its_correlation_zero():
    train = planted(50, 0)
    prepared = data(train=train, valid=train, test=planted(40, 1))
    outcome = KIND.baselines["mean"](spec(), prepared, 0)
    np.testing.assert_allclose(outcome.units["predicted"], np.mean([v for _, v in train]), rtol=1e-6)
    assert scores(outcome)["spearman"] == 0


def test_composition_finds_what_composition_decides():
    rng = np.random.default_rng(0)
    train, test = (
        [(s, 3.0 * s.count("K") - s.count("D")) for s in random_sequences(size, 40, rng)]
        for size in (150, 80)
    )
    assert scores(KIND.baselines["composition"](spec(), data(train=train, test=test), 0))["spearman"] > 0.98


def test_only_the_cnn_sees_values_decided_by_a_motif():
    rng = np.random.default_rng(0)
    motifs = {"WCWC": -1.0, "WWCC": 0.0, "CWWC": 1.0}
    train, valid, test = (motif_rows(motifs, size, rng) for size in (200, 40, 100))
    prepared = data(train=train, valid=valid, test=test)
    quick = spec(frozen={"epochs": 20})
    assert scores(KIND.baselines["cnn"](quick, prepared, 0))["spearman"] > 0.85
    assert abs(scores(KIND.baselines["composition"](quick, prepared, 0))["spearman"]) < 0.3


def test_finetuning_learns_a_number(tiny_checkpoint):
    encoder = WholeEncoder(Embedder.from_checkpoint(str(tiny_checkpoint)))
    rng = np.random.default_rng(0)

    def rows(size):
        counts = rng.integers(0, 13, size)
        return [("".join(rng.permutation(list("K" * c + "D" * (12 - c)))), float(c)) for c in counts]

    prepared = data(train=rows(80), valid=rows(20), test=rows(40))
    tuned = spec(finetune={"epochs": 4, "batch": 8, "lr": 0.01, "encoder_lr_factor": 0.1})
    runs = [KIND.run(tuned, prepared, encoder, "finetune", 0) for _ in range(2)]
    assert scores(runs[0])["spearman"] > 0.95
    assert same(runs[0].units, runs[1].units)


@pytest.mark.parametrize("value", [1.0, -3.5])
def test_regression_takes_constant_targets(value):
    rows = [(s, value) for s, _ in planted(20, 0)]
    outcome = KIND.run(
        spec(frozen={"epochs": 2}), data(train=rows, test=rows), SecondLetterEncoder(1), "frozen", 0
    )
    assert scores(outcome)["spearman"] == 0
