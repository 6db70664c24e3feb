"""Ranks of the right tails of heads in a knowledge graph, and every metric that follows.

Shape suffixes: Q queries, C candidates, P right pairs, N units, R resamplings.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from protclip.evaluation.arrays import ratio
from protclip.evaluation.metrics.resample import measure

RECALL_AT = 20
PER_PAIR = ("mrr", "mrr_raw", "hits_1", "hits_10")
PER_QUERY = ("mrr_head", "recall_20")
SUBSETS = ("", "_frequent")
TRANSFORMATION = tuple(name + suffix for suffix in SUBSETS for name in (*PER_PAIR, *PER_QUERY))
"""Names of the metrics."""

Measured = Mapping[str, np.ndarray]
"""Sums over the right tails of each query (Q,), by metric; `pairs` and `queries` count them."""


@dataclass(frozen=True, slots=True)
class Queries:
    """Held-out heads, what is to be found, and where to look; of one relation.

    Attributes:
        relation: Its number.
        head_Q: The heads.
        candidate_C: All tails of the relation between these types, of any head.
        query_P: Query of each right pair, ascending.
        right_P: Its right candidate.
        is_frequent_C: Candidates with many links.
        train_links_C: Links of each candidate to heads that are not held out.
    """

    relation: int
    head_Q: np.ndarray
    candidate_C: np.ndarray
    query_P: np.ndarray
    right_P: np.ndarray
    is_frequent_C: np.ndarray
    train_links_C: np.ndarray


def rank(queries: Queries, similarity_QC: np.ndarray) -> Measured:
    """Ranks of the right tails, 1 is first; wrong candidates of equal similarity stand before them.

    `mrr` and `hits` are per (head, right tail), the head's other right tails removed; `mrr_raw` with them in
    their places; `mrr_head` is of the head's best right tail, `recall_20` the share of its right tails among
    the first 20. `*_frequent`: candidates and right tails with at least `protocol.frequent` links only, which
    is BioBridge's set. Which of the mean reciprocal ranks was published is not known.
    """
    start_Q = np.searchsorted(queries.query_P, np.arange(len(queries.head_Q) + 1))
    measured = zeros(len(queries.head_Q))
    for suffix, is_asked_C in zip(SUBSETS, _asked(queries), strict=True):
        for query, similarity_C in enumerate(similarity_QC):
            right = queries.right_P[start_Q[query] : start_Q[query + 1]]
            is_wrong_C = is_asked_C.copy()
            is_wrong_C[right] = False
            wrong = np.sort(similarity_C[is_wrong_C])
            # A similarity that is not a number ranks last, not first.
            own = np.sort(np.nan_to_num(similarity_C[right[is_asked_C[right]]], nan=-np.inf))[::-1]
            filtered = 1 + len(wrong) - np.searchsorted(wrong, own)
            _add(measured, suffix, query, filtered, filtered + np.arange(len(filtered)))
    return measured


def _asked(queries: Queries) -> tuple[np.ndarray, np.ndarray]:
    """Candidates (C,) of each of `SUBSETS`."""
    return np.ones(len(queries.candidate_C), bool), queries.is_frequent_C


def zeros(num_queries: int) -> dict[str, np.ndarray]:
    """Nothing measured yet."""
    names = (*PER_PAIR, *PER_QUERY, "pairs", "queries")
    return {name + suffix: np.zeros(num_queries) for suffix in SUBSETS for name in names}


def _add(
    measured: dict[str, np.ndarray], suffix: str, query: int, filtered: np.ndarray, raw: np.ndarray
) -> None:
    """Notes the ranks of a query's right tails, the best first."""
    if not len(raw):
        return
    for name, value in {
        "mrr": (1 / filtered).sum(),
        "mrr_raw": (1 / raw).sum(),
        "hits_1": (filtered <= 1).sum(),
        "hits_10": (filtered <= 10).sum(),
        "mrr_head": 1 / raw[0],
        "recall_20": (raw <= RECALL_AT).mean(),
        "pairs": len(raw),
        "queries": 1,
    }.items():
        measured[name + suffix][query] = value


def expect(queries: Queries) -> Measured:
    """What a random order of the candidates gives, exactly, in the form of `rank`.

    With m right ones among C: a filtered rank is any of 1 … C-m+1, a raw one any of 1 … C, and
    P(best rank > r) is the product over i < r of (C-m-i) / (C-i).
    """
    measured = zeros(len(queries.head_Q))
    for suffix, is_asked_C in zip(SUBSETS, _asked(queries), strict=True):
        num = int(is_asked_C.sum())
        right_Q = np.bincount(
            queries.query_P, weights=is_asked_C[queries.right_P], minlength=len(queries.head_Q)
        )
        harmonic = np.concatenate(([0.0], np.cumsum(1 / np.arange(1, num + 1))))
        for right in np.unique(right_Q[right_Q > 0]).astype(int):
            i, places = np.arange(num), num - right + 1
            beyond = np.cumprod(np.concatenate(([1.0], np.clip(num - right - i, 0, None) / (num - i))))
            for name, value in {
                "mrr": right * harmonic[places] / places,
                "mrr_raw": right * harmonic[num] / num,
                "hits_1": right / places,
                "hits_10": right * min(10, places) / places,
                "mrr_head": ((beyond[:-1] - beyond[1:]) / (i + 1)).sum(),
                "recall_20": min(RECALL_AT, num) / num,
                "pairs": right,
                "queries": 1,
            }.items():
                measured[name + suffix][right_Q == right] = value
    return measured


def transformation(units: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Every metric from sums per unit; NaN where no unit has a pair."""
    return measure(partial(resample_transformation, units), len(units["pairs"]))


def resample_transformation(units: Mapping[str, np.ndarray], counts_RN: np.ndarray) -> dict[str, np.ndarray]:
    """`transformation` when each unit counts so often (R, N): float64 (R,) per metric."""
    metrics = {}
    for suffix in SUBSETS:
        for names, number in ((PER_PAIR, "pairs"), (PER_QUERY, "queries")):
            total_R = counts_RN @ units[number + suffix]
            for name in names:
                sum_R = counts_RN @ units[name + suffix]
                metrics[name + suffix] = ratio(sum_R, total_R, empty=np.nan)
    return metrics
