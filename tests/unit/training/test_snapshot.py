import torch

from protclip import parallel
from protclip.training.snapshot import Snapshots
from small_state import state_at, tensors, update


def shares(state, world_size, monkeypatch):
    """What each rank takes."""
    monkeypatch.setattr(parallel, "world_size", lambda: world_size)
    taken = []
    for rank in range(world_size):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        taken.append(Snapshots().take(state).tensors)
    return [{name: t for named in share.values() for name, t in named.items()} for share in taken]


def test_snapshots_of_all_ranks_hold_every_tensor_once(monkeypatch):
    state = state_at(2)
    taken = shares(state, 3, monkeypatch)
    names = [name for share in taken for name in share]
    expected = tensors(state)
    assert sorted(names) == sorted(expected)
    assert all(torch.equal(tensor, expected[name]) for share in taken for name, tensor in share.items())


def test_snapshots_of_all_ranks_are_of_like_size(monkeypatch):
    taken = shares(state_at(1, width=16), 4, monkeypatch)
    sizes = [sum(tensor.nbytes for tensor in share.values()) for share in taken]
    largest = max(tensor.nbytes for share in taken for tensor in share.values())
    assert max(sizes) - min(sizes) <= largest


def test_snapshot_does_not_follow_the_state():
    state = state_at(1)
    before = tensors(state)
    share = Snapshots().take(state)
    update(state)
    assert share.copied is None
    taken = {name: tensor for named in share.tensors.values() for name, tensor in named.items()}
    assert all(torch.equal(taken[name], before[name]) for name in before)


def test_snapshots_follow_a_state_whose_tensors_change():
    snapshots, state = Snapshots(), state_at(0)
    assert snapshots.take(state).tensors["optimizer"] == {}
    update(state)
    assert snapshots.take(state).tensors["optimizer"].keys() == {n for n in tensors(state) if "/" in n}
    wide = state_at(1, width=32)
    taken = snapshots.take(wide).tensors["model"]
    assert all(torch.equal(taken[name], parameter) for name, parameter in wide.model.named_parameters())
