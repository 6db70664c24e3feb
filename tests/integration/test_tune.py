"""Candidates side by side on Ray Tune: repeated, stopped, given up; with trainings that only pretend."""

# Names in the annotations of what travels to a worker do not travel with it.
from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import ray

from protclip.cluster import tune as tune_module
from protclip.cluster.tune import room, run_candidates
from protclip.config.schema import ScalingConfig
from protclip.config.study import SweepConfig
from protclip.errors import ConfigError, StoppedError, TrainingError
from protclip.tuning.candidate import Candidate, Outcome, Template

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]
CONF = Path(__file__).resolve().parents[2] / "conf"


def pretend(
    candidate: Candidate, conf_dir: Path, parent_id: str | None, heed: Any, stop: threading.Event
) -> Outcome:
    """Behaves as the candidate's name says; a file tells which attempt it is."""
    attempts = Path(candidate.pretrain.run.storage) / candidate.name
    attempts.parent.mkdir(parents=True, exist_ok=True)
    with attempts.open("a") as file:
        file.write(f"{os.getpid()}\n")
    attempt = len(attempts.read_text().splitlines())
    kind = candidate.name.partition("-")[0]
    if kind == "dies" and attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "breaks":
        raise ZeroDivisionError("a bug")
    if kind == "fails":
        return Outcome(candidate.name, "failed", error="lr is too high")
    for step in (1, 2):
        heed({"valid/loss/gc": 1.0 / step}, step)
    if kind == "waits":
        assert stop.wait(60), "nobody has asked it to stop"
        return Outcome(candidate.name, "stopped", step=2, checkpoint="there")
    return Outcome(candidate.name, "complete", step=2, metrics={"valid/loss/gc": 0.5})


class Listed:
    """A source of the candidates named."""

    def __init__(self, template: Template, *names: str, prune: str = "", refuse: str = "") -> None:
        self.left = [template.make(name, ()) for name in names]
        self.total = len(names)
        self.outcomes: dict[str, Outcome] = {}
        self.observed: list[tuple[str, int]] = []
        self.prune, self.refuse = prune, refuse

    @property
    def finished(self) -> int:
        return len(self.outcomes)

    def next(self) -> Candidate | None:
        return self.left.pop(0) if self.left else None

    def observe(self, name: str, metrics: Mapping[str, float], step: int) -> bool:
        assert metrics == {"valid/loss/gc": 1.0 / step}
        self.observed.append((name, step))
        if name == self.refuse:
            raise ConfigError("objectives: valid/loss/xyz is not measured")
        return name == self.prune

    def finish(self, outcome: Outcome) -> None:
        self.outcomes[outcome.name] = outcome


@pytest.fixture
def config(tmp_path: Path) -> SweepConfig:
    return SweepConfig.model_validate(
        {
            "name": "listed",
            "storage": str(tmp_path / "studies"),
            "pretrain": ["quickstart"],
            "data": str(tmp_path),
            "space": {"loss.bsr": {"low": 0, "high": 1}},
            "objectives": {"valid/loss/gc": "minimize"},
            "num_trials": 3,
            "concurrency": 3,
            "retries": 1,
            "tracking": {"enabled": False},
        }
    )


@pytest.fixture(autouse=True)
def pretending(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tune_module, "run_candidate", pretend)
    for module in (tune_module, sys.modules[__name__]):
        ray.cloudpickle.register_pickle_by_value(module)
    yield
    for module in (tune_module, sys.modules[__name__]):
        ray.cloudpickle.unregister_pickle_by_value(module)


def attempts(config: SweepConfig, name: str) -> list[str]:
    return (Path(config.storage) / config.name / "runs" / name).read_text().split()


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, ray.available_resources()
        time.sleep(0.1)


def test_study_outlives_dying_and_broken_candidates_and_stops_pruned_ones(
    config: SweepConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    monkeypatch.setattr(tune_module.tempfile, "TemporaryDirectory", lambda prefix: nullcontext(place))
    template = Template(config, CONF)
    names = ("good-1", "dies-1", "breaks-1", "waits-1", "fails-1")
    source = Listed(template, *names, prune="waits-1")
    run_candidates(source, template, config, CONF, None)
    states = {name: outcome.state for name, outcome in source.outcomes.items()}
    assert states == {
        "good-1": "complete",
        "dies-1": "complete",
        "breaks-1": "failed",
        "waits-1": "pruned",
        "fails-1": "failed",
    }
    assert len(attempts(config, "dies-1")) == 2
    # What a candidate gave Ray Tune to keep would be lost on a node that does not see this directory.
    assert list(place.rglob("good-1"))
    assert not list(place.rglob("checkpoint*"))
    assert len(attempts(config, "breaks-1")) == 1 + config.retries
    assert "ZeroDivisionError: a bug" in source.outcomes["breaks-1"].error
    assert source.outcomes["fails-1"].error == "lr is too high"
    assert len(attempts(config, "fails-1")) == 1, "what would come again is not tried again"
    assert source.outcomes["waits-1"].checkpoint == "there"
    assert {step for name, step in source.observed if name == "good-1"} == {1, 2}
    pids = {int(pid) for name in names for pid in attempts(config, name)}
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    eventually(lambda: ray.available_resources().get("memory") == ray.cluster_resources()["memory"])
    eventually(lambda: ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"])


def test_study_of_failures_gives_up_and_says_why(config: SweepConfig) -> None:
    template = Template(config, CONF)
    source = Listed(template, *(f"fails-{number}" for number in range(9)))
    with pytest.raises(TrainingError, match=r"(?s)none has succeeded.*fails-0: lr is too high"):
        run_candidates(source, template, config, CONF, None)
    assert 3 <= source.finished < 9


def test_study_whose_source_refuses_stops_all_candidates_and_says_so(config: SweepConfig) -> None:
    template = Template(config, CONF)
    source = Listed(template, "waits-1", "good-1", "waits-2", "waits-3", refuse="good-1")
    with pytest.raises(ConfigError, match="valid/loss/xyz is not measured"):
        run_candidates(source, template, config, CONF, None)
    assert source.outcomes["waits-1"].state == "stopped"


def test_study_asked_to_stop_waits_for_its_candidates(config: SweepConfig) -> None:
    template = Template(config, CONF)
    source = Listed(template, "waits-1", "waits-2", "waits-3", "waits-4")

    def ask() -> None:
        while len(source.observed) < 2:
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=ask, daemon=True).start()
    with pytest.raises(StoppedError, match="submit the same command again"):
        run_candidates(source, template, config, CONF, None)
    assert source.outcomes
    assert {outcome.state for outcome in source.outcomes.values()} == {"stopped"}
    assert "waits-4" not in source.outcomes


def test_room_is_what_the_cluster_has_for_workers_alone() -> None:
    assert room(ScalingConfig(num_workers=1, use_gpu=False)) == 4
    assert room(ScalingConfig(num_workers=2, use_gpu=False)) == 2
    assert room(ScalingConfig(num_workers=1, cpus_per_worker=3, use_gpu=False)) == 1
    assert room(ScalingConfig(num_workers=2, use_gpu=False), most=9) == 2
    with pytest.raises(ConfigError, match="no room: wanted: 1 worker of 1 CPU, 1 GPU; the cluster has"):
        room(ScalingConfig(num_workers=1, use_gpu=True))
