import numpy as np
import pytest

from labelled import SecondLetterEncoder, made_data, made_spec, random_sequences
from protclip.errors import BenchmarkError
from protclip.evaluation.kind import Kind
from protclip.evaluation.kinds import classification, multilabel, regression
from protclip.evaluation.kinds.sequences import cut
from protclip.evaluation.spec.sequences import HeadProtocol

TARGETS: dict[str, tuple[Kind, str, list]] = {
    "classification": (classification.KIND, "accuracy", ["a", "b"]),
    "multilabel": (multilabel.KIND, "fmax", [["a"], ["a", "b"]]),
    "regression": (regression.KIND, "spearman", [1.0, 2.0]),
}


@pytest.fixture(params=TARGETS)
def made(request):
    """A kind, its spec maker and a maker of data from sequences by split."""
    name = request.param
    kind, metric, targets = TARGETS[name]

    def spec(**keys):
        return made_spec(kind, name, metric, **keys)

    def data(**splits):
        return made_data(name, {k: [(s, targets[i % 2]) for i, s in enumerate(v)] for k, v in splits.items()})

    return kind, spec, data


def sequences(size: int, seed: int, length: int = 20) -> list[str]:
    return random_sequences(size, length, np.random.default_rng(seed))


@pytest.mark.parametrize(("features", "wanted"), [("pooled", "features"), ("projected", "projected")])
@pytest.mark.parametrize("window", ["start", "random"])
def test_a_frozen_run_asks_for_exactly_what_it_said_it_needs(made, features, wanted, window):
    kind, spec, data = made
    protocol = {"features": features, "window": window, "max_residues": 12, "epochs": 1}
    prepared = data(train=sequences(20, 0), test=[*sequences(5, 1), *sequences(5, 0)])
    for seed in (0, 1):
        encoder = SecondLetterEncoder(1)
        kind.run(spec(frozen=protocol), prepared, encoder, "frozen", seed)
        needs = kind.needs(spec(frozen=protocol), prepared)
        assert list(needs) == [wanted]
        assert set(encoder.asked) == {(wanted, s) for s in needs[wanted]}
        assert len(needs[wanted]) == 25
        assert {len(s) for s in needs[wanted]} == {12}


def test_a_missing_validation_part_is_cut_by_sequence_and_seed(made):
    kind, spec, data = made

    def valid_counts(train, seed, **keys):
        asked = SecondLetterEncoder(1)
        quick = spec(frozen={"epochs": 1}, **keys)
        outcome = kind.run(quick, data(train=train, test=sequences(3, 9)), asked, "frozen", seed)
        count = outcome.counts["train"]
        return frozenset(s for _, s in asked.asked[:count]), outcome.counts

    train = sequences(40, 0)
    kept, counts = valid_counts(train, 0)
    assert (counts["train"], counts["valid"], counts["test"]) == (36, 4, 3)
    assert kept == valid_counts(train[::-1], 0)[0] != valid_counts(train, 1)[0]
    repeated, counts = valid_counts(train * 2, 0, valid_share=0.3)
    assert (counts["train"], counts["valid"], len(repeated)) == (56, 24, 28)
    assert valid_counts(train[:2], 0)[1]["valid"] == 1


def test_a_given_validation_part_is_kept(made):
    kind, spec, data = made
    prepared = data(train=sequences(10, 0), valid=sequences(3, 1), test=sequences(4, 2))
    outcome = kind.run(spec(frozen={"epochs": 1}), prepared, SecondLetterEncoder(1), "frozen", 0)
    assert (outcome.counts["train"], outcome.counts["valid"], outcome.counts["test"]) == (10, 3, 4)
    assert outcome.notes == ["seed 0: best epoch 1 of at most 1"]


def test_a_single_training_sequence_is_refused(made):
    kind, spec, data = made
    prepared = data(train=["MAC", "MAC"], test=["MAD"])
    with pytest.raises(BenchmarkError, match="single sequence"):
        kind.run(spec(), prepared, SecondLetterEncoder(1), "frozen", 0)


def test_vectors_that_are_no_numbers_are_told_of(made):
    kind, spec, data = made
    prepared = data(train=sequences(10, 0), test=sequences(4, 2))
    with pytest.raises(BenchmarkError, match="not finite"):
        kind.run(spec(), prepared, SecondLetterEncoder(float("nan")), "frozen", 0)


def test_test_sequences_are_whole(made):
    kind, spec, data = made
    test = sequences(4, 2)
    prepared = data(train=sequences(10, 0), test=test)
    assert kind.test_sequences(spec(frozen={"max_residues": 5}), prepared) == test


def test_resample_gives_what_score_gives_for_repeated_units(made):
    kind, spec, data = made
    prepared = data(train=sequences(30, 0), test=sequences(12, 2))
    units = kind.run(spec(frozen={"epochs": 1}), prepared, SecondLetterEncoder(1), "frozen", 0).units
    counts_RN = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), 4)
    found = kind.resample(units, counts_RN)
    for r, counts_N in enumerate(counts_RN):
        again = kind.score({name: np.repeat(values, counts_N, axis=0) for name, values in units.items()})
        assert {name: values[r] for name, values in found.items()} == pytest.approx(again)


def test_cut_takes_the_first_residues_or_a_window_that_the_sequence_decides():
    long = sequences(200, 0, length=60)
    start = HeadProtocol(max_residues=50)
    window = HeadProtocol(max_residues=50, window="random")
    assert [cut(s, start) for s in long] == [s[:50] for s in long]
    starts = [s.index(cut(s, window)) for s in long]
    assert set(starts) == set(range(11))
    assert starts == [s.index(cut(s, window)) for s in long]
    assert cut(long[0][:50], window) == long[0][:50]
