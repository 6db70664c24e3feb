import numpy as np
import pytest

from protclip.evaluation.theta import ALIGNMENT, KINDS, OVERLAP, Measured
from protclip.evaluation.theta_choice import Answer, choose
from protclip.records import PROPERTIES

THETAS = (0.0, 0.3, 0.6, 0.9)


def measured(above_NKT: np.ndarray) -> Measured:
    shape = above_NKT.shape
    return Measured(
        thetas=THETAS,
        alignment={name: np.full(shape, np.nan, np.float32) for name in ALIGNMENT} | {"above": above_NKT},
        overlap={name: np.full((*shape[:2], len(KINDS), shape[2]), np.nan, np.float32) for name in OVERLAP},
        present_NK=~np.isnan(above_NKT[:, :, 0]),
        pools=(8, 8, 8, 8),
        alike=(0.0,) * 4,
    )


def noise(proteins: int, level: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    per_protein = rng.normal(0, 0.1, (proteins, len(PROPERTIES), 1))
    return level + per_protein + rng.normal(0, 0.03, (proteins, len(PROPERTIES), len(THETAS)))


def answer(above: np.ndarray, family: np.ndarray | None = None, names: tuple[str, ...] = ()) -> Answer:
    family = np.full(len(above), -1) if family is None else family
    return choose(measured(above), "above", (0.3,) * 4, family, names, 500, np.random.default_rng(1))


def test_choose_finds_the_planted_theta_of_each_property() -> None:
    above = noise(200, 0.7)
    for k, t in enumerate((2, 1, 3, 2)):
        above[:, k, t] += 0.05
    found = answer(above)
    assert [best.peak for best in found.properties] == [(t, t, t) for t in (0.6, 0.3, 0.9, 0.6)]
    assert [best.verdict for best in found.properties] == [
        *("better", "no difference shown", "better", "better"),
    ]
    name, function, *_ = found.properties
    assert name.over_training.gain == pytest.approx(0.05, abs=0.02)
    assert name.over_training.interval is not None
    assert name.over_training.interval[0] > 0
    assert name.over_training.proteins == 100
    assert name.after - name.before == pytest.approx(name.over_training.gain)
    assert function.over_training.gain == 0
    assert found.common == 0.6
    assert found.over_common.verdict == "better"


def test_choose_does_not_praise_the_best_of_many_for_luck() -> None:
    """Without any difference the best θ of one half gains nothing on the other."""
    found = [best.over_training for seed in range(30) for best in answer(noise(60, 0.7, seed)).properties]
    assert abs(np.mean([contrast.gain for contrast in found])) < 0.002
    assert sum(contrast.verdict == "no difference shown" for contrast in found) >= 114


def test_choose_calls_what_is_at_chance_by_its_name() -> None:
    above = noise(200, 0.45)
    above[:, :, 2] += 0.05
    (name, *_) = answer(above).properties
    assert name.over_training.verdict == "better"
    assert name.verdict == "no better than chance"


def test_choose_finds_families_that_want_another_theta() -> None:
    above = noise(240, 0.7)
    family = np.repeat([0, 1, -1], 80)
    above[:, 0, 2] += 0.04
    above[family == 1, 0, 3] += 0.2
    above[family == -1, 0, 2] += 0.2
    name, function, *_ = answer(above, family, ("first", "second")).properties
    assert name.peak.theta == 0.6
    assert [f.peak.theta for f in name.families] == [0.6, 0.9]
    assert [f.over_property.verdict for f in name.families] == ["no difference shown", "better"]
    assert [f.over_property.proteins for f in name.families] == [40, 40]
    assert name.over_property.verdict == "better"
    assert name.over_property.proteins == 80
    assert function.over_property.verdict == "no difference shown"


def test_choose_keeps_the_theta_of_training_among_equals_and_without_any_value() -> None:
    above = np.full((40, len(PROPERTIES), len(THETAS)), 0.8)
    above[:, 3] = np.nan
    found = answer(above)
    assert found.common == 0.3
    assert [best.peak for best in found.properties] == [(0.3, 0.3, 0.3)] * 4
    absent = found.properties[3]
    assert absent.over_training.proteins == 0
    assert absent.over_training.interval is None
    assert absent.over_training.p == 1


def test_choose_is_the_same_again() -> None:
    assert repr(answer(noise(50, 0.6))) == repr(answer(noise(50, 0.6)))


def test_chance_of_each_criterion() -> None:
    above = noise(2, 0.5)
    above[0, 2:] = np.nan
    made = measured(above)
    assert made.chance("above").tolist() == [0.5] * 4
    assert made.chance("first").tolist() == [1 / 8] * 4
    assert made.chance("accuracy").tolist() == [0.375, 0.375, 0.25, 0.25]
    assert made.chance("enrichment").tolist() == [1] * 4
