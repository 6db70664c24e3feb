from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from made_primekg import write_primekg
from protclip.errors import BenchmarkError
from protclip.evaluation.composition import composition
from protclip.evaluation.kind import FixedEncoder
from protclip.evaluation.kinds.transformation import KIND
from protclip.evaluation.metrics.transformation import (
    Queries,
    expect,
    rank,
    resample_transformation,
    transformation,
)
from protclip.evaluation.prepare import prepare_one
from protclip.evaluation.prepared import SCHEMAS, Prepared
from protclip.evaluation.registry import load_benchmark
from protclip.evaluation.spec.base import DataSection
from protclip.evaluation.spec.transformation import TransformationSpec
from protclip.evaluation.triples import hold_out, read_triples

CONF = Path(__file__).resolve().parents[3] / "conf"
HEADS, TAILS, WIDTH = 200, 40, 8
RESIDUES = "ACDEFGHIKLMNPQRSTVWY"


def spec(**protocol) -> TransformationSpec:
    small = {"width": 32, "layers": 1, "heads": 2, "feedforward": 32, "batch": 64, "epochs": 12, "lr": 5e-3}
    return TransformationSpec[DataSection].model_validate(
        {
            **{"name": "t", "title": "t", "group": "g", "kind": "transformation", "metric": "mrr"},
            **{"citation": "c", "licence": "l", "data": {"format": "links", "files": {}}},
            "question": {"head": "protein", "tail": "term", "relations": ["has"]},
            "protocol": small | {"frequent": 8, "max_residues": 12} | protocol,
        }
    )


class Planted:
    """A sequence has the vector that it spells; texts are not known."""

    name = "planted"
    embedder = None

    def __init__(self) -> None:
        self.asked = []

    def vectors(self, what, items):
        self.asked.append((what, list(items)))
        numbers = [[RESIDUES.index(letter) for letter in item[:WIDTH]] for item in items]
        return np.array(numbers, np.float32) / 10 - 1


def planted(*, random: bool = False, both_ways: bool = False, texts: bool = False) -> Prepared:
    """Proteins whose two terms lie nearest to where a linear map takes them, or anywhere."""
    rng = np.random.default_rng(0)
    letters = rng.integers(len(RESIDUES), size=(HEADS, 15))
    map_WW = rng.normal(size=(WIDTH, WIDTH))
    term_CW = rng.normal(size=(TAILS, WIDTH)).astype(np.float32)
    expected_HW = (letters[:, :WIDTH] / 10 - 1) @ map_WW + 0.1 * rng.normal(size=(HEADS, WIDTH))
    similarity = expected_HW @ (term_CW / np.linalg.norm(term_CW, axis=1, keepdims=True)).T
    if random:
        similarity = rng.normal(size=similarity.shape)
    edges = [(f"P{h}", "has", f"T{t}") for h in range(HEADS) for t in np.argsort(-similarity[h])[:2]]
    if both_ways:
        edges += [(tail, relation, head) for head, relation, tail in edges]
    nodes = [
        {"id": f"P{h}", "type": "protein", "sequence": "".join(RESIDUES[i] for i in letters[h])}
        for h in range(HEADS)
    ]
    for t in range(TAILS):
        described = {"name": f"n{t}", "text": f"t{t}."} if texts else {"vector": term_CW[t].tolist()}
        nodes.append({"id": f"T{t}", "type": "term"} | described)
    return prepared(nodes, edges)


def prepared(nodes, edges) -> Prepared:
    schemas = SCHEMAS["transformation"]
    columns = [pa.array(column) for column in zip(*edges, strict=True)]
    tables = {
        "nodes": pa.Table.from_pylist(nodes, schemas["nodes"]),
        "edges": pa.table(columns, schema=schemas["edges"]),
    }
    return Prepared(tables, (), "digest")


def mrr(data: Prepared, **protocol) -> float:
    return KIND.score(KIND.run(spec(**protocol), data, Planted(), "frozen", 0).units)["mrr"]


def test_run_finds_a_planted_map_and_stays_at_chance_without_one():
    chance = KIND.score(KIND.baselines["chance"](spec(), planted(), 0).units)["mrr"]
    assert 0.10 < chance < 0.12
    assert mrr(planted()) > 0.4
    assert mrr(planted(random=True), epochs=8) < 1.6 * chance


def test_run_asks_for_what_it_needs_and_measures_held_out_heads():
    data, encoder = planted(), Planted()
    outcome = KIND.run(spec(epochs=1), data, encoder, "frozen", 0)
    (what, items), *rest = encoder.asked
    assert not rest
    assert {what: items} == KIND.needs(spec(), data)
    assert (what, {len(item) for item in items}) == ("features", {12})
    is_held_V = hold_out(read_triples(data), 0.1, 42)
    assert list(outcome.ids) == [f"P{h}" for h in np.flatnonzero(is_held_V)]
    linked = len(set(data.tables["edges"]["tail"].to_pylist()))
    assert outcome.counts == {
        **{"nodes": HEADS + linked, "train triples": 360, "test triples": 40},
        **{"test heads": 20, "candidates": linked},
    }
    assert list(outcome.units["pairs"]) == [2] * 20
    sequences = {row["id"]: row["sequence"] for row in data.tables["nodes"].to_pylist()}
    assert KIND.test_sequences(spec(), data) == [sequences[name] for name in outcome.ids]


def test_run_notes_swapped_triples_and_leaves_them_out_on_request():
    data = planted(both_ways=True)
    outcome = KIND.run(spec(epochs=1), data, Planted(), "frozen", 0)
    train = outcome.counts["train triples"]
    assert any("held-out head as their tail" in note for note in outcome.notes)
    rest = KIND.run(spec(epochs=1, drop_swapped=True), data, Planted(), "frozen", 0)
    swapped = train - rest.counts["train triples"]
    assert outcome.notes[0].startswith(f"{swapped} of {train} ")
    assert not rest.notes


def test_run_trains_on_the_question_alone_on_request():
    data = planted(both_ways=True)
    outcomes = [KIND.run(spec(epochs=1, train_on=on), data, Planted(), "frozen", 0) for on in ("all", "own")]
    assert outcomes[0].ids == outcomes[1].ids
    assert outcomes[1].counts["train triples"] == 360 < outcomes[0].counts["train triples"]


def test_needs_has_texts_of_nodes_without_vectors():
    needs = KIND.needs(spec(texts="texts"), planted(texts=True))
    assert needs["texts"][:2] == ["Name: n0. Definition: t0.", "Name: n1. Definition: t1."]
    assert list(needs) == ["features", "texts"]


def test_vector_of_a_node_is_the_mean_over_its_rows():
    data = planted()
    nodes = data.tables["nodes"].to_pylist()
    double = [dict(row) for row in nodes for _ in range(2 if row["type"] == "term" else 1)]
    for one, other in pairwise(double):
        if one["id"] == other["id"]:
            middle = np.array(one["vector"])
            one["vector"], other["vector"] = (middle + 1).tolist(), (middle - 1).tolist()
    edges = list(
        zip(*(data.tables["edges"][c].to_pylist() for c in ("head", "relation", "tail")), strict=True)
    )
    once = KIND.run(spec(epochs=2), data, Planted(), "frozen", 0)
    twice = KIND.run(spec(epochs=2), prepared(double, edges), Planted(), "frozen", 0)
    np.testing.assert_allclose(twice.units["mrr"], once.units["mrr"])


@pytest.mark.parametrize("lost", ["vector", "sequence"])
def test_run_refuses_nodes_of_which_nothing_is_known(lost):
    data = planted()
    nodes = data.tables["nodes"].to_pylist()
    at = 0 if lost == "sequence" else HEADS
    nodes[at][lost] = None
    edges = list(
        zip(*(data.tables["edges"][c].to_pylist() for c in ("head", "relation", "tail")), strict=True)
    )
    with pytest.raises(BenchmarkError, match=f"see {nodes[at]['id']}"):
        KIND.run(spec(), prepared(nodes, edges), Planted(), "frozen", 0)


def test_run_refuses_a_share_that_holds_nothing_out():
    with pytest.raises(BenchmarkError, match="no triples to test"):
        KIND.run(spec(test_share=0.001), planted(), Planted(), "frozen", 0)


def test_standardised_vectors_do_not_depend_on_their_scale():
    data = planted()
    nodes = data.tables["nodes"].to_pylist()
    for row in nodes[HEADS:]:
        row["vector"] = [1000 * value + 5000 for value in row["vector"]]
    edges = list(
        zip(*(data.tables["edges"][c].to_pylist() for c in ("head", "relation", "tail")), strict=True)
    )
    assert mrr(prepared(nodes, edges), standardise=True) > 0.4


def random_queries(rng, num_queries=6, num_candidates=30) -> Queries:
    right = [
        np.sort(rng.choice(num_candidates, rng.integers(1, 6), replace=False)) for _ in range(num_queries)
    ]
    return Queries(
        relation=0,
        head_Q=np.arange(num_queries),
        candidate_C=np.arange(num_candidates),
        query_P=np.repeat(np.arange(num_queries), [len(r) for r in right]),
        right_P=np.concatenate(right),
        is_frequent_C=rng.random(num_candidates) < 0.5,
        train_links_C=np.zeros(num_candidates),
    )


def naive(queries: Queries, similarity_QC: np.ndarray, asked: np.ndarray) -> dict[str, float]:
    """All metrics by counting, ties broken against the right tails."""
    filtered, raw, best, recall = [], [], [], []
    for query, row in enumerate(similarity_QC):
        own = [c for c in queries.right_P[queries.query_P == query] if asked[c]]
        wrong = [c for c in np.flatnonzero(asked) if c not in own]
        order = sorted([*wrong, *own], key=lambda c: (-row[c], c in own))
        for c in own:
            filtered.append(1 + sum(row[w] >= row[c] for w in wrong))
            raw.append(1 + order.index(c))
        if own:
            best.append(min(1 + order.index(c) for c in own))
            recall.append(len(set(order[:20]) & set(own)) / len(own))
    filtered, raw = np.array(filtered), np.array(raw)
    return {
        "mrr": (1 / filtered).mean(),
        "mrr_raw": (1 / raw).mean(),
        "hits_1": (filtered <= 1).mean(),
        "hits_10": (filtered <= 10).mean(),
        "mrr_head": np.mean([1 / r for r in best]),
        "recall_20": np.mean(recall),
    }


@pytest.mark.parametrize("values", [3, 10_000])
def test_rank_agrees_with_counting_also_with_ties(values):
    rng = np.random.default_rng(values)
    for _ in range(5):
        queries = random_queries(rng)
        similarity_QC = rng.integers(values, size=(6, 30)).astype(np.float32)
        found = transformation(rank(queries, similarity_QC))
        expected = naive(queries, similarity_QC, np.ones(30, bool))
        frequent = naive(queries, similarity_QC, queries.is_frequent_C)
        expected |= {f"{name}_frequent": value for name, value in frequent.items()}
        assert found == pytest.approx(expected)
        assert tuple(found) == KIND.metrics


def test_rank_puts_what_is_not_a_number_last():
    queries = random_queries(np.random.default_rng(0))
    found = transformation(rank(queries, np.full((6, 30), np.nan)))
    assert found == transformation(rank(queries, np.zeros((6, 30))))
    assert found["hits_1"] == 0


def test_expected_values_are_the_mean_over_random_orders():
    rng = np.random.default_rng(1)
    queries = random_queries(rng)
    found = transformation(expect(queries))
    drawn = [transformation(rank(queries, rng.random((6, 30)))) for _ in range(300)]
    for name in KIND.metrics:
        assert np.mean([metrics[name] for metrics in drawn]) == pytest.approx(found[name], abs=0.04)


def test_score_of_no_frequent_tail_is_not_a_number():
    queries = random_queries(np.random.default_rng(2))
    queries.is_frequent_C[:] = False
    metrics = transformation(rank(queries, np.random.default_rng(3).random((6, 30))))
    assert np.isnan(metrics["mrr_frequent"])
    assert metrics["mrr"] > 0


def test_resample_is_the_score_of_repeated_rows():
    queries = random_queries(np.random.default_rng(2))
    units = rank(queries, np.random.default_rng(3).random((6, 30)))
    counts_RN = np.array([[2, 0, 1, 0, 3, 0], [1, 1, 1, 1, 1, 1]])
    found = resample_transformation(units, counts_RN)
    rows = np.repeat(np.arange(6), counts_RN[0])
    for name, value in transformation({key: values[rows] for key, values in units.items()}).items():
        assert found[name][0] == pytest.approx(value)


def test_popularity_ranks_by_links_in_training():
    edges = [(f"P{i}", "has", "T0") for i in range(20)] + [
        (f"P{i}", "has", f"T{1 + i % 5}") for i in range(20)
    ]
    nodes = [{"id": f"P{i}", "type": "protein", "sequence": "MK"} for i in range(20)]
    nodes += [{"id": f"T{i}", "type": "term", "vector": [0.0]} for i in range(6)]
    metrics = KIND.score(KIND.baselines["popularity"](spec(), prepared(nodes, edges), 0).units)
    assert metrics["mrr_head"] == 1
    assert metrics["hits_1"] >= 0.5


def test_composition_learns_from_letters_and_words():
    rng = np.random.default_rng(4)
    nodes, edges = [], []
    for i in range(120):
        letters = rng.choice(list(RESIDUES[4 * (i % 5) : 4 * (i % 5) + 4]), 30)
        nodes.append({"id": f"P{i}", "type": "protein", "sequence": "".join(letters)})
        edges += [(f"P{i}", "has", f"T{t}") for t in range(i % 5, 40, 5) if rng.random() < 0.5]
    words = ("alpha beta", "gamma delta", "lipid zinc", "iron ion", "heat cold")
    nodes += [{"id": f"T{t}", "type": "term", "name": words[t % 5], "text": f"x{t}"} for t in range(40)]
    data = prepared(nodes, edges)
    learnt, chance = (KIND.score(KIND.baselines[b](spec(), data, 0).units) for b in ("composition", "chance"))
    assert learnt["mrr_head"] > 2 * chance["mrr_head"]


def test_given_vectors_take_the_place_of_the_encoder():
    data = planted()
    nodes = data.tables["nodes"].to_pylist()
    encoder = Planted()
    for row in nodes[:HEADS]:
        row["vector"] = encoder.vectors("features", [row["sequence"]])[0].tolist()
    edges = list(
        zip(*(data.tables["edges"][c].to_pylist() for c in ("head", "relation", "tail")), strict=True)
    )
    given = KIND.baselines["given_vectors"](spec(epochs=2), prepared(nodes, edges), 0)
    own = KIND.run(spec(epochs=2), prepared(nodes, edges), Planted(), "frozen", 0)
    np.testing.assert_array_equal(given.units["mrr"], own.units["mrr"])
    with pytest.raises(BenchmarkError, match="protein: not all have a vector"):
        KIND.baselines["given_vectors"](spec(), data, 0)


def test_benchmark_of_several_relations_finds_what_was_planted(tmp_path):
    given = load_benchmark("prot2drug", CONF)
    paths = {role: tmp_path / Path(file.path).name for role, file in given.data.files.items()}
    write_primekg(given.data, paths, np.random.default_rng(0))
    content = prepare_one(given.name, given.kind, given.data, paths)
    benchmark = given.model_copy(update={"protocol": spec(epochs=4).protocol})
    data = Prepared(content.tables, content.labels, "digest")
    encoder = FixedEncoder("composition", composition)
    outcome = KIND.run(benchmark, data, encoder, "frozen", 0)
    chance = KIND.baselines["chance"](benchmark, data, 0)
    assert outcome.ids == chance.ids
    assert KIND.score(outcome.units)["mrr"] > 2 * KIND.score(chance.units)["mrr"]
    assert list(KIND.needs(benchmark, data)) == ["features"]
    by_relation = [note.partition(":")[0] for note in outcome.notes if "MRR" in note]
    assert by_relation == list(given.question.relations)
