import numpy as np
import pytest
import torch

from labelled import (
    SecondLetterEncoder,
    WholeEncoder,
    made_data,
    made_spec,
    random_sequences,
    same,
    with_motif,
)
from protclip.evaluation.embed import Embedder
from protclip.evaluation.kinds.classification import KIND

CLASSES = ("cytoplasm", "membrane", "nucleus")


def spec(**keys):
    return made_spec(KIND, "classification", "accuracy", **keys)


def planted(size: int, seed: int):
    """Sequences whose second letter, alone, tells the class."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 3, size)
    tails = random_sequences(size, 25, rng)
    return [(f"M{'ACD'[c]}{tail}", CLASSES[c]) for c, tail in zip(codes, tails, strict=True)]


def shuffled(rows):
    labels = np.random.default_rng(5).permutation([label for _, label in rows])
    return [(sequence, str(label)) for (sequence, _), label in zip(rows, labels, strict=True)]


def data(**splits):
    return made_data("classification", splits)


def scores(outcome):
    return KIND.score(outcome.units)


@pytest.mark.parametrize("features", ["pooled", "projected"])
def test_classification_finds_planted_classes(features):
    prepared = data(train=planted(150, 0), valid=planted(30, 2), test=planted(120, 1))
    outcome = KIND.run(
        spec(frozen={"features": features}), prepared, SecondLetterEncoder(8.0), "frozen", seed=0
    )
    assert all(value > 0.97 for value in scores(outcome).values())
    assert outcome.ids == [f"test{i}" for i in range(120)]
    assert outcome.counts == {"train": 150, "valid": 30, "test": 120, "labels": 3}
    truth = [CLASSES[i] for i in outcome.units["truth"]]
    assert truth == [label for _, label in planted(120, 1)]
    assert KIND.metrics == tuple(scores(outcome))


def test_classification_of_random_labels_is_near_chance():
    prepared = data(train=shuffled(planted(150, 0)), test=shuffled(planted(300, 1)))
    found = scores(KIND.run(spec(), prepared, SecondLetterEncoder(8.0), "frozen", 0))
    assert found["accuracy"] == pytest.approx(1 / 3, abs=0.1)
    assert abs(found["mcc"]) < 0.15


def test_classification_repeats_with_the_same_seed_only():
    prepared = data(train=planted(90, 0), test=planted(200, 1))
    runs = [KIND.run(spec(), prepared, SecondLetterEncoder(0.7), "frozen", s).units for s in (3, 3, 4)]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_classification_leaves_the_global_random_state_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    prepared = data(train=planted(30, 0), test=planted(9, 1))
    KIND.run(spec(frozen={"epochs": 1}), prepared, SecondLetterEncoder(1), "frozen", 0)
    KIND.baselines["cnn"](spec(frozen={"epochs": 1}), prepared, 0)
    assert torch.equal(before, torch.get_rng_state())


def test_classification_counts_an_unseen_class_as_missed_and_follows_the_given_labels():
    test = [(s, label if i % 2 else "plastid") for i, (s, label) in enumerate(planted(60, 1))]
    labels = ("plastid", *reversed(CLASSES))
    prepared = made_data("classification", {"train": planted(150, 0), "test": test}, labels)
    outcome = KIND.run(spec(), prepared, SecondLetterEncoder(8.0), "frozen", 0)
    assert scores(outcome)["accuracy"] == pytest.approx(0.5, abs=0.02)
    assert [labels[i] for i in outcome.units["truth"]] == [label for _, label in test]
    composition = KIND.baselines["composition"](spec(), prepared, 0)
    assert 0 not in composition.units["predicted"]


def test_classification_baselines_know_what_they_should():
    prepared = data(train=planted(150, 0), test=planted(300, 1))
    majority, composition = (
        scores(KIND.baselines[name](spec(), prepared, 0)) for name in ("majority", "composition")
    )
    shares = np.unique([label for _, label in planted(300, 1)], return_counts=True)[1] / 300
    assert majority["accuracy"] in shares
    assert majority["mcc"] == 0
    assert majority["accuracy"] < composition["accuracy"] < 0.9


def test_only_the_cnn_sees_a_motif_of_shuffled_residues():
    rng = np.random.default_rng(0)

    def rows(size):
        motifs = rng.integers(0, 2, size)
        sequences = zip(random_sequences(size, 16, rng), motifs, strict=True)
        return [(with_motif(s, ("WCWC", "WWCC")[m], rng), str(m)) for s, m in sequences]

    prepared = data(train=rows(150), valid=rows(40), test=rows(150))
    quick = spec(frozen={"epochs": 12})
    cnn = KIND.baselines["cnn"](quick, prepared, 0)
    assert scores(cnn)["accuracy"] > 0.97
    assert same(cnn.units, KIND.baselines["cnn"](quick, prepared, 0).units)
    assert scores(KIND.baselines["composition"](quick, prepared, 0))["accuracy"] < 0.65


@pytest.mark.parametrize("features", ["pooled", "projected"])
def test_finetuning_trains_a_copy_of_the_encoder(tiny_checkpoint, features):
    embedder = Embedder.from_checkpoint(str(tiny_checkpoint))
    before = {name: value.clone() for name, value in embedder.model.state_dict().items()}
    rng = np.random.default_rng(0)

    def rows(size):
        codes = rng.integers(0, 2, size)
        return [("".join(rng.choice(list(("AVLI", "DEKR")[c]), 12)), str(c)) for c in codes]

    prepared = data(train=rows(40), valid=rows(10), test=rows(30))
    protocol = {"epochs": 3, "batch": 8, "lr": 0.01, "encoder_lr_factor": 0.1, "features": features}
    runs = [
        KIND.run(spec(finetune=protocol), prepared, WholeEncoder(embedder), "finetune", 0) for _ in range(2)
    ]
    assert scores(runs[0])["accuracy"] > 0.9
    assert same(runs[0].units, runs[1].units)
    assert all(torch.equal(before[name], value) for name, value in embedder.model.state_dict().items())
