"""Checkpoints on an object store, and runs that are killed while they save."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import killed_saves
from faulty_s3 import FaultyS3, error
from protclip import checkpoint, storage
from protclip.config.schema import PretrainConfig
from protclip.errors import CheckpointError
from protclip.training import store as store_module
from protclip.training.store import CheckpointStore
from small_state import METRIC, holds, save, state_at, tensors

REFUSED = error("403 Forbidden", "AccessDenied")
"""A fault that no client repeats by itself."""


def killed(place: str, count: int) -> dict[str, int]:
    """Trials at so many moments, in a process that may fork."""
    command = [sys.executable, killed_saves.__file__, place, str(count)]
    environment = os.environ | {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def open_store(run: str, keep_last: int = 2) -> CheckpointStore:
    return CheckpointStore(run, keep_last, keep_best=0, best_metric=METRIC)


@pytest.fixture
def run(bucket: str, faults: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return f"{bucket}/runs/one"


def test_run_killed_at_any_moment_of_a_save_on_disk_goes_on_from_an_intact_checkpoint(tmp_path: Path) -> None:
    assert killed(str(tmp_path), 20)["trials"] == 20


def test_run_killed_at_any_moment_of_a_save_on_s3_goes_on_from_an_intact_checkpoint(run: str) -> None:
    assert killed(run, 6)["trials"] == 6


def test_store_on_s3_gives_back_what_was_saved_and_keeps_the_newest(run: str) -> None:
    with open_store(run) as store:
        for step in (1, 2, 3):
            save(store, state_at(step))
    found = open_store(run).newest()
    assert holds(found, state_at(3))
    assert [meta.step for _, meta in checkpoint.complete(run)] == [3, 2]
    assert len(storage.list_directories(run)) == 2


def test_store_on_s3_passes_over_a_flipped_byte(run: str, caplog: pytest.LogCaptureFixture) -> None:
    with open_store(run) as store:
        for step in (1, 2):
            save(store, state_at(step))
    [damaged] = (f.uri for f in storage.list_files(f"{run}/step-00000002") if "/optimizer-" in f.uri)
    content = bytearray(storage.read_bytes(damaged))
    content[-1] ^= 1
    storage.write_bytes(damaged, bytes(content))
    assert holds(open_store(run).newest(), state_at(1))
    assert damaged in caplog.text


def test_store_on_s3_goes_on_when_the_storage_was_away(
    run: str, faults: FaultyS3, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store_module, "FIRST_PAUSE_S", 0.01)
    rule = faults.fail("^(PUT|POST) ", REFUSED, times=5)
    with open_store(run) as store:
        save(store, state_at(1))
    assert rule.done == 5
    assert "training goes on" in caplog.text
    assert holds(open_store(run).newest(), state_at(1))


def test_store_on_s3_keeps_the_older_checkpoint_when_the_storage_stays_away(
    run: str, faults: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(run) as store:
        save(store, state_at(1))
    monkeypatch.setattr(store_module, "RETRY_S", 0)
    faults.fail("meta.json", REFUSED)
    store = open_store(run)
    save(store, state_at(2))
    with pytest.raises(CheckpointError, match=r"meta\.json.*older ones are untouched"):
        store.wait()
    faults.reset()
    assert holds(open_store(run).newest(), state_at(1))


def test_load_on_s3_leaves_the_optimizer_where_it_is(run: str, faults: FaultyS3) -> None:
    with open_store(run) as store:
        save(store, state_at(2))
    faults.reset()
    loaded = checkpoint.load(run)
    expected = tensors(state_at(2))
    assert loaded.weights.keys() == {name for name in expected if "/" not in name}
    assert isinstance(loaded.config, PretrainConfig)
    assert faults.count("GET .*/optimizer-") == 0
    assert faults.count("GET .*/model-") > 0
