"""The pre-training job on Ray Train: checked first, remembered, continued by submitting it again."""

import pytest
from mlflow.tracking import MlflowClient

from protclip import checkpoint, storage
from protclip.cluster.pretrain import check_data, check_resume, pretrain
from protclip.config.schema import PretrainConfig
from protclip.data.manifest import TOKENIZER_NAME, PairsManifest
from protclip.errors import ConfigError, DataError


def config(pairs, storage_uri="outputs/runs", tracking=None, **sections):
    values = {
        "data": str(pairs),
        "run": {"name": "job", "storage": storage_uri},
        "model": {
            "protein": {"source": "esm2-tiny", "max_tokens": 128},
            "text": {"source": "bert-tiny", "trainable": True, "max_tokens": 64},
            "projection_dim": 32,
            "num_prototypes": 16,
            "fusion_heads": 4,
        },
        "train": {"global_batch": 8, "max_steps": 4, "log_every": 1, "valid_every": 4, "checkpoint_every": 2},
        "scaling": {"num_workers": 2, "use_gpu": False},
        "tracking": {"enabled": tracking is not None, "uri": tracking},
    }
    for name, keys in sections.items():
        values[name] = values.get(name, {}) | keys
    return PretrainConfig.model_validate(values)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_pretrain_continues_its_run_on_object_storage_when_submitted_again(tiny_pairs, bucket, tmp_path):
    tracking = f"sqlite:///{tmp_path}/mlflow.db"
    first = pretrain(config(tiny_pairs, f"{bucket}/runs", tracking))
    assert first["checkpoint"] == f"{bucket}/runs/job/step-00000004"
    assert "valid/p2t_r10" in first["metrics"]
    assert first["model"].startswith("models:/")

    again = pretrain(config(tiny_pairs, f"{bucket}/runs", tracking, train={"max_steps": 6}))
    assert again["run_id"] == first["run_id"]
    loaded = checkpoint.load(f"{bucket}/runs/job")
    assert loaded.uri == again["checkpoint"] == f"{bucket}/runs/job/step-00000006"
    assert loaded.meta.step == 6
    assert (loaded.meta.epoch, loaded.meta.batch_index) == (0, 6)

    client = MlflowClient(tracking)
    run = client.get_run(first["run_id"])
    steps = [m.step for m in client.get_metric_history(first["run_id"], "train/loss/total")]
    assert sorted(steps) == [1, 2, 3, 4, 5, 6]
    assert run.info.status == "FINISHED"
    assert run.data.params["loss.bsr"] == "0.7"
    assert run.data.tags["data_manifest"] == PairsManifest.digest(str(tiny_pairs))
    assert run.data.tags["checkpoint"] == again["checkpoint"]
    assert {a.path for a in client.list_artifacts(first["run_id"], "data")} == {"data/manifest.json"}


def test_check_data_refuses_a_batch_larger_than_the_data(tiny_pairs):
    with pytest.raises(DataError, match=r"48 training pairs are fewer than train\.global_batch=64"):
        check_data(config(tiny_pairs, train={"global_batch": 64}))


def test_check_data_refuses_pairs_of_another_tokenizer(tiny_pairs, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "protein"]))
    other = config(tiny_pairs, model={"text": {"source": str(tmp_path)}})
    with pytest.raises(ConfigError, match=r"tokenised with 'builtin'.*run sample_data again with tokenizer="):
        check_data(other)


def test_check_data_refuses_a_tokenizer_file_that_is_not_the_manifests(tiny_pairs, tmp_path):
    manifest = PairsManifest.load(str(tiny_pairs))
    entry = manifest.tokenizer.model_copy(update={"fingerprint": "another"})
    manifest.model_copy(update={"tokenizer": entry}).save(str(tmp_path))
    storage.copy_to(tiny_pairs / TOKENIZER_NAME, str(tmp_path / TOKENIZER_NAME))
    with pytest.raises(DataError, match=r"tokenizer\.json is not the tokenizer the manifest names"):
        check_data(config(tmp_path))


def test_check_data_says_that_there_are_no_pairs(tmp_path):
    with pytest.raises(DataError, match=r"no manifest\.json here; give the output of a finished job"):
        check_data(config(tmp_path))


def test_check_resume_names_the_keys_that_differ_and_allows_a_longer_run(tiny_checkpoint):
    meta, before = checkpoint.peek(str(tiny_checkpoint))
    longer = before.model_copy(update={"train": before.train.model_copy(update={"max_steps": 99_999})})
    check_resume(longer, meta, before)
    other = before.model_copy(update={"optim": before.optim.model_copy(update={"lr": 0.5})})
    with pytest.raises(ConfigError, match=r"run 'tiny' exists with other settings.*optim\.lr: 1e-05 -> 0\.5"):
        check_resume(other, meta, before)


def test_check_resume_refuses_other_data(tiny_checkpoint):
    meta, before = checkpoint.peek(str(tiny_checkpoint))
    with pytest.raises(ConfigError, match=r"are not those the run was trained on"):
        check_resume(before, meta.model_copy(update={"data_manifest": "other"}), before)
