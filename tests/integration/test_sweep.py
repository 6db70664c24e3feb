"""A sweep of real trainings: stopped, continued, enlarged, and what a team finds of it afterwards."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from mlflow import MlflowClient

from protclip import checkpoint
from protclip.cluster.sweep import sweep
from protclip.config.load import load_config
from protclip.config.schema import PretrainConfig
from protclip.config.study import SweepConfig
from protclip.errors import ConfigError, StoppedError

TINY = """\
model:
  protein: {source: esm2-tiny, max_tokens: 128}
  text: {source: bert-tiny, trainable: true, max_tokens: 64}
  projection_dim: 32
  num_prototypes: 16
  fusion_heads: 4
train: {global_batch: 8, max_steps: 80, log_every: 20, valid_every: 40, checkpoint_every: 10}
scaling: {num_workers: 1, use_gpu: false, max_failures: 0}
"""


def config(pairs: Path, place: Path, **keys: Any) -> SweepConfig:
    return SweepConfig.model_validate(
        {
            "name": "weights",
            "storage": str(place / "studies"),
            "pretrain": ["tiny"],
            "data": str(pairs),
            "space": {
                "loss.bsr": {"choices": [0.25, 0.7]},
                "masking.corruption": {"choices": ["shared", "separate"]},
            },
            "objectives": {"valid/loss/gc": "minimize"},
            "sampler": "grid",
            "num_trials": 1,
            "concurrency": 1,
            "study": f"sqlite:///{place}/optuna.db",
            "tracking": {"uri": f"sqlite:///{place}/mlflow.db"},
        }
        | keys
    )


def stop_at_checkpoint(place: Path) -> None:
    """Sends SIGTERM to this process once a training has a checkpoint."""
    while not list(place.glob("studies/weights/runs/*/step-*/meta.json")):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_sweep_is_stopped_continued_and_enlarged_and_tells_the_best(
    tiny_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "conf"
    (conf / "pretrain").mkdir(parents=True)
    (conf / "pretrain" / "tiny.yaml").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    free = ray.available_resources()["CPU"]

    threading.Thread(target=stop_at_checkpoint, args=(tmp_path,), daemon=True).start()
    with pytest.raises(StoppedError, match="0 of 1 trainings finished"):
        sweep(config(tiny_pairs, tmp_path), conf)
    (stopped,) = [meta for _, meta in checkpoint.complete(str(tmp_path / "studies/weights/runs"))][:1]
    assert stopped.step < 80

    first = sweep(config(tiny_pairs, tmp_path), conf)
    assert first["trials"] == {"complete": 1}
    with pytest.raises(ConfigError, match=r"pretrain\.optim\.lr"):
        sweep(config(tiny_pairs, tmp_path, pretrain=["tiny", "optim.lr=1e-3"]), conf)
    made = sweep(config(tiny_pairs, tmp_path, num_trials=2), conf)
    assert made["trials"] == {"complete": 2}
    assert made["run_id"] == first["run_id"]

    # The stopped training went on in its own MLflow run, below that of the sweep.
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("protclip")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"weights", *(f"weights-{number:04d}" for number in range(2))}
    parent = runs.pop("weights")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert {run.info.status for run in (parent, *runs.values())} == {"FINISHED"}
    varied = {
        (r.data.params["varied/loss.bsr"], r.data.params["varied/masking.corruption"]) for r in runs.values()
    }
    assert len(varied) == 2
    assert {run.data.metrics["train/loss/total"] > 0 for run in runs.values()} == {True}

    # The best is that of the lowest loss; its configuration loads, its model is registered.
    losses = {name: run.data.metrics["valid/loss/gc"] for name, run in runs.items()}
    best = min(losses, key=losses.__getitem__)
    assert made["best"] == {best: {"valid/loss/gc": pytest.approx(losses[best])}}
    assert parent.data.metrics["sweep/best/valid/loss/gc"] == pytest.approx(losses[best])
    again = load_config(PretrainConfig, str(made["config"]))
    assert str(again.loss.bsr) == runs[best].data.params["varied/loss.bsr"]
    assert again.run.name == f"{best}-again"
    version = client.get_model_version_by_alias("protclip", "best-weights")
    assert version.run_id == runs[best].info.run_id
    assert {"sweep.html", "sweep.md", "sweep.json", "history.png"} <= {
        path.name for path in Path(str(made["output"])).iterdir()
    }
    assert f"| {int(best[-4:])} | complete |" in parent.data.tags["mlflow.note.content"]
    deadline = time.monotonic() + 20
    while ray.available_resources().get("CPU") != free:
        assert time.monotonic() < deadline, "trainings hold CPUs after the sweep"
        time.sleep(0.1)
