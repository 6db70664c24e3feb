"""Property-driven sampling: which entries are kept, where they go, and in what order.

Everything is a pure function of (sampling key, seed): independent of files, order, workers and
restarts. The rates are the paper's ("Property-driven sampling": C^-3 · R^(1/2) per entry; clusters of
poor confidence or coverage are discarded); a target size, and keeping all of Swiss-Prot, see below.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from protclip.config.data import ExponentsConfig, SampleConfig
from protclip.data.manifest import StratumCount
from protclip.errors import ConfigError
from protclip.records import NUM_PROPERTIES

Factor = Callable[[np.ndarray, np.ndarray, float], np.ndarray]

FACTORS: Mapping[str, Factor] = {
    "confidence": lambda confidence, _, exponent: confidence**exponent,
    "coverage": lambda _, coverage, exponent: (coverage / NUM_PROPERTIES) ** exponent,
}
"""Named factors of an entry's weight: (C, number of properties, exponent) to float64 weights."""

SPLITS = ("train", "valid", "test")


class Stream(IntEnum):
    """Independent hash streams of one seed."""

    SELECT = 1
    SPLIT = 2
    ORDER = 3


@dataclass(frozen=True, slots=True)
class StratumRate:
    """Probabilities with which entries of a stratum are kept.

    Attributes:
        before: Entries of the stratum.
        reviewed: Rate of Swiss-Prot entries.
        unreviewed: Rate of TrEMBL entries.
    """

    before: StratumCount
    reviewed: float
    unreviewed: float

    @property
    def expected(self) -> float:
        """Expected number of entries kept."""
        return self.before.reviewed * self.reviewed + self.before.unreviewed * self.unreviewed


def stratum_rates(strata: Sequence[StratumCount], config: SampleConfig) -> tuple[StratumRate, ...]:
    """The sampling rates of all strata.

    The rate is the product of the factors, at most 1, and 0 in discarded strata. With `target_pairs` M
    it becomes min(1, s · product), s such that M pairs are expected. With `keep_reviewed` every
    Swiss-Prot entry is kept, those of discarded strata too (as the authors' code trains on all of
    Swiss-Prot), and s is solved for TrEMBL with what is left of M.

    Raises:
        ConfigError: `target_pairs` cannot be met.
    """
    confidence = np.array([s.confidence for s in strata])
    coverage = np.array([s.coverage for s in strata])
    reviewed = np.array([s.reviewed for s in strata])
    unreviewed = np.array([s.unreviewed for s in strata])
    kept = (confidence <= config.max_confidence) & (coverage >= config.min_coverage)
    rates = np.where(kept, weights(confidence, coverage, config.exponents), 0.0)
    if config.target_pairs is not None:
        always = int(reviewed.sum()) if config.keep_reviewed else 0
        sampled = unreviewed if config.keep_reviewed else reviewed + unreviewed
        most = always + int(sampled[kept].sum())
        if not always <= config.target_pairs <= most:
            raise ConfigError(
                f"target_pairs={config.target_pairs} cannot be met: these strata give {always} to {most} "
                f"pairs with keep_reviewed={str(config.keep_reviewed).lower()}, "
                f"max_confidence={config.max_confidence}, min_coverage={config.min_coverage}; "
                "change target_pairs or one of these"
            )
        rates = rates * solve_scale(sampled, rates, config.target_pairs - always)
    rates = np.minimum(rates, 1.0)
    return tuple(
        StratumRate(
            before=stratum, reviewed=1.0 if config.keep_reviewed else float(rate), unreviewed=float(rate)
        )
        for stratum, rate in zip(strata, rates, strict=True)
    )


def weights(confidence: np.ndarray, coverage: np.ndarray, exponents: ExponentsConfig) -> np.ndarray:
    """Product of all factors per entry (or per stratum), float64, not yet bounded by 1."""
    product = np.ones(len(confidence))
    for name, factor in FACTORS.items():
        product *= factor(
            confidence.astype(np.float64), coverage.astype(np.float64), getattr(exponents, name)
        )
    return product


def solve_scale(counts: np.ndarray, rates: np.ndarray, target: float) -> float:
    """The s ≥ 0 with Σ counts · min(1, s · rates) = target.

    Args:
        counts: Entries per stratum.
        rates: Unscaled rates; strata of rate 0 give nothing.
        target: Between 0 and the sum of the counts whose rate is above 0.
    """
    usable = (counts > 0) & (rates > 0)
    if target == 0 or not usable.any():
        return 0.0
    order = np.argsort(-rates[usable], kind="stable")
    n, r = counts[usable][order].astype(np.float64), rates[usable][order]
    # With the k largest rates at their bound 1, s is linear in the target; the first k that leaves the
    # next rate within its bound is the solution.
    scales = (target - (np.cumsum(n) - n)) / np.cumsum((n * r)[::-1])[::-1]
    fits = np.flatnonzero(scales * r <= 1)
    return float(scales[fits[0]] if fits.size else 1 / r[-1])


def splitmix64(values: np.ndarray) -> np.ndarray:
    """Finalised SplitMix64 step (Steele, Lea, Flood 2014), a bijection on uint64."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def hashes(keys: np.ndarray, seed: int, stream: Stream) -> np.ndarray:
    """Uniform uint64 values of the keys, independent between seeds and streams."""
    salt = splitmix64(splitmix64(np.array([seed % 2**64], dtype=np.uint64)) ^ np.uint64(stream))
    return splitmix64(keys ^ salt)


def below(values: np.ndarray, shares: np.ndarray | float) -> np.ndarray:
    """True where value / 2^64 < share, decided exactly, so that a larger share keeps a superset."""
    thresholds = np.ceil(np.ldexp(np.asarray(shares, dtype=np.float64), 64))
    everything = thresholds >= 2.0**64
    return everything | (values < np.where(everything, 0, thresholds).astype(np.uint64))


def keep(keys: np.ndarray, rates: np.ndarray | float, seed: int) -> np.ndarray:
    """Which entries are sampled.

    Args:
        keys: uint64 sampling keys.
        rates: Probability of each entry, or one for all.
        seed: Seed of the sample.
    """
    return below(hashes(keys, seed, Stream.SELECT), rates)


def split_indices(keys: np.ndarray, seed: int, valid_share: float, test_share: float) -> np.ndarray:
    """Index into `SPLITS` of each entry."""
    values = hashes(keys, seed, Stream.SPLIT)
    return below(values, valid_share + test_share).astype(np.int8) + below(values, test_share)


def order_keys(keys: np.ndarray, seed: int) -> np.ndarray:
    """uint64 values whose order is the order of the pairs."""
    return hashes(keys, seed, Stream.ORDER)
