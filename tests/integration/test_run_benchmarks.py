"""The smoke suite from a checkpoint to reports and MLflow, on Ray."""

import json
import logging
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray

from protclip.cluster.evaluate import run_benchmarks
from protclip.cluster.leak_scan import leak_shares
from protclip.config.base import TrackingConfig
from protclip.config.benchmarks import SuiteConfig
from protclip.data.manifest import PairsManifest
from protclip.errors import BenchmarkError, CheckpointError, ConfigError, DataError
from protclip.evaluation.prepare import prepare_one
from protclip.evaluation.prepared import Prepared, save
from protclip.evaluation.registry import FORMATS, load_benchmark
from protclip.evaluation.store import ResultStore

# Workers cannot import tests.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

CONF = Path(__file__).resolve().parents[2] / "conf"
LETTERS = {"cytoplasm": "AVLI", "nucleus": "KRDE", "secreted": "FWYM"}
LOCATION, RETRIEVAL = "made_location", "heldout_retrieval"


@pytest.fixture(scope="module")
def conf(tmp_path_factory):
    """The smoke suite's benchmarks, without what takes long."""
    folder = tmp_path_factory.mktemp("conf") / "benchmarks"
    shutil.copytree(CONF / "benchmarks", folder)
    path = folder / f"{LOCATION}.yaml"
    text = re.sub(r"baselines: .*", "baselines: [majority, untouched]", path.read_text())
    path.write_text(re.sub(r"finetune: .*", "finetune: {epochs: 1}", text))
    return folder.parent


@pytest.fixture(scope="module")
def data_root(conf, tmp_path_factory):
    """A location benchmark that composition solves."""
    rng = np.random.default_rng(0)
    rows = ["sequence,label,split"]
    for split, size in (("train", 60), ("valid", 18), ("test", 45)):
        for number in range(size):
            label = list(LETTERS)[number % 3]
            rows.append(f"M{''.join(rng.choice(list(LETTERS[label]), 25))},{label},{split}")
    root = tmp_path_factory.mktemp("benchmarks")
    path = root / "made_location.csv"
    path.write_text("\n".join(rows) + "\n")
    spec = load_benchmark(LOCATION, conf)
    content = prepare_one(LOCATION, spec.kind, spec.data, {"all": path}, FORMATS[spec.data.format].read)
    manifest = content.manifest(LOCATION, spec.kind, spec.data, [])
    save(str(root / LOCATION), manifest, content.tables, content.odd)
    return root


@pytest.fixture
def suite(tiny_checkpoint, data_root, tmp_path):
    return SuiteConfig(
        benchmarks=(RETRIEVAL, LOCATION),
        checkpoint=str(tiny_checkpoint.parent),
        output=str(tmp_path / "report"),
        data_root=str(data_root),
        seeds=(0, 1),
        resamples=20,
        tracking=TrackingConfig(enabled=False),
    )


def kept(suite: SuiteConfig) -> dict[str, int]:
    """When each result of a suite was kept, by the names of its two files."""
    root = Path(suite.output) / "results"
    return {p.name: p.stat().st_mtime_ns for p in root.glob("*.*") if not p.name.startswith("leaks-")}


@pytest.mark.ray
def test_run_benchmarks_reports_the_smoke_suite_and_repeats_nothing(
    ray_cluster, suite, conf, tmp_path, tiny_checkpoint, caplog
):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    suite = suite.model_copy(update={"tracking": TrackingConfig(uri=uri, experiment="bench")})
    found = run_benchmarks(suite, conf)
    assert found["output"] == suite.output
    results = found["results"]
    assert results[LOCATION]["accuracy"] > 0.8
    assert 0 <= results[RETRIEVAL]["t2p_r10"] <= 1

    report = json.loads((tmp_path / "report" / "results.json").read_text())
    assert report["provenance"]["checkpoint"] == str(tiny_checkpoint)
    rows = {row["spec"]["name"]: row for row in report["benchmarks"]}
    seeds = {name: {trial["seed"] for trial in row["trials"]} for name, row in rows.items()}
    assert seeds == {RETRIEVAL: {0}, LOCATION: {0, 1}}
    models = {name: {trial["model"] for trial in row["trials"]} for name, row in rows.items()}
    assert models[LOCATION] == {"checkpoint", "untouched", "majority"}
    assert rows[LOCATION]["leak"] == 0
    assert {trial["key"] + ".npz" for row in rows.values() for trial in row["trials"]} <= kept(suite).keys()
    vectors = [p.name for p in (tmp_path / "report" / "results" / "vectors").rglob("*.keys.npy")]
    assert sorted(name.partition("-")[0] for name in vectors) == ["features", "features", "projected"]

    run = MlflowClient(uri).get_run(found["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["bench/made_location/accuracy"] == results[LOCATION]["accuracy"]
    assert run.data.tags["checkpoint"] == str(tiny_checkpoint)
    logged = {f.path for f in MlflowClient(uri).list_artifacts(found["run_id"], "results")}
    assert logged >= {"results/report.html", "results/report.md", "results/results.json"}

    # Another suite that shares some of it, and finds one result damaged.
    before = kept(suite)
    damaged = next(t["key"] for t in rows[LOCATION]["trials"] if (t["model"], t["seed"]) == ("checkpoint", 1))
    (tmp_path / "report" / "results" / f"{damaged}.npz").write_bytes(b"")
    changes = {
        "benchmarks": (LOCATION,),
        "output": str(tmp_path / "other"),
        "results": str(tmp_path / "report" / "results"),
        "tracking": TrackingConfig(enabled=False),
    }
    with caplog.at_level(logging.INFO):
        again = run_benchmarks(suite.model_copy(update=changes), conf)
    assert again["results"][LOCATION] == results[LOCATION]
    assert "5 of 6 runs are finished already" in caplog.text
    assert "the run is repeated" in caplog.text
    after = kept(suite)
    assert {name for name in after if after[name] != before[name]} == {f"{damaged}.npz", f"{damaged}.json"}
    assert not (tmp_path / "other" / "results").exists()


@pytest.mark.ray
def test_run_benchmarks_adds_the_results_to_the_run_that_trained_the_checkpoint(
    ray_cluster, suite, conf, tmp_path, tiny_checkpoint
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
        "benchmarks": (LOCATION,),
        "seeds": (0,),
        "protocols": ("frozen", "finetune"),
        "baselines": False,
    }
    found = run_benchmarks(suite.model_copy(update=changed), conf)
    own, page = client.get_run(found["run_id"]), client.get_run(trained)
    assert own.data.tags["mlflow.parentRunId"] == trained
    assert page.info.status == "FINISHED"
    for name in ("bench/made_location/accuracy", "bench/made_location/finetune/accuracy"):
        assert page.data.metrics[name] == own.data.metrics[name]
    assert "made_location" in page.data.tags["mlflow.note.content"]
    assert "results/report.html" in {f.path for f in client.list_artifacts(trained, "results")}


@pytest.mark.ray
def test_run_benchmarks_finishes_all_others_when_a_run_fails(ray_cluster, suite, conf, tmp_path, monkeypatch):
    from protclip.cluster import trials

    run = trials._run

    def failing(trial, *others):
        if trial.model == "checkpoint" and trial.benchmark == LOCATION:
            raise ZeroDivisionError("planted") if trial.seed else BenchmarkError("planted as well")
        return run(trial, *others)

    monkeypatch.setattr(trials, "_run", failing)
    suite = suite.model_copy(update={"baselines": False})
    with pytest.raises(BenchmarkError, match=r"2 of 3 runs failed") as caught:
        run_benchmarks(suite, conf)
    assert "made_location (checkpoint, frozen, seed 0): planted as well" in str(caught.value)
    assert "made_location (checkpoint, frozen, seed 1): ZeroDivisionError: planted" in str(caught.value)
    assert "Traceback" not in str(caught.value)
    report = json.loads((tmp_path / "report" / "results.json").read_text())
    errors = {row["spec"]["name"]: row["errors"] for row in report["benchmarks"]}
    assert errors[RETRIEVAL] == []
    assert any("planted" in error for error in errors[LOCATION])
    monkeypatch.undo()
    assert run_benchmarks(suite, conf)["results"][LOCATION]["accuracy"] > 0.8


@pytest.mark.ray
def test_leak_shares_are_counted_in_the_training_pairs_alone_and_once(
    ray_cluster, tiny_pairs, conf, tmp_path, monkeypatch, caplog
):
    from protclip.cluster import leak_scan

    spec, pairs = load_benchmark(LOCATION, conf), str(tiny_pairs)
    sequences = {
        split: pa.concat_tables(
            pa.parquet.read_table(path, columns=["sequence"]) for path in (tiny_pairs / split).iterdir()
        )["sequence"].to_pylist()
        for split in ("train", "test")
    }
    tests = [*sequences["train"][:2], sequences["train"][-1].lower(), *sequences["test"][:3], "MKV", "MKV"]
    examples = pa.table({"split": ["test"] * len(tests), "sequence": tests})
    data = {LOCATION: Prepared({"examples": examples}, (), "x")}
    digest = PairsManifest.digest(pairs)
    store = ResultStore(str(tmp_path))
    assert leak_shares([spec], data, pairs, digest, store) == {LOCATION: 3 / 8}

    monkeypatch.setattr(leak_scan, "_seen", lambda *_: 1 / 0)
    assert leak_shares([spec], data, pairs, digest, store) == {LOCATION: 3 / 8}
    assert leak_shares([spec], data, pairs, "of others", store) == {LOCATION: None}
    assert "other pairs than those of the training" in caplog.text
    assert leak_shares([spec], data, str(tmp_path), digest, store) == {LOCATION: None}


@pytest.mark.ray
def test_run_benchmarks_refuses_a_run_that_has_no_room(ray_cluster, suite, conf):
    with pytest.raises(ConfigError, match=r"wanted: 1 worker of 1000 CPUs; .*: lower cpus_per_run"):
        run_benchmarks(suite.model_copy(update={"cpus_per_run": 1000}), conf)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"benchmarks": ("made_locatoin",)}, BenchmarkError, "did you mean 'made_location'"),
        ({"checkpoint": "runs/nowhere"}, CheckpointError, "no complete checkpoint here"),
        ({"data_root": "nowhere"}, DataError, r"made_location; run `protclip prepare-benchmarks"),
        ({"pairs": "nowhere"}, DataError, "nowhere: no manifest"),
    ],
)
def test_run_benchmarks_checks_everything_before_any_work(suite, conf, change, error, message, monkeypatch):
    from protclip.cluster import evaluate

    def too_late(*_: object, **__: object) -> None:
        raise AssertionError("work began before the configuration was checked")

    monkeypatch.setattr(evaluate, "connect", too_late)
    monkeypatch.setattr(evaluate, "open_run", too_late)
    with pytest.raises(error, match=message):
        run_benchmarks(suite.model_copy(update=change), conf)
    assert not Path(suite.output).exists()
