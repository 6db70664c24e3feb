import socket
import time
from pathlib import Path

import pytest

from protclip import storage
from protclip.cluster.prepare import prepare
from protclip.cluster.sample import sample
from protclip.config.data import PrepareConfig, SampleConfig
from protclip.data.dataset import PairsDataset
from protclip.data.manifest import PairsManifest, StrataManifest
from protclip.data.synthetic import write_sample
from protclip.errors import DataError

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


def test_jobs_write_the_same_on_s3_as_on_disk(bucket: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    write_sample(str(made), 150, 300, seed=0)
    for name in ("uniprot_sprot.dat.gz", "uniprot_trembl.dat.gz"):
        for root in (str(tmp_path), bucket):
            storage.copy_to(made / name, storage.join(root, "raw", name))
    local, remote = run(str(tmp_path)), run(bucket)
    assert remote[0].rows == 450
    assert remote[0].files == local[0].files
    assert remote[1].splits == local[1].splits
    for file in remote[1].splits["train"].files:
        assert storage.sha256(storage.join(bucket, "pairs", file.path)) == file.sha256
    names = {f.uri.removeprefix(bucket) for f in storage.list_files(bucket)}
    assert {"/strata/manifest.json", "/strata/rejected.parquet", "/pairs/sampling.png"} <= names
    assert not storage.exists(storage.join(bucket, "strata", ".staging"))
    assert not storage.exists(storage.join(bucket, "pairs", ".staging"))
    train = PairsDataset(storage.join(bucket, "pairs"), "train", 0)
    assert train.rows(0, 0, 10).num_rows == 10

    with pytest.raises(DataError, match="a data set is there already"):
        run(bucket)


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
