from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from protclip.model import packing as module
from protclip.model.packing import Packing

Lengths = st.lists(st.integers(1, 40), min_size=1, max_size=8)


def mask_of(lengths: list[int], padding: int = 0) -> Tensor:
    return torch.arange(max(lengths) + padding)[None] < torch.tensor(lengths)[:, None]


@settings(max_examples=50)
@given(Lengths, st.integers(0, 3))
def test_packing_finds_every_token_and_puts_it_back(lengths: list[int], padding: int) -> None:
    mask = mask_of(lengths, padding)
    states = torch.randn(*mask.shape, 3)
    packing = Packing.of(mask, lengths)
    assert torch.equal(packing.pack(states), states[mask])
    assert torch.equal(packing.unpack(packing.pack(states)), states * mask[..., None])
    assert packing.position_N.tolist() == [i for n in lengths for i in range(n)]
    assert packing.row_N.tolist() == [row for row, n in enumerate(lengths) for _ in range(n)]
    assert packing.starts.tolist() == [sum(lengths[:row]) for row in range(len(lengths) + 1)]
    assert packing.longest == max(lengths)


def test_packing_counts_what_it_is_not_told() -> None:
    assert Packing.of(mask_of([3, 1, 2])).lengths == [3, 1, 2]


@settings(max_examples=25)
@given(Lengths)
def test_attend_is_attention_within_each_row(lengths: list[int]) -> None:
    mask = mask_of(lengths)
    q, k, v = (torch.randn(*mask.shape, 2, 4, dtype=torch.float64) for _ in range(3))
    packing = Packing.of(mask, lengths)
    heads = (x.transpose(1, 2) for x in (q, k, v))
    expected = scaled_dot_product_attention(*heads, attn_mask=mask[:, None, None]).transpose(1, 2)
    torch.testing.assert_close(packing.attend(*map(packing.pack, (q, k, v))), expected[mask])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_attend_is_one_call_where_the_device_has_the_kernel(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    packing = Packing.of(mask_of([3, 1, 2]))
    packing.flash = True
    calls = []

    def kernel(q: Tensor, k: Tensor, v: Tensor, starts_q: Tensor, starts_k: Tensor, *longest: int) -> Tensor:
        calls.append((q.shape, starts_q.tolist(), starts_k.tolist(), longest))
        return v

    monkeypatch.setattr(module, "varlen_attn", kernel)
    packing.attend(*torch.randn(3, 6, 2, 4, dtype=dtype))
    assert calls == ([((6, 2, 4), [0, 3, 4, 6], [0, 3, 4, 6], (3, 3))] if dtype == torch.bfloat16 else [])


@pytest.mark.parametrize("flash", [False, True])
def test_other_lengths_compile_nothing_anew(flash: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = []

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable:
        graphs.append(graph)
        return graph.forward

    def layer(x_NAE: Tensor, packing: Packing) -> Tensor:
        return packing.attend(x_NAE * 2, x_NAE, x_NAE) + 1

    monkeypatch.setattr(
        module, "varlen_attn", lambda q, k, v, starts, _, longest, __: v / longest + starts[-1]
    )
    compiled = torch.compile(layer, backend=count, dynamic=True)
    seen = []
    for lengths in ([3, 5], [7, 2, 4], [9], [8, 8, 1, 3]):
        packing = Packing.of(mask_of(lengths))
        packing.flash = flash
        x_NAE = torch.randn(sum(lengths), 2, 4).bfloat16()
        torch.testing.assert_close(compiled(x_NAE, packing), layer(x_NAE, packing))
        seen.append(len(graphs))
    assert seen[-1] == seen[1], f"graphs after each call: {seen}"
