"""Property-driven sampling: which entries are kept, where they go, and in what order.

Everything is a pure function of (sampling key, seed, sample) and of what an entry is: independent of
files, order, workers and restarts. The rates are the paper's ("Property-driven sampling": C^-3 · R^(1/2)
per entry; strata of poor confidence or coverage are discarded). Further factors, a target size, keeping
all of Swiss-Prot, several samples of one law and corrupted confidence are ours.
"""

from collections.abc import Callable, Mapping
from enum import IntEnum

import numpy as np

from protclip.config.data import ExponentsConfig, SamplingConfig
from protclip.errors import ConfigError
from protclip.records import CONFIDENCE_LEVELS, COVERAGE_LEVELS, NUM_PROPERTIES

Traits = Mapping[str, np.ndarray]
"""What the factors look at, float64, one value per entry: `confidence` (1 to 5), `coverage` (properties
present), `date` (years since the last annotation), `family` (entries of the same family), `length`
(residues), `consistency` (cosine of protein and text)."""

FACTORS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "confidence": lambda level: level,
    "coverage": lambda present: present / NUM_PROPERTIES,
    "date": lambda years: 1 / (1 + years),
    "family": lambda members: members,
    "length": lambda residues: residues / 350,
    "consistency": lambda cosine: (1 + cosine) / 2,
}
"""Named factors of an entry's weight: the trait of the same name to the number whose power, with the
factor's exponent, goes into the product."""

STRATUM_FACTORS = ("confidence", "coverage")
ENTRY_FACTORS = tuple(name for name in FACTORS if name not in STRATUM_FACTORS)

SPLITS = ("train", "valid", "test")
BINS_PER_OCTAVE = 1024


class Stream(IntEnum):
    """Independent hash streams of one seed."""

    SELECT = 1
    SPLIT = 2
    ORDER = 3
    CORRUPT = 4
    LEVEL = 5


def active(exponents: ExponentsConfig, names: tuple[str, ...] = ENTRY_FACTORS) -> dict[str, float]:
    """The factors among `names` that are switched on, with their exponents."""
    return {name: value for name in names if (value := getattr(exponents, name))}


def weights(traits: Traits, exponents: Mapping[str, float]) -> np.ndarray | float:
    """Product of the named factors' powers, float64, not yet bounded by 1; 1.0 without factors.

    Raises:
        ConfigError: An exponent makes a weight infinite.
    """
    product: np.ndarray | float = 1.0
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        for name, exponent in exponents.items():
            product = product * FACTORS[name](traits[name]) ** exponent
    if not np.isfinite(product).all():
        raise ConfigError(f"sampling.exponents={dict(exponents)} give infinite weights; choose smaller ones")
    return product


def stratum_weights(config: SamplingConfig) -> np.ndarray:
    """Weights by the factors that a stratum decides, float64 [level - 1, coverage - 1]; discarded ones 0."""
    confidence, coverage = np.meshgrid(
        np.array(CONFIDENCE_LEVELS, np.float64), np.array(COVERAGE_LEVELS, np.float64), indexing="ij"
    )
    kept = (confidence <= config.max_confidence) & (coverage >= config.min_coverage)
    product = weights(
        {"confidence": confidence, "coverage": coverage}, active(config.exponents, STRATUM_FACTORS)
    )
    return np.where(kept, product, 0.0)


def solve_scale(counts: np.ndarray, values: np.ndarray, target: float) -> float:
    """The s ≥ 0 with Σ counts · min(1, s · values) = target.

    Args:
        counts: Entries of each weight.
        values: The weights; those of weight 0 give nothing.
        target: Between 0 and the sum of the counts whose weight is above 0.
    """
    usable = (counts > 0) & (values > 0)
    if target == 0 or not usable.any():
        return 0.0
    order = np.argsort(-values[usable], kind="stable")
    n, r = counts[usable][order].astype(np.float64), values[usable][order]
    # With the k largest rates at their bound 1, s is linear in the target; the first k that leaves the
    # next rate within its bound is the solution.
    scales = (target - (np.cumsum(n) - n)) / np.cumsum((n * r)[::-1])[::-1]
    fits = np.flatnonzero(scales * r <= 1)
    return float(scales[fits[0]] if fits.size else 1 / r[-1])


def weight_bins(values: np.ndarray) -> np.ndarray:
    """Logarithmic bins of weights above 0, int64; the middle of each is a power of 2^(1/1024)."""
    return np.rint(np.log2(values) * BINS_PER_OCTAVE).astype(np.int64)


def bin_values(bins: np.ndarray) -> np.ndarray:
    """The weights in the middle of bins, at most 0.04 % from any weight inside."""
    return np.exp2(bins / BINS_PER_OCTAVE)


def typical(counts: Mapping[int, int], default: int) -> int:
    """The (lower) median of values given with their counts, `default` when there are none."""
    values = sorted(counts)
    reached = np.cumsum([counts[value] for value in values])
    return values[int(np.searchsorted(reached, (reached[-1] + 1) // 2))] if values else default


def splitmix64(values: np.ndarray) -> np.ndarray:
    """Finalised SplitMix64 step (Steele, Lea, Flood 2014), a bijection on uint64."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def hashes(keys: np.ndarray, seed: int, stream: Stream, epoch: int = 0) -> np.ndarray:
    """Uniform uint64 values of the keys, independent between seeds, streams and epochs."""
    start = splitmix64(np.array([seed % 2**64], dtype=np.uint64))
    return splitmix64(keys ^ splitmix64(start ^ np.uint64(stream + (epoch << 32))))


def below(values: np.ndarray, shares: np.ndarray | float) -> np.ndarray:
    """True where value / 2^64 < share, decided exactly, so that a larger share keeps a superset."""
    thresholds = np.ceil(np.asarray(shares, dtype=np.float64) * 2.0**64)
    everything = thresholds >= 2.0**64
    return everything | (values < np.where(everything, 0, thresholds).astype(np.uint64))


def keep(keys: np.ndarray, rates: np.ndarray | float, seed: int, epoch: int = 0) -> np.ndarray:
    """Which entries are sampled.

    Args:
        keys: uint64 sampling keys.
        rates: Probability of each entry, or one for all.
        seed: Seed of the samples.
        epoch: Which of the samples of this seed.
    """
    return below(hashes(keys, seed, Stream.SELECT, epoch), rates)


def corrupted(keys: np.ndarray, levels: np.ndarray, seed: int, share: float) -> np.ndarray:
    """Confidence levels of which a share is replaced by one of the other four, each as likely.

    Which entries, and by what, is a function of (key, seed): the same in every sample, and a larger share
    changes a superset.

    Args:
        keys: uint64 sampling keys.
        levels: C of each entry, 1 to 5.
        seed: Seed of the samples.
        share: Between 0 and 1.

    Returns:
        int64 levels.
    """
    others = len(CONFIDENCE_LEVELS) - 1
    steps = 1 + (hashes(keys, seed, Stream.LEVEL) >> np.uint64(32)).astype(np.int64) * others // 2**32
    changed = below(hashes(keys, seed, Stream.CORRUPT), share)
    return np.where(changed, (levels - 1 + steps) % len(CONFIDENCE_LEVELS) + 1, levels)


def split_indices(groups: np.ndarray, seed: int, valid_share: float, test_share: float) -> np.ndarray:
    """Index into `SPLITS` of each entry, the same for all of a group and in every sample.

    Args:
        groups: uint64; entries of equal value go together.
        seed: Seed of the samples.
        valid_share: Share of the groups held out for validation.
        test_share: Share of the groups held out for benchmarks.
    """
    values = hashes(groups, seed, Stream.SPLIT)
    return below(values, valid_share + test_share).astype(np.int8) + below(values, test_share)


def order_keys(keys: np.ndarray, seed: int, epoch: int = 0) -> np.ndarray:
    """uint64 values whose order is the order of the pairs of a sample."""
    return hashes(keys, seed, Stream.ORDER, epoch)
