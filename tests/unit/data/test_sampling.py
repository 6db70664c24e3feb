import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from protclip.config.data import ExponentsConfig, SampleConfig
from protclip.data import sampling
from protclip.data.manifest import StratumCount
from protclip.errors import ConfigError
from protclip.records import CONFIDENCE_LEVELS, COVERAGE_LEVELS, sampling_keys

KEYS = sampling_keys([f"A{i:07d}" for i in range(50_000)])
ALL = [(c, r) for c in CONFIDENCE_LEVELS for r in COVERAGE_LEVELS]


def strata(reviewed: int = 10, unreviewed: int = 1000) -> list[StratumCount]:
    return [
        StratumCount(confidence=c, coverage=r, reviewed=reviewed, unreviewed=unreviewed * c) for c, r in ALL
    ]


def config(**values: object) -> SampleConfig:
    return SampleConfig.model_validate({"source": "a", "output": "b", **values})


def by_stratum(rates: tuple[sampling.StratumRate, ...]) -> dict[tuple[int, int], sampling.StratumRate]:
    return {(r.before.confidence, r.before.coverage): r for r in rates}


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


def test_stratum_rates_are_the_papers() -> None:
    rates = by_stratum(sampling.stratum_rates(strata(), config(keep_reviewed=False)))
    for (c, r), rate in rates.items():
        expected = c**-3 * (r / 4) ** 0.5 if c <= 3 and r >= 3 else 0.0
        assert rate.unreviewed == pytest.approx(expected, abs=1e-15)
        assert rate.reviewed == rate.unreviewed


def test_stratum_rates_keep_every_reviewed_entry_even_of_discarded_strata() -> None:
    rates = by_stratum(sampling.stratum_rates(strata(), config()))
    assert {rate.reviewed for rate in rates.values()} == {1.0}
    assert rates[5, 1].unreviewed == 0.0
    assert rates[5, 1].expected == 10


def test_stratum_rates_without_exponents_are_uniform() -> None:
    rates = sampling.stratum_rates(
        strata(),
        config(
            exponents={"confidence": 0, "coverage": 0}, max_confidence=5, min_coverage=1, target_pairs=20_200
        ),
    )
    assert {round(rate.unreviewed, 12) for rate in rates} == {round((20_200 - 200) / 60_000, 12)}


def test_every_factor_has_an_exponent_and_the_other_way_round() -> None:
    assert set(sampling.FACTORS) == set(ExponentsConfig.model_fields)


@pytest.mark.parametrize("keep_reviewed", [True, False])
def test_stratum_rates_expect_the_target(keep_reviewed: bool) -> None:
    rates = sampling.stratum_rates(strata(), config(target_pairs=3000, keep_reviewed=keep_reviewed))
    assert sum(rate.expected for rate in rates) == pytest.approx(3000, rel=1e-12)


@pytest.mark.parametrize("target", [199, 12_201])
def test_stratum_rates_refuse_a_target_out_of_reach(target: int) -> None:
    with pytest.raises(
        ConfigError, match=r"target_pairs=\d+ cannot be met: these strata give 200 to 12200 pairs"
    ):
        sampling.stratum_rates(strata(), config(target_pairs=target))


@pytest.mark.parametrize("target", [200, 12_200])
def test_stratum_rates_reach_both_ends(target: int) -> None:
    rates = sampling.stratum_rates(strata(), config(target_pairs=target))
    assert sum(rate.expected for rate in rates) == pytest.approx(target, rel=1e-12)


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
    assert (np.abs(np.corrcoef(halves) - np.eye(6)) < 4.5 / len(KEYS) ** 0.5).all()


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
