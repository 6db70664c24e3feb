import logging

import numpy as np
import pytest

from protclip.evaluation.store import ResultStore, VectorStore
from protclip.evaluation.trial import ALONE, CHECKPOINT, Result, Trial

TRIAL = Trial("sub", "v" * 64, CHECKPOINT, "d" * 64, "frozen", 0)
RESULT = Result(
    TRIAL,
    metrics={"accuracy": 0.5, "mcc": float("nan")},
    units={"truth": np.array([0, 1]), "score": np.array([[0.5, 1], [2, 3]], np.float16)},
    ids=["P1", "Ä2"],
    counts={"test": 2},
    notes=["one"],
    seconds=1.5,
    device="cpu",
)
SEQUENCES = ["MKV", "GGSS", "MKVA", "A", "WWWWW"]


@pytest.fixture(params=["local", "s3"])
def root(request, tmp_path):
    return str(tmp_path) if request.param == "local" else request.getfixturevalue("bucket")


def test_store_gives_back_a_result(root):
    store = ResultStore(root)
    assert store.find(TRIAL) is None
    store.add(RESULT)
    found = ResultStore(root).find(TRIAL)
    assert found is not None
    assert (found.trial, found.ids, found.counts, list(found.notes)) == (
        TRIAL,
        RESULT.ids,
        {"test": 2},
        ["one"],
    )
    assert (found.seconds, found.device, found.error) == (1.5, "cpu", None)
    np.testing.assert_equal(dict(found.metrics), dict(RESULT.metrics))
    assert found.units.keys() == RESULT.units.keys()
    for name, values in RESULT.units.items():
        np.testing.assert_array_equal(found.units[name], values)
        assert found.units[name].dtype == values.dtype


def test_store_tells_trials_apart_but_not_what_a_model_is_called(tmp_path):
    store = ResultStore(str(tmp_path))
    store.add(RESULT)
    changes = {"version": "w", "model_digest": "e", "protocol": "finetune", "seed": 1, "benchmark": "bin"}
    for field, value in changes.items():
        assert store.find(_changed(TRIAL, **{field: value})) is None
    assert store.find(_changed(TRIAL, model="another name")) is not None
    alone = _changed(TRIAL, model="majority", model_digest="", protocol=ALONE)
    assert alone.key != _changed(alone, model="composition").key


def _changed(trial, **changes):
    return Trial(**{name: getattr(trial, name) for name in Trial.__slots__} | changes)


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        ("npz", lambda data: data[:-5]),
        ("npz", lambda data: bytes([data[0] ^ 1]) + data[1:]),
        ("npz", None),
        ("json", lambda data: data[:-5]),
        ("json", lambda data: data.replace(b'"metrics"', b'"metricks"')),
        ("json", lambda data: b"[]"),
    ],
)
def test_store_passes_over_a_damaged_result_with_a_warning(tmp_path, caplog, suffix, damage):
    store = ResultStore(str(tmp_path))
    store.add(RESULT)
    path = tmp_path / f"{TRIAL.key}.{suffix}"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert store.find(TRIAL) is None
    assert "the run is repeated" in caplog.text
    store.add(RESULT)
    assert store.find(TRIAL) is not None


def test_store_does_not_show_a_result_before_its_arrays_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr("protclip.storage.write_json", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ResultStore(str(tmp_path)).add(RESULT)
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]
    assert ResultStore(str(tmp_path)).find(TRIAL) is None


def test_store_keeps_shares(tmp_path, caplog):
    store = ResultStore(str(tmp_path))
    assert store.find_share("a") is None
    store.add_share("a", 0.0)
    store.add_share("b", 0.25)
    assert (store.find_share("a"), store.find_share("b")) == (0.0, 0.25)
    (tmp_path / "leaks-a.json").write_text('{"share": "many"}')
    assert store.find_share("a") is None
    assert "counted again" in caplog.text


def test_vectors_are_found_again_by_item_whatever_the_order_and_the_files(root):
    vector_of = {s: np.full(3, i, np.float32) + len(s) for i, s in enumerate(SEQUENCES)}
    first = VectorStore(root, "d")
    assert first.missing("features", SEQUENCES) == ["A", "MKV", "GGSS", "MKVA", "WWWWW"]
    assert first.find("features", SEQUENCES)[0] is None
    for part in (SEQUENCES[:2], SEQUENCES[2:4]):
        VectorStore(root, "d").add("features", part, np.stack([vector_of[s] for s in part]))
    store = VectorStore(root, "d")
    assert store.missing("features", [*SEQUENCES, "MKV", "C"]) == ["C", "WWWWW"]
    asked = ["A", "C", "MKV", "MKVA", "MKV", "GGSS"]
    found_ND, is_found_N = store.find("features", asked)
    assert is_found_N.tolist() == [True, False, True, True, True, True]
    expected = [vector_of.get(s, np.zeros(3)) for s in asked]
    np.testing.assert_array_equal(found_ND, expected)
    assert found_ND.dtype == np.float32


def test_vectors_of_other_models_and_sorts_are_apart(tmp_path):
    VectorStore(str(tmp_path), "d").add("texts", ["a"], np.ones((1, 2)))
    VectorStore(str(tmp_path), "d").add("text_features", ["b"], np.ones((1, 4)))
    assert VectorStore(str(tmp_path), "e").missing("texts", ["a"]) == ["a"]
    store = VectorStore(str(tmp_path), "d")
    assert store.missing("texts", ["a", "b"]) == ["b"]
    assert store.missing("text_features", ["a", "b"]) == ["a"]
    assert store.missing("features", ["a"]) == ["a"]
