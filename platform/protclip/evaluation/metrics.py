"""Metrics in plain numpy.

Shape suffixes: N rows given, Q distinct queries, C distinct candidates, E edges (right pairs),
D embedding width.

Retrieval conventions: rows that show the same thing count once, and everything that was paired with
a query is a right answer to it. A query's rank is the place of its best right answer; wrong candidates
with an equal similarity stand before it, so that a collapsed model scores nothing.
"""

from collections.abc import Callable

import numpy as np

RECALLS = (1, 5, 10)
QUERIES_AT_ONCE = 1024


def retrieval_metrics(
    protein_ND: np.ndarray,
    text_ND: np.ndarray,
    protein_ids_N: np.ndarray | None = None,
    text_ids_N: np.ndarray | None = None,
) -> dict[str, float]:
    """Retrieval by cosine in both directions.

    Args:
        protein_ND: Protein embeddings, float; row i was paired with row i of `text_ND`.
        text_ND: Text embeddings, float.
        protein_ids_N: Equal where proteins are the same; None when all differ.
        text_ids_N: Equal where texts are the same; None when all differ.

    Returns:
        `{p2t,t2p}_{r1,r5,r10,mrr,median_rank}` (protein to text, text to protein), and the mean cosine
        of right and of wrong pairs, `matched_cosine` and `mismatched_cosine` (NaN without wrong pairs).
    """
    rows_N = np.arange(len(text_ND))
    protein_first, protein_E, text_first, text_E = _right_pairs(
        rows_N if protein_ids_N is None else protein_ids_N, rows_N if text_ids_N is None else text_ids_N
    )
    protein_CD, text_CD = _unit(protein_ND[protein_first]), _unit(text_ND[text_first])
    metrics = {}
    p2t_Q = first_ranks(protein_CD, text_CD, protein_E, text_E)
    t2p_Q = first_ranks(text_CD, protein_CD, text_E, protein_E)
    for way, rank_Q in (("p2t", p2t_Q), ("t2p", t2p_Q)):
        metrics |= {f"{way}_r{k}": float((rank_Q <= k).mean()) for k in RECALLS}
        metrics[f"{way}_mrr"] = float((1 / rank_Q).mean())
        metrics[f"{way}_median_rank"] = float(np.median(rank_Q))
    matched = float(np.einsum("ed,ed->", protein_CD[protein_E], text_CD[text_E], dtype=np.float64))
    everything = float(protein_CD.sum(0, dtype=np.float64) @ text_CD.sum(0, dtype=np.float64))
    num_wrong = len(protein_CD) * len(text_CD) - len(protein_E)
    metrics["matched_cosine"] = matched / len(protein_E)
    metrics["mismatched_cosine"] = (everything - matched) / num_wrong if num_wrong else float("nan")
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


def retrieval_chance(protein_ids_N: np.ndarray, text_ids_N: np.ndarray) -> dict[str, float]:
    """What a random order of the candidates scores, exactly, named as in `retrieval_metrics`.

    With m right ones among C candidates, P(rank > r) is the product over i < r of (C-m-i) / (C-i).
    """
    protein_first, protein_E, text_first, text_E = _right_pairs(protein_ids_N, text_ids_N)
    metrics = {}
    for way, query_E, candidates in (
        ("p2t", protein_E, len(text_first)),
        ("t2p", text_E, len(protein_first)),
    ):
        beyond = _chance_beyond(np.bincount(query_E), candidates)
        metrics |= {f"{way}_r{k}": float(1 - beyond[min(k, candidates)]) for k in RECALLS}
        metrics[f"{way}_mrr"] = float(((beyond[:-1] - beyond[1:]) / np.arange(1, candidates + 1)).sum())
        metrics[f"{way}_median_rank"] = float(np.argmax(beyond <= 0.5))
    return metrics


def _chance_beyond(num_right_Q: np.ndarray, candidates: int) -> np.ndarray:
    """P(rank > r) for r = 0 … candidates in a random order, mean over queries."""
    mean = np.zeros(candidates + 1)
    for num_right, queries in zip(*np.unique(num_right_Q, return_counts=True), strict=True):
        i = np.arange(candidates)
        factors = np.clip(candidates - num_right - i, 0, None) / (candidates - i)
        mean += queries * np.concatenate(([1.0], np.cumprod(factors)))
    return mean / len(num_right_Q)


def _right_pairs(
    protein_ids_N: np.ndarray, text_ids_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """First row of each distinct protein, protein of each distinct right pair, and the same of texts."""
    _, protein_first, protein_N = np.unique(protein_ids_N, return_index=True, return_inverse=True)
    _, text_first, text_N = np.unique(text_ids_N, return_index=True, return_inverse=True)
    protein_E, text_E = np.unique(np.stack([protein_N, text_N]), axis=1)
    return protein_first, protein_E, text_first, text_E


def _unit(vectors_ND: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; zero rows stay zero."""
    norm_N = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return np.divide(vectors_ND, norm_N, out=np.zeros_like(vectors_ND), where=norm_N > 0)


def confusion(truth_N: np.ndarray, predicted_N: np.ndarray) -> np.ndarray:
    """Counts by (true class, predicted class), float64, both int class indices."""
    classes = int(max(truth_N.max(), predicted_N.max())) + 1
    flat = np.bincount(truth_N * classes + predicted_N, minlength=classes**2)
    return flat.reshape(classes, classes).astype(np.float64)


def accuracy(truth_N: np.ndarray, predicted_N: np.ndarray) -> float:
    """Share of right predictions."""
    return float((truth_N == predicted_N).mean())


def mcc(truth_N: np.ndarray, predicted_N: np.ndarray) -> float:
    """Matthews correlation of any number of classes (Gorodkin's R_K); 0 when a side is constant."""
    counts = confusion(truth_N, predicted_N)
    true, predicted, total = counts.sum(1), counts.sum(0), counts.sum()
    covariance = np.trace(counts) * total - true @ predicted
    spread = np.sqrt(total**2 - true @ true) * np.sqrt(total**2 - predicted @ predicted)
    return float(covariance / spread) if spread else 0.0


def macro_f1(truth_N: np.ndarray, predicted_N: np.ndarray) -> float:
    """Mean over classes of F1; classes that neither occur nor are predicted are left out."""
    counts = confusion(truth_N, predicted_N)
    occurrences = counts.sum(0) + counts.sum(1)
    return float((2 * np.diag(counts)[occurrences > 0] / occurrences[occurrences > 0]).mean())


CLASSIFICATION: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy,
    "mcc": mcc,
    "macro_f1": macro_f1,
}


def classification_metrics(truth_N: np.ndarray, predicted_N: np.ndarray) -> dict[str, float]:
    """Every classification metric by name."""
    return {name: metric(truth_N, predicted_N) for name, metric in CLASSIFICATION.items()}
