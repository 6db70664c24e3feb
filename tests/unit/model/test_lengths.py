import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from protclip.model import lengths
from protclip.model.lengths import by_length


def _padded(row_lengths: list[int]) -> tuple[Tensor, Tensor]:
    mask = torch.arange(max(row_lengths))[None] < torch.tensor(row_lengths)[:, None]
    tokens = torch.arange(1, mask.numel() + 1).view(mask.shape) * mask
    return tokens, mask


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=12))
def test_by_length_returns_every_row_in_its_place(row_lengths: list[int]) -> None:
    tokens, mask = _padded(row_lengths)
    seen = []

    def encode(tokens: Tensor, mask: Tensor | None) -> Tensor:
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        assert torch.equal(real, tokens > 0)
        assert real.any(0).all(), "a chunk is as wide as its longest row"
        seen.append(real.numel())
        return torch.stack((tokens, tokens * 2), dim=-1).float()

    states = by_length(encode, tokens, mask)
    assert torch.equal(states[mask], torch.stack((tokens, tokens * 2), dim=-1).float()[mask])
    assert states.shape == (*tokens.shape, 2)
    assert states.isfinite().all()
    assert sum(seen) <= mask.numel()


def test_by_length_spends_little_on_padding() -> None:
    row_lengths = [*range(50, 500, 10)]
    tokens, mask = _padded(row_lengths)
    computed = []

    def encode(tokens: Tensor, mask: Tensor | None) -> Tensor:
        computed.append(tokens.numel())
        return tokens[..., None].float()

    by_length(encode, tokens, mask)
    assert sum(computed) < 1.15 * sum(row_lengths)
    assert len(computed) < len(row_lengths) / 2


def test_by_length_on_an_accelerator_is_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, mask = _padded([900, 3])
    calls = []

    def encode(tokens: Tensor, mask: Tensor | None) -> Tensor:
        calls.append(tokens.shape)
        return tokens[..., None].float()

    by_length(encode, tokens.to("meta"), mask.to("meta"))
    assert calls == [(2, 900)]
    monkeypatch.setattr(lengths, "FEWEST_TOKENS", 0)
    calls.clear()
    by_length(encode, tokens, mask)
    assert calls == [(1, 900), (1, 3)]
