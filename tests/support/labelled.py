"""Made benchmarks of labelled sequences whose right answer is known, and encoders that see it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from protclip.config.base import Config
from protclip.evaluation.embed import Embedder
from protclip.evaluation.kind import Kind, Units
from protclip.evaluation.prepared import SCHEMAS, Prepared

LETTERS = list("ACDEFGHIKLMNPQRSTVY")
Row = tuple[str, Any]
"""A sequence and what is to be predicted of it."""


def made_spec(kind: Kind, name: str, metric: str, **keys: Any) -> Any:
    """A benchmark of a kind; heads are trained fast unless told otherwise."""
    fast = {"epochs": 30, "lr": 0.01} | keys.pop("frozen", {})
    return kind.spec[Config].model_validate(
        {
            **{"name": "planted", "title": "t", "group": "g", "citation": "c", "licence": "l"},
            **{"kind": name, "metric": metric, "data": {}, "frozen": fast, **keys},
        }
    )


def made_data(
    kind: str, splits: Mapping[str, Sequence[Row]], labels: Sequence[str] = (), **columns: list[Any]
) -> Prepared:
    """Prepared data; ids are split and number. Further columns are those of the test part, null elsewhere."""
    target = {"classification": "label", "multilabel": "labels", "regression": "value"}[kind]
    rows = [
        {"id": f"{split}{i}", "split": split, "sequence": sequence, target: value}
        | {name: values[i] for name, values in columns.items() if split == "test"}
        for split, examples in splits.items()
        for i, (sequence, value) in enumerate(examples)
    ]
    schema = SCHEMAS[kind]["examples"]
    return Prepared({"examples": pa.Table.from_pylist(rows, schema)}, tuple(labels), digest="0")


def random_sequences(size: int, length: int, rng: np.random.Generator) -> list[str]:
    """Sequences without tryptophan, which motifs are made of."""
    return ["".join(letters) for letters in rng.choice(LETTERS, (size, length))]


def with_motif(sequence: str, motif: str, rng: np.random.Generator) -> str:
    """The sequence with a motif written over it somewhere."""
    start = rng.integers(0, len(sequence) - len(motif) + 1)
    return sequence[:start] + motif + sequence[start + len(motif) :]


def motif_rows(targets: Mapping[str, Any], size: int, rng: np.random.Generator) -> list[Row]:
    """Sequences of equal composition whose target only the order of the letters of a motif tells."""
    drawn = rng.choice(list(targets), size)
    sequences = random_sequences(size, 16, rng)
    return [(with_motif(s, m, rng), targets[m]) for s, m in zip(sequences, drawn, strict=True)]


class SecondLetterEncoder:
    """Sees the second residue, A, C or D, as a one-hot code times `signal`; the rest is noise."""

    name = "second letter"

    def __init__(self, signal: float) -> None:
        self.signal = signal
        self.asked: list[tuple[str, str]] = []

    @property
    def embedder(self) -> Embedder:
        raise AssertionError("a frozen run needs vectors alone")

    def vectors(self, what: str, items: Sequence[str]) -> np.ndarray:
        self.asked += [(what, item) for item in items]
        noise = np.array([np.random.default_rng(list(s.encode())).normal(size=6) for s in items])
        codes = np.array(["ACD".find(s[1]) for s in items])
        return (noise + self.signal * np.eye(6)[codes]).astype(np.float32)


class WholeEncoder:
    """A model as it is."""

    name = "whole"

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    def vectors(self, what: str, items: Sequence[str]) -> np.ndarray:
        embed = {"features": self.embedder.protein_features, "projected": self.embedder.embed_proteins}[what]
        return embed(items)


def same(a: Units, b: Units) -> bool:
    """Whether two runs found the same."""
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
