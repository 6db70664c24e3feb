import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from protclip.config.data import ExponentsConfig, SamplingConfig
from protclip.data import sampling
from protclip.errors import ConfigError
from protclip.records import sampling_keys

KEYS = sampling_keys([f"A{i:07d}" for i in range(50_000)])


def test_splitmix64_gives_the_published_values() -> None:
    # The first three outputs of the reference generator seeded with 1234567.
    gamma = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + i * gamma) % 2**64 for i in range(3)], dtype=np.uint64)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert sampling.splitmix64(states).tolist() == expected


def test_keep_is_pinned_for_all_time() -> None:
    def mixed(x: int) -> int:
        x = (x + 0x9E3779B97F4A7C15) % 2**64
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % 2**64
        return x ^ (x >> 31)

    salt = mixed(mixed(7) ^ 1)
    with_integers = [mixed(key ^ salt) < 2**62 for key in KEYS.tolist()]
    chosen = sampling.keep(KEYS, 0.25, seed=7)
    assert chosen.tolist() == with_integers
    assert np.flatnonzero(chosen[:30]).tolist() == [2, 4, 5, 8, 11, 12, 13, 16, 20, 21, 25, 26, 28]


def test_every_factor_has_an_exponent_and_the_other_way_round() -> None:
    assert set(sampling.FACTORS) == set(ExponentsConfig.model_fields)
    assert set(sampling.STRATUM_FACTORS) | set(sampling.ENTRY_FACTORS) == set(sampling.FACTORS)


def test_stratum_weights_are_the_papers() -> None:
    table = sampling.stratum_weights(SamplingConfig())
    for c in range(1, 6):
        for r in range(1, 5):
            expected = c**-3 * (r / 4) ** 0.5 if c <= 3 and r >= 3 else 0.0
            assert table[c - 1, r - 1] == pytest.approx(expected, rel=1e-15)


def test_weights_are_the_product_of_the_factors() -> None:
    traits = {
        "confidence": [1, 3],
        "coverage": [4, 1],
        "date": [0.0, 9.0],
        "family": [1, 400],
        "length": [350, 700],
        "consistency": [1.0, -0.5],
    }
    exponents = {
        "confidence": -3,
        "coverage": 0.5,
        "date": 2,
        "family": -0.5,
        "length": 1.5,
        "consistency": 3,
    }
    arrays = {name: np.array(values, np.float64) for name, values in traits.items()}
    expected = [1.0, 3**-3 * 0.5 * 0.1**2 * 0.05 * 2**1.5 * 0.25**3]
    assert sampling.weights(arrays, exponents) == pytest.approx(expected, rel=1e-14)
    assert sampling.weights(arrays, {}) == 1.0


def test_weights_refuse_infinity() -> None:
    with pytest.raises(ConfigError, match=r"'consistency': -1\.0.*give infinite weights"):
        sampling.weights({"consistency": np.array([-1.0])}, {"consistency": -1.0})


@given(hnp.arrays(np.float64, 20, elements=st.floats(1e-30, 1e30)))
def test_weight_bins_are_near_their_weights(values: np.ndarray) -> None:
    bins = sampling.weight_bins(values)
    assert sampling.bin_values(bins) == pytest.approx(values, rel=0.00034)
    assert (sampling.weight_bins(np.array([0.25, 1.0, 8.0])) == [-2048, 0, 3072]).all()


@given(st.dictionaries(st.integers(-50, 50), st.integers(1, 9), min_size=1))
def test_typical_is_the_lower_median(counts: dict[int, int]) -> None:
    values = sorted(value for value, count in counts.items() for _ in range(count))
    assert sampling.typical(counts, default=99) == values[(len(values) - 1) // 2]
    assert sampling.typical({}, default=99) == 99


@settings(max_examples=200, deadline=None)
@given(
    counts=hnp.arrays(np.int64, 8, elements=st.integers(0, 10**8)),
    rates=hnp.arrays(np.float64, 8, elements=st.one_of(st.just(0.0), st.floats(1e-6, 100))),
    share=st.floats(0, 1),
)
def test_solve_scale_solves_the_equation(counts: np.ndarray, rates: np.ndarray, share: float) -> None:
    reachable = int(counts[rates > 0].sum())
    target = int(share * reachable)
    scale = sampling.solve_scale(counts, rates, target)

    def expected(s: float) -> float:
        return float((counts * np.minimum(1.0, s * rates)).sum())

    low, high = 0.0, 1e7
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if expected(middle) < target else (low, middle)
    assert expected(scale) == pytest.approx(target, rel=1e-9, abs=1e-6)
    assert expected(scale) == pytest.approx(expected(high), rel=1e-9, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(low=st.floats(0, 1), high=st.floats(0, 1), seed=st.integers(0, 2**70))
def test_keep_of_a_larger_rate_is_a_superset(low: float, high: float, seed: int) -> None:
    low, high = sorted((low, high))
    few, many = (sampling.keep(KEYS[:3000], rate, seed) for rate in (low, high))
    assert not (few & ~many).any()


def test_keep_takes_all_at_one_and_none_at_zero() -> None:
    extremes = np.array([0, 1, 2**63, 2**64 - 1], dtype=np.uint64)
    assert sampling.below(extremes, 1.0).all()
    assert not sampling.below(extremes, 0.0).any()
    assert sampling.below(extremes, 2.0**-64).tolist() == [True, False, False, False]
    assert sampling.below(extremes, np.array([0.0, 1.0, 0.5, 1.0])).tolist() == [False, True, False, True]


@pytest.mark.parametrize("rate", [0.001, 1 / 27, 0.5, 0.97])
def test_keep_agrees_with_the_rate(rate: float) -> None:
    deviation = (len(KEYS) * rate * (1 - rate)) ** 0.5
    for seed in range(5):
        kept = sampling.keep(KEYS, rate, seed).sum()
        assert abs(kept - len(KEYS) * rate) < 4.5 * deviation


def test_keep_depends_on_the_key_alone() -> None:
    shuffled = np.random.default_rng(0).permutation(len(KEYS))
    rates = np.random.default_rng(1).random(len(KEYS))
    whole = sampling.keep(KEYS, rates, 3)
    assert (sampling.keep(KEYS[shuffled], rates[shuffled], 3) == whole[shuffled]).all()


def test_streams_and_seeds_are_independent() -> None:
    halves = [
        sampling.hashes(KEYS, seed, stream) >> np.uint64(63) for seed in (0, 1) for stream in sampling.Stream
    ]
    assert (np.abs(np.corrcoef(halves) - np.eye(len(halves))) < 4.5 / len(KEYS) ** 0.5).all()


def test_split_indices_have_the_shares_and_nest() -> None:
    indices = sampling.split_indices(KEYS, 0, valid_share=0.05, test_share=0.1)
    assert np.bincount(indices) / len(KEYS) == pytest.approx([0.85, 0.05, 0.1], abs=0.007)
    without_valid = sampling.split_indices(KEYS, 0, valid_share=0.0, test_share=0.1)
    assert ((indices == 2) == (without_valid == 2)).all()
    assert not (without_valid == 1).any()


def test_order_keys_are_a_permutation_without_trend() -> None:
    order = sampling.order_keys(KEYS, 0)
    assert len(np.unique(order)) == len(KEYS)
    ranks = np.argsort(np.argsort(order))
    assert abs(np.corrcoef(ranks, np.arange(len(KEYS)))[0, 1]) < 4.5 / len(KEYS) ** 0.5
    assert (sampling.order_keys(KEYS, 1) != order).all()


def test_keep_of_further_epochs_is_another_sample_of_the_same_rate() -> None:
    samples = np.stack([sampling.keep(KEYS, 0.3, 5, epoch) for epoch in range(4)])
    assert (samples[0] == sampling.keep(KEYS, 0.3, 5)).all()
    assert (samples == [sampling.keep(KEYS, 0.3, 5, epoch) for epoch in range(4)]).all()
    together = samples.astype(float) @ samples.T / len(KEYS)
    expected = np.where(np.eye(4, dtype=bool), 0.3, 0.09)
    assert (np.abs(together - expected) < 4.5 * (expected / len(KEYS)) ** 0.5).all()
    orders = [sampling.order_keys(KEYS, 5, epoch) for epoch in range(2)]
    assert abs(np.corrcoef(np.argsort(orders[0]), np.argsort(orders[1]))[0, 1]) < 4.5 / len(KEYS) ** 0.5


def test_corrupted_replaces_a_share_by_each_other_level_alike() -> None:
    levels = np.full(len(KEYS), 3)
    assert (sampling.corrupted(KEYS, levels, 0, 0.0) == levels).all()
    changed = sampling.corrupted(KEYS, levels, 0, 0.2)
    shares = np.bincount(changed, minlength=6)[1:] / len(KEYS)
    assert shares == pytest.approx([0.05, 0.05, 0.8, 0.05, 0.05], abs=0.006)
    all_changed = sampling.corrupted(KEYS, levels, 0, 1.0)
    assert not (all_changed == levels).any()
    assert set(all_changed.tolist()) == {1, 2, 4, 5}


@settings(max_examples=40, deadline=None)
@given(low=st.floats(0, 1), high=st.floats(0, 1), seed=st.integers(0, 2**40))
def test_corrupted_of_a_larger_share_changes_a_superset_alike(low: float, high: float, seed: int) -> None:
    low, high = sorted((low, high))
    levels = np.arange(2000) % 5 + 1
    few, many = (sampling.corrupted(KEYS[:2000], levels, seed, share) for share in (low, high))
    assert (many[few != levels] == few[few != levels]).all()


@settings(max_examples=40, deadline=None)
@given(groups=hnp.arrays(np.uint64, 60, elements=st.integers(0, 12)), seed=st.integers(0, 2**40))
def test_split_indices_never_part_a_group(groups: np.ndarray, seed: int) -> None:
    indices = sampling.split_indices(groups, seed, valid_share=0.3, test_share=0.3)
    assert all(len(set(indices[groups == group].tolist())) == 1 for group in set(groups.tolist()))
