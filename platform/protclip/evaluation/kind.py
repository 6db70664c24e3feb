"""What a kind of benchmark is, and what one run of it gives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from protclip.errors import BenchmarkError
from protclip.evaluation.embed import Embedder
from protclip.evaluation.prepared import Prepared
from protclip.evaluation.spec.base import Benchmark

Mode = Literal["frozen", "finetune"]
"""Whether the protein encoder is left as it is, or trained with the head."""

Wanted = Literal["features", "projected", "text_features", "texts"]
"""Mean residue states (N, H); embeddings in the shared space (N, D); mean token states of texts (N, W);
embeddings of texts in the shared space (N, D)."""

WANTED: Mapping[str, Wanted] = {"pooled": "features", "projected": "projected"}
"""What a protocol's `features` ask of an encoder."""

Units = Mapping[str, np.ndarray]
"""What was measured of each test unit (example, pair, query …): arrays with one row per unit, from which
every metric follows, so that metrics of any resampling of the units can be computed later."""


class Encoder(Protocol):
    """What a benchmark evaluates: something that gives vectors of sequences, and perhaps of texts.

    Rows come in the order given and are float32. Vectors a run has asked for by `Kind.needs` are at hand,
    others are computed.
    """

    @property
    def name(self) -> str:
        """How messages and reports call it."""
        ...

    @property
    def embedder(self) -> Embedder:
        """The model itself, for fine-tuning; raises BenchmarkError where there is none."""
        ...

    def vectors(self, what: Wanted, items: Sequence[str]) -> np.ndarray:
        """Vectors of sequences or texts.

        Raises:
            BenchmarkError: It has no such vectors, a text tower for example.
        """
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run found.

    Attributes:
        units: What was measured of each test unit; at least one array, all of the same length.
        ids: Name of each unit, the same for every model, so that two models are compared unit by unit.
        counts: Examples per split, classes and the like.
        notes: What a reader must know besides.
    """

    units: Units
    ids: Sequence[str]
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Kind:
    """What is done in a benchmark.

    Attributes:
        spec: What its files say; generic in the data section.
        metrics: Names of all metrics that `score` gives; a benchmark's primary metric is one of them.
        run: Does it once; takes the spec, the data, the encoder, the mode and a seed.
        score: All metrics of some units; rows may repeat (a bootstrap resamples them).
        needs: What a run with a frozen encoder will ask the encoder for.
        test_sequences: Sequences of the proteins that results are measured on.
        baselines: Runs that need no encoder, by name; they take the spec, the data and a seed.
        modes: What it can do with an encoder.
        seeded: False when every seed gives the same numbers, so that one is enough.
        resample: What `score` would give for R resamplings of the N units, all at once: takes how often each
            unit is drawn, (R, N) integers, and gives (R,) float64 per metric; null: `score` R times.
    """

    spec: type[Benchmark[Any]]
    metrics: tuple[str, ...]
    run: Callable[[Any, Prepared, Encoder, Mode, int], Outcome]
    score: Callable[[Units], dict[str, float]]
    needs: Callable[[Any, Prepared], Mapping[Wanted, Sequence[str]]]
    test_sequences: Callable[[Any, Prepared], Sequence[str]]
    baselines: Mapping[str, Callable[[Any, Prepared, int], Outcome]]
    modes: tuple[Mode, ...] = ("frozen",)
    seeded: bool = True
    resample: Callable[[Units, np.ndarray], dict[str, np.ndarray]] | None = None


class FixedEncoder:
    """An encoder of plain features of sequences, such as amino-acid composition.

    Args:
        name: How reports call it.
        features: (N, F) of sequences.
    """

    def __init__(self, name: str, features: Callable[[Sequence[str]], np.ndarray]) -> None:
        self.name = name
        self._features = features

    @property
    def embedder(self) -> Embedder:
        """There is none."""
        raise BenchmarkError(f"{self.name} has no model that could be fine-tuned")

    def vectors(self, what: Wanted, items: Sequence[str]) -> np.ndarray:
        """Features of sequences."""
        if what not in {"features", "projected"}:
            raise BenchmarkError(f"{self.name} has no text tower")
        return self._features(items).astype(np.float32)
