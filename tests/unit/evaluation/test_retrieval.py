import numpy as np
import pytest
import torch

from protclip.evaluation.embed import Embedder
from protclip.evaluation.formats import Examples
from protclip.evaluation.kinds.retrieval import run_retrieval
from protclip.evaluation.metrics import retrieval_metrics
from protclip.evaluation.spec import RetrievalSpec

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


class PlantedEmbedder:
    """Proteins of one length and texts of the same first token share a direction."""

    device = torch.device("cpu")

    def __init__(self, noise: float) -> None:
        self.noise = noise
        self.directions = np.random.default_rng(1).normal(size=(400, 32))

    def _vectors(self, numbers):
        rng = np.random.default_rng(2)
        return self.directions[numbers] + self.noise * rng.normal(size=(len(numbers), 32))

    def embed_proteins(self, sequences):
        return self._vectors([len(s) for s in sequences])

    def embed_text_tokens(self, tokens):
        return self._vectors([ids[0] for ids in tokens])


def pairs(lengths) -> Examples[list[int]]:
    return Examples(["A" * n for n in lengths], [[n, 3, 3] for n in lengths])


def test_retrieval_finds_planted_pairs():
    splits = {"train": pairs(range(200, 260)), "test": pairs(range(1, 101))}
    outcome = run_retrieval(SPEC, splits, PlantedEmbedder(0.1), seed=0)
    assert outcome.metrics["t2p_r1"] == outcome.metrics["p2t_r1"] == 1
    assert outcome.metrics["matched_cosine"] > 0.9 > 0.2 > abs(outcome.metrics["mismatched_cosine"])
    assert outcome.baselines["chance"]["t2p_r10"] == pytest.approx(0.1)
    assert outcome.counts == {"pairs": 100, "proteins": 100, "texts": 100}


def test_retrieval_by_noise_is_near_chance():
    splits = {"train": pairs(range(200, 260)), "test": pairs(range(1, 201))}
    noise = PlantedEmbedder(0.0)
    noise.embed_text_tokens = lambda tokens: np.random.default_rng(9).normal(size=(len(tokens), 32))
    outcome = run_retrieval(SPEC, splits, noise, seed=0)
    assert outcome.metrics["t2p_r10"] == pytest.approx(outcome.baselines["chance"]["t2p_r10"], abs=0.05)


def test_retrieval_counts_identical_texts_once():
    test = Examples(["A", "AA", "AAA", "AAA"], [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3]])
    outcome = run_retrieval(SPEC, {"train": pairs(range(1, 40)), "test": test}, PlantedEmbedder(0), seed=0)
    assert outcome.counts == {"pairs": 4, "proteins": 3, "texts": 2}
    assert outcome.notes == ["2 of the texts also stand, word for word, among 39 training pairs"]
    assert outcome.metrics["t2p_r1"] == 1
    # Text 1 has two right proteins among three, text 3 one.
    assert outcome.baselines["chance"]["t2p_r1"] == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_retrieval_composition_baseline_uses_composition():
    rng = np.random.default_rng(0)

    def rich_pairs(size):
        """A text says which amino acid is frequent; nothing else is in either."""
        letters = rng.choice(list("ACDEFGHIKL"), size)
        sequences = ["".join(rng.choice([c, "W", "Y"], 30, p=[0.6, 0.2, 0.2])) for c in letters]
        return Examples(sequences, [[ord(c), *rng.integers(200, 260, 3).tolist()] for c in letters])

    splits = {"train": rich_pairs(400), "test": rich_pairs(150)}
    outcome = run_retrieval(SPEC, splits, Blind(), seed=0)
    composition, chance = outcome.baselines["composition"], outcome.baselines["chance"]
    assert composition["t2p_r10"] > 3 * chance["t2p_r10"]
    assert outcome.metrics["t2p_r10"] < composition["t2p_r10"]


class Blind:
    """Knows nothing."""

    device = torch.device("cpu")

    def embed_proteins(self, sequences):
        return np.ones((len(sequences), 2))

    embed_text_tokens = embed_proteins


def test_retrieval_metrics_of_a_real_model_are_those_of_its_embeddings(tiny_checkpoint):
    embedder = Embedder.from_checkpoint(str(tiny_checkpoint))
    rng = np.random.default_rng(0)
    test = Examples(
        ["M" + "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), 20)) for _ in range(12)],
        [rng.integers(10, 90, 8).tolist() for _ in range(12)],
    )
    outcome = run_retrieval(SPEC, {"train": test, "test": test}, embedder, seed=0)
    direct = retrieval_metrics(
        embedder.embed_proteins(test.sequences), embedder.embed_text_tokens(test.targets)
    )
    assert outcome.metrics == pytest.approx(direct)
