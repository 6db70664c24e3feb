from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, top_k_accuracy_score

from protclip.config.base import Config
from protclip.errors import BenchmarkError
from protclip.evaluation.composition import composition
from protclip.evaluation.kind import FixedEncoder
from protclip.evaluation.kinds.zero_shot import KIND, class_numbers, cosines
from protclip.evaluation.prepare import prepare_one
from protclip.evaluation.prepared import SCHEMAS, Prepared
from protclip.evaluation.registry import load_benchmark
from protclip.evaluation.spec.zero_shot import ZeroShotSpec
from protclip.records import PROPERTIES

CONF = Path(__file__).resolve().parents[3] / "conf"
LETTERS = "ACDEFGHI"
"""A protein is of the class that its second residue names."""


def spec(classes: int = 8, **settings) -> ZeroShotSpec[Config]:
    return ZeroShotSpec[Config].model_validate(
        {
            "name": "planted",
            "title": "t",
            "group": "g",
            "kind": "zero_shot",
            "metric": "accuracy",
            "citation": "c",
            "licence": "l",
            "data": {},
            "prompts": {
                f"class {letter}": (f"{letter} one", f"{letter} two") for letter in LETTERS[:classes]
            },
            **settings,
        }
    )


def prepared(test: str, train: str = "", tail: int = 20) -> Prepared:
    """Proteins by the letters of their classes."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "id": f"{split}{i}",
            "split": split,
            "sequence": f"M{letter}" + "".join(rng.choice(list("KLMNP"), tail)),
            "label": f"class {letter}",
        }
        for split, letters in (("train", train), ("test", test))
        for i, letter in enumerate(letters)
    ]
    table = pa.Table.from_pylist(rows, SCHEMAS["zero_shot"]["examples"])
    return Prepared({"examples": table}, labels=(), digest="d")


class Planted:
    """A class's proteins and prompts lie around one direction; the length of a vector says nothing."""

    name = "planted"

    def __init__(self, noise: float) -> None:
        self.noise = noise
        self.directions = np.random.default_rng(1).normal(size=(len(LETTERS), 16))
        self.asked = []

    def vectors(self, what, items):
        self.asked.append((what, list(items)))
        letters = [item[1] if what == "projected" else item[0] for item in items]
        rng = np.random.default_rng(len(items))
        vectors = self.directions[[LETTERS.index(c) for c in letters]]
        vectors = vectors + self.noise * rng.normal(size=vectors.shape)
        return (rng.uniform(0.1, 9, (len(items), 1)) * vectors).astype(np.float32)


def test_zero_shot_finds_planted_classes():
    data = prepared(LETTERS * 20)
    outcome = KIND.run(spec(), data, Planted(0.1), "frozen", 0)
    assert KIND.score(outcome.units) == {"accuracy": 1, "mcc": 1, "macro_f1": 1, "top5": 1}
    assert outcome.ids == [f"test{i}" for i in range(160)]
    assert outcome.counts == {"test": 160, "classes": 8, "prompts": 16}


def test_zero_shot_by_noise_is_at_chance():
    data = prepared(LETTERS * 200)
    planted = Planted(0.0)
    planted.directions[:] = 0
    planted.noise = 1.0
    metrics = KIND.score(KIND.run(spec(), data, planted, "frozen", 0).units)
    assert metrics["accuracy"] == pytest.approx(1 / 8, abs=0.04)
    assert metrics["top5"] == pytest.approx(5 / 8, abs=0.06)


def test_zero_shot_metrics_equal_scikit_learn():
    data = prepared("".join(np.random.default_rng(3).choice(list(LETTERS), 200)))
    encoder = Planted(2.0)
    metrics = KIND.score(KIND.run(spec(), data, encoder, "frozen", 0).units)
    truth, cosine_NC = class_numbers(spec(), data, "test"), cosines(spec(), data, encoder)
    assert 0.2 < metrics["accuracy"] < 0.9
    predicted = cosine_NC.argmax(1)
    assert metrics == pytest.approx(
        {
            "accuracy": accuracy_score(truth, predicted),
            "mcc": matthews_corrcoef(truth, predicted),
            "macro_f1": f1_score(truth, predicted, average="macro"),
            "top5": top_k_accuracy_score(truth, cosine_NC, k=5, labels=range(8)),
        }
    )


def test_cosines_are_with_the_mean_of_a_classes_prompts():
    data, encoder = prepared("AC"), Planted(1.0)
    uneven = spec(prompts={"class A": ("A one",), "class C": ("C one", "C two", "C three")})
    found = cosines(uneven, data, encoder)
    texts = dict(zip(encoder.asked[0][1], encoder.vectors("texts", encoder.asked[0][1]), strict=True))
    [protein, _] = encoder.vectors("projected", KIND.test_sequences(uneven, data))
    mean = np.mean([texts["C one"], texts["C two"], texts["C three"]], axis=0)
    assert found.shape == (2, 2)
    assert found[0, 1] == pytest.approx(
        protein @ mean / np.linalg.norm(protein) / np.linalg.norm(mean), rel=1e-5
    )


def test_zero_shot_asks_for_what_it_needs_and_cuts_sequences():
    data, encoder = prepared("ACAC", tail=50), Planted(0.1)
    short = spec(max_residues=10)
    KIND.run(short, data, encoder, "frozen", 0)
    assert dict(encoder.asked) == KIND.needs(short, data)
    assert {len(s) for s in KIND.needs(short, data)["projected"]} == {10}
    assert KIND.test_sequences(short, data) == data.split("test")["sequence"].to_pylist()


def test_zero_shot_refuses_an_encoder_without_a_text_tower():
    with pytest.raises(BenchmarkError, match="composition has no text tower"):
        KIND.run(spec(), prepared("AC"), FixedEncoder("composition", composition), "frozen", 0)


def test_zero_shot_refuses_a_class_without_a_prompt():
    with pytest.raises(BenchmarkError, match="planted: no prompt for class 'class D', 'class E'; there are"):
        KIND.run(spec(classes=2), prepared("ACDE"), Planted(0), "frozen", 0)


def test_chance_is_at_chance_and_majority_counts_the_training_part():
    data = prepared(LETTERS * 100 + "A" * 50, train="A" * 5 + "CC" + "D" * 4)
    chance = KIND.score(KIND.baselines["chance"](spec(), data, 0).units)
    assert chance["accuracy"] == pytest.approx(1 / 8, abs=0.04)
    assert chance["top5"] == pytest.approx(5 / 8, abs=0.06)
    majority = KIND.score(KIND.baselines["majority"](spec(), data, 0).units)
    assert majority["accuracy"] == pytest.approx(150 / 850)
    assert majority["mcc"] == 0


def test_majority_without_training_examples_says_so():
    with pytest.raises(BenchmarkError, match="baseline majority needs a train split"):
        KIND.baselines["majority"](spec(), prepared("AC"), 0)


def test_zero_shot_resamples_as_it_scores():
    units = KIND.run(spec(), prepared(LETTERS * 5), Planted(2.0), "frozen", 0).units
    counts = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=3)
    together = KIND.resample(units, counts)
    for r, counts_N in enumerate(counts):
        drawn = {name: np.repeat(array, counts_N) for name, array in units.items()}
        assert {name: values[r] for name, values in together.items()} == pytest.approx(KIND.score(drawn))


@pytest.mark.parametrize(
    "prompts", [{"a": ("text",)}, {"a": ("text",), "b": ()}, {"a": ("text",), "b": ("",)}]
)
def test_spec_wants_two_classes_and_a_text_for_each(prompts):
    with pytest.raises(ValueError, match="prompts"):
        spec(prompts=prompts)


@pytest.mark.parametrize("name", ["zero_shot_sub", "few_shot_sub", "zero_shot_reaction", "few_shot_reaction"])
def test_benchmarks_have_prompts_of_each_class_in_the_order_of_their_numbers(name):
    benchmark = load_benchmark(name, CONF)
    classes = benchmark.data.classes
    names = list(map(str, range(classes))) if isinstance(classes, int) else list(classes)
    assert list(benchmark.prompts) == names
    texts = [text for texts in benchmark.prompts.values() for text in texts]
    assert len(set(texts)) == len(texts)
    headings = tuple(f"{p.label}: " for p in PROPERTIES)
    assert all(text.startswith(headings) and text.endswith(".") for text in texts)


@pytest.mark.parametrize("name", ["zero_shot_deeploc", "few_shot_deeploc"])
def test_benchmarks_on_deeploc_have_a_prompt_for_each_real_class(real_data, name):
    benchmark = load_benchmark(name, CONF)
    files = {role: real_data / file.path for role, file in benchmark.data.files.items()}
    content = prepare_one(name, benchmark.kind, benchmark.data, files)
    data = Prepared(content.tables, content.labels, "d")
    counts = np.bincount(class_numbers(benchmark, data, "test"), minlength=10)
    assert counts.tolist() == [273, 505, 173, 70, 64, 302, 806, 30, 152, 393]
    assert content.differing == {}
    assert len(class_numbers(benchmark, data, "train")) == 1655
