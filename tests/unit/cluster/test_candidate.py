"""A candidate's way from its pairs to its benchmarks; what it is made of is replaced."""

import threading
from pathlib import Path
from typing import Any

import pytest

from protclip.cluster import candidate as module
from protclip.cluster.candidate import draw_pairs, run_candidate
from protclip.cluster.claim import ClaimedError
from protclip.cluster.pretrain import Part
from protclip.config.benchmarks import SuiteConfig
from protclip.config.data import SampleConfig
from protclip.config.schema import PretrainConfig
from protclip.errors import DataError, StoppedError, TrainingError
from protclip.tuning.candidate import Candidate, Outcome

CURVE = {
    10: {"valid/loss/gc": 2.0, "valid/t2p_r10": 0.1},
    20: {"valid/loss/gc": 1.0, "valid/t2p_r10": 0.3},
    30: {"valid/loss/gc": 1.5, "valid/t2p_r10": 0.2},
}


@pytest.fixture
def made(tmp_path: Path) -> Candidate:
    return Candidate(
        "one",
        PretrainConfig.model_validate(
            {"data": str(tmp_path), "run": {"name": "one", "storage": str(tmp_path / "runs")}}
        ),
        SampleConfig(source=str(tmp_path / "strata"), output=str(tmp_path / "pairs")),
        SuiteConfig(benchmarks=("sub",), checkpoint=str(tmp_path), output=str(tmp_path / "report")),
        {"loss.bsr": 0.5},
    )


def run(candidate: Candidate) -> tuple[Outcome, list[int]]:
    heard: list[int] = []
    found = run_candidate(
        candidate, Path("conf"), "parent", lambda _, step: heard.append(step), threading.Event()
    )
    return found, heard


def trained(config: PretrainConfig, part: Part) -> dict[str, object]:
    assert part.parent_id == "parent"
    assert part.varied == {"loss.bsr": 0.5}
    for step, metrics in CURVE.items():
        part.heed({"train/loss/total": 3.0}, step)
        part.heed(metrics, step)
    return {"metrics": CURVE[30], "model": "models:/m", "run_id": "r"}


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has been done, in its order."""
    order: list[str] = []

    def benchmarks(config: SuiteConfig, conf_dir: Path) -> dict[str, Any]:
        order.append("suite")
        return {"results": {"sub": {"accuracy": 0.7, "mcc": 0.6}}}

    monkeypatch.setattr(module, "draw_pairs", lambda *_: order.append("pairs"))
    monkeypatch.setattr(module, "pretrain", lambda *given: order.append("training") or trained(*given))
    monkeypatch.setattr(module, "run_benchmarks", benchmarks)
    return order


def test_candidate_is_drawn_trained_and_measured(made: Candidate, done: list[str], tmp_path: Path) -> None:
    found, heard = run(made)
    assert done == ["pairs", "training", "suite"]
    assert heard == [10, 20, 30], "validations alone are heard of"
    assert found.state == "complete"
    assert found.metrics == {**CURVE[30], "bench/sub/accuracy": 0.7, "bench/sub/mcc": 0.6}
    assert found.best == {"valid/loss/gc": (1.0, 20), "valid/t2p_r10": (0.3, 20)}
    assert (found.model, found.report) == ("models:/m", str(tmp_path / "report"))


def test_candidate_that_fails_says_why_and_keeps_what_was_measured(
    made: Candidate, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(config: PretrainConfig, part: Part) -> None:
        trained(config, part)
        raise TrainingError("the loss is not finite")

    monkeypatch.setattr(module, "pretrain", breaks)
    found, _ = run(made)
    assert (found.state, found.error, found.metrics) == ("failed", "the loss is not finite", CURVE[30])
    assert "suite" not in done


def test_candidate_that_is_stopped_is_not_measured(
    made: Candidate, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops(*_: object) -> None:
        raise StoppedError("stopped at step 5")

    monkeypatch.setattr(module, "pretrain", stops)
    found, _ = run(made)
    assert (found.state, found.report, done) == ("stopped", None, ["pairs"])


def test_candidate_lets_a_bug_through(
    made: Candidate, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "draw_pairs", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(made)


def test_draw_pairs_waits_for_another_one_that_draws_the_same(
    made: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert made.sample is not None
    calls = []

    def sample(config: SampleConfig, conf_dir: Path) -> None:
        calls.append(config)
        if len(calls) == 2:
            Path(config.output).mkdir()
            Path(config.output, "manifest.json").write_text("{}")
        raise ClaimedError("another job is writing here")

    monkeypatch.setattr(module, "sample", sample)
    monkeypatch.setattr(module, "BUSY_POLL_S", 0.01)
    draw_pairs(made.sample, Path("conf"))
    assert len(calls) == 2
    draw_pairs(made.sample, Path("conf"))
    assert len(calls) == 2, "pairs that are there are not drawn again"


def test_draw_pairs_does_not_hide_why_it_cannot(made: Candidate, monkeypatch: pytest.MonkeyPatch) -> None:
    def sample(*_: object) -> None:
        raise DataError("no strata here")

    assert made.sample is not None
    monkeypatch.setattr(module, "sample", sample)
    with pytest.raises(DataError, match="no strata here"):
        draw_pairs(made.sample, Path("conf"))
