import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from protclip import checkpoint, storage
from protclip.errors import CheckpointError
from protclip.training.store import CheckpointStore
from small_state import CONFIG, METRIC, save, state_at, tensors


@pytest.fixture
def run(tmp_path):
    with CheckpointStore(str(tmp_path / "run"), 3, 0, METRIC) as store:
        for step in (2, 10):
            save(store, state_at(step))
    return tmp_path / "run"


def damage(directory, name):
    [path] = (p for p in directory.rglob("*") if p.name.startswith(name))
    content = bytearray(path.read_bytes())
    content[-2] ^= 4
    path.write_bytes(content)


TENSORS = st.dictionaries(
    st.text('abc./é"', min_size=1, max_size=8),
    st.tuples(st.sampled_from(list(checkpoint.DTYPES)), st.lists(st.integers(0, 4), max_size=3)),
    max_size=6,
)


@settings(max_examples=50, deadline=None)
@given(TENSORS)
def test_write_tensors_writes_what_safetensors_reads_and_would_write(tmp_path_factory, sizes):
    directory = tmp_path_factory.mktemp("tensors")
    generator = torch.Generator().manual_seed(0)
    made = {
        n: torch.randint(0, 2, shape, generator=generator).to(dtype) for n, (dtype, shape) in sizes.items()
    }
    entry = checkpoint.write_tensors(str(directory / "ours"), made)
    read = load_file(directory / "ours")
    assert read.keys() == made.keys()
    for name, tensor in made.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
    assert entry.num_bytes == (directory / "ours").stat().st_size
    assert entry.sha256 == storage.sha256(str(directory / "ours"))
    save_file(made, directory / "theirs")
    assert load_file(directory / "theirs").keys() == read.keys()


def test_write_tensors_aligns_every_tensor(tmp_path):
    made = {"a": torch.ones(3, dtype=torch.uint8), "b": torch.ones(5), "c": torch.ones(1, dtype=torch.int64)}
    checkpoint.write_tensors(str(tmp_path / "x"), made)
    content = (tmp_path / "x").read_bytes()
    length = int.from_bytes(content[:8], "little")
    for name, entry in json.loads(content[8 : 8 + length]).items():
        assert (8 + length + entry["data_offsets"][0]) % made[name].itemsize == 0


def test_load_takes_the_newest_checkpoint_of_a_run(run):
    loaded = checkpoint.load(str(run))
    assert loaded.uri == str(run / "step-00000010")
    assert loaded.meta.step == 10
    assert loaded.config == CONFIG
    assert loaded.architecture == {"width": 8}
    assert loaded.tokenizer_json == "tokenizer"
    expected = dict(state_at(10).model.named_parameters())
    assert loaded.weights.keys() == expected.keys()
    assert all(torch.equal(loaded.weights[name], expected[name]) for name in expected)


def test_load_takes_the_checkpoint_it_is_given(run):
    assert checkpoint.load(str(run / "step-00000002")).meta.step == 2


@pytest.mark.parametrize("name", ["model-", "config", "architecture", "tokenizer"])
def test_load_refuses_a_damaged_file(run, name):
    damage(run / "step-00000010", name)
    with pytest.raises(CheckpointError, match=rf"step-00000010/.*{name}.*missing or damaged"):
        checkpoint.load(str(run))


def test_load_does_not_look_at_the_optimizer(run):
    damage(run / "step-00000010", "optimizer-")
    assert checkpoint.load(str(run)).meta.step == 10


def test_load_refuses_a_configuration_of_another_version(run):
    place = run / "step-00000010"
    meta = checkpoint.read_meta(str(place))
    [path] = (path for path in meta.files if path.endswith("config.json"))
    stored = storage.write_bytes(str(place / path), b'{"novel": 1}')
    files = {**meta.files, path: checkpoint.entry(stored)}
    storage.write_json(str(place / "meta.json"), meta.model_copy(update={"files": files}).model_dump())
    with pytest.raises(CheckpointError, match=r"step-00000010: config\.json is from another version"):
        checkpoint.load(str(run))


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir()])
def test_resolve_says_where_it_found_nothing(tmp_path, make):
    make(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"none: no complete checkpoint here"):
        checkpoint.resolve(str(tmp_path / "none"))


def test_peek_says_that_meta_is_damaged(run):
    (run / "step-00000010" / "meta.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"step-00000010: meta\.json is damaged"):
        checkpoint.peek(str(run / "step-00000010"))


@pytest.mark.parametrize("damaging", [damage, lambda d, name: next(d.glob(f"*/{name}.json")).unlink()])
def test_peek_says_that_the_configuration_is_damaged(run, damaging):
    damaging(run / "step-00000010", "config")
    with pytest.raises(CheckpointError, match=r"step-00000010/.*config\.json: missing or damaged"):
        checkpoint.peek(str(run / "step-00000010"))


def test_copy_for_inference_leaves_the_optimizer_out_and_loads(run, tmp_path):
    checkpoint.copy_for_inference(str(run), tmp_path / "copy")
    assert not list((tmp_path / "copy").rglob("optimizer-*"))
    one, other = checkpoint.load(str(run)), checkpoint.load(str(tmp_path / "copy"))
    assert one.config == other.config
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
    damage(tmp_path / "copy", "model-")
    with pytest.raises(CheckpointError, match="missing or damaged"):
        checkpoint.load(str(tmp_path / "copy"))


def test_tensors_are_read_one_by_one_whatever_file_they_are_in(run):
    place = run / "step-00000010"
    read = checkpoint.Tensors(place, checkpoint.read_meta(str(place)), checkpoint.OPTIMIZER)
    expected = {name: tensor for name, tensor in tensors(state_at(10)).items() if "/" in name}
    assert len(read) == len(expected)
    assert set(read) == set(expected)
    assert all(torch.equal(read[name], expected[name]) for name in expected)
