import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protclip.config.data import SampleConfig
from protclip.data import law
from protclip.data.manifest import StratumCount
from protclip.data.sampling import solve_scale
from protclip.errors import ConfigError
from protclip.records import CONFIDENCE_LEVELS, COVERAGE_LEVELS, sampling_keys

ALL = [(c, r) for c in CONFIDENCE_LEVELS for r in COVERAGE_LEVELS]
UNIFORM = {"exponents": {"confidence": 0, "coverage": 0}, "max_confidence": 5, "min_coverage": 1}


def strata(reviewed: int = 10, unreviewed: int = 1000) -> list[StratumCount]:
    return [
        StratumCount(confidence=c, coverage=r, reviewed=reviewed, unreviewed=unreviewed * c) for c, r in ALL
    ]


def config(target_pairs: int | None = None, **sampling: object) -> SampleConfig:
    given = {"source": "a", "output": "b", "target_pairs": target_pairs, "sampling": sampling}
    return SampleConfig.model_validate(given)


def rates(config_: SampleConfig, counts: list[StratumCount] | None = None) -> tuple[law.StratumRate, ...]:
    counts = strata() if counts is None else counts
    population = law.stratum_population(counts, law.Law.of(config_))
    return law.stratum_rates(counts, population, law.solved_scale(counts, population, config_), config_)


def by_stratum(found: tuple[law.StratumRate, ...]) -> dict[tuple[int, int], law.StratumRate]:
    return {(r.before.confidence, r.before.coverage): r for r in found}


def test_stratum_rates_are_the_papers() -> None:
    for (c, r), rate in by_stratum(rates(config(keep_reviewed=False))).items():
        expected = c**-3 * (r / 4) ** 0.5 if c <= 3 and r >= 3 else 0.0
        assert rate.unreviewed == pytest.approx(expected, abs=1e-15)
        assert rate.reviewed == pytest.approx(rate.unreviewed, abs=1e-15)


def test_stratum_rates_keep_every_reviewed_entry_even_of_discarded_strata() -> None:
    found = by_stratum(rates(config()))
    assert {rate.reviewed for rate in found.values()} == {1.0}
    assert found[5, 1].unreviewed == 0.0
    assert found[5, 1].expected == 10


def test_stratum_rates_without_exponents_are_uniform() -> None:
    found = rates(config(20_200, **UNIFORM))
    assert {round(rate.unreviewed, 12) for rate in found} == {round((20_200 - 200) / 60_000, 12)}


@pytest.mark.parametrize("keep_reviewed", [True, False])
@pytest.mark.parametrize("corrupt", [0.0, 0.3, 1.0])
def test_stratum_rates_expect_the_target(keep_reviewed: bool, corrupt: float) -> None:
    found = rates(config(3000, keep_reviewed=keep_reviewed, corrupt_confidence=corrupt))
    assert sum(rate.expected for rate in found) == pytest.approx(3000, rel=1e-12)


@pytest.mark.parametrize("target", [199, 12_201])
def test_solved_scale_refuses_a_target_out_of_reach(target: int) -> None:
    with pytest.raises(
        ConfigError, match=r"target_pairs=\d+ cannot be met: these strata give 200 to 12200 pairs"
    ):
        rates(config(target))


@pytest.mark.parametrize("target", [200, 12_200])
def test_stratum_rates_reach_both_ends(target: int) -> None:
    assert sum(rate.expected for rate in rates(config(target))) == pytest.approx(target, rel=1e-12)


@pytest.mark.parametrize("corrupt", [0.0, 0.25, 1.0])
def test_stratum_rates_mix_over_the_levels_an_entry_may_be_given(corrupt: float) -> None:
    settings_ = config(keep_reviewed=False, corrupt_confidence=corrupt)
    for (c, r), rate in by_stratum(rates(settings_)).items():
        expected = 0.0
        for level in CONFIDENCE_LEVELS:
            chance = 1 - corrupt if level == c else corrupt / 4
            expected += chance * (level**-3 * (r / 4) ** 0.5 if level <= 3 and r >= 3 else 0.0)
        assert rate.unreviewed == pytest.approx(expected, abs=1e-15)
        assert law.Law.of(settings_).reaches(c, r) == (expected > 0 or (corrupt == 1 and r >= 3))


def test_law_gives_each_entry_the_rate_of_the_level_that_counts() -> None:
    keys = sampling_keys([f"A{i}" for i in range(3000)])
    confidence = np.full(len(keys), 5)
    reviewed = np.arange(len(keys)) % 3 == 0
    found = law.Law.of(config(corrupt_confidence=0.5))
    levels = found.levels(keys, confidence, reviewed)
    assert (levels[reviewed] == 5).all()
    assert 0.45 < (levels[~reviewed] != 5).mean() < 0.55
    entry_rates = found.rates(found.weights(levels, 4, 2.0), reviewed)
    for level, is_reviewed, rate in zip(levels, reviewed, entry_rates, strict=True):
        kept = min(1.0, 2.0 * float(level) ** -3) if level <= 3 else 0.0
        assert rate == pytest.approx(1.0 if is_reviewed else kept, rel=1e-15)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-20_000, 20_000), st.integers(1, 10**6)), min_size=1, max_size=30),
    st.data(),
)
def test_binned_population_is_solved_as_its_entries(bins: list[tuple[int, int]], data: st.DataObject) -> None:
    counts = dict(bins)
    target = data.draw(st.integers(1, sum(counts.values())))
    cell = (2, 4, law.UNREVIEWED)
    population = law.binned_population({cell: counts})
    stratum = StratumCount(confidence=2, coverage=4, reviewed=7, unreviewed=sum(counts.values()) + 5)
    settings_ = config(target + 7)
    scale = law.solved_scale([stratum], population, settings_)
    expected = sum(count * min(1.0, scale * 2.0 ** (b / 1024)) for b, count in counts.items())
    assert expected == pytest.approx(target, rel=1e-9)
    assert scale == solve_scale(
        np.array([counts[b] for b in sorted(counts)], float), np.exp2(np.array(sorted(counts)) / 1024), target
    )
    (rate,) = law.stratum_rates([stratum], population, scale, settings_)
    assert rate.expected == pytest.approx(target + 7, rel=1e-9)
