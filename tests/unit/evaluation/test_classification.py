import numpy as np
import pytest
import torch

from protclip.errors import BenchmarkError
from protclip.evaluation.embed import Embedder
from protclip.evaluation.formats import Examples
from protclip.evaluation.kinds.classification import run_classification, with_validation
from protclip.evaluation.spec import ClassificationSpec

CLASSES = ("cytoplasm", "membrane", "nucleus")


class PlantedEmbedder:
    """Features are the one-hot code of a sequence's second letter, times `signal`, with noise."""

    device = torch.device("cpu")

    def __init__(self, signal: float) -> None:
        self.signal = signal

    def protein_features(self, sequences):
        rows = [np.random.default_rng(list(s.encode())) for s in sequences]
        noise = np.array([rng.normal(size=6) for rng in rows])
        codes = np.array(["ACD".index(s[1]) for s in sequences])
        return (noise + self.signal * np.eye(6)[codes]).astype(np.float32)

    def embed_proteins(self, sequences):
        return self.protein_features(sequences)[:, ::-1].copy()


def spec(**protocol) -> ClassificationSpec:
    return ClassificationSpec.model_validate(
        {
            "name": "planted",
            "title": "t",
            "group": "g",
            "kind": "classification",
            "metric": "accuracy",
            "citation": "c",
            "licence": "l",
            "data": {"format": "csv", "files": {"train": "a", "test": "a"}, "valid_share": 0.2},
            "protocol": {"epochs": 30, "lr": 0.01, **protocol},
        }
    )


def planted(size: int, seed: int) -> Examples[str]:
    """Sequences whose second letter, alone, tells the class; the rest is noise."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 3, size)
    tails = ["".join(rng.choice(list("ACDEFGHIKL"), 25)) for _ in range(size)]
    return Examples(
        [f"M{'ACD'[c]}{tail}" for c, tail in zip(codes, tails, strict=True)], [CLASSES[c] for c in codes]
    )


def shuffled(examples: Examples[str]) -> Examples[str]:
    return Examples(examples.sequences, np.random.default_rng(5).permutation(examples.targets).tolist())


@pytest.mark.parametrize("features", ["pooled", "projected"])
def test_classification_finds_planted_classes(features):
    splits = {"train": planted(150, 0), "test": planted(120, 1)}
    outcome = run_classification(spec(features=features), splits, PlantedEmbedder(8.0), seed=0)
    assert outcome.metrics["accuracy"] > 0.98
    assert outcome.metrics["mcc"] > 0.97
    assert outcome.metrics["macro_f1"] > 0.98
    truth = np.array(splits["test"].targets)
    values, counts = np.unique(splits["train"].targets, return_counts=True)
    majority = outcome.baselines["majority"]
    assert majority["accuracy"] == pytest.approx((truth == values[counts.argmax()]).mean())
    assert majority["mcc"] == 0
    assert majority["accuracy"] < outcome.baselines["composition"]["accuracy"] < 0.98
    assert outcome.counts == {"train": 120, "valid": 30, "test": 120, "classes": 3}


def test_classification_of_random_labels_is_near_chance():
    splits = {"train": shuffled(planted(150, 0)), "test": shuffled(planted(300, 1))}
    outcome = run_classification(spec(), splits, PlantedEmbedder(8.0), seed=0)
    assert outcome.metrics["accuracy"] == pytest.approx(1 / 3, abs=0.1)
    assert abs(outcome.metrics["mcc"]) < 0.15


def test_classification_repeats_with_the_same_seed_only():
    splits = {"train": planted(90, 0), "test": planted(200, 1)}
    runs = [run_classification(spec(), splits, PlantedEmbedder(0.7), seed=s).metrics for s in (3, 3, 4)]
    assert runs[0] == runs[1] != runs[2]


def test_classification_leaves_the_global_random_state_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    run_classification(
        spec(epochs=1), {"train": planted(30, 0), "test": planted(9, 1)}, PlantedEmbedder(1), 0
    )
    assert torch.equal(before, torch.get_rng_state())


def test_classification_counts_an_unseen_class_as_missed():
    test = planted(60, 1)
    relabelled = [t if i % 2 else "plastid" for i, t in enumerate(test.targets)]
    splits = {"train": planted(150, 0), "test": Examples(test.sequences, relabelled)}
    assert run_classification(spec(), splits, PlantedEmbedder(8.0), 0).metrics["accuracy"] == pytest.approx(
        0.5, abs=0.02
    )


def test_classification_tells_of_repeated_sequences_and_left_out_entries():
    train = planted(60, 0)
    test = Examples(train.sequences[:5], train.targets[:5], {"ambiguous": 2})
    notes = run_classification(
        spec(), {"train": train, "valid": train, "test": test}, PlantedEmbedder(8.0), 0
    ).notes
    assert "5 test sequences also stand in the training data" in notes
    assert "test: 2 left out (ambiguous)" in notes


def test_classification_refuses_a_single_class():
    one = Examples(["MA", "MAC"], ["x", "x"])
    with pytest.raises(BenchmarkError, match="single class"):
        run_classification(spec(), {"train": one, "valid": one, "test": one}, PlantedEmbedder(1), 0)


def test_with_validation_cuts_every_class_and_loses_nothing():
    train = planted(200, 0)
    rare = Examples([*train.sequences, "MAAA", "MAAC", "MDDD"], [*train.targets, "rare", "rare", "single"])
    splits = with_validation({"train": rare, "test": train}, share=0.1, seed=0)
    kept, cut = splits["train"], splits["valid"]
    both = zip([*kept.sequences, *cut.sequences], [*kept.targets, *cut.targets], strict=True)
    assert sorted(both) == sorted(zip(rare.sequences, rare.targets, strict=True))
    for label in CLASSES:
        assert cut.targets.count(label) == round(0.1 * rare.targets.count(label))
    assert cut.targets.count("rare") == kept.targets.count("rare") == 1
    assert cut.targets.count("single") == 0
    assert splits["test"] is train


def test_with_validation_depends_on_seed_and_sequence_not_on_order():
    train = planted(100, 0)
    backwards = Examples(train.sequences[::-1], train.targets[::-1])

    def chosen(examples, seed):
        return set(with_validation({"train": examples, "test": train}, 0.2, seed)["valid"].sequences)

    assert chosen(train, 0) == chosen(backwards, 0) != chosen(train, 1)


def test_with_validation_keeps_a_given_part():
    splits = {name: planted(4, i) for i, name in enumerate(("train", "valid", "test"))}
    assert with_validation(splits, 0.5, 0) is splits


def test_with_validation_refuses_one_example_per_class():
    train = Examples(["MA", "MC"], ["x", "y"])
    with pytest.raises(BenchmarkError, match="one example per class"):
        with_validation({"train": train, "test": train}, 0.1, 0)


@pytest.mark.parametrize("features", ["pooled", "projected"])
def test_finetuning_trains_a_copy_of_the_encoder(tiny_checkpoint, features):
    embedder = Embedder.from_checkpoint(str(tiny_checkpoint))
    before = {name: value.clone() for name, value in embedder.model.state_dict().items()}
    rng = np.random.default_rng(0)

    def examples(size):
        codes = rng.integers(0, 2, size)
        return Examples(
            ["".join(rng.choice(list(("AVLI", "DEKR")[c]), 12)) for c in codes], list(map(str, codes))
        )

    splits = {"train": examples(40), "valid": examples(10), "test": examples(30)}
    protocol = {"mode": "finetune", "epochs": 3, "batch": 8, "encoder_lr_factor": 0.1, "features": features}
    outcome = run_classification(spec(**protocol), splits, embedder, seed=0)
    assert outcome.metrics["accuracy"] > 0.9
    assert all(torch.equal(before[name], value) for name, value in embedder.model.state_dict().items())
