import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protclip.evaluation.metrics.resample import measure
from protclip.evaluation.metrics.retrieval import (
    QUERIES_AT_ONCE,
    RETRIEVAL,
    expect_queries,
    first_ranks,
    measure_queries,
    resampled_retrieval,
    retrieval_metrics,
)


def naive_ranks(similarity: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Rank of each row's best right column by a double loop; ties go to the wrong ones."""
    ranks = []
    for row, is_right in zip(similarity, right, strict=True):
        best = max(s for s, r in zip(row, is_right, strict=True) if r)
        ranks.append(1 + sum(1 for s, r in zip(row, is_right, strict=True) if not r and s >= best))
    return np.array(ranks)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def chance(protein_ids: np.ndarray, text_ids: np.ndarray) -> dict[str, float]:
    units = expect_queries(protein_ids, text_ids)
    return measure(lambda counts: resampled_retrieval(units, counts), len(units["way"]))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
def test_first_ranks_equal_a_double_loop_ties_included(seed, queries, candidates):
    rng = np.random.default_rng(seed)
    query_QD = rng.integers(-1, 2, (queries, 3)).astype(np.float32)
    candidate_CD = rng.integers(-1, 2, (candidates, 3)).astype(np.float32)
    right = rng.random((queries, candidates)) < 0.3
    right[np.arange(queries), rng.integers(0, candidates, queries)] = True
    query_E, candidate_E = np.nonzero(right)
    found = first_ranks(query_QD, candidate_CD, query_E, candidate_E)
    np.testing.assert_array_equal(found, naive_ranks(query_QD @ candidate_CD.T, right))


def test_first_ranks_cross_a_block_border():
    count = QUERIES_AT_ONCE + 3
    vectors = np.random.default_rng(0).normal(size=(count, 2))
    right = np.random.default_rng(1).permutation(count)
    found = first_ranks(vectors, vectors, np.arange(count), right)
    np.testing.assert_array_equal(found, naive_ranks(vectors @ vectors.T, np.eye(count, dtype=bool)[right]))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 25))
def test_retrieval_metrics_equal_a_double_loop_with_repeated_texts_and_proteins(seed, rows):
    rng = np.random.default_rng(seed)
    protein_ids, text_ids = rng.integers(0, rows, rows), rng.integers(0, max(2, rows // 2), rows)
    protein_ND, text_ND = rng.normal(size=(rows, 5))[protein_ids], rng.normal(size=(rows, 5))[text_ids]
    found = retrieval_metrics(protein_ND, text_ND, protein_ids, text_ids)
    assert tuple(found) == RETRIEVAL

    proteins, texts = sorted(set(protein_ids.tolist())), sorted(set(text_ids.tolist()))
    first_protein = [protein_ids.tolist().index(p) for p in proteins]
    first_text = [text_ids.tolist().index(t) for t in texts]
    similarity = unit(protein_ND[first_protein]) @ unit(text_ND[first_text]).T
    pairs = set(zip(protein_ids.tolist(), text_ids.tolist(), strict=True))
    right = np.array([[(p, t) in pairs for t in texts] for p in proteins])
    for way, ranks in (("p2t", naive_ranks(similarity, right)), ("t2p", naive_ranks(similarity.T, right.T))):
        for k in (1, 5, 10):
            assert found[f"{way}_r{k}"] == pytest.approx(np.mean(ranks <= k))
        assert found[f"{way}_mrr"] == pytest.approx(np.mean(1 / ranks))
        assert found[f"{way}_median_rank"] == np.median(ranks)
    assert found["matched_cosine"] == pytest.approx(similarity[right].mean())
    if not right.all():
        assert found["mismatched_cosine"] == pytest.approx(similarity[~right].mean())


def test_retrieval_metrics_are_perfect_for_equal_embeddings():
    vectors = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    found = retrieval_metrics(vectors, 3 * vectors)
    assert {found[name] for name in ("p2t_r1", "t2p_r1", "p2t_mrr", "t2p_median_rank")} == {1.0}
    assert found["matched_cosine"] == pytest.approx(1)
    assert found["mismatched_cosine"] < 0.5


def test_retrieval_metrics_give_a_collapsed_model_nothing():
    ones = np.ones((40, 1))
    found = retrieval_metrics(ones, ones)
    assert found["p2t_r10"] == found["t2p_r10"] == 0
    assert found["p2t_median_rank"] == 40


def test_retrieval_metrics_rank_not_a_number_last():
    found = retrieval_metrics(np.full((20, 4), np.nan), np.ones((20, 4)))
    assert found["p2t_r10"] == found["t2p_r10"] == 0


def test_retrieval_metrics_do_not_punish_a_shared_text():
    protein_ND = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    text_ND = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    texts = np.array([4, 4, 9])
    assert retrieval_metrics(protein_ND, text_ND, np.arange(3), texts)["p2t_r1"] == 1
    assert retrieval_metrics(protein_ND, text_ND)["p2t_r1"] == pytest.approx(1 / 3)


def test_retrieval_chance_of_single_answers_is_k_over_n():
    found = chance(np.arange(50), np.arange(50))
    assert found["p2t_r1"] == pytest.approx(1 / 50)
    assert found["t2p_r10"] == pytest.approx(10 / 50)
    assert found["t2p_mrr"] == pytest.approx(sum(1 / r for r in range(1, 51)) / 50)
    assert found["p2t_median_rank"] == 25


def test_retrieval_chance_equals_a_simulation_with_several_answers():
    rng = np.random.default_rng(0)
    protein_ids, text_ids = np.arange(40), rng.integers(0, 12, 40)
    simulated = [
        retrieval_metrics(
            rng.normal(size=(40, 40)), rng.normal(size=(12, 40))[text_ids], protein_ids, text_ids
        )
        for _ in range(400)
    ]
    expected = chance(protein_ids, text_ids)
    for name in ("p2t_r1", "p2t_r5", "p2t_mrr", "t2p_r1", "t2p_r5", "t2p_r10", "t2p_mrr"):
        assert np.mean([s[name] for s in simulated]) == pytest.approx(expected[name], abs=0.015), name


def test_retrieval_chance_has_the_rows_of_a_model():
    rng = np.random.default_rng(3)
    ids = rng.integers(0, 30, 50), rng.integers(0, 20, 50)
    model = measure_queries(rng.normal(size=(50, 4)), rng.normal(size=(50, 4)), *ids)
    expected = expect_queries(*ids)
    assert {name: (a.shape, a.dtype) for name, a in model.items()} == {
        name: (a.shape, a.dtype) for name, a in expected.items()
    }
    for name in ("way", "right", "wrong"):
        np.testing.assert_array_equal(model[name], expected[name])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_resampled_retrieval_equals_the_metrics_of_repeated_rows(seed, rows):
    rng = np.random.default_rng(seed)
    units = measure_queries(
        rng.normal(size=(rows, 3)), rng.normal(size=(rows, 3)), np.arange(rows), rng.integers(0, rows, rows)
    )
    size = len(units["way"])
    counts_RN = rng.multinomial(size, np.full(size, 1 / size), size=4)
    found = resampled_retrieval(units, counts_RN)
    for r, counts_N in enumerate(counts_RN):
        drawn = {name: np.repeat(array, counts_N, axis=0) for name, array in units.items()}
        for number, way in enumerate(("p2t", "t2p")):
            ranks = drawn["rank"][drawn["way"] == number]
            expected = (
                [np.mean(ranks <= 5), np.mean(1 / ranks), np.median(ranks)] if len(ranks) else [np.nan] * 3
            )
            names = (f"{way}_r5", f"{way}_mrr", f"{way}_median_rank")
            np.testing.assert_allclose([found[name][r] for name in names], expected, atol=1e-12)
        cosine = drawn["matched"].sum() / drawn["right"].sum()
        assert found["matched_cosine"][r] == pytest.approx(cosine)
