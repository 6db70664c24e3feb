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
from protclip.errors import BenchmarkError
from protclip.evaluation.embed import Embedder
from protclip.evaluation.kinds.multilabel import KIND

LABELS = {"A": ["catalysis", "binding"], "C": ["binding"], "D": []}


def spec(**keys):
    return made_spec(KIND, "multilabel", "fmax", **keys)


def planted(size: int, seed: int):
    """Sequences whose second letter, alone, tells the labels."""
    rng = np.random.default_rng(seed)
    letters = rng.choice(list("ACD"), size)
    tails = random_sequences(size, 25, rng)
    return [(f"M{letter}{tail}", LABELS[letter]) for letter, tail in zip(letters, tails, strict=True)]


def shuffled(rows):
    order = np.random.default_rng(5).permutation(len(rows))
    return [(sequence, rows[i][1]) for (sequence, _), i in zip(rows, order, strict=True)]


def data(**splits):
    return made_data("multilabel", splits)


def scores(outcome):
    return KIND.score(outcome.units)


def test_multilabel_finds_planted_labels():
    test = planted(120, 1)
    prepared = data(train=planted(150, 0), valid=planted(40, 2), test=test)
    outcome = KIND.run(spec(), prepared, SecondLetterEncoder(8.0), "frozen", 0)
    labelled = sum(1 for _, labels in test if labels) / len(test)
    assert scores(outcome)["aupr"] > 0.98
    # Proteins without labels stay in: even a perfect prediction leaves their recall at 0.
    assert 0.97 * 2 * labelled / (1 + labelled) < scores(outcome)["fmax"] <= 2 * labelled / (1 + labelled)
    assert outcome.units["score"].dtype == np.float32
    assert outcome.counts == {"train": 150, "valid": 40, "test": 120, "labels": 2}
    names = np.array(["binding", "catalysis"])
    assert [set(names[row]) for row in outcome.units["truth"]] == [set(labels) for _, labels in test]


def test_multilabel_of_random_labels_is_no_better_than_their_frequencies():
    prepared = data(train=shuffled(planted(150, 0)), test=shuffled(planted(300, 1)))
    found = scores(KIND.run(spec(), prepared, SecondLetterEncoder(8.0), "frozen", 0))
    frequency = scores(KIND.baselines["frequency"](spec(), prepared, 0))
    assert found["aupr"] < frequency["aupr"] + 0.05
    assert found["fmax"] < frequency["fmax"] + 0.03


def test_frequency_scores_are_those_of_train_in_the_given_order():
    train, labels = planted(100, 0), ("catalysis", "unheard", "binding")
    prepared = made_data("multilabel", {"train": train, "valid": train, "test": planted(5, 1)}, labels)
    found = KIND.baselines["frequency"](spec(), prepared, 0).units["score"]
    expected = [np.mean([label in own for _, own in train]) for label in labels]
    np.testing.assert_allclose(found, np.tile(expected, (5, 1)), rtol=1e-6)


def test_identity_keeps_test_proteins_under_the_cut_off():
    test = planted(6, 1)
    prepared = made_data(
        "multilabel", {"train": planted(40, 0), "test": test}, identity=[30, 40, 95, None, 30, 50]
    )
    limited = spec(identity=40)
    assert KIND.test_sequences(limited, prepared) == [test[i][0] for i in (0, 1, 4)]
    assert KIND.baselines["composition"](limited, prepared, 0).ids == ["test0", "test1", "test4"]
    assert len(KIND.baselines["composition"](spec(), prepared, 0).ids) == 6
    assert {test[i][0] for i in (2, 3, 5)}.isdisjoint(KIND.needs(limited, prepared)["features"])
    with pytest.raises(BenchmarkError, match="no test protein is under 20 % identity"):
        KIND.test_sequences(spec(identity=20), prepared)
    unknown = made_data("multilabel", {"train": test, "test": test})
    with pytest.raises(BenchmarkError, match="published cut-offs"):
        KIND.test_sequences(spec(identity=95), unknown)


def test_only_the_cnn_sees_labels_decided_by_motifs():
    rng = np.random.default_rng(0)
    motifs = {"WCWC": ["x", "y"], "WWCC": ["y", "z"], "CWWC": ["z"]}
    train, valid, test = (motif_rows(motifs, size, rng) for size in (200, 40, 100))
    prepared = data(train=train, valid=valid, test=test)
    quick = spec(frozen={"epochs": 20})
    assert scores(KIND.baselines["cnn"](quick, prepared, 0))["fmax"] > 0.95
    assert scores(KIND.baselines["composition"](quick, prepared, 0))["aupr"] < 0.8


def test_finetuning_learns_several_labels(tiny_checkpoint):
    encoder = WholeEncoder(Embedder.from_checkpoint(str(tiny_checkpoint)))
    rng = np.random.default_rng(0)
    letters = {"AVLI": ["oily"], "DEKR": ["charged"], "AVDE": ["oily", "charged"]}

    def rows(size):
        drawn = rng.choice(list(letters), size)
        return [("".join(rng.choice(list(group), 12)), letters[group]) for group in drawn]

    prepared = data(train=rows(60), valid=rows(20), test=rows(40))
    tuned = spec(finetune={"epochs": 4, "batch": 8, "lr": 0.01, "encoder_lr_factor": 0.1})
    runs = [KIND.run(tuned, prepared, encoder, "finetune", 0) for _ in range(2)]
    assert scores(runs[0])["aupr"] > 0.95
    assert same(runs[0].units, runs[1].units)
