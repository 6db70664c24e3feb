import logging
import queue
import threading
from collections import namedtuple
from contextlib import contextmanager

import pytest

from protclip import checkpoint, parallel, storage
from protclip.errors import CheckpointError, DataError
from protclip.training import store as store_module
from protclip.training.store import CheckpointStore
from small_state import CONFIG, METRIC, holds, save, state_at, update

PATIENCE_S = 30


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


def open_store(run, keep_last=2, keep_best=0):
    return CheckpointStore(str(run), keep_last, keep_best, METRIC)


def steps(run):
    return sorted(int(path.parent.name.removeprefix("step-")) for path in run.glob("*/meta.json"))


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("checkpoint")]


class Gate:
    """Holds every file that is written back until it is opened."""

    def __init__(self, monkeypatch):
        self.arrivals: queue.Queue[str] = queue.Queue()
        self._opened = threading.Event()
        write = storage.atomic_writer

        @contextmanager
        def held(uri):
            self.arrivals.put(uri)
            assert self._opened.wait(PATIENCE_S)
            with write(uri) as sink:
                yield sink

        monkeypatch.setattr(storage, "atomic_writer", held)

    def open(self):
        self._opened.set()


@pytest.fixture
def gate(monkeypatch):
    gate = Gate(monkeypatch)
    yield gate
    gate.open()


def fail(monkeypatch, times, text="the store is away"):
    """Lets the first files not be written, and has retries follow at once."""
    write, left = storage.atomic_writer, [times]

    @contextmanager
    def failing(uri):
        left[0] -= 1
        if left[0] >= 0:
            raise DataError(f"{uri}: {text}")
        with write(uri) as sink:
            yield sink

    monkeypatch.setattr(storage, "atomic_writer", failing)
    monkeypatch.setattr(store_module, "FIRST_PAUSE_S", 0.001)


@contextmanager
def as_rank(rank, world_size):
    """This process as one of several, each of which makes its own store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "rank", lambda: rank)
        patch.setattr(parallel, "world_size", lambda: world_size)
        patch.setattr(parallel, "from_rank_0", lambda value: "attempt" if isinstance(value, str) else value)
        yield


def test_store_is_empty_before_the_first_save(run):
    assert open_store(run).newest() is None


def test_store_gives_back_what_was_saved(run):
    state = state_at(12)
    state.skipped = 3
    with open_store(run) as store:
        store.save(state, CONFIG, "words", "digest", "run-7", {"a": 1.5, "b": float("nan")})
    found = open_store(run).newest()
    assert holds(found, state)
    assert found.uri == str(run / "step-00000012")
    meta = found.meta
    assert (meta.skipped, meta.run_id, meta.data_manifest, meta.world_size) == (3, "run-7", "digest", 1)
    assert meta.metrics == {"a": 1.5}
    assert checkpoint.peek(found.uri) == (meta, CONFIG)
    assert checkpoint.read_text(found.uri, meta, checkpoint.TOKENIZER) == "words"


def test_store_does_not_hold_the_loop_while_it_writes(run, gate):
    state, saved = state_at(3), state_at(3)
    with open_store(run) as store:
        save(store, state)
        gate.arrivals.get(timeout=PATIENCE_S)
        for _ in range(5):
            update(state)
        assert steps(run) == []
        gate.open()
    assert holds(open_store(run).newest(), saved)


def test_store_makes_the_next_save_wait_for_the_one_under_way(run, gate):
    with open_store(run) as store:
        save(store, state_at(1))
        gate.arrivals.get(timeout=PATIENCE_S)
        store.metrics()
        second = threading.Thread(target=save, args=(store, state_at(2)))
        second.start()
        second.join(0.2)
        assert second.is_alive()
        gate.open()
        second.join(PATIENCE_S)
        assert store.metrics()["checkpoint/wait_s"] > 0.1
    assert steps(run) == [1, 2]


def test_store_leaves_no_thread_and_can_go_on_after_waiting(run):
    store = open_store(run)
    for step in (1, 2):
        save(store, state_at(step))
        store.wait()
        assert threads() == []
        assert steps(run)[-1] == step


def test_store_measures_each_save_once(run):
    store = open_store(run)
    save(store, state_at(1))
    store.wait()
    measured = store.metrics()
    assert set(measured) == {f"checkpoint/{name}" for name in ("wait_s", "hold_s", "write_s", "bytes")}
    on_disk = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    assert 0 < measured["checkpoint/bytes"] < on_disk
    assert store.metrics() == {}


def test_store_tries_again_while_the_storage_is_away(run, monkeypatch, caplog):
    fail(monkeypatch, times=5)
    with open_store(run) as store:
        save(store, state_at(1))
    assert holds(open_store(run).newest(), state_at(1))
    assert caplog.text.count("training goes on") == 5


def test_store_says_so_when_the_storage_stays_away_and_keeps_what_there_is(run, monkeypatch):
    with open_store(run) as store:
        save(store, state_at(1))
    monkeypatch.setattr(store_module, "RETRY_S", 0.01)
    fail(monkeypatch, times=1000)
    store = open_store(run)
    save(store, state_at(2))
    with pytest.raises(CheckpointError, match=r"step-00000002/.*the store is away.*older ones are untouched"):
        save(store, state_at(3))
    assert holds(store.newest(), state_at(1))
    store.wait()


def test_store_says_how_much_room_a_full_disk_lacks(run, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda _: usage(1000, 900, 100))
    monkeypatch.setattr(store_module, "RETRY_S", 0)
    store = open_store(run)
    save(store, state_at(1))
    with pytest.raises(CheckpointError, match=r"step-00000001/.* bytes are needed and 100 are free"):
        store.wait()
    assert threads() == []


def save_and_fail(store):
    save(store, state_at(1))
    raise KeyError("training")


def test_store_finishes_what_it_writes_when_training_fails(run):
    with pytest.raises(KeyError, match="training"), open_store(run) as store:
        save_and_fail(store)
    assert holds(open_store(run).newest(), state_at(1))


def test_store_that_cannot_finish_does_not_hide_why_training_failed(run, monkeypatch, caplog):
    fail(monkeypatch, times=1000)
    monkeypatch.setattr(store_module, "GRACE_S", 0.01)
    with pytest.raises(KeyError, match="training"), open_store(run) as store:
        save_and_fail(store)
    assert "the store is away" in caplog.text
    assert threads() == []


FILES = ("model-0", "optimizer-0", "config.json", "architecture.json", "tokenizer.json", "meta.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_store_passes_over_a_damaged_checkpoint(run, name, damage, caplog):
    with open_store(run) as store:
        for step in (1, 2):
            save(store, state_at(step))
    [path] = (p for p in (run / "step-00000002").rglob("*") if p.name.startswith(name))
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1 << 7
        path.write_bytes(content)
    assert holds(open_store(run).newest(), state_at(1))
    # What is not there at all says nothing: that checkpoint was never finished.
    if (name, damage) != ("meta.json", "remove"):
        assert "step-00000002" in caplog.text
        assert path.name in caplog.text


def test_store_refuses_to_begin_anew_when_every_checkpoint_is_damaged(run):
    with open_store(run) as store:
        save(store, state_at(1))
    next(run.glob("*/*/model-*")).write_bytes(b"")
    with pytest.raises(CheckpointError, match="every checkpoint is damaged"):
        open_store(run).newest()


def test_store_removes_a_damaged_checkpoint_only_after_a_good_save(run):
    with open_store(run, keep_last=3) as store:
        for step in (1, 2):
            save(store, state_at(step))
    next(run.glob("step-00000002/*/model-*")).write_bytes(b"")
    with open_store(run, keep_last=3) as store:
        assert store.newest().meta.step == 1
        assert steps(run) == [1, 2]
        save(store, state_at(3))
    assert steps(run) == [1, 3]


def test_store_replaces_a_damaged_checkpoint_of_the_same_step(run):
    with open_store(run) as store:
        for step in (1, 2):
            save(store, state_at(step))
    next(run.glob("step-00000002/*/model-*")).write_bytes(b"")
    with open_store(run) as store:
        store.newest()
        save(store, state_at(2, salt=1))
    assert holds(open_store(run).newest(), state_at(2, salt=1))
    assert len(list((run / "step-00000002").iterdir())) == 2


def test_store_removes_what_interrupted_attempts_left_and_nothing_else(run):
    left = [run / "step-00000007" / "old", run / "step-00000009"]
    other = [run / "step-1", run / "export"]
    for directory in left + other:
        directory.mkdir(parents=True)
    (left[0] / ".model.partial").write_bytes(b"part")
    with open_store(run) as store:
        save(store, state_at(8))
    assert {path.name for path in run.iterdir()} == {"step-00000008", "step-1", "export"}


def test_store_keeps_two_attempts_at_one_step_apart(run, gate, monkeypatch):
    monkeypatch.setattr(store_module, "FIRST_PAUSE_S", 0.001)
    forgotten, present = open_store(run), open_store(run)
    save(forgotten, state_at(5, salt=1))
    gate.arrivals.get(timeout=PATIENCE_S)
    save(present, state_at(5, salt=2))
    gate.arrivals.get(timeout=PATIENCE_S)
    gate.open()
    outcomes = []
    for store, salt in ((forgotten, 1), (present, 2)):
        try:
            store.wait()
        except CheckpointError as error:
            outcomes.append(str(error))
        else:
            outcomes.append(salt)
    found = open_store(run).newest()
    assert any(holds(found, state_at(5, salt=salt)) for salt in outcomes if isinstance(salt, int)), outcomes


def test_store_keeps_the_newest_and_the_best(run):
    with open_store(run, keep_last=2, keep_best=1) as store:
        for step, score in enumerate([0.1, 0.9, 0.3, 0.2, 0.4], start=1):
            save(store, state_at(step), score)
            store.wait()
            assert step in steps(run)
    assert steps(run) == [2, 4, 5]


@pytest.mark.parametrize("world_size", [2, 5])
def test_store_has_every_rank_write_its_share(run, world_size):
    state = state_at(4)
    stores = []
    for rank in reversed(range(world_size)):
        with as_rank(rank, world_size):
            stores.append(open_store(run))
            save(stores[-1], state)
    for store in stores:
        store.wait()
    found = open_store(run).newest()
    assert holds(found, state)
    sizes = [found.meta.files[path].num_bytes for path in found.meta.paths(checkpoint.MODEL)]
    assert len(sizes) == world_size
    assert sum(path.name == "receipts" for path in run.rglob("*")) == 0


def test_store_goes_on_without_a_checkpoint_that_a_rank_does_not_write(run, monkeypatch, caplog):
    monkeypatch.setattr(store_module, "RECEIPTS_S", 0)
    with as_rank(0, 3):
        store = open_store(run)
        save(store, state_at(1))
        with caplog.at_level(logging.ERROR):
            save(store, state_at(2))
    assert "step-00000001: given up, since the shares of ranks [1, 2] did not come" in caplog.text
    assert store.metrics()["checkpoint/given_up"] == 1
    assert steps(run) == []
    with pytest.raises(CheckpointError, match="step-00000002: given up"):
        store.wait()


def test_store_reports_its_failure_to_the_end_on_other_ranks(run, monkeypatch):
    with as_rank(1, 2):
        store = open_store(run)
        monkeypatch.setattr(store_module, "RETRY_S", 0)
        fail(monkeypatch, times=1000)
        save(store, state_at(1))
    with pytest.raises(CheckpointError, match="the store is away"):
        store.wait()


def test_store_uses_the_memory_of_the_save_before(run):
    state = state_at(2)
    with open_store(run) as store:
        save(store, state)
        before = {key: buffer.data_ptr() for key, buffer in store._snapshots._buffers.items()}
        update(state)
        save(store, state)
        assert {key: buffer.data_ptr() for key, buffer in store._snapshots._buffers.items()} == before
    assert holds(open_store(run).newest(), state)
