import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from made_graphs import write_string
from protclip.errors import BenchmarkError
from protclip.evaluation.interaction_splits import PARTITIONS, draw_test, ends_seen
from protclip.evaluation.kind import FixedEncoder
from protclip.evaluation.kinds import ppi
from protclip.evaluation.prepare import prepare_one
from protclip.evaluation.prepared import Prepared
from protclip.evaluation.raw.string import StringSection
from protclip.evaluation.spec.ppi import GraphProtocol, PpiSpec

QUICK = {"epochs": 30, "batch": 64, "lr": 3e-3, "width": 32, "hidden": 64}
GRAPHS = st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), min_size=5, max_size=60).map(
    lambda ends: np.array(sorted({(min(e), max(e)) for e in ends if e[0] != e[1]} | {(0, 1), (1, 2)}))
)


def make_spec(**keys):
    section = StringSection(format="string_actions", files={})
    fixed = dict(
        name="made", title="made", group="ppi", kind="ppi", metric="micro_f1", citation="", licence=""
    )
    return PpiSpec[StringSection](data=section, **fixed, **{"protocol": QUICK, **keys})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("string")
    paths = {"actions": root / "actions.txt.gz", "sequences": root / "sequences.tsv"}
    write_string(None, paths, np.random.default_rng(3))
    content = prepare_one("made", "ppi", StringSection(format="string_actions", files={}), paths)
    return Prepared(content.tables, content.labels, "digest")


def naive_region(pairs, start, size, depth_first):
    """Word by word what GNN-PPI's repository is said to do; None when the component is used up."""
    taken, done, candidates = [], [], [start]
    while len(taken) < size:
        if not candidates:
            return None
        node = candidates[-1] if depth_first else candidates.pop(0)
        if depth_first and node in done:
            ahead = [sum(p) - node for p in pairs if node in p and sum(p) - node not in done]
            if ahead:
                candidates.append(ahead[0])
            else:
                candidates.pop()
            continue
        done.append(node)
        for index, pair in enumerate(pairs):
            if node in pair and index not in taken:
                taken.append(index)
                other = sum(pair) - node
                if not depth_first and other not in done and other not in candidates:
                    candidates.append(other)
    return taken


@settings(max_examples=100, deadline=None)
@given(GRAPHS, st.sampled_from([0.1, 0.2, 0.5]), st.integers(1, 6), st.integers(0, 99), st.booleans())
def test_regions_equal_a_naive_walk_from_the_same_start(pairs, share, most, seed, depth_first):
    degree = np.bincount(pairs.ravel())
    starts = np.random.default_rng(seed).permutation(np.flatnonzero((degree > 0) & (degree <= most)))
    size = int(share * len(pairs) + 1e-9)
    walks = (naive_region(pairs.tolist(), start, size, depth_first) for start in starts.tolist())
    expected = next((walk for walk in walks if walk is not None), None)
    args = pairs, "dfs" if depth_first else "bfs", share, most, np.random.default_rng(seed)
    if expected is None:
        with pytest.raises(BenchmarkError, match="max_start_degree"):
            draw_test(*args)
    else:
        test = draw_test(*args)
        assert np.flatnonzero(test).tolist() == sorted(expected)
        assert size <= test.sum() < size + degree.max()


def test_random_part_has_the_published_size_and_differs_by_seed():
    pairs = np.stack([np.arange(7624), np.arange(7624) + 1], 1)
    parts = [draw_test(pairs, "random", 0.2, 5, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert [(~part).sum() for part in parts] == [6099] * 3
    assert (parts[0] == parts[1]).all()
    assert abs((parts[0] & parts[2]).sum() - 305) < 80


def test_region_starts_elsewhere_when_a_component_is_used_up():
    small, large = [(0, 1)], [(i, i + 1) for i in range(2, 30)]
    for seed in range(8):
        test = draw_test(np.array(small + large), "bfs", 0.2, 5, np.random.default_rng(seed))
        assert test.sum() == 5
        assert not test[0]


@settings(max_examples=30, deadline=None)
@given(GRAPHS, st.integers(0, 99))
def test_ends_seen_counts_proteins_that_also_stand_in_training_pairs(pairs, seed):
    test = np.random.default_rng(seed).random(len(pairs)) < 0.5
    trained = {protein for pair in pairs[~test].tolist() for protein in pair}
    assert ends_seen(pairs, test).tolist() == [
        sum(p in trained for p in pair) for pair in pairs[test].tolist()
    ]


def make_units(rng, size):
    return {
        "truth": rng.random((size, 7)) < 0.4,
        "predicted": rng.random((size, 7)) < 0.4,
        "partition": rng.integers(3, size=size).astype(np.int8),
        "seen": rng.integers(3, size=size).astype(np.int8),
    }


def test_score_equals_scikit_learn():
    units = make_units(np.random.default_rng(0), 200)
    found = ppi.score(units)
    assert set(found) == set(ppi.KIND.metrics)

    def expected(rows):
        return pytest.approx(f1_score(units["truth"][rows], units["predicted"][rows], average="micro"))

    for code, name in enumerate(PARTITIONS):
        assert found[f"micro_f1_{name}"] == expected(units["partition"] == code)
    for ends, name in enumerate(ppi.SEEN):
        assert found[f"micro_f1_{name}"] == expected(units["seen"] == ends)
    assert found["micro_f1"] == pytest.approx(np.mean([found[f"micro_f1_{name}"] for name in PARTITIONS]))


def test_score_leaves_out_what_no_test_interaction_belongs_to():
    units = make_units(np.random.default_rng(0), 50) | {"partition": np.ones(50), "seen": np.full(50, 2)}
    assert set(ppi.score(units)) == {"micro_f1", "micro_f1_bfs", "micro_f1_both"}


def test_resample_equals_the_score_of_repeated_rows():
    rng = np.random.default_rng(1)
    units = make_units(rng, 40)
    counts = rng.integers(0, 3, (5, 40))
    counts[0, units["seen"] == 0] = 0
    found = ppi.resample(units, counts)
    assert np.isnan(found["micro_f1_none"][0])
    for row, drawn in enumerate(counts):
        repeated = {name: np.repeat(array, drawn, axis=0) for name, array in units.items()}
        for name, value in ppi.score(repeated).items():
            assert found[name][row] == pytest.approx(value)


def test_network_is_one_sum_over_neighbours_then_a_product():
    torch.manual_seed(0)
    net = ppi.InteractionNetwork(3, 7, GraphProtocol(width=4, hidden=5)).double().eval()
    net.graph.eps.data.fill_(0.3)
    features, pairs = torch.randn(4, 3).double(), torch.tensor([[0, 1], [0, 2]])
    hears = torch.zeros(4, 4).double()
    for one, other in pairs.tolist():
        hears[one, other] = hears[other, one] = 1
    narrow = net.narrow(features)
    nodes = net.head(net.graph.nn(1.3 * narrow + hears @ narrow))
    asked = torch.tensor([[0, 3], [1, 2]])
    expected = net.types(nodes[asked[:, 0]] * nodes[asked[:, 1]])
    found = net(features, torch.cat([pairs, pairs.flip(1)]).T, asked)
    torch.testing.assert_close(found, expected)


def test_types_that_follow_from_the_proteins_are_learnt(data):
    spec = make_spec(partitions=("random",))
    frequency = ppi.score(ppi.KIND.baselines["frequency"](spec, data, 0).units)
    outcome = ppi.KIND.baselines["composition"](spec, data, 0)
    found = ppi.score(outcome.units)
    assert found["micro_f1_random"] > 0.95 > frequency["micro_f1_random"] + 0.3
    assert len(set(outcome.ids)) == len(outcome.ids) == len(outcome.units["truth"])
    assert (outcome.counts["random_train"], outcome.counts["random_test"]) == (400, 100)


def test_types_that_follow_from_nothing_are_guessed_no_better_than_by_frequency(data):
    rng = np.random.default_rng(0)
    pairs = data.tables["pairs"]
    shuffled = pairs.set_column(2, pairs.schema.field(2), pairs["labels"].take(rng.permutation(len(pairs))))
    shuffled = Prepared({**data.tables, "pairs": shuffled}, data.labels, "")
    spec = make_spec(partitions=("random",))
    noise = FixedEncoder("noise", lambda sequences: np.random.default_rng(1).normal(size=(len(sequences), 8)))
    found = ppi.score(ppi.run(spec, shuffled, noise, "frozen", 0).units)["micro_f1"]
    frequency = ppi.score(ppi.KIND.baselines["frequency"](spec, shuffled, 0).units)["micro_f1"]
    assert found < frequency + 0.05


@pytest.mark.parametrize("messages", ["all", "train"])
def test_messages_pass_over_all_or_training_interactions(data, monkeypatch, messages):
    heard = []
    forward = ppi.InteractionNetwork.forward

    def spy(self, features, messages_2M, pairs):
        heard.append({tuple(m) for m in messages_2M.T.tolist()})
        return forward(self, features, messages_2M, pairs)

    monkeypatch.setattr(ppi.InteractionNetwork, "forward", spy)
    protocol = {**QUICK, "epochs": 1, "messages": messages}
    outcome = ppi.KIND.baselines["composition"](make_spec(protocol=protocol, partitions=("bfs",)), data, 0)
    expected = outcome.counts["pairs"] if messages == "all" else outcome.counts["bfs_train"]
    assert {len(messages) for messages in heard} == {2 * expected}
    assert all((b, a) in heard[0] for a, b in heard[0])


def test_run_depends_on_its_seed_alone(data):
    spec = make_spec(protocol={**QUICK, "epochs": 3}, partitions=("dfs",))
    state = torch.get_rng_state()
    first, again, other = (ppi.KIND.baselines["composition"](spec, data, seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert first.ids == again.ids
    np.testing.assert_array_equal(first.units["predicted"], again.units["predicted"])
    assert first.ids != other.ids


def test_needs_are_exactly_what_a_run_asks_for(data):
    spec = make_spec(protocol={**QUICK, "epochs": 1, "max_residues": 20, "features": "projected"})
    asked = {}

    class Spy(FixedEncoder):
        def vectors(self, what, items):
            asked[what] = list(items)
            return super().vectors(what, items)

    ppi.run(spec, data, Spy("lengths", lambda s: np.array([[len(x), x.count("A")] for x in s])), "frozen", 0)
    assert asked == ppi.KIND.needs(spec, data)
    assert max(map(len, asked["projected"])) == 20


def test_real_shs27k_has_its_published_counts_and_parts(real_data):
    files = {
        "actions": real_data / "ppi" / "protein.actions.SHS27k.STRING.txt.gz",
        "sequences": real_data / "ppi" / "protein.SHS27k.sequences.dictionary.tsv.gz",
    }
    expected = {"pairs": 7624, "proteins": 1690, "pairs/reaction": 3164, "pairs/expression": 687}
    section = StringSection(format="string_actions", files={}, expected=expected)
    content = prepare_one("ppi_shs27k", "ppi", section, files)
    assert (content.differing, content.odd) == ({}, [])
    outcome = ppi.KIND.baselines["frequency"](
        make_spec(), Prepared(content.tables, content.labels, ""), seed=0
    )
    assert (outcome.counts["random_train"], outcome.counts["random_test"]) == (6099, 1525)
    assert outcome.counts["bfs_both_seen"] == outcome.counts["dfs_both_seen"] == 0
    assert 0.2 < ppi.score(outcome.units)["micro_f1"] < 0.4
