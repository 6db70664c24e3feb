"""Semantic similarity: does the similarity of embeddings rank pairs as that of their annotations does?

PROBE's protocol (Unsal et al. 2022): Manhattan similarity, Spearman's correlation, nothing is trained,
centred or normalised. Cosine similarity stands beside it.

Shape suffixes: N pairs, V proteins, D width of vectors, B pairs at once.
"""

# pyright: reportAttributeAccessIssue=false

from functools import partial

import numpy as np
import pyarrow.compute as pc

from protclip.errors import BenchmarkError
from protclip.evaluation.arrays import ratio
from protclip.evaluation.composition import composition
from protclip.evaluation.kind import WANTED, Encoder, FixedEncoder, Kind, Mode, Outcome, Units
from protclip.evaluation.metrics.regression import resampled_spearman
from protclip.evaluation.metrics.resample import measure
from protclip.evaluation.prepared import Prepared
from protclip.evaluation.spec.similarity import SUBSETS, SimilaritySpec

PAIRS_AT_ONCE = 4096


def run(spec: SimilaritySpec, data: Prepared, encoder: Encoder, mode: Mode, seed: int) -> Outcome:
    """Compares the two proteins of every pair; nothing is trained, nothing is drawn.

    Raises:
        BenchmarkError: There are no pairs of the primary set.
    """
    proteins, pairs = data.tables["proteins"], data.tables["pairs"]
    vectors_VD = encoder.vectors(WANTED[spec.features], _sequences(spec, data)).astype(np.float64)
    names = proteins["id"].combine_chunks()
    first_N, second_N = (pc.index_in(pairs[end], value_set=names).to_numpy() for end in ("a", "b"))
    manhattan_N, cosine_N = similarities(vectors_VD, first_N, second_N)
    subsets = pairs["subset"].to_pylist()
    primary_N = np.array([spec.primary in {None, subset} for subset in subsets], bool)
    if not primary_N.any():
        raise BenchmarkError(
            f"{spec.name}: no pairs of primary set {spec.primary!r}, but of {', '.join(sorted(set(subsets)))}"
        )
    return Outcome(
        units={
            "truth": pairs["similarity"].to_numpy(),
            "manhattan": manhattan_N,
            "cosine": cosine_N,
            "subset": np.array([SUBSETS.index(subset) for subset in subsets], np.int8),
            "primary": primary_N,
        },
        ids=[
            f"{subset} {a} {b}"
            for subset, a, b in zip(subsets, pairs["a"].to_pylist(), pairs["b"].to_pylist(), strict=True)
        ],
        counts={"proteins": len(names), **{f"{s}_pairs": n for s in SUBSETS if (n := subsets.count(s))}},
    )


def similarities(
    vectors_VD: np.ndarray, first_N: np.ndarray, second_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Similarity of the vectors at `first_N` to those at `second_N`, float64 (N,) each.

    Returns:
        1 - |a - b| / (|a| + |b|) in the Manhattan norm, 1 between two zero vectors; and the cosine, 0 with a
        zero vector.
    """
    size_V, length_V = np.abs(vectors_VD).sum(1), np.linalg.norm(vectors_VD, axis=1)
    distance_N, product_N = np.empty(len(first_N)), np.empty(len(first_N))
    for start in range(0, len(first_N), PAIRS_AT_ONCE):
        rows = slice(start, start + PAIRS_AT_ONCE)
        a_BD, b_BD = vectors_VD[first_N[rows]], vectors_VD[second_N[rows]]
        distance_N[rows] = np.abs(a_BD - b_BD).sum(1)
        product_N[rows] = np.einsum("bd,bd->b", a_BD, b_BD)
    sizes_N, lengths_N = size_V[first_N] + size_V[second_N], length_V[first_N] * length_V[second_N]
    return 1 - ratio(distance_N, sizes_N), ratio(product_N, lengths_N)


def resample(units: Units, counts_RN: np.ndarray) -> dict[str, np.ndarray]:
    """Spearman's correlation of each set of pairs, and the mean over the primary ones, also by cosine.

    Sets that are not there are left out.
    """
    found, primary, by_cosine = {}, [], []
    for code, subset in enumerate(SUBSETS):
        rows_N = units["subset"] == code
        if not rows_N.any():
            continue
        truth_N, counts = units["truth"][rows_N], counts_RN[:, rows_N]
        found[f"spearman_{subset}"] = resampled_spearman(truth_N, units["manhattan"][rows_N], counts)
        if units["primary"][rows_N].all():
            primary.append(found[f"spearman_{subset}"])
            by_cosine.append(resampled_spearman(truth_N, units["cosine"][rows_N], counts))
    return {
        "spearman": np.mean(primary, axis=0),
        "spearman_cosine": np.mean(by_cosine, axis=0),
        **found,
    }


def score(units: Units) -> dict[str, float]:
    """All metrics when each pair counts once; see `resample`."""
    return measure(partial(resample, units), len(units["truth"]))


def _sequences(spec: SimilaritySpec, data: Prepared) -> list[str]:
    """Of all proteins."""
    return data.tables["proteins"]["sequence"].to_pylist()


KIND = Kind(
    spec=SimilaritySpec,
    metrics=("spearman", "spearman_cosine", *(f"spearman_{subset}" for subset in SUBSETS)),
    run=run,
    score=score,
    needs=lambda spec, data: {WANTED[spec.features]: _sequences(spec, data)},
    test_sequences=_sequences,
    baselines={
        "composition": lambda spec, data, seed: run(
            spec, data, FixedEncoder("composition", composition), "frozen", seed
        ),
    },
    seeded=False,
    resample=resample,
)
