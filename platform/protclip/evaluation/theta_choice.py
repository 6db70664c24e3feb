"""Which θ is best, for a property and for a family, and whether that is more than chance.

A θ is chosen on one half of the proteins and held against another on the other half, so that the best
of many is not praised for luck. Differences are paired by protein and resampled as in `bootstrap`.

Shape suffixes: N proteins, K properties, T thresholds, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from protclip.config.report import ThetaReportConfig
from protclip.evaluation.bootstrap import COUNTS_AT_ONCE, Interval, draw_counts, holm, interval, p_value
from protclip.evaluation.compare import Verdict
from protclip.evaluation.theta import OTHER, Measured, mean_and_error
from protclip.records import PROPERTIES, Property

SIGNIFICANT = 0.05
TIE = 1e-9


class Contrast(NamedTuple):
    """A difference between two θ, or from chance, on proteins that had no say in the choice.

    Attributes:
        gain: Mean difference; NaN without a protein.
        interval: 95 % interval; None without one.
        p: Two-sided, corrected for the number of contrasts that answer the same question.
        proteins: How many it was measured on.
    """

    gain: float
    interval: Interval | None
    p: float
    proteins: int

    @property
    def verdict(self) -> Verdict:
        """What can be said."""
        if self.p > SIGNIFICANT:
            return "no difference shown"
        return "better" if self.gain > 0 else "worse"


class Peak(NamedTuple):
    """The best θ of some proteins.

    Attributes:
        theta: The θ.
        low: Lower end of the 95 % interval of the best θ over resamples.
        high: Upper end.
    """

    theta: float
    low: float
    high: float


class FamilyAnswer(NamedTuple):
    """The best θ of a family for one property.

    Attributes:
        name: The family.
        peak: Its best θ.
        over_property: Of this θ over the property's.
    """

    name: str
    peak: Peak
    over_property: Contrast


@dataclass(frozen=True, slots=True)
class PropertyAnswer:
    """The best θ of one property.

    Attributes:
        prop: The property.
        training: θ of training.
        peak: The best θ.
        before: The criterion at the θ of training, on the other half.
        after: At the best θ.
        chance: The criterion by chance.
        over_training: Of the best θ over that of training.
        over_chance: Of the criterion at the best θ.
        over_property: Of a θ for each family over the property's.
        families: Family by family.
    """

    prop: Property
    training: float
    peak: Peak
    before: float
    after: float
    chance: float
    over_training: Contrast
    over_chance: Contrast
    over_property: Contrast
    families: Sequence[FamilyAnswer]

    @property
    def verdict(self) -> str:
        """Of the best θ over that of training; a θ that is better and still at chance is worth nothing."""
        at_chance = self.over_chance.verdict != "better"
        return "no better than chance" if at_chance else self.over_training.verdict


@dataclass(frozen=True, slots=True)
class Answer:
    """What the paper's question comes to on these proteins.

    Attributes:
        common: The best single θ for all properties.
        over_common: Of a θ for each property over this one, a protein's properties averaged.
        properties: Property by property.
    """

    common: float
    over_common: Contrast
    properties: Sequence[PropertyAnswer]


@dataclass(frozen=True, slots=True)
class Findings:
    """What was measured, with what, and what came out.

    Attributes:
        config: What was asked for.
        checkpoint: URI of the checkpoint.
        step: Its step.
        training: θ of each property in training.
        measured: Every protein.
        family_N: Place of each protein's family in `names`, -1 for none of them.
        names: Families that are told apart.
        answer: The best θ.
    """

    config: ThetaReportConfig
    checkpoint: str
    step: int
    training: Sequence[float]
    measured: Measured
    family_N: np.ndarray
    names: Sequence[str]
    answer: Answer

    @property
    def groups(self) -> list[tuple[str, np.ndarray]]:
        """Name and members, bool (N,), of each family, and of what is left if there is anything."""
        found = [(name, self.family_N == f) for f, name in enumerate(self.names)]
        rest_N = self.family_N < 0
        return [*found, (OTHER, rest_N)] if self.names and rest_N.any() else found


def choose(
    measured: Measured,
    criterion: str,
    training: Sequence[float],
    family_N: np.ndarray,
    names: Sequence[str],
    resamples: int,
    rng: np.random.Generator,
) -> Answer:
    """The best θ for all properties, for each, and for each family, on one half; what they gain on the other.

    Among equals the θ that is there stays: that of training, and for a family that of the property.

    Args:
        measured: Measures at every θ, those of training among them.
        criterion: The one to be best at.
        training: θ of each property in training.
        family_N: Place of each protein's family in the names, -1 for none.
        names: Families.
        resamples: How many (R).
        rng: Draws halves and resamples.
    """
    scores_NKT, thetas = measured.of(criterion).astype(np.float64), measured.thetas
    trained_K = np.array([thetas.index(theta) for theta in training])
    properties, groups = range(len(PROPERTIES)), range(len(names))
    chance_K = measured.chance(criterion)
    # Every family has both halves.
    first_N = np.zeros(len(family_N), dtype=bool)
    first_N[np.lexsort((rng.random(len(family_N)), family_N))[::2]] = True
    rest_N = ~first_N

    def peak(rows_N: np.ndarray, k: int, fallback: int) -> tuple[int, Peak]:
        place, low, high = _peak(scores_NKT[rows_N & first_N, k], fallback, resamples, rng)
        return place, Peak(thetas[place], thetas[low], thetas[high])

    def contrast(gains_N: np.ndarray) -> Contrast:
        return _contrast(gains_N, resamples, rng)

    everyone_N = np.ones(len(family_N), dtype=bool)
    common = _highest(_mean(_mean(scores_NKT[first_N], 0), 0), trained_K[0])
    best = [peak(everyone_N, k, trained_K[k]) for k in properties]
    of_family = [[peak(family_N == f, k, best[k][0]) for f in groups] for k in properties]

    at_NK = np.stack([scores_NKT[:, k, best[k][0]] for k in properties], 1)
    before_NK = np.stack([scores_NKT[:, k, trained_K[k]] for k in properties], 1)
    own_NK = at_NK.copy()
    for k in properties:
        for f in groups:
            own_NK[family_N == f, k] = scores_NKT[family_N == f, k, of_family[k][f][0]]
    at_NK, before_NK, own_NK = at_NK[rest_N], before_NK[rest_N], own_NK[rest_N]
    in_family_N = family_N[rest_N]

    over_training = _corrected([contrast((at_NK - before_NK)[:, k]) for k in properties])
    over_chance = _corrected([contrast((at_NK - chance_K)[:, k]) for k in properties])
    over_property = _corrected([contrast((own_NK - at_NK)[in_family_N >= 0, k]) for k in properties])
    answers = []
    for k, prop in enumerate(PROPERTIES):
        gains_N = (own_NK - at_NK)[:, k]
        gains = _corrected([contrast(gains_N[in_family_N == f]) for f in groups])
        answers.append(
            PropertyAnswer(
                prop=prop,
                training=training[k],
                peak=best[k][1],
                before=float(_mean(before_NK[:, k], 0)),
                after=float(_mean(at_NK[:, k], 0)),
                chance=float(chance_K[k]),
                over_training=over_training[k],
                over_chance=over_chance[k],
                over_property=over_property[k],
                families=[
                    FamilyAnswer(name, chosen, gain)
                    for name, (_, chosen), gain in zip(names, of_family[k], gains, strict=True)
                ],
            )
        )
    over_common = contrast(_mean(at_NK - scores_NKT[rest_N, :, common], 1))
    return Answer(thetas[common], over_common, answers)


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of what is known along an axis; NaN where nothing is."""
    return mean_and_error(np.moveaxis(values, axis, 0))[0]


def _highest(means_T: np.ndarray, fallback: int) -> int:
    """Place of the highest mean."""
    return int(_highest_of(means_T[None], fallback)[0])


def _highest_of(means_RT: np.ndarray, fallback: int) -> np.ndarray:
    """Place of the highest mean of each row; `fallback` if none is higher, or nothing is known."""
    known_RT = np.nan_to_num(means_RT, nan=-np.inf)
    is_best_R = known_RT[:, fallback] >= known_RT.max(1) - TIE
    return np.where(is_best_R, fallback, known_RT.argmax(1))


def _peak(
    scores_NT: np.ndarray, fallback: int, resamples: int, rng: np.random.Generator
) -> tuple[int, int, int]:
    """Place of the best θ, and the ends of its interval."""
    known_NT = scores_NT[~np.isnan(scores_NT[:, 0])]
    if not len(known_NT):
        return fallback, fallback, fallback
    places_R = _highest_of(_resampled(known_NT, resamples, rng), fallback)
    low, high = np.quantile(places_R, [0.025, 0.975], method="inverted_cdf").astype(int).tolist()
    return _highest(known_NT.mean(0), fallback), low, high


def _contrast(gains_N: np.ndarray, resamples: int, rng: np.random.Generator) -> Contrast:
    """A mean with its interval and p-value, over the proteins that have one."""
    known_N = gains_N[~np.isnan(gains_N)]
    if not len(known_N):
        return Contrast(float("nan"), None, 1.0, 0)
    means_R = _resampled(known_N[:, None], resamples, rng)[:, 0]
    return Contrast(float(known_N.mean()), interval(means_R), p_value(means_R), len(known_N))


def _resampled(values_NX: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Means (R, X) of resampled rows."""
    at_once = max(1, COUNTS_AT_ONCE // len(values_NX))
    sizes = [min(at_once, resamples - start) for start in range(0, resamples, at_once)]
    counts = (draw_counts(len(values_NX), size, rng) for size in sizes)
    return np.concatenate([counts_RN @ values_NX for counts_RN in counts]) / len(values_NX)


def _corrected(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """P-values corrected for their number."""
    corrected = holm([contrast.p for contrast in contrasts])
    return [contrast._replace(p=p) for contrast, p in zip(contrasts, corrected, strict=True)]
