"""Retrieval among pairs: the rank of what was paired with a query, and every metric that follows.

Rows that show the same thing count once, and everything that was paired with a query is a right answer
to it. A query's rank is the place of its best right answer; wrong candidates with an equal similarity
stand before it, so that a collapsed model scores nothing.

Shape suffixes: N rows given, Q queries, C candidates, E edges (distinct right pairs), D embedding width,
K recalls, R resamplings.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from protclip.evaluation.arrays import ratio, unit
from protclip.evaluation.metrics.resample import measure

RECALLS = (1, 5, 10)
WAYS = ("p2t", "t2p")
RETRIEVAL = (
    *(f"{way}_{name}" for way in WAYS for name in (*(f"r{k}" for k in RECALLS), "mrr", "median_rank")),
    "matched_cosine",
    "mismatched_cosine",
)
"""Names of the metrics."""

QUERIES_AT_ONCE = 1024


def retrieval_metrics(
    protein_ND: np.ndarray,
    text_ND: np.ndarray,
    protein_ids_N: np.ndarray | None = None,
    text_ids_N: np.ndarray | None = None,
) -> dict[str, float]:
    """Metrics of `measure_queries`; ids of None: all differ."""
    rows_N = np.arange(len(text_ND))
    units = measure_queries(
        protein_ND,
        text_ND,
        rows_N if protein_ids_N is None else protein_ids_N,
        rows_N if text_ids_N is None else text_ids_N,
    )
    return measure(partial(resampled_retrieval, units), len(units["way"]))


def measure_queries(
    protein_ND: np.ndarray, text_ND: np.ndarray, protein_ids_N: np.ndarray, text_ids_N: np.ndarray
) -> dict[str, np.ndarray]:
    """What retrieval by cosine gives for each distinct protein, then for each distinct text.

    Args:
        protein_ND: Protein embeddings, float; row i was paired with row i of `text_ND`.
        text_ND: Text embeddings, float.
        protein_ids_N: Equal where proteins are the same.
        text_ids_N: Equal where texts are the same.

    Returns:
        Arrays of a row per query, in the order of ids: `way`, int8 index of `WAYS`; `rank` of its best
        right answer; `reciprocal`, 1 / rank; `hits` (Q, K), whether the rank is within each of `RECALLS`;
        `right` and `wrong`, the numbers of its right and wrong answers; `matched` and `mismatched`, the
        sums of its cosines to them. All but `way` float64.
    """
    _, protein_first = np.unique(protein_ids_N, return_index=True)
    _, text_first = np.unique(text_ids_N, return_index=True)
    protein_CD, text_CD = unit(protein_ND[protein_first]), unit(text_ND[text_first])
    protein_E, text_E = _right_pairs(protein_ids_N, text_ids_N)
    ways = []
    for query_QD, candidate_CD, query_E, candidate_E in (
        (protein_CD, text_CD, protein_E, text_E),
        (text_CD, protein_CD, text_E, protein_E),
    ):
        rank_Q = first_ranks(query_QD, candidate_CD, query_E, candidate_E)
        cosine_E = np.einsum("ed,ed->e", query_QD[query_E], candidate_CD[candidate_E], dtype=np.float64)
        matched_Q = np.bincount(query_E, cosine_E)
        right_Q = np.bincount(query_E)
        ways.append(
            {
                "rank": rank_Q,
                "reciprocal": 1 / rank_Q,
                "hits": rank_Q[:, None] <= np.array(RECALLS),
                "right": right_Q,
                "wrong": len(candidate_CD) - right_Q,
                "matched": matched_Q,
                "mismatched": query_QD @ candidate_CD.sum(0, dtype=np.float64) - matched_Q,
            }
        )
    return _both_ways(ways)


def expect_queries(protein_ids_N: np.ndarray, text_ids_N: np.ndarray) -> dict[str, np.ndarray]:
    """What a random order of the candidates gives, exactly, in the form of `measure_queries`.

    With m right ones among C candidates, P(rank > r) is the product over i < r of (C-m-i) / (C-i). `hits`
    and `reciprocal` are expected values, `rank` is the median one. Cosines are 0, as the expected ones of
    random directions are.
    """
    protein_E, text_E = _right_pairs(protein_ids_N, text_ids_N)
    ways = []
    for query_E, candidate_E in ((protein_E, text_E), (text_E, protein_E)):
        right_Q, candidates = np.bincount(query_E), int(candidate_E.max()) + 1
        distinct, which_Q = np.unique(right_Q, return_inverse=True)
        rank, reciprocal, hits = (
            np.array(column)[which_Q]
            for column in zip(*(_expect(m, candidates) for m in distinct), strict=True)
        )
        ways.append(
            {
                "rank": rank,
                "reciprocal": reciprocal,
                "hits": hits,
                "right": right_Q,
                "wrong": candidates - right_Q,
                "matched": np.zeros(len(right_Q)),
                "mismatched": np.zeros(len(right_Q)),
            }
        )
    return _both_ways(ways)


def resampled_retrieval(units: Mapping[str, np.ndarray], counts_RN: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics when query n counts `counts_RN[r, n]` times.

    Args:
        units: Rows of `measure_queries` or `expect_queries`.
        counts_RN: Integers; no row is all zero.

    Returns:
        float64 (R,) by the names in `RETRIEVAL`: recall at k, mean reciprocal rank and median rank of both
        directions; the mean cosine of right and of wrong pairs. NaN where no query tells: a direction
        without any, a pool without wrong pairs.
    """
    metrics: dict[str, np.ndarray] = {}
    for number, way in enumerate(WAYS):
        rows_N = units["way"] == number
        counts_RQ = counts_RN[:, rows_N]
        for k, hits_Q in zip(RECALLS, units["hits"][rows_N].T, strict=True):
            metrics[f"{way}_r{k}"] = ratio(counts_RQ @ hits_Q, counts_RQ.sum(1), empty=np.nan)
        metrics[f"{way}_mrr"] = ratio(counts_RQ @ units["reciprocal"][rows_N], counts_RQ.sum(1), empty=np.nan)
        metrics[f"{way}_median_rank"] = _medians(units["rank"][rows_N], counts_RQ)
    metrics["matched_cosine"] = ratio(counts_RN @ units["matched"], counts_RN @ units["right"], empty=np.nan)
    metrics["mismatched_cosine"] = ratio(
        counts_RN @ units["mismatched"], counts_RN @ units["wrong"], empty=np.nan
    )
    return metrics


def first_ranks(
    query_QD: np.ndarray, candidate_CD: np.ndarray, query_E: np.ndarray, candidate_E: np.ndarray
) -> np.ndarray:
    """Rank of each query's best right candidate, 1 is first; ties go to the wrong ones.

    Args:
        query_QD: Query vectors.
        candidate_CD: Candidate vectors; similarity is the inner product.
        query_E: Query of each right pair; every query occurs.
        candidate_E: Candidate of each right pair.

    Returns:
        int64 (Q,).
    """
    ranks = []
    for start in range(0, len(query_QD), QUERIES_AT_ONCE):
        similarity_QC = query_QD[start : start + QUERIES_AT_ONCE] @ candidate_CD.T
        edges = (query_E >= start) & (query_E < start + len(similarity_QC))
        query, right_E = query_E[edges] - start, similarity_QC[query_E[edges] - start, candidate_E[edges]]
        best_Q = np.full(len(similarity_QC), -np.inf, similarity_QC.dtype)
        np.maximum.at(best_Q, query, right_E)
        # Not ">=": a similarity that is not a number must rank last, not first.
        not_worse_Q = (~(similarity_QC < best_Q[:, None])).sum(1)
        right_among_them_Q = np.bincount(query[right_E >= best_Q[query]], minlength=len(best_Q))
        ranks.append(not_worse_Q - right_among_them_Q + 1)
    return np.concatenate(ranks)


def _expect(num_right: int, candidates: int) -> tuple[float, float, np.ndarray]:
    """Median rank, expected reciprocal rank, and expected hits (K,), of one query in a random order."""
    i = np.arange(candidates)
    factors = np.clip(candidates - num_right - i, 0, None) / (candidates - i)
    beyond = np.concatenate(([1.0], np.cumprod(factors)))
    return (
        float(np.argmax(beyond <= 0.5)),
        float(((beyond[:-1] - beyond[1:]) / (i + 1)).sum()),
        1 - beyond[np.minimum(RECALLS, candidates)],
    )


def _both_ways(ways: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The rows of both directions below each other."""
    way_Q = np.repeat(np.arange(len(ways), dtype=np.int8), [len(way["rank"]) for way in ways])
    return {"way": way_Q} | {
        name: np.concatenate([way[name] for way in ways]).astype(np.float64) for name in ways[0]
    }


def _medians(values_Q: np.ndarray, counts_RQ: np.ndarray) -> np.ndarray:
    """Median (R,) of values that count so many times; NaN where none does."""
    order_Q = np.argsort(values_Q)
    up_to_RQ = counts_RQ[:, order_Q].cumsum(1)
    total_R = counts_RQ.sum(1)
    medians_R = np.full(len(counts_RQ), np.nan)
    some_R = total_R > 0
    if some_R.any():
        middle = [
            values_Q[order_Q[(up_to_RQ[some_R] > place_R[some_R, None]).argmax(1)]]
            for place_R in ((total_R - 1) // 2, total_R // 2)
        ]
        medians_R[some_R] = np.mean(middle, axis=0)
    return medians_R


def _right_pairs(protein_ids_N: np.ndarray, text_ids_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Protein and text of each distinct right pair, by their places among the distinct ids."""
    _, protein_N = np.unique(protein_ids_N, return_inverse=True)
    _, text_N = np.unique(text_ids_N, return_inverse=True)
    protein_E, text_E = np.unique(np.stack([protein_N, text_N]), axis=1)
    return protein_E, text_E
