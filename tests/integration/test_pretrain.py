"""The pre-training job on Ray Train: checked first, remembered, continued by submitting it again."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

import faulty_s3
from faulty_s3 import App, FaultyS3
from protclip import checkpoint, storage
from protclip.cluster.pretrain import check_data, check_resume, pretrain
from protclip.config.schema import PretrainConfig
from protclip.data.manifest import TOKENIZER_NAME, PairsManifest
from protclip.errors import ConfigError, DataError
from protclip.tracking.mlflow import MlflowTracker
from tiny_runs import config


class Away:
    """Closes connections for some seconds from the first one on."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.until: float | None = None

    def __call__(
        self, app: App, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        now = time.monotonic()
        self.until = self.until or now + self.seconds
        return (
            faulty_s3.drop(app, environ, start_response) if now < self.until else app(environ, start_response)
        )


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_pretrain_outlives_its_stores_and_continues_when_submitted_again(
    tiny_pairs: Path,
    bucket: str,
    tmp_path: Path,
    faults: FaultyS3,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    uri, tracking = f"{bucket}/runs", {"enabled": True, "uri": f"sqlite:///{tmp_path}/mlflow.db"}
    send, refused = MlflowTracker._send, []

    def refuse(tracker: MlflowTracker, batch: list[Any]) -> None:
        if not faults.count("^PUT .*/step-00000004/meta.json"):
            refused.append(batch)
            raise ConnectionError("refused")
        send(tracker, batch)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(MlflowTracker, "_send", refuse)
    monkeypatch.setattr("protclip.tracking.mlflow.RETRY_FIRST_S", 0.05)
    monkeypatch.setattr("protclip.tracking.mlflow.RETRY_MOST_S", 0.5)
    away = Away(2)
    faults.fail("^(PUT|POST) .*/step-00000002/", away)
    first = pretrain(config(tiny_pairs, uri, tracking=tracking, train={"max_steps": 4, "valid_every": 4}))
    assert refused
    assert away.until is not None
    assert first["checkpoint"] == f"{uri}/job/step-00000004"
    assert "valid/p2t_r10" in first["metrics"]
    assert str(first["model"]).startswith("models:/")

    # Three workers of two CPUs are more than the cluster has: it goes on with fewer.
    fewer = {"num_workers": 3, "min_workers": 1, "cpus_per_worker": 2, "use_gpu": False}
    again = pretrain(config(tiny_pairs, uri, tracking=tracking, scaling=fewer))
    assert "train.max_steps: 4 -> 6 stretches the learning-rate schedule" in caplog.text
    assert again["run_id"] == first["run_id"]
    loaded = checkpoint.load(f"{uri}/job")
    assert loaded.uri == again["checkpoint"] == f"{uri}/job/step-00000006"
    assert (loaded.meta.step, loaded.meta.epoch, loaded.meta.batch_index) == (6, 0, 6)
    assert loaded.meta.world_size < 3
    assert {f.uri.split("/")[5] for f in storage.list_files(f"{uri}/job")} == {
        "step-00000004",
        "step-00000006",
    }

    client = MlflowClient(tracking["uri"])
    run = client.get_run(str(first["run_id"]))
    steps = [m.step for m in client.get_metric_history(run.info.run_id, "train/loss/total")]
    assert sorted(steps) == [1, 2, 3, 4, 5, 6]
    assert run.info.status == "FINISHED"
    assert run.data.params["loss.bsr"] == "0.7"
    assert run.data.tags["data_manifest"] == PairsManifest.digest(str(tiny_pairs))
    assert run.data.tags["checkpoint"] == again["checkpoint"]
    assert {a.path for a in client.list_artifacts(run.info.run_id, "data")} == {"data/manifest.json"}


def test_check_data_refuses_a_batch_larger_than_the_data(tiny_pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"48 training pairs are fewer than train\.global_batch=64"):
        check_data(config(tiny_pairs, tmp_path, train={"global_batch": 64}))


def test_check_data_refuses_pairs_of_another_tokenizer(tiny_pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "protein"]))
    other = config(tiny_pairs, tmp_path, model={"text": {"source": str(tmp_path)}})
    with pytest.raises(ConfigError, match=r"tokenised with 'builtin'.*run sample_data again with tokenizer="):
        check_data(other)


def test_check_data_refuses_a_tokenizer_file_that_is_not_the_manifests(
    tiny_pairs: Path, tmp_path: Path
) -> None:
    manifest = PairsManifest.load(str(tiny_pairs))
    entry = manifest.tokenizer.model_copy(update={"fingerprint": "another"})
    manifest.model_copy(update={"tokenizer": entry}).save(str(tmp_path))
    storage.copy_to(tiny_pairs / TOKENIZER_NAME, str(tmp_path / TOKENIZER_NAME))
    with pytest.raises(DataError, match=r"tokenizer\.json is not the tokenizer the manifest names"):
        check_data(config(tmp_path, tmp_path))


def test_check_data_says_that_there_are_no_pairs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no manifest\.json here; give the output of a finished job"):
        check_data(config(tmp_path, tmp_path))


def changed(before: PretrainConfig, section: str, **keys: object) -> PretrainConfig:
    values = before.model_dump()
    values[section] |= keys
    return PretrainConfig.model_validate(values)


def test_check_resume_names_the_keys_that_differ(tiny_checkpoint: Path) -> None:
    meta, before = checkpoint.peek(str(tiny_checkpoint))
    other = changed(changed(before, "optim", lr=0.5), "scaling", num_workers=2)
    with pytest.raises(
        ConfigError, match=r"run 'tiny' exists with other settings.*: optim\.lr: 1e-05 -> 0\.5$"
    ):
        check_resume(other, meta, before)


def test_check_resume_allows_to_compute_and_watch_in_another_way(
    tiny_checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    meta, before = checkpoint.peek(str(tiny_checkpoint))
    other = changed(
        before, "train", micro_batch=1, compile=True, keep_best=3, checkpoint_every=7, valid_pairs=9
    )
    other = changed(other, "scaling", strategy="fsdp", min_workers=1, timeout_s=9)
    protein = before.model.protein.model_copy(update={"checkpointing": True})
    other = other.model_copy(update={"model": before.model.model_copy(update={"protein": protein})})
    check_resume(other, meta, before)
    assert not caplog.records


def test_check_resume_says_what_another_length_does_to_the_schedule(
    tiny_checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    meta, before = checkpoint.peek(str(tiny_checkpoint))
    before = changed(before, "train", max_steps=100)
    check_resume(changed(before, "train", max_steps=200), meta.model_copy(update={"step": 100}), before)
    assert "at step 100 the rate goes from 0 to 0.5" in caplog.text
    with pytest.raises(ConfigError, match=r"is at step 100, past train\.max_steps=50; raise it"):
        check_resume(changed(before, "train", max_steps=50), meta.model_copy(update={"step": 100}), before)


def test_check_resume_refuses_other_data(tiny_checkpoint: Path) -> None:
    meta, before = checkpoint.peek(str(tiny_checkpoint))
    with pytest.raises(ConfigError, match=r"are not those the run was trained on"):
        check_resume(before, meta.model_copy(update={"data_manifest": "other"}), before)
