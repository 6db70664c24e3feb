import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from protclip.losses.contrastive import global_contrastive


def naive_contrastive(protein: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Two loops over pairs, both directions."""
    total = torch.zeros((), dtype=protein.dtype)
    for i in range(len(protein)):
        to_text = [scale * protein[i] @ text[j] for j in range(len(text))]
        to_protein = [scale * text[i] @ protein[j] for j in range(len(text))]
        for logits in (to_text, to_protein):
            total = total + torch.stack(logits).exp().sum().log() - logits[i]
    return total / (2 * len(protein))


def inputs() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = [normalize(torch.randn(5, 4, generator=generator, dtype=torch.float64), dim=1) for _ in range(2)]
    return [t.requires_grad_() for t in (*rows, torch.tensor(14.3, dtype=torch.float64))]


def test_global_contrastive_equals_the_double_loop() -> None:
    ours, naive = inputs(), inputs()
    loss, expected = global_contrastive(*ours), naive_contrastive(*naive)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for one, other in zip(ours, naive, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_global_contrastive_of_indistinguishable_pairs_is_the_log_of_their_number() -> None:
    same = torch.ones(8, 1)
    loss = global_contrastive(same, same, torch.tensor(14.3))
    assert math.isclose(loss.item(), math.log(8), rel_tol=1e-6)
