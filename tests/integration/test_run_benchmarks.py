"""The smoke suite from a checkpoint to reports and MLflow, on Ray."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from protclip.cluster.evaluate import run_benchmarks
from protclip.config.base import TrackingConfig
from protclip.config.schema import SuiteConfig
from protclip.errors import BenchmarkError, CheckpointError, DataError

CONF = Path(__file__).resolve().parents[2] / "conf"
LETTERS = {"cytoplasm": "AVLI", "nucleus": "KRDE", "secreted": "FWYM"}


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    """A location benchmark that composition solves."""
    rng = np.random.default_rng(0)
    rows = ["sequence,label,split"]
    for split, size in (("train", 60), ("valid", 18), ("test", 45)):
        for number in range(size):
            label = list(LETTERS)[number % 3]
            rows.append(f"M{''.join(rng.choice(list(LETTERS[label]), 25))},{label},{split}")
    root = tmp_path_factory.mktemp("benchmarks")
    (root / "made_location.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture
def suite(tiny_checkpoint, data_root, tmp_path):
    return SuiteConfig(
        benchmarks=("heldout_retrieval", "made_location"),
        checkpoint=str(tiny_checkpoint.parent),
        output=str(tmp_path / "report"),
        data_root=str(data_root),
        seeds=(0, 1),
        tracking=TrackingConfig(enabled=False),
    )


@pytest.mark.ray
def test_run_benchmarks_reports_the_smoke_suite(ray_cluster, suite, tmp_path, tiny_checkpoint):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracking = TrackingConfig(uri=uri, experiment="bench")
    found = run_benchmarks(suite.model_copy(update={"tracking": tracking}), CONF)
    assert found["output"] == suite.output
    results = found["results"]
    assert results["made_location"]["accuracy"] > 0.8
    assert 0 <= results["heldout_retrieval"]["t2p_r10"] <= 1

    report = json.loads((tmp_path / "report" / "results.json").read_text())
    assert report["provenance"]["checkpoint"] == str(tiny_checkpoint)
    seeds = {b: {r["seed"] for r in report["rows"] if r["benchmark"] == b} for b in suite.benchmarks}
    assert seeds == {"heldout_retrieval": {0}, "made_location": {0, 1}}
    names = {"report.html", "report.md", "results.json"}
    assert {path.name for path in (tmp_path / "report").iterdir()} == names
    page = (tmp_path / "report" / "report.html").read_text()
    assert "composition" in page
    assert "majority" in (tmp_path / "report" / "report.md").read_text()

    run = MlflowClient(uri).get_run(found["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["bench/made_location/accuracy"] == results["made_location"]["accuracy"]
    assert run.data.tags["checkpoint"] == str(tiny_checkpoint)
    logged = {f.path for f in MlflowClient(uri).list_artifacts(found["run_id"], "results")}
    assert logged == {f"results/{name}" for name in names}


@pytest.mark.ray
def test_run_benchmarks_adds_the_results_to_the_run_that_trained_the_checkpoint(
    ray_cluster, suite, tmp_path, tiny_checkpoint
):
    from mlflow import MlflowClient

    tracking = TrackingConfig(uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    client = MlflowClient(tracking.uri)
    trained = client.create_run(
        client.create_experiment("protclip", (tmp_path / "files").as_uri())
    ).info.run_id
    client.set_terminated(trained)
    copied = Path(shutil.copytree(tiny_checkpoint, tmp_path / "run" / "step"))
    meta = json.loads((copied / "meta.json").read_text()) | {"run_id": trained}
    (copied / "meta.json").write_text(json.dumps(meta))

    changed = {
        "tracking": tracking,
        "checkpoint": str(copied),
        "benchmarks": ("made_location",),
        "seeds": (0,),
    }
    found = run_benchmarks(suite.model_copy(update=changed), CONF)
    own, page = client.get_run(found["run_id"]), client.get_run(trained)
    assert own.data.tags["mlflow.parentRunId"] == trained
    assert page.info.status == "FINISHED"
    assert (
        page.data.metrics["bench/made_location/accuracy"] == own.data.metrics["bench/made_location/accuracy"]
    )
    assert "made_location" in page.data.tags["mlflow.note.content"]
    assert "results/report.html" in {f.path for f in client.list_artifacts(trained, "results")}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"benchmarks": ("made_locatoin",)}, BenchmarkError, "did you mean 'made_location'"),
        ({"checkpoint": "runs/nowhere"}, CheckpointError, "no complete checkpoint here"),
        ({"data_root": "nowhere"}, DataError, r"nowhere/made_location\.csv: no such file"),
        ({"pairs": "nowhere"}, DataError, "nowhere: no manifest"),
    ],
)
def test_run_benchmarks_checks_everything_before_any_work(suite, change, error, message, monkeypatch):
    from protclip.cluster import evaluate

    def too_late(*_: object, **__: object) -> None:
        raise AssertionError("work began before the configuration was checked")

    monkeypatch.setattr(evaluate, "connect", too_late)
    monkeypatch.setattr(evaluate, "open_run", too_late)
    with pytest.raises(error, match=message):
        run_benchmarks(suite.model_copy(update=change), CONF)
    assert not Path(suite.output).exists()
