import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cosine_similarity

from protclip.errors import BenchmarkError
from protclip.evaluation.bridge import Bridge, similarities, train_bridge
from protclip.evaluation.prepared import SCHEMAS, Prepared
from protclip.evaluation.spec.transformation import BridgeProtocol, Question
from protclip.evaluation.triples import Negatives, Triples, hold_out, read_triples

CPU = torch.device("cpu")
SMALL = BridgeProtocol(width=8, layers=1, heads=2, feedforward=16, batch=16, epochs=2, dropout=0)


def graph(types: str, edges: list[tuple[str, str, str]]) -> Triples:
    """Nodes n0, n1 … of a letter's type each; edges by the nodes' names."""
    nodes = [{"id": f"n{i}", "type": letter} for i, letter in enumerate(types)]
    schemas = SCHEMAS["transformation"]
    rows = [dict(zip(("head", "relation", "tail"), edge, strict=True)) for edge in edges]
    tables = {
        "nodes": pa.Table.from_pylist(nodes, schemas["nodes"]),
        "edges": pa.Table.from_pylist(rows, schemas["edges"]),
    }
    return read_triples(Prepared(tables, (), "digest"))


def random_graph(seed: int, num_nodes: int = 40, num_edges: int = 60) -> Triples:
    rng = np.random.default_rng(seed)
    ends = rng.integers(num_nodes, size=(num_edges, 2))
    return graph("ab" * (num_nodes // 2), [(f"n{i}", "r", f"n{j}") for i, j in ends])


def test_read_triples_keeps_the_order_and_drops_repeated_ones():
    triples = graph("ab", [("n1", "s", "n0"), ("n0", "r", "n1"), ("n1", "s", "n0")])
    assert (triples.relations, triples.types) == (("s", "r"), ("a", "b"))
    assert list(zip(triples.head_E, triples.relation_E, triples.tail_E, strict=True)) == [
        (1, 0, 0),
        (0, 1, 1),
    ]


def test_read_triples_refuses_an_edge_to_nowhere():
    with pytest.raises(BenchmarkError, match="'n9' is no node"):
        graph("ab", [("n0", "r", "n9")])


def test_triples_of_a_question_are_those_of_its_types_and_relations():
    triples = graph("aab", [("n0", "r", "n2"), ("n2", "r", "n0"), ("n0", "r", "n1"), ("n1", "s", "n2")])
    assert triples.of(Question(head="a", tail="b", relations=("r",))).tolist() == [True, False, False, False]
    assert triples.of(Question(head="a", tail="b", relations=("r", "s"))).tolist() == [
        True,
        False,
        False,
        True,
    ]
    with pytest.raises(BenchmarkError, match="known: a, b"):
        triples.of(Question(head="a", tail="c", relations=("r",)))
    with pytest.raises(BenchmarkError, match="between these types: r"):
        triples.of(Question(head="b", tail="a", relations=("s",)))


def test_hold_out_takes_the_share_of_each_type_as_the_source_does():
    heads = [*range(25), *range(40, 55)]  # 25 of type b, then 15 of type a
    triples = graph("b" * 40 + "a" * 30, [(f"n{i}", "r", "n60") for i in heads])
    stream = np.random.RandomState(42)
    expected = {*stream.choice(heads[:25], 2, replace=False), *stream.choice(heads[25:], 1, replace=False)}
    assert set(np.flatnonzero(hold_out(triples, 0.1, 42))) == expected
    assert set(np.flatnonzero(hold_out(triples, 0.1, 43))) != expected


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_negatives_are_of_the_tails_type_unlinked_not_held_out_and_distinct(seed):
    triples = random_graph(seed)
    is_held_V = hold_out(triples, 0.2, seed)
    is_train_E = ~is_held_V[triples.head_E]
    negatives = Negatives(triples, is_train_E, is_held_V, 4)
    head, tail = triples.head_E[is_train_E], triples.tail_E[is_train_E]
    drawn_BN = negatives.draw(head, tail, np.random.default_rng(seed))
    linked = set(zip(head.tolist(), tail.tolist(), strict=True))
    for one, right, wrong in zip(head.tolist(), tail.tolist(), drawn_BN.tolist(), strict=True):
        assert len(set(wrong)) == 4
        assert not any((one, each) in linked or is_held_V[each] for each in wrong)
        assert {triples.type_V[each] for each in wrong} == {triples.type_V[right]}


def test_negatives_reach_every_node_there_is():
    edges = [("n0", "r", "n1"), ("n2", "r", "n3"), ("n4", "r", "n5"), ("n6", "r", "n3")]
    triples = graph("a" + "b" * 6, edges)
    negatives = Negatives(triples, np.ones(4, bool), np.zeros(7, bool), 1)
    drawn = negatives.draw(np.zeros(200, int), np.ones(200, int), np.random.default_rng(0))
    assert set(drawn.ravel()) == {2, 3, 4, 5, 6}


def test_negatives_refuse_a_head_that_leaves_too_few():
    triples = graph(
        "a" + "b" * 6, [("n0", "r", f"n{i}") for i in range(1, 4)] + [("n4", "r", "n5"), ("n6", "r", "n5")]
    )
    Negatives(triples, np.ones(5, bool), np.zeros(7, bool), 3)
    with pytest.raises(BenchmarkError, match="n0 is linked to 3 of 6 nodes of type b"):
        Negatives(triples, np.ones(5, bool), np.zeros(7, bool), 4)


def made_vectors(triples: Triples, widths=(3, 5)) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [
        rng.normal(size=((triples.type_V == kind).sum(), width)).astype(np.float32)
        for kind, width in enumerate(widths)
    ]


def test_bridge_maps_each_node_by_its_type():
    triples = graph("abba", [("n0", "r", "n1")])
    vectors = made_vectors(triples)
    bridge = Bridge(vectors, triples.type_V, 1, SMALL)
    keys = bridge.keys(torch.tensor([2, 0, 3]))
    expected = [bridge.maps[1].weight @ torch.from_numpy(vectors[1][1])] + [
        bridge.maps[0].weight @ torch.from_numpy(vector) for vector in vectors[0]
    ]
    torch.testing.assert_close(keys, torch.stack(expected))


def test_bridge_loss_is_the_cross_entropy_of_cosines():
    triples = graph("abbb", [("n0", "r", "n1"), ("n0", "s", "n2")])
    bridge = Bridge(made_vectors(triples), triples.type_V, 2, SMALL).eval()
    head, relation, tails = torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([[1, 2, 3], [2, 1, 3]])
    queries = bridge.queries(head, relation, torch.tensor([1, 1]))
    cosine = torch.stack(
        [cosine_similarity(q[None], bridge.keys(t)) for q, t in zip(queries, tails, strict=True)]
    )
    expected = -(cosine / 0.1).log_softmax(1)[:, 0].mean()
    torch.testing.assert_close(bridge.loss(head, relation, tails, 0.1), expected)
    assert not torch.allclose(queries[0], queries[1])


def test_bridge_query_depends_on_the_type_that_is_asked_for():
    triples = graph("ab", [("n0", "r", "n1")])
    bridge = Bridge(made_vectors(triples), triples.type_V, 1, SMALL).eval()
    head = torch.tensor([0, 0])
    queries = bridge.queries(head, torch.zeros_like(head), torch.tensor([0, 1]))
    assert not torch.allclose(queries[0], queries[1])


def test_train_bridge_gives_the_same_for_a_seed_and_leaves_global_numbers_alone():
    triples = random_graph(1)
    is_held_V = hold_out(triples, 0.2, 1)
    given = made_vectors(triples), triples, ~is_held_V[triples.head_E], is_held_V
    protocol = SMALL.model_copy(update={"dropout": 0.1})
    torch.manual_seed(5)
    before = torch.get_rng_state()
    weights = [train_bridge(*given, protocol, seed, CPU).maps[0].weight for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_similarities_are_cosines_of_queries_and_keys():
    triples = graph("aabbb", [("n0", "r", "n2")])
    bridge = Bridge(made_vectors(triples), triples.type_V, 1, SMALL).eval()
    found = similarities(bridge, np.array([0, 1]), 0, np.array([2, 4]), CPU)
    query = bridge.queries(torch.tensor([0, 1]), torch.tensor([0, 0]), torch.tensor([1, 1]))
    keys = bridge.keys(torch.tensor([2, 4]))
    expected = cosine_similarity(query[:, None], keys[None], dim=-1)
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-5)


def test_protocol_refuses_heads_that_do_not_share_the_width():
    with pytest.raises(ValueError, match="not divisible"):
        BridgeProtocol(width=10, heads=4)
