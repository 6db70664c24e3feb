import dataclasses
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from protclip import checkpoint
from protclip.config.schema import PretrainConfig
from protclip.data.dataset import LoadedBatch, Position
from protclip.errors import CheckpointError
from protclip.training.loop import Resume, _Meter, train
from protclip.training.state import TrainState

CPU = torch.device("cpu")


class Recorder:
    """Keeps what the loop reports; saves under `directory`, and dies after the save of `die_at`."""

    def __init__(self, directory=None, die_at=None):
        self.directory = directory
        self.die_at = die_at
        self.logged = {}
        self.lines = []

    def metrics(self, metrics, step):
        self.logged.setdefault(step, {}).update(metrics)

    def progress(self, step, text):
        self.lines.append((step, text))

    def save(self, write, metrics, step):
        if self.directory:
            write(self.directory / f"step-{step}")
        if step == self.die_at:
            raise KeyboardInterrupt

    def losses(self):
        return {step: m["train/loss/total"] for step, m in self.logged.items() if "train/loss/total" in m}


def config(pairs, **train_keys):
    keys = {
        "global_batch": 8,
        "max_steps": 10,
        "log_every": 1,
        "valid_every": 5,
        "checkpoint_every": 4,
        "seed": 3,
    }
    return PretrainConfig.model_validate(
        {
            "data": str(pairs),
            "run": {"name": "test"},
            "model": {
                "protein": {"source": "esm2-tiny", "max_tokens": 128},
                "text": {"source": "bert-tiny", "trainable": True, "max_tokens": 64},
                "projection_dim": 32,
                "num_prototypes": 16,
                "fusion_heads": 4,
            },
            "optim": {"lr": 2e-3, "encoder_lr_factor": 1.0},
            "train": keys | train_keys,
        }
    )


@pytest.fixture(scope="module")
def uninterrupted(tiny_pairs, tmp_path_factory):
    recorder = Recorder(tmp_path_factory.mktemp("run"))
    return recorder, train(config(tiny_pairs), recorder, CPU)


def assert_same_weights(one, other, **tolerance):
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(
            other.state_dict()[name], tensor, **tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_loop_learns_and_reports_every_objective(uninterrupted):
    recorder, _ = uninterrupted
    losses = recorder.losses()
    assert sorted(losses) == list(range(1, 11))
    assert sum(list(losses.values())[-3:]) < 0.95 * sum(list(losses.values())[:3])
    first = recorder.logged[1]
    total = first["train/loss/gc"] + 0.7 * first["train/loss/bsr"] + 0.3 * first["train/loss/mlm"]
    assert first["train/loss/total"] == pytest.approx(total + first["train/loss/pda"], rel=1e-5)
    assert first["train/residues_per_s"] > 0
    assert 0 <= first["train/padding"] < 1


def test_meter_gives_the_shares_of_waiting_and_padding():
    loaded = LoadedBatch(batch=None, after=Position(), num_residues=100, padding_share=0.25)
    meter = _Meter(started=time.perf_counter() - 10)
    meter.add(loaded, 1.0)
    meter.add(dataclasses.replace(loaded, num_residues=300, padding_share=0.75), 2.0)
    metrics = meter.metrics(CPU)
    assert metrics["train/data_wait"] == pytest.approx(0.3, rel=0.01)
    assert metrics["train/padding"] == pytest.approx(0.5)
    assert metrics["train/residues_per_s"] == pytest.approx(40, rel=0.01)
    assert metrics["train/step_s"] == pytest.approx(5, rel=0.01)


def test_loop_validates_retrieval_reconstruction_and_cosine(uninterrupted):
    recorder, _ = uninterrupted
    assert {step for step, m in recorder.logged.items() if "valid/mlm_accuracy" in m} == {5, 10}
    valid = recorder.logged[10]
    for name in (
        "p2t_r1",
        "t2p_r10",
        "p2t_mrr",
        "matched_cosine",
        "mismatched_cosine",
        "bsr_loss",
        "bsr_loss_without_text",
    ):
        assert f"valid/{name}" in valid
    assert valid["valid/bsr_loss"] != valid["valid/bsr_loss_without_text"]


def test_loop_repeats_itself_to_the_bit(uninterrupted, tiny_pairs):
    recorder, state = uninterrupted
    again = Recorder()
    assert_same_weights(state.model, train(config(tiny_pairs), again, CPU).model, rtol=0, atol=0)
    assert again.losses() == recorder.losses()


def test_killed_and_resumed_run_equals_the_uninterrupted_one(uninterrupted, tiny_pairs, tmp_path):
    recorder, state = uninterrupted
    with pytest.raises(KeyboardInterrupt):
        train(config(tiny_pairs), Recorder(tmp_path, die_at=4), CPU)
    rest = Recorder(tmp_path)
    resumed = train(config(tiny_pairs), rest, CPU, resume=Resume(tmp_path / "step-4", "there"))
    assert_same_weights(state.model, resumed.model, rtol=0, atol=0)
    assert rest.losses() == {step: loss for step, loss in recorder.losses().items() if step > 4}
    assert resumed.position == state.position


def test_checkpoint_of_the_loop_says_where_it_stands(uninterrupted):
    recorder, state = uninterrupted
    loaded = checkpoint.load(str(recorder.directory))
    assert loaded.meta.step == 10
    assert (loaded.meta.epoch, loaded.meta.batch_index) == state.position
    assert loaded.config == config(loaded.config.data)
    for name, tensor in state.model.state_dict().items():
        assert torch.equal(loaded.weights[name], tensor)


def test_resuming_another_model_size_is_refused_in_one_sentence(uninterrupted, tiny_pairs):
    recorder, state = uninterrupted
    other = config(tiny_pairs).model_copy(
        update={"model": config(tiny_pairs).model.model_copy(update={"num_prototypes": 8})}
    )
    from protclip.model.protclip import build

    fresh = TrainState.create(
        build(other.model, other.loss, state.model.architecture.text.vocab_size, 0), other
    )
    with pytest.raises(CheckpointError, match=r"step-10: these weights belong to another model.*bank_PD"):
        fresh.restore(recorder.directory / "step-10", "step-10")


def run_rank(rank, port, pairs, directory):
    """What each of two processes does."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    recorder = Recorder()
    state = train(config(pairs, max_steps=5), recorder, CPU)
    torch.save((state.model.state_dict(), recorder.logged), Path(directory, f"{rank}.pt"))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_train_like_one(tiny_pairs, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, __file__]
    ranks = [subprocess.Popen([*command, str(r), str(port), tiny_pairs, tmp_path]) for r in range(2)]
    alone = Recorder()
    single = train(config(tiny_pairs, max_steps=5), alone, CPU)
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    (first, logged), (second, _) = (torch.load(tmp_path / f"{r}.pt") for r in range(2))
    for name, tensor in single.model.state_dict().items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(
            first[name], tensor, rtol=1e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}"
        )
    for step in range(1, 6):
        for key, value in alone.logged[step].items():
            if key.startswith(("train/loss", "train/grad_norm")):
                assert logged[step][key] == pytest.approx(value, rel=1e-4), (step, key)


if __name__ == "__main__":
    run_rank(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
