import json
from pathlib import Path

import pytest
import torch

from protclip import checkpoint
from protclip.cli import run_job
from protclip.config.schema import ReplayConfig
from protclip.data.dataset import PairsDataset
from protclip.errors import CheckpointError, DataError
from protclip.training.replay import position_of, replay
from watched_runs import PLANTED, run_uri


def looked_at(run, step, **keys):
    return replay(ReplayConfig(run=run_uri(run.config), step=step, **keys))


def test_replay_gives_the_losses_and_gradients_of_the_step(watched_run):
    report = looked_at(watched_run, 7, top=99)
    logged = watched_run.logged[7]
    assert report["updates_missing"] == 0
    assert (report["epoch"], report["batch_index"]) == (1, 0)
    for term in ("total", "gc", "bsr", "mlm", "pda"):
        assert report["losses"][term] == pytest.approx(logged[f"train/loss/{term}"], rel=1e-5), term
    assert report["grad_norm"] == pytest.approx(logged["train/grad_norm"], rel=1e-4)
    assert report["not_finite"] == {"weights": [], "pairs": [], "gradients": []}
    pairs = report["largest"]["pairs"]
    assert len({pair["accession"] for pair in pairs}) == 8
    norms = [pair["grad_norm"] for pair in pairs]
    assert norms == sorted(norms, reverse=True)
    for term in ("bsr", "mlm", "pda"):
        assert sum(pair["losses"][term] for pair in pairs) == pytest.approx(report["losses"][term], rel=1e-5)
    parts = [v for k, v in report["largest"]["gradients"].items() if k.startswith("fusion.")]
    assert sum(n**2 for n in parts) ** 0.5 == pytest.approx(logged["train/grad_norm/fusion"], rel=1e-4)


def test_replay_names_the_planted_pair_and_where_it_broke(planted_run):
    step = next(s for s, metrics in planted_run.logged.items() if metrics["train/skipped"])
    report = looked_at(planted_run, step)
    (pair,) = report["not_finite"]["pairs"]
    assert pair["accession"] == PLANTED
    assert pair["first"] == "output of text_encoder.bert.embeddings.LayerNorm"
    assert pair["grad_norm"] == report["losses"]["gc"] == "nan"
    assert report["not_finite"]["weights"] == []
    assert "text_projection.0.weight" in report["not_finite"]["gradients"]
    assert len(report["largest"]["pairs"]) == 7
    assert 0 < report["grad_norm"] < 1e3
    json.dumps(report, allow_nan=False)


def test_replay_says_how_far_its_weights_are_from_the_steps(watched_run, tmp_path, caplog):
    run = tmp_path / "run"
    run.mkdir()
    for kept in (2, 6):
        source = Path(run_uri(watched_run.config), f"step-{kept:08}")
        (run / source.name).symlink_to(source, target_is_directory=True)
    older = replay(ReplayConfig(run=str(run), step=5))
    assert older["updates_missing"] == 2
    assert "weights of 2 updates before the step" in caplog.text
    assert older["losses"]["mlm"] == pytest.approx(watched_run.logged[5]["train/loss/mlm"], rel=0.5)
    newer = replay(ReplayConfig(run=str(run), step=1))
    assert newer["updates_missing"] == -2
    assert "weights of 2 updates after the step" in caplog.text


def test_replay_tells_a_weight_that_is_not_finite(watched_run, monkeypatch):
    load = checkpoint.load

    def damaged(uri):
        loaded = load(uri)
        loaded.weights["mlm_head.0.bias"][3] = torch.inf
        return loaded

    monkeypatch.setattr(checkpoint, "load", damaged)
    report = looked_at(watched_run, 3)
    assert report["not_finite"]["weights"] == ["mlm_head.0.bias"]
    assert len(report["not_finite"]["pairs"]) == 8
    assert {pair["first"] for pair in report["not_finite"]["pairs"]} == {"output of mlm_head.0"}


def test_replay_names_a_gradient_where_the_forward_pass_is_sound(watched_run, monkeypatch):
    from protclip.model.protclip import ProtCLIP

    forward = ProtCLIP.forward

    def rooted(model, batch, noise_BKP):
        output = forward(model, batch, noise_BKP)
        logits_MV = output.mlm_logits_MV
        output.mlm_logits_MV = logits_MV + (logits_MV - logits_MV.detach()).sqrt()
        return output

    monkeypatch.setattr(ProtCLIP, "forward", rooted)
    pairs = looked_at(watched_run, 2)["not_finite"]["pairs"]
    assert {pair["first"] for pair in pairs} == {"gradient at the output of mlm_head.3"}


def test_position_of_is_where_every_epoch_has_its_whole_batches(tiny_pairs):
    dataset = PairsDataset(str(tiny_pairs), "train", 0)
    assert [position_of(dataset, 20, step) for step in range(1, 6)] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
        (2, 0),
    ]


def test_replay_refuses_other_pairs_and_a_run_without_checkpoints(watched_run, tiny_pairs, tmp_path):
    other = tmp_path / "pairs"
    other.mkdir()
    (other / "manifest.json").write_text((tiny_pairs / "manifest.json").read_text() + " ")
    with pytest.raises(DataError, match="not the pairs this run was trained on; name theirs by pairs=URI"):
        looked_at(watched_run, 2, pairs=str(other))
    with pytest.raises(CheckpointError, match="no complete checkpoint here; give the directory of a run"):
        replay(ReplayConfig(run=str(tmp_path / "none"), step=2))


def test_replay_on_the_command_line_shows_tables_and_ends_with_json(planted_run, capfd):
    step = next(s for s, metrics in planted_run.logged.items() if metrics["train/skipped"])
    assert run_job("replay", [f"run={run_uri(planted_run.config)}", f"step={step}", "top=2"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out.splitlines()[-1])["not_finite"]["pairs"][0]["accession"] == PLANTED
    assert "Pairs that are not finite" in err
    assert f"{PLANTED} " in err
    assert "Largest gradients by parameter" in err
