import re
import socket
import time
from collections import defaultdict
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from faulty_s3 import FaultyS3
from protclip import storage
from protclip.cluster.evaluate import run_benchmarks
from protclip.cluster.prepare import prepare
from protclip.cluster.pretrain import pretrain
from protclip.cluster.sample import sample
from protclip.config.base import TrackingConfig
from protclip.config.benchmarks import SuiteConfig
from protclip.config.data import PrepareConfig, SampleConfig
from protclip.data.dataset import PairsDataset
from protclip.data.manifest import PairsManifest, StrataManifest
from protclip.data.synthetic import write_sample
from protclip.errors import DataError
from tiny_runs import config

CONF = Path(__file__).resolve().parents[2] / "conf"
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def run(root: str) -> tuple[StrataManifest, PairsManifest]:
    tracking = {"enabled": False}
    prepare(
        PrepareConfig.model_validate(
            {
                "inputs": [storage.join(root, "raw")],
                "output": storage.join(root, "strata"),
                "rows_per_file": 300,
                "tracking": tracking,
            }
        )
    )
    sample(
        SampleConfig.model_validate(
            {
                "source": storage.join(root, "strata"),
                "output": storage.join(root, "pairs"),
                "rows_per_shard": 150,
                "tracking": tracking,
            }
        )
    )
    strata = StrataManifest.load(storage.join(root, "strata"))
    return strata, PairsManifest.load(storage.join(root, "pairs"))


def written_once(faults: FaultyS3, bucket: str) -> dict[str, int]:
    """Bytes by key of what was sent since the last look; nothing but claims twice, nothing copied."""
    sent: dict[str, int] = defaultdict(int)
    lines = []
    for request in faults.requests:
        verb, _, target = request.line.partition(" ")
        key = target.partition("?")[0].partition("/")[2]
        assert not request.copies, request.line
        if verb == "PUT" and not key.endswith("/.claim.json"):
            lines.append(request.line)
            sent[key] += request.num_bytes
    faults.reset()
    assert len(set(lines)) == len(lines), sorted(lines)
    there = {f.uri.removeprefix(f"{bucket}/"): f.num_bytes for f in storage.list_files(bucket)}
    assert {key: sent[key] for key in there if key in sent} == {k: there[k] for k in there if k in sent}
    return sent


def test_jobs_write_the_same_on_s3_as_on_disk_and_each_byte_once(
    bucket: str, tmp_path: Path, faults: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = tmp_path / "made"
    write_sample(str(made), 150, 300, seed=0)
    for name in ("uniprot_sprot.dat.gz", "uniprot_trembl.dat.gz"):
        for root in (str(tmp_path), bucket):
            storage.copy_to(made / name, storage.join(root, "raw", name))
    local = run(str(tmp_path))
    faults.reset()
    remote = run(bucket)
    sent = written_once(faults, bucket)
    assert remote[0].rows == 450
    assert remote[0].files == local[0].files
    assert remote[1].splits == local[1].splits
    for file in remote[1].splits["train"].files:
        assert storage.sha256(storage.join(bucket, "pairs", file.path)) == file.sha256
        assert sent[f"pairs/{file.path}"] == file.num_bytes
    names = {f.uri.removeprefix(bucket) for f in storage.list_files(bucket)}
    assert {"/strata/manifest.json", "/strata/rejected.parquet", "/pairs/sampling.png"} <= names
    assert not storage.exists(storage.join(bucket, "strata", ".staging"))
    assert not storage.exists(storage.join(bucket, "pairs", ".staging"))
    train = PairsDataset(storage.join(bucket, "pairs"), "train", 0)
    assert train.rows(0, 0, 10).num_rows == 10

    with pytest.raises(DataError, match="a data set is there already"):
        run(bucket)

    tracking = {"uri": f"sqlite:///{tmp_path}/mlflow.db", "experiment": "s3"}
    MlflowClient(tracking["uri"]).create_experiment("s3", artifact_location=f"{bucket}/mlflow")
    faults.reset()
    pretrain(
        config(
            f"{bucket}/pairs",
            f"{bucket}/runs",
            tracking={"enabled": True, **tracking},
            scaling={"num_workers": 1},
            train={"max_steps": 2, "checkpoint_every": 1, "valid_every": 2},
        )
    )
    sent = written_once(faults, bucket)
    assert {key for key in sent if key.partition("/")[0] not in {"runs", "mlflow"}} == set()
    # Ray Train keeps nothing, MLflow the last weights as a model of its own.
    tensors = [re.sub(r"/[0-9a-f]+/", "/", key) for key in sent if key.endswith(".safetensors")]
    tensors = ["/".join(key.split("/")[-2:]) for key in tensors]
    assert sorted(tensors) == [
        "checkpoint/model-00000-of-00001.safetensors",
        "step-00000001/model-00000-of-00001.safetensors",
        "step-00000001/optimizer-00000-of-00001.safetensors",
        "step-00000002/model-00000-of-00001.safetensors",
        "step-00000002/optimizer-00000-of-00001.safetensors",
    ]
    run_benchmarks(
        SuiteConfig(
            benchmarks=("heldout_retrieval",),
            checkpoint=f"{bucket}/runs/job",
            output=f"{bucket}/report",
            pairs=f"{bucket}/pairs",
            seeds=(0,),
            resamples=20,
            tracking=TrackingConfig(enabled=False),
        ),
        CONF,
    )
    sent = written_once(faults, bucket)
    assert {key.partition("/")[0] for key in sent} == {"report"}


def test_jobs_name_a_missing_bucket(tmp_path: Path) -> None:
    source = tmp_path / "raw"
    write_sample(str(source), 5, 5, seed=0)
    config = {"inputs": [str(source / "uniprot_sprot.dat.gz")], "tracking": {"enabled": False}}
    with pytest.raises(DataError, match="s3://never-made: no such bucket"):
        prepare(PrepareConfig.model_validate({**config, "output": "s3://never-made/strata"}))
    with pytest.raises(DataError, match="s3://never-made: no such bucket"):
        sample(SampleConfig(source="s3://never-made/strata", output=str(tmp_path / "pairs")))


def test_jobs_notice_a_dead_endpoint_in_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
    start = time.monotonic()
    with pytest.raises(DataError, match="reaching the bucket failed"):
        sample(SampleConfig(source="s3://bucket/strata", output=str(tmp_path / "pairs")))
    with pytest.raises(DataError, match="reaching the bucket failed"):
        prepare(PrepareConfig(inputs=("s3://bucket/raw",), output=str(tmp_path / "strata")))
    assert time.monotonic() - start < 15
