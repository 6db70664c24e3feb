import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cityblock, cosine
from scipy.stats import spearmanr

from protclip.errors import BenchmarkError
from protclip.evaluation.kind import FixedEncoder
from protclip.evaluation.kinds import similarity
from protclip.evaluation.prepare import prepare_one
from protclip.evaluation.prepared import SCHEMAS, Prepared
from protclip.evaluation.raw.protein_pairs import EvoKgSimSection
from protclip.evaluation.spec.similarity import SUBSETS, SimilaritySpec

VECTORS = arrays(np.float64, (5, 3), elements=st.sampled_from([-2.0, -0.5, 0.0, 0.1, 1.0, 3.0]))


def make_spec(**keys):
    section = EvoKgSimSection(format="evokgsim", measure="lin", files={})
    fixed = dict(
        title="made", group="similarity", kind="similarity", metric="spearman", citation="", licence=""
    )
    return SimilaritySpec[EvoKgSimSection](name="made", data=section, **fixed, **keys)


def make_data(rows, sequences):
    """Pairs (a, b, subset, similarity) of proteins named by their sequences."""
    columns = [[str(row[i]) for row in rows] for i in range(3)]
    pairs = pa.table(
        [*columns, ["lin"] * len(rows), [row[3] for row in rows]], schema=SCHEMAS["similarity"]["pairs"]
    )
    proteins = pa.table([sequences, sequences], schema=SCHEMAS["similarity"]["proteins"])
    return Prepared({"proteins": proteins, "pairs": pairs}, (), "digest")


def lengths(sequences):
    """A vector of one number, the length."""
    return np.array([[len(sequence)] for sequence in sequences])


@settings(max_examples=50, deadline=None)
@given(VECTORS, st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_similarities_equal_scipy_pair_by_pair(vectors, pairs):
    first, second = np.array(pairs).T
    manhattan, cosines = similarity.similarities(vectors, first, second)
    for n, (i, j) in enumerate(pairs):
        a, b = vectors[i], vectors[j]
        size = np.abs(a).sum() + np.abs(b).sum()
        assert manhattan[n] == pytest.approx(1 - cityblock(a, b) / size if size else 1)
        assert cosines[n] == pytest.approx(1 - cosine(a, b) if a.any() and b.any() else 0, abs=1e-12)


def test_similarities_do_not_depend_on_how_many_are_computed_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    vectors, first, second = rng.normal(size=(9, 4)), rng.integers(9, size=20), rng.integers(9, size=20)
    whole = similarity.similarities(vectors, first, second)
    monkeypatch.setattr(similarity, "PAIRS_AT_ONCE", 3)
    np.testing.assert_array_equal(similarity.similarities(vectors, first, second), whole)


@pytest.mark.parametrize(("sign", "expected"), [(1, 1), (-1, -1)])
def test_run_ranks_pairs_as_their_vectors_say(sign, expected):
    # The similarity of lengths 1 and n falls with n.
    sequences = ["A" * n for n in range(1, 9)]
    rows = [("A", sequence, "sparse", -sign * len(sequence)) for sequence in sequences[1:]]
    encoder = FixedEncoder("lengths", lengths)
    outcome = similarity.run(make_spec(primary="sparse"), make_data(rows, sequences), encoder, "frozen", 0)
    assert similarity.score(outcome.units) == {
        "spearman": pytest.approx(expected),
        "spearman_cosine": 0,
        "spearman_sparse": pytest.approx(expected),
    }
    assert outcome.ids[:2] == ["sparse A AA", "sparse A AAA"]
    assert outcome.counts == {"proteins": 8, "sparse_pairs": 7}


def test_run_needs_pairs_of_the_primary_set():
    data = make_data([("A", "AA", "200", 0.5)], ["A", "AA"])
    with pytest.raises(BenchmarkError, match=r"no pairs of primary set 'sparse', but of 200"):
        similarity.run(make_spec(primary="sparse"), data, FixedEncoder("lengths", lengths), "frozen", 0)


def make_units(rng, size, primary):
    subset = rng.integers(len(SUBSETS), size=size).astype(np.int8)
    return {
        "truth": rng.integers(9, size=size) / 8,
        "manhattan": rng.integers(9, size=size) / 8,
        "cosine": rng.random(size),
        "subset": subset,
        "primary": np.ones(size, bool) if primary is None else subset == SUBSETS.index(primary),
    }


@pytest.mark.parametrize("primary", ["500", None])
def test_score_equals_scipy_set_by_set(primary):
    units = make_units(np.random.default_rng(2), 300, primary)
    found = similarity.score(units)
    assert set(found) == set(similarity.KIND.metrics)
    by_cosine = {}
    for code, subset in enumerate(SUBSETS):
        rows = units["subset"] == code
        expected = spearmanr(units["truth"][rows], units["manhattan"][rows]).statistic
        by_cosine[subset] = spearmanr(units["truth"][rows], units["cosine"][rows]).statistic
        assert found[f"spearman_{subset}"] == pytest.approx(expected)
    chosen = [primary] if primary else SUBSETS
    assert found["spearman"] == pytest.approx(np.mean([found[f"spearman_{subset}"] for subset in chosen]))
    assert found["spearman_cosine"] == pytest.approx(np.mean([by_cosine[subset] for subset in chosen]))


def test_resample_equals_the_score_of_repeated_rows():
    rng = np.random.default_rng(3)
    units = make_units(rng, 120, "sparse")
    counts = rng.integers(0, 3, (4, 120))
    found = similarity.resample(units, counts)
    for row, drawn in enumerate(counts):
        repeated = {name: np.repeat(array, drawn) for name, array in units.items()}
        for name, value in similarity.score(repeated).items():
            assert found[name][row] == pytest.approx(value)


@pytest.mark.parametrize(("features", "wanted"), [("pooled", "features"), ("projected", "projected")])
def test_needs_name_the_vectors_a_run_asks_for(features, wanted):
    data = make_data([("A", "AA", "mf", 0.5), ("A", "AAA", "mf", 0.7)], ["A", "AA", "AAA"])
    spec = make_spec(features=features)
    asked = {}

    class Spy(FixedEncoder):
        def vectors(self, what, items):
            asked[what] = list(items)
            return super().vectors(what, items)

    similarity.run(spec, data, Spy("lengths", lengths), "frozen", 0)
    assert asked == similarity.KIND.needs(spec, data) == {wanted: ["A", "AA", "AAA"]}


def test_real_pairs_are_ranked_better_than_by_chance_by_composition(real_data):
    files = {
        "pairs": real_data / "similarity" / "ss_ResnikBMA_ICSeco_STRING_HS.txt",
        "sequences_human": real_data / "uniprot" / "fasta" / "human_uniprot.fasta.gz",
        "sequences_membrane": real_data / "crossmodal" / "human_membrane_sequences.fasta.gz",
        "sequences_test": real_data / "localization" / "deeploc_test_set.fasta.gz",
        "sequences_train": real_data / "localization" / "deeploc_our_val_set.fasta",
    }
    section = EvoKgSimSection(format="evokgsim", measure="resnik_bma", files={})
    content = prepare_one("resnik", "similarity", section, files)
    assert content.counts["pairs/bp/resnik_bma"] == content.counts["pairs/mf/resnik_bma"] == 511
    outcome = similarity.KIND.baselines["composition"](make_spec(), Prepared(content.tables, (), ""), 0)
    assert 0.15 < similarity.score(outcome.units)["spearman"] < 0.5
