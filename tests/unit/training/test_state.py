import pytest
import torch
from torch.distributed.tensor import DTensor, distribute_tensor

from forked import ranks
from protclip.config.schema import PretrainConfig
from protclip.data.dataset import Position
from protclip.errors import CheckpointError
from protclip.model.build import build
from protclip.training.replica import Replica
from protclip.training.state import TrainState
from protclip.training.store import CheckpointStore

CPU = torch.device("cpu")
VOCAB = 40


def config(num_prototypes=16, strategy="ddp"):
    return PretrainConfig.model_validate(
        {
            "data": "pairs",
            "run": {"name": "test"},
            "model": {
                "protein": {"source": "esm2-tiny"},
                "text": {"source": "bert-tiny", "trainable": True},
                "projection_dim": 32,
                "num_prototypes": num_prototypes,
                "fusion_heads": 4,
            },
            "optim": {"lr": 1e-2, "weight_decay": 0.1, "warmup_share": 0.1},
            "train": {"max_steps": 20},
            "scaling": {"num_workers": 1, "strategy": strategy},
        }
    )


def fresh(config, seed=0):
    model = build(config.model, config.loss, VOCAB, seed)
    return TrainState.create(Replica(model, config, CPU), config)


def update(state):
    """One update with gradients that follow from the step; the temperatures have none at first."""
    generator = torch.Generator().manual_seed(state.step)
    for name, parameter in state.model.named_parameters():
        gradient = torch.randn(parameter.shape, generator=generator)
        if parameter.requires_grad and ("scale" not in name or state.step >= 2):
            if isinstance(parameter, DTensor):
                gradient = distribute_tensor(gradient, parameter.device_mesh, parameter.placements)
            parameter.grad = gradient
    state.optimizer.step()
    state.schedule.step()
    state.step += 1
    state.position = Position(1, state.step)


def save(store, state, config):
    store.save(state, config, "tokenizer", "manifest", None, {})


def assert_same(one, other, rtol=0.0):
    theirs = dict(other.model.named_parameters())
    for name, parameter in one.model.named_parameters():
        mine = one.optimizer.state.get(parameter, {}) | {"value": parameter.detach()}
        its = other.optimizer.state.get(theirs[name], {}) | {"value": theirs[name].detach()}
        assert mine.keys() == its.keys(), name
        for what, tensor in mine.items():
            torch.testing.assert_close(its[what], tensor, rtol=rtol, atol=rtol, msg=f"{what} of {name}")
    rates = [[group["lr"] for group in state.optimizer.param_groups] for state in (one, other)]
    assert rates[0] == rates[1]
    assert (one.step, one.position, one.skipped) == (other.step, other.position, other.skipped)


@pytest.fixture
def saved(tmp_path):
    """A state after five updates, and the run it was saved in."""
    state = fresh(config())
    for _ in range(5):
        update(state)
    state.skipped = 1
    with CheckpointStore(str(tmp_path / "run"), 2, 0, "") as store:
        save(store, state, config())
    return state, CheckpointStore(str(tmp_path / "run"), 2, 0, "")


def test_restored_state_is_the_saved_one_and_goes_on_like_it(saved):
    state, store = saved
    other = fresh(config(), seed=1)
    other.restore(store.newest())
    assert_same(state, other)
    counts = {int(moments["step"]) for moments in other.optimizer.state.values()}
    assert counts == {3, 5}
    for _ in range(3):
        update(state)
        update(other)
    assert_same(state, other)


def test_restoring_replaces_the_moments_there_are(saved):
    state, store = saved
    other = fresh(config())
    for _ in range(9):
        update(other)
    other.restore(store.newest())
    assert_same(state, other)


def test_restoring_another_model_is_refused_in_one_sentence(saved):
    _, store = saved
    with pytest.raises(CheckpointError, match=r"step-00000005: .*bank_PD.* check the model section"):
        fresh(config(num_prototypes=8)).restore(store.newest())


def train_sharded(directory):
    """One of two ranks that train sharded and save."""
    sharded = config(strategy="fsdp")
    state = fresh(sharded)
    for _ in range(5):
        update(state)
    with CheckpointStore(str(directory), 2, 0, "") as store:
        save(store, state, sharded)
    found = store.newest()
    assert found is not None
    assert found.meta.world_size == 2
    other = fresh(sharded, seed=1)
    other.restore(found)
    for mine, its in zip(state.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(mine.to_local(), its.to_local())


def test_state_saved_by_two_sharded_ranks_is_restored_by_one_whole_rank(tmp_path):
    with ranks(train_sharded, 2, tmp_path, tmp_path / "run"):
        expected = fresh(config())
        for _ in range(5):
            update(expected)
    state = fresh(config(), seed=1)
    state.restore(CheckpointStore(str(tmp_path / "run"), 2, 0, "").newest())
    # The fused update rounds the ends of a shard otherwise than the middle of the whole.
    assert_same(expected, state, rtol=1e-5)
