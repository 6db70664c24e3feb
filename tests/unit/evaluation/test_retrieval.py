import numpy as np
import pyarrow as pa
import pytest

from protclip.evaluation.embed import Embedder
from protclip.evaluation.kinds.retrieval import KIND
from protclip.evaluation.metrics.retrieval import retrieval_metrics
from protclip.evaluation.pairs import SCHEMA
from protclip.evaluation.prepared import Prepared
from protclip.evaluation.spec.retrieval import RetrievalSpec

SPEC = RetrievalSpec.model_validate(
    {
        "name": "r",
        "title": "t",
        "group": "g",
        "kind": "retrieval",
        "metric": "t2p_r10",
        "citation": "c",
        "licence": "l",
        "data": {"format": "pairs"},
    }
)


class Planted:
    """Proteins of one length and texts of the same first token share a direction."""

    name = "planted"

    def __init__(self, noise: float) -> None:
        self.noise = noise
        self.directions = np.random.default_rng(1).normal(size=(400, 32))
        self.embedder = self

    def _vectors(self, numbers):
        rng = np.random.default_rng(2)
        return self.directions[numbers] + self.noise * rng.normal(size=(len(numbers), 32))

    def vectors(self, what, sequences):
        assert what == "projected"
        return self._vectors([len(s) for s in sequences])

    def embed_text_tokens(self, tokens):
        return self._vectors([ids[0] for ids in tokens])


class Blind(Planted):
    """Its texts have nothing to do with its proteins."""

    def embed_text_tokens(self, tokens):
        return np.random.default_rng(9).normal(size=(len(tokens), 32))


def prepared(train, test) -> Prepared:
    """Pairs of a sequence and its tokens."""
    rows = [
        {"id": f"{split}{i}", "split": split, "sequence": sequence, "tokens": tokens}
        for split, pairs in (("train", train), ("test", test))
        for i, (sequence, tokens) in enumerate(pairs)
    ]
    return Prepared({"examples": pa.Table.from_pylist(rows, SCHEMA)}, labels=(), digest="d")


def pairs(lengths):
    return [("A" * n, [n, 3, 3]) for n in lengths]


def score_baseline(name, data):
    return KIND.score(KIND.baselines[name](SPEC, data, 0).units)


def test_retrieval_finds_planted_pairs():
    data = prepared(pairs(range(200, 260)), pairs(range(1, 101)))
    outcome = KIND.run(SPEC, data, Planted(0.1), "frozen", 0)
    metrics = KIND.score(outcome.units)
    assert tuple(metrics) == KIND.metrics
    assert metrics["t2p_r1"] == metrics["p2t_r1"] == 1
    assert metrics["matched_cosine"] > 0.9 > 0.2 > abs(metrics["mismatched_cosine"])
    assert score_baseline("chance", data)["t2p_r10"] == pytest.approx(0.1)
    assert outcome.counts == {"pairs": 100, "proteins": 100, "texts": 100}
    assert outcome.notes == []


def test_retrieval_by_noise_is_near_chance():
    data = prepared(pairs(range(200, 260)), pairs(range(1, 201)))
    metrics = KIND.score(KIND.run(SPEC, data, Blind(0.0), "frozen", 0).units)
    assert metrics["t2p_r10"] == pytest.approx(score_baseline("chance", data)["t2p_r10"], abs=0.05)


def test_retrieval_counts_identical_texts_and_proteins_once():
    test = [("A", [1, 3, 3]), ("AA", [1, 3, 3]), ("AAA", [3, 3, 3]), ("AAA", [3, 3, 3])]
    data = prepared(pairs(range(1, 40)), test)
    outcome = KIND.run(SPEC, data, Planted(0), "frozen", 0)
    assert outcome.counts == {"pairs": 4, "proteins": 3, "texts": 2}
    assert outcome.notes == ["2 of the texts also stand, word for word, among the training pairs"]
    assert outcome.ids == ["p2t test0", "p2t test1", "p2t test2", "t2p test0", "t2p test2"]
    np.testing.assert_array_equal(outcome.units["right"], [1, 1, 1, 2, 1])
    assert KIND.score(outcome.units)["t2p_r1"] == 1
    chance = KIND.baselines["chance"](SPEC, data, 0)
    assert chance.ids == outcome.ids
    # Text 1 has two right proteins among three, text 3 one.
    assert KIND.score(chance.units)["t2p_r1"] == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_retrieval_composition_baseline_uses_composition():
    rng = np.random.default_rng(0)

    def rich_pairs(size):
        """A text says which amino acid is frequent; nothing else is in either."""
        letters = rng.choice(list("ACDEFGHIKL"), size)
        sequences = ["".join(rng.choice([c, "W", "Y"], 30, p=[0.6, 0.2, 0.2])) for c in letters]
        tokens = [[ord(c), *rng.integers(200, 260, 3).tolist()] for c in letters]
        return list(zip(sequences, tokens, strict=True))

    data = prepared(rich_pairs(400), rich_pairs(150))
    by_composition, chance = score_baseline("composition", data), score_baseline("chance", data)
    assert by_composition["t2p_r10"] > 3 * chance["t2p_r10"]
    by_noise = KIND.score(KIND.run(SPEC, data, Blind(0.0), "frozen", 0).units)
    assert by_noise["t2p_r10"] < by_composition["t2p_r10"]


def test_retrieval_needs_what_it_asks_for():
    data = prepared(pairs(range(200, 260)), pairs(range(1, 21)))
    asked = KIND.needs(SPEC, data)
    assert (
        asked
        == {"projected": KIND.test_sequences(SPEC, data)}
        == {"projected": ["A" * n for n in range(1, 21)]}
    )


def test_retrieval_metrics_of_a_real_model_are_those_of_its_embeddings(tiny_checkpoint):
    rng = np.random.default_rng(0)
    sequences = ["M" + "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), 20)) for _ in range(12)]
    tokens = [rng.integers(10, 90, 8).tolist() for _ in range(12)]
    test = list(zip(sequences, tokens, strict=True))

    class Model:
        name = "tiny"
        embedder = Embedder.from_checkpoint(str(tiny_checkpoint))

        def vectors(self, what, items):
            assert what == "projected"
            return self.embedder.embed_proteins(items)

    found = KIND.score(KIND.run(SPEC, prepared(test, test), Model(), "frozen", 0).units)
    direct = retrieval_metrics(
        Model.embedder.embed_proteins(sequences), Model.embedder.embed_text_tokens(tokens)
    )
    assert found == pytest.approx(direct)
