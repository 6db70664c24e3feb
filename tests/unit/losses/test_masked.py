import torch
from torch import Tensor

from protclip.losses.masked import masked_cross_entropy


def naive_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    total = torch.zeros((), dtype=logits.dtype)
    for row, target in zip(logits, targets.tolist(), strict=True):
        total = total - (row[target].exp() / row.exp().sum()).log()
    return total / len(targets)


def test_masked_cross_entropy_equals_the_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 33, generator=generator, dtype=torch.float64)
    targets = torch.randint(33, (6,), generator=generator)
    ours, naive = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss, expected = masked_cross_entropy(ours, targets, torch.tensor(6)), naive_cross_entropy(naive, targets)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, naive.grad)


def test_masked_cross_entropy_of_nothing_is_zero_with_a_gradient() -> None:
    weight = torch.randn(4, 33, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    loss = masked_cross_entropy(torch.zeros(0, 4) @ weight, none, torch.tensor(0))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(weight.grad, torch.zeros(4, 33))


def test_masked_cross_entropies_of_parts_add_up_to_the_mean() -> None:
    logits, targets = torch.randn(6, 33, generator=torch.Generator().manual_seed(0)), torch.arange(6)
    count = torch.tensor(6)
    parts = [masked_cross_entropy(logits[p], targets[p], count) for p in (slice(4), slice(4, 6))]
    torch.testing.assert_close(sum(parts), masked_cross_entropy(logits, targets, count))
