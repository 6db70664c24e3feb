import json
import logging
import math
import statistics
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from protclip import checkpoint
from protclip.data.collate import Collator, TextTokens
from protclip.data.dataset import BatchIterator, PairsDataset, Position
from protclip.data.tokenizer import TextTokenizer
from protclip.errors import TrainingError
from protclip.model.build import build
from protclip.model.flops import training_flops
from protclip.training import freezing, watch
from protclip.training.replica import Replica
from protclip.training.state import TrainState
from protclip.training.step import train_step
from protclip.training.watch import SPIKE_WINDOW, Spikes, Watch, line, peak_tflops, printable
from watched_runs import PLANTED, Recorder, planted, run_uri, settings, train

CPU = torch.device("cpu")


class Waits(TorchDispatchMode):
    """Counts how often this thread asks for the value of a tensor; lists are made past the dispatcher."""

    def __init__(self):
        super().__init__()
        self.count = 0
        self._patch = pytest.MonkeyPatch()

    def __enter__(self):
        real, thread = torch.Tensor.tolist, threading.current_thread()

        def tolist(tensor):
            self.count += threading.current_thread() is thread
            return real(tensor)

        self._patch.setattr(torch.Tensor, "tolist", tolist)
        return super().__enter__()

    def __exit__(self, *args):
        self._patch.undo()
        return super().__exit__(*args)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


class Steps:
    """Training by hand, each step given to a `Watch`."""

    def __init__(self, config):
        self.config = config
        tokenizer = TextTokenizer.load("builtin")
        tokens = TextTokens(tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id)
        train, sizes = config.train, config.model
        collate = Collator(
            config.masking, tokens, sizes.protein.max_tokens, sizes.text.max_tokens, train.seed
        )
        self.model = build(sizes, config.loss, tokenizer.vocab_size, train.seed).train()
        freezing.apply(self.model, sizes, 0)
        self.replica = Replica(self.model, config, CPU)
        self.state = TrainState.create(self.replica, config)
        self.watch = Watch(config, self.state, CPU)
        self.loaded = []
        self._stream = iter(
            BatchIterator(
                PairsDataset(config.data, "train", train.seed),
                collate,
                train.global_batch,
                0,
                1,
                start=Position(),
                micro_batch=train.micro_batch,
            )
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stream.close()

    def step(self, waited_s=0.0):
        loaded = next(self._stream)
        self.loaded.append(loaded)
        result = train_step(
            self.replica,
            loaded.batches,
            self.state.optimizer,
            self.state.schedule,
            self.config.loss,
            global_batch=self.config.train.global_batch,
            seed=0,
            step=self.state.step,
            clip_norm=1.0,
        )
        self.state.step += 1
        self.watch.step(loaded, result, waited_s)


@pytest.fixture
def steps(tiny_pairs, tmp_path):
    with Steps(settings(tiny_pairs, tmp_path, micro_batch=3, peak_tflops=0.5)) as made:
        yield made


def test_metrics_of_several_steps_are_the_means_of_single_ones(watched_run, tiny_pairs, tmp_path):
    recorder = Recorder()
    config = settings(tiny_pairs, tmp_path, max_steps=7, log_every=4, checkpoint_every=99)
    train(config, recorder)
    assert sorted(recorder.logged) == [4, 7]
    for last, of in ((4, range(1, 5)), (7, range(5, 8))):
        for name, value in recorder.logged[last].items():
            singles = [watched_run.logged[step].get(name) for step in of]
            if name.startswith(("train/loss", "train/grad_norm")):
                assert value == pytest.approx(statistics.fmean(singles), rel=1e-6), name
            elif name.startswith(("train/lr", "train/temp", "train/pda_temp", "train/epoch", "train/skip")):
                assert value == pytest.approx(singles[-1], rel=1e-6), name
    assert recorder.logged[7]["train/epoch"] == 1


def test_metrics_are_what_a_plain_count_gives(steps, monkeypatch):
    steps.watch._since = 0.0
    for waited_s in (1.0, 3.0):
        steps.step(waited_s)
    monkeypatch.setattr(time, "perf_counter", lambda: 10.0)
    metrics = steps.watch.metrics()
    batches = [batch for loaded in steps.loaded for batch in loaded.batches]
    lengths = [n for batch in batches for n in (batch.tokens_BL != 1).sum(1).tolist()]
    assert len(batches) == 6
    assert len(lengths) == 16
    assert metrics["train/residues_per_s"] == pytest.approx((sum(lengths) - 2 * 16) / 10)
    assert metrics["train/step_s"] == 5
    assert metrics["train/data_wait"] == pytest.approx(0.4)
    assert metrics["train/padding"] == pytest.approx(
        statistics.fmean(loaded.padding_share for loaded in steps.loaded)
    )
    assert metrics["train/cropped"] == pytest.approx(lengths.count(50) / 16, abs=1 / 16)
    assert 0 < metrics["train/cropped"] < 1
    assert 0 <= metrics["train/cut_texts"] <= 1
    flops = training_flops(steps.model, batches)
    assert metrics["train/tflops"] == pytest.approx(flops / 10 / 1e12)
    assert metrics["train/mfu"] == pytest.approx(flops / 10 / 1e12 / 0.5)
    assert metrics["train/temperature"] == pytest.approx(1 / steps.model.scale().item())
    assert metrics["train/pda_temperature"] == pytest.approx(math.exp(-steps.model.log_pda_scale.item()))
    assert 0.05 < metrics["train/memory_gb"] < 50
    assert (metrics["train/skipped"], metrics["train/spike"]) == (0, 0)
    parts = [name for name in metrics if name.startswith("train/grad_norm/")]
    assert {"train/grad_norm/protein_encoder", "train/grad_norm/fusion"} <= set(parts)
    assert "gc" in line(metrics)


def test_time_of_a_pause_is_no_time_of_a_step(steps):
    steps.step()
    with steps.watch.paused():
        time.sleep(0.5)
    elapsed = time.perf_counter() - steps.watch._since
    assert steps.watch.metrics()["train/step_s"] == pytest.approx(elapsed, abs=0.2)


def test_nothing_waits_for_the_device_between_logs(steps):
    steps.step()  # Optimizer state is made in the first.
    with Waits() as waits:
        for _ in range(3):
            steps.step()
    assert waits.count == 0
    with Waits() as waits:
        steps.watch.metrics()
    assert waits.count == 1
    with Waits() as waits:
        assert torch.ones(1).item() == torch.ones(1)
    assert waits.count == 2


def test_update_that_is_not_finite_is_skipped_counted_and_written_down(planted_run):
    skipped = {step: m["train/skipped"] for step, m in planted_run.logged.items()}
    (note,) = Path(run_uri(planted_run.config), "nonfinite").iterdir()
    written = json.loads(note.read_text())
    step = written["step"]
    assert note.name == f"step-{step:08}.json"
    assert skipped == {s: float(s >= step) for s in range(1, 8)}
    assert "train/loss/total" not in planted_run.logged[step]
    assert written["values"]["loss/gc"] == written["values"]["grad_norm"] == "nan"
    assert math.isfinite(written["values"]["loss/mlm"])
    assert (written["epoch"], written["batch_index"], written["seed"]) == (0, step - 1, 0)
    assert PLANTED in written["accession"]
    assert len(set(written["accession"])) == len(set(written["sampling_key"])) == 8


def test_note_names_the_pairs_the_step_was_fed(planted_run, tiny_pairs):
    (note,) = Path(run_uri(planted_run.config), "nonfinite").iterdir()
    written = json.loads(note.read_text())
    with Steps(planted_run.config) as steps:
        for _ in range(written["step"]):
            steps.step()
    assert steps.loaded[-1].keys.tolist() == written["sampling_key"]
    table = pq.read_table(tiny_pairs / "train", columns=["accession", "sampling_key"])
    names = dict(zip(table["sampling_key"].to_pylist(), table["accession"].to_pylist(), strict=True))
    assert [names[key] for key in written["sampling_key"]] == written["accession"]


def test_skipped_update_leaves_weights_and_moments_to_the_bit(planted_run):
    saved = {meta.step: (uri, meta) for uri, meta in checkpoint.complete(run_uri(planted_run.config))}
    step = next(s for s, metrics in planted_run.logged.items() if metrics["train/skipped"])
    tensors = {}
    for number in (step - 1, step, step + 1):
        uri, meta = saved[number]
        directory = checkpoint.fetch(uri, meta)
        tensors[number] = {
            (role, name): tensor
            for role in (checkpoint.MODEL, checkpoint.OPTIMIZER)
            for name, tensor in checkpoint.Tensors(directory, meta, role).items()
        }
    before, skipped, after = tensors.values()
    assert any(name.startswith("step/") for _, name in before)
    assert all(torch.equal(before[key], skipped[key]) for key in before)
    assert not all(torch.equal(skipped[key], after[key]) for key in after)
    assert all(tensor.isfinite().all() for tensor in after.values())
    assert [saved[n][1].skipped for n in (step - 1, step, step + 1)] == [0, 1, 1]


def test_run_past_the_limit_ends_and_names_file_and_command(tiny_pairs, tmp_path, caplog):
    config = settings(tiny_pairs, tmp_path, max_steps=30, nonfinite_limit=1, checkpoint_every=3, log_every=99)
    with planted(), caplog.at_level(logging.WARNING), pytest.raises(TrainingError) as caught:
        train(config)
    notes = sorted(Path(run_uri(config), "nonfinite").iterdir())
    last = json.loads(notes[-1].read_text())["step"]
    assert len(notes) == 2
    assert 6 < last <= 12
    assert str(notes[-1]) in str(caught.value)
    assert f"protclip replay run={run_uri(config)} step={last}" in str(caught.value)
    assert "2 updates were left out" in str(caught.value)
    assert caplog.text.count("update left out, not finite: loss/total, loss/gc") == 2
    # Run again, it goes on counting where it was, and ends in the same way.
    with planted(), pytest.raises(TrainingError, match="2 updates were left out"):
        train(config)


def test_note_that_cannot_be_written_is_told_and_stops_nothing(steps, monkeypatch, caplog):
    (Path(run_uri(steps.config)).parent).mkdir(exist_ok=True)
    Path(run_uri(steps.config)).write_text("a file where the run's folder should be")
    steps.model.mlm_head[0].weight.data.fill_(math.inf)
    steps.step()
    with caplog.at_level(logging.WARNING):
        assert steps.watch.metrics()["train/skipped"] == 1
    assert "step 1: update left out, not finite: loss/total, loss/mlm" in caplog.text
    assert "could not be written down" in caplog.text


def test_spikes_are_told_by_robust_deviations():
    spikes = Spikes()
    losses = [3 + 0.1 * math.sin(step) for step in range(60)]
    assert all(spikes.deviations(loss) < 3 for loss in losses)
    assert spikes.deviations(4.0) > 6
    assert spikes.deviations(3.05) < 3, "one spike does not hide the next"
    assert spikes.deviations(4.0) > 6


def test_spikes_of_a_loss_that_hardly_moves_or_of_few_steps_are_none():
    spikes = Spikes()
    assert [spikes.deviations(loss) for loss in (1.0, 100.0, 1.0)] == [0, 0, 0]
    flat = Spikes()
    assert all(flat.deviations(2.0) == 0 for _ in range(30))
    assert flat.deviations(2.01) == pytest.approx(0.5)


def test_spikes_are_noted_once_in_a_window():
    spikes = Spikes()
    noted = [step for step in range(1, 3 * SPIKE_WINDOW) if spikes.worth_a_note(step, 9.0)]
    assert noted == [1, 1 + SPIKE_WINDOW, 1 + 2 * SPIKE_WINDOW]
    assert not Spikes().worth_a_note(1, 5.9)


def test_loss_that_jumps_is_a_metric_a_warning_and_a_file(tiny_pairs, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(watch, "SPIKE_FEWEST", 3)
    monkeypatch.setattr(watch, "SMALLEST_DEVIATION", 0.5)
    with Steps(settings(tiny_pairs, tmp_path)) as steps:
        for _ in range(4):
            steps.step()
        assert steps.watch.metrics()["train/spike"] < 6
        steps.model.log_scale.data.fill_(9.0)
        steps.model.protein_projection[2].bias.data.fill_(50.0)
        steps.step()
        with caplog.at_level(logging.WARNING):
            assert steps.watch.metrics()["train/spike"] > 6
        steps.watch.check()
    assert "step 5: loss" in caplog.text
    note = json.loads(Path(run_uri(steps.config), "spikes", "step-00000005.json").read_text())
    assert len(note["accession"]) == 8
    assert "deviations above" in note["what"]


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("Some New One", None),
    ],
)
def test_peak_is_looked_up_by_the_name_of_the_gpu(tiny_pairs, tmp_path, monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    cuda = torch.device("cuda", 0)
    assert peak_tflops(settings(tiny_pairs, tmp_path), cuda) == peak
    assert peak_tflops(settings(tiny_pairs, tmp_path, precision="fp32"), cuda) is None
    assert peak_tflops(settings(tiny_pairs, tmp_path, peak_tflops=7), cuda) == 7
    assert peak_tflops(settings(tiny_pairs, tmp_path), CPU) is None


def test_printable_is_json_of_every_number():
    value = {"a": [1.5, math.nan, {"b": -math.inf}], "c": "text", "d": 2}
    assert json.loads(json.dumps(printable(value), allow_nan=False)) == {
        "a": [1.5, "nan", {"b": "-inf"}],
        "c": "text",
        "d": 2,
    }
