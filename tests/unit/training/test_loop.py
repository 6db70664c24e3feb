import logging
from pathlib import Path

import pytest
import torch

from forked import ranks
from protclip import checkpoint
from protclip.config.schema import PretrainConfig
from protclip.errors import CheckpointError, TrainingError
from protclip.training import loop
from protclip.training.loop import train
from protclip.training.notice import Notice
from protclip.training.store import CheckpointStore

CPU = torch.device("cpu")


class Recorder:
    """Keeps what the loop reports, asks it for something at a step, dies at another."""

    def __init__(self, die_at=None, asks=None):
        self.die_at = die_at
        self.asks = asks or {}
        self.logged = {}
        self.lines = []
        self.phases = []

    def metrics(self, metrics, step):
        self.logged.setdefault(step, {}).update(metrics)

    def progress(self, step, text):
        self.lines.append((step, text))

    def at(self, step, phase):
        self.phases.append((step, phase))
        if (step, phase) == (self.die_at, "computing"):
            raise KeyboardInterrupt

    def notice(self):
        return self.asks.get(self.phases[-1][0], Notice.NONE)

    def losses(self):
        return {step: m["train/loss/total"] for step, m in self.logged.items() if "train/loss/total" in m}


def config(pairs, model=None, **train_keys):
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
            "run": {"name": "test", "storage": "outputs/runs"},
            "model": {
                "protein": {"source": "esm2-tiny", "max_tokens": 128},
                "text": {"source": "bert-tiny", "trainable": True, "unfreeze_at": 3, "max_tokens": 64},
                "projection_dim": 32,
                "num_prototypes": 16,
                "fusion_heads": 4,
            }
            | (model or {}),
            "optim": {"lr": 2e-3, "encoder_lr_factor": 1.0},
            "train": keys | train_keys,
        }
    )


def run(settings, directory, recorder=None, keep_last=9):
    """Trains with checkpoints below a directory."""
    with CheckpointStore(str(directory), keep_last, 0, "valid/t2p_r10") as store:
        return train(settings, recorder or Recorder(), CPU, store=store)


@pytest.fixture(scope="module")
def uninterrupted(tiny_pairs, tmp_path_factory):
    recorder, directory = Recorder(), tmp_path_factory.mktemp("run")
    return recorder, run(config(tiny_pairs), directory, recorder), directory


def assert_same_weights(one, other, **tolerance):
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(
            other.state_dict()[name], tensor, **tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_loop_learns_and_reports_every_objective(uninterrupted):
    recorder, _, _ = uninterrupted
    losses = recorder.losses()
    assert sorted(losses) == list(range(1, 11))
    assert sum(list(losses.values())[-3:]) < 0.95 * sum(list(losses.values())[:3])
    first = recorder.logged[1]
    total = first["train/loss/gc"] + 0.7 * first["train/loss/bsr"] + 0.3 * first["train/loss/mlm"]
    assert first["train/loss/total"] == pytest.approx(total + first["train/loss/pda"], rel=1e-5)
    assert recorder.lines[-1][0] == 10
    assert "gc" in recorder.lines[-1][1]


def test_loop_validates_on_its_cadence_and_at_the_end(uninterrupted, tiny_pairs, tmp_path):
    recorder, _, _ = uninterrupted
    assert {step for step, m in recorder.logged.items() if "valid/mlm_accuracy" in m} == {5, 10}
    shorter = Recorder()
    run(config(tiny_pairs, max_steps=4), tmp_path, shorter)
    assert {step for step, m in shorter.logged.items() if "valid/p2t_r1" in m} == {4}


def test_loop_repeats_itself_to_the_bit(uninterrupted, tiny_pairs, tmp_path):
    recorder, state, _ = uninterrupted
    again = Recorder()
    assert_same_weights(state.model, run(config(tiny_pairs), tmp_path, again).model, rtol=0, atol=0)
    assert again.losses() == recorder.losses()


@pytest.mark.parametrize("die_at", [2, 6, 9])
def test_killed_and_resumed_run_equals_the_uninterrupted_one(uninterrupted, tiny_pairs, tmp_path, die_at):
    recorder, state, _ = uninterrupted
    with pytest.raises(KeyboardInterrupt):
        run(config(tiny_pairs), tmp_path, Recorder(die_at=die_at))
    rest = Recorder()
    resumed = run(config(tiny_pairs), tmp_path, rest)
    assert_same_weights(state.model, resumed.model, rtol=0, atol=0)
    kept = die_at // 4 * 4
    assert rest.losses() == {step: loss for step, loss in recorder.losses().items() if step > kept}
    assert resumed.position == state.position


def test_asked_to_stop_the_loop_saves_first_and_goes_on_when_run_again(uninterrupted, tiny_pairs, tmp_path):
    _, state, _ = uninterrupted
    stopped = run(config(tiny_pairs), tmp_path, Recorder(asks={6: Notice.STOP}))
    assert stopped.step == checkpoint.complete(str(tmp_path))[0][1].step == 7
    rest = Recorder()
    assert_same_weights(state.model, run(config(tiny_pairs), tmp_path, rest).model, rtol=0, atol=0)
    assert sorted(rest.losses()) == [8, 9, 10]


def test_asked_to_save_the_loop_saves_and_goes_on(tiny_pairs, tmp_path):
    run(config(tiny_pairs, max_steps=4), tmp_path, Recorder(asks={0: Notice.SAVE}))
    assert [meta.step for _, meta in checkpoint.complete(str(tmp_path))] == [4, 1]


def test_microbatches_train_like_one_batch(uninterrupted, tiny_pairs, tmp_path):
    recorder, _, _ = uninterrupted
    parts = Recorder()
    run(config(tiny_pairs, micro_batch=3), tmp_path, parts)
    assert list(parts.losses().values()) == pytest.approx(list(recorder.losses().values()), rel=1e-3)


def test_checkpoint_of_the_loop_says_where_it_stands(uninterrupted):
    _, state, directory = uninterrupted
    loaded = checkpoint.load(str(directory))
    assert loaded.meta.step == 10
    assert (loaded.meta.epoch, loaded.meta.batch_index) == state.position
    assert loaded.config == config(loaded.config.data)
    assert "valid/t2p_r10" in loaded.meta.metrics
    for name, tensor in state.model.state_dict().items():
        assert torch.equal(loaded.weights[name], tensor)


def test_damaged_newest_checkpoint_is_passed_over(uninterrupted, tiny_pairs, tmp_path, caplog):
    _, state, _ = uninterrupted
    run(config(tiny_pairs), tmp_path, Recorder(asks={6: Notice.STOP}))
    newest = checkpoint.complete(str(tmp_path))[0][0]
    weights = next(Path(newest).rglob("model-*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    rest = Recorder()
    with caplog.at_level(logging.WARNING):
        resumed = run(config(tiny_pairs), tmp_path, rest)
    assert newest in caplog.text
    assert min(rest.losses()) == 5
    assert_same_weights(state.model, resumed.model, rtol=0, atol=0)


def test_resuming_reads_no_encoder_source(uninterrupted, tiny_pairs, tmp_path, monkeypatch):
    _, state, _ = uninterrupted
    run(config(tiny_pairs), tmp_path, Recorder(asks={6: Notice.STOP}))

    def gone(*_):
        raise AssertionError("a source was read")

    monkeypatch.setattr(loop, "build", gone)
    assert_same_weights(state.model, run(config(tiny_pairs), tmp_path).model, rtol=0, atol=0)


def test_resuming_another_model_size_is_refused_in_one_sentence(uninterrupted, tiny_pairs):
    _, _, directory = uninterrupted
    with pytest.raises(CheckpointError, match=r"step-00000010: .*num_prototypes is 16 there and 8 here"):
        run(config(tiny_pairs, {"num_prototypes": 8}, max_steps=12), directory)


def test_loop_gives_up_after_too_many_updates_that_are_not_finite(tiny_pairs, tmp_path, monkeypatch):
    real = loop.build

    def broken(*args):
        model = real(*args)
        with torch.no_grad():
            model.mlm_head[0].weight.fill_(torch.inf)
        return model

    monkeypatch.setattr(loop, "build", broken)
    recorder = Recorder()
    settings = config(tiny_pairs, nonfinite_limit=2)
    settings = settings.model_copy(update={"run": settings.run.model_copy(update={"storage": str(tmp_path)})})
    with pytest.raises(TrainingError, match=r"3 updates were left out.*protclip replay"):
        run(settings, tmp_path / "test", recorder)
    assert sorted(recorder.logged) == [1, 2, 3]


def train_as_rank(pairs, directory):
    """What each of two processes does."""
    recorder = Recorder()
    state = run(config(pairs, max_steps=5), directory, recorder)
    return state.model.state_dict(), recorder.logged


@pytest.mark.slow
def test_two_ranks_train_like_one(tiny_pairs, tmp_path):
    alone = Recorder()
    with ranks(train_as_rank, 2, tmp_path, tiny_pairs, tmp_path / "run") as results:
        single = run(config(tiny_pairs, max_steps=5), tmp_path / "alone", alone)
    (first, logged), (second, _) = results
    for name, tensor in single.model.state_dict().items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(
            first[name], tensor, rtol=1e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}"
        )
    for step in range(1, 6):
        for key, value in alone.logged[step].items():
            if key.startswith(("train/loss", "train/grad_norm")):
                assert logged[step][key] == pytest.approx(value, rel=1e-4), (step, key)
