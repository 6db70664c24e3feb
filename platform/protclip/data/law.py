"""The sampling law solved for a data set: every entry's rate, and what a stratum is expected to give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from protclip.config.data import SampleConfig
from protclip.data.manifest import StratumCount
from protclip.data.sampling import bin_values, corrupted, solve_scale, stratum_weights
from protclip.errors import ConfigError
from protclip.records import CONFIDENCE_LEVELS

REVIEWED, UNREVIEWED = "reviewed", "unreviewed"

Cell = tuple[int, int, str]
"""(confidence, coverage, section): one section of one stratum, by the true confidence."""

Population = Mapping[Cell, tuple[np.ndarray, np.ndarray]]
"""Weights that occur in a section of a stratum, float64 above 0, and how many entries have each, float64."""


@dataclass(frozen=True, slots=True)
class StratumRate:
    """Probabilities with which entries of a stratum are kept, on average.

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


@dataclass(frozen=True, slots=True)
class Law:
    """How entries are drawn.

    Attributes:
        seed: Seed of the samples.
        keep_reviewed: Whether every Swiss-Prot entry is kept.
        corrupt_confidence: Share of the other entries whose level is replaced before it counts.
        strata: Weights by the factors a stratum decides, float64 [level - 1, coverage - 1].
        scale: What every weight is multiplied by; 1 without a target.
    """

    seed: int
    keep_reviewed: bool
    corrupt_confidence: float
    strata: np.ndarray
    scale: float = 1.0

    @classmethod
    def of(cls, config: SampleConfig) -> "Law":
        """The law of a configuration, its scale not yet solved."""
        sampling = config.sampling
        return cls(
            config.seed, sampling.keep_reviewed, sampling.corrupt_confidence, stratum_weights(sampling)
        )

    def levels(self, keys: np.ndarray, confidence: np.ndarray, reviewed: np.ndarray) -> np.ndarray:
        """The confidence that counts for each entry; that of Swiss-Prot stays when all of it is kept."""
        if not self.corrupt_confidence:
            return confidence
        levels = corrupted(keys, confidence, self.seed, self.corrupt_confidence)
        return np.where(reviewed, confidence, levels) if self.keep_reviewed else levels

    def weights(self, levels: np.ndarray, coverage: int, factors: np.ndarray | float) -> np.ndarray:
        """Weight of each entry of one coverage: that of its stratum times that of its own factors."""
        return self.strata[:, coverage - 1].take(levels - 1) * factors

    def rates(self, entry_weights: np.ndarray, reviewed: np.ndarray) -> np.ndarray:
        """Probability with which each entry is kept."""
        rates = np.minimum(self.scale * entry_weights, 1.0)
        return np.where(reviewed, 1.0, rates) if self.keep_reviewed else rates

    def reaches(self, confidence: int, coverage: int) -> bool:
        """Whether sampled entries of a stratum can be kept at all."""
        column = self.strata[:, coverage - 1]
        return bool((column if self.corrupt_confidence else column[confidence - 1]).any())


def stratum_population(strata: Sequence[StratumCount], law: Law) -> Population:
    """What weights occur when the strata alone decide; with corrupted levels, expected counts."""
    others = len(CONFIDENCE_LEVELS) - 1
    population = {}
    for stratum in strata:
        column = law.strata[:, stratum.coverage - 1]
        shares = np.full(len(column), law.corrupt_confidence / others)
        shares[stratum.confidence - 1] = 1 - law.corrupt_confidence
        used = (column > 0) & (shares > 0)
        for section in (REVIEWED, UNREVIEWED):
            counts = shares[used] * getattr(stratum, section)
            population[stratum.confidence, stratum.coverage, section] = column[used], counts
    return population


def binned_population(bins: Mapping[Cell, Mapping[int, int]]) -> Population:
    """What weights occur, from counts by `weight_bins`."""
    return {
        cell: (
            bin_values(np.array(sorted(counts), np.int64)),
            np.array([counts[b] for b in sorted(counts)], np.float64),
        )
        for cell, counts in bins.items()
    }


def solved_scale(strata: Sequence[StratumCount], population: Population, config: SampleConfig) -> float:
    """The scale of a law: 1, or what makes `target_pairs` M the expected number of pairs.

    With `keep_reviewed` every Swiss-Prot entry is kept, those of discarded strata too (as the authors'
    code trains on all of Swiss-Prot), and the scale is solved for TrEMBL with what is left of M.

    Raises:
        ConfigError: `target_pairs` cannot be met.
    """
    target, sampling = config.target_pairs, config.sampling
    if target is None:
        return 1.0
    always = sum(s.reviewed for s in strata) if sampling.keep_reviewed else 0
    cells = [p for (_, _, section), p in population.items() if section in _sampled(config)]
    values, places = np.unique(np.concatenate([v for v, _ in cells] or [np.empty(0)]), return_inverse=True)
    counts = np.bincount(places, np.concatenate([n for _, n in cells] or [np.empty(0)]), len(values))
    # Half an entry: expected counts are fractions that sum up to whole numbers only nearly.
    most = int(always + counts.sum() + 0.5)
    if not always <= target <= most:
        raise ConfigError(
            f"target_pairs={target} cannot be met: these strata give {always} to {most} pairs with "
            f"keep_reviewed={str(sampling.keep_reviewed).lower()}, max_confidence={sampling.max_confidence}, "
            f"min_coverage={sampling.min_coverage}; change target_pairs or one of these"
        )
    return solve_scale(counts, values, target - always)


def stratum_rates(
    strata: Sequence[StratumCount], population: Population, scale: float, config: SampleConfig
) -> tuple[StratumRate, ...]:
    """Average rates of all strata."""
    sampled = _sampled(config)

    def rate(stratum: StratumCount, section: str) -> float:
        if section not in sampled:
            return 1.0
        empty = np.empty(0)
        values, counts = population.get((stratum.confidence, stratum.coverage, section), (empty, empty))
        expected = float((counts * np.minimum(scale * values, 1.0)).sum())
        return expected / max(1, getattr(stratum, section))

    return tuple(StratumRate(s, rate(s, REVIEWED), rate(s, UNREVIEWED)) for s in strata)


def _sampled(config: SampleConfig) -> tuple[str, ...]:
    """The sections that are not kept as a whole."""
    return (UNREVIEWED,) if config.sampling.keep_reviewed else (REVIEWED, UNREVIEWED)
