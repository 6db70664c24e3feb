import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from protclip.config.schema import LossConfig
from protclip.losses.contrastive import GradientCache, global_contrastive, infonce, sigmoid
from protclip.tensors import ModelOutput

INFONCE, SIGMOID = LossConfig(), LossConfig(contrastive="sigmoid")
PAIRS = 5


def naive_contrastive(protein: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Two loops over pairs, both directions."""
    total = torch.zeros((), dtype=protein.dtype)
    for i in range(len(protein)):
        to_text = [scale * protein[i] @ text[j] for j in range(len(text))]
        to_protein = [scale * text[i] @ protein[j] for j in range(len(text))]
        for logits in (to_text, to_protein):
            total = total + torch.stack(logits).exp().sum().log() - logits[i]
    return total / (2 * len(protein))


def naive_sigmoid(protein: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Two loops over pairs: is this text this protein's."""
    total = torch.zeros((), dtype=protein.dtype)
    for i in range(len(protein)):
        for j in range(len(text)):
            chance = 1 / (1 + (-(scale * protein[i] @ text[j] + bias)).exp())
            total = total - (chance if i == j else 1 - chance).log()
    return total / len(protein)


def inputs() -> list[Tensor]:
    """Embeddings of five proteins and texts, scale, bias."""
    generator = torch.Generator().manual_seed(0)
    rows = [
        normalize(torch.randn(PAIRS, 4, generator=generator, dtype=torch.float64), dim=1) for _ in range(2)
    ]
    return [t.requires_grad_() for t in (*rows, torch.tensor(14.3).double(), torch.tensor(-10.0).double())]


def test_infonce_equals_the_double_loop() -> None:
    ours, naive = inputs()[:3], inputs()[:3]
    loss, expected = infonce(*ours, PAIRS), naive_contrastive(*naive)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for one, other in zip(ours, naive, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_sigmoid_equals_the_double_loop() -> None:
    ours, naive = inputs(), inputs()
    loss, expected = sigmoid(*ours, PAIRS), naive_sigmoid(*naive)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for one, other in zip(ours, naive, strict=True):
        assert other.grad.abs().sum() > 0
        torch.testing.assert_close(one.grad, other.grad)


def test_infonce_of_indistinguishable_pairs_is_the_log_of_their_number() -> None:
    same = torch.ones(8, 1)
    loss = infonce(same, same, torch.tensor([14.3]), 8)
    assert math.isclose(loss.item(), math.log(8), rel_tol=1e-6)


@pytest.mark.parametrize("config", [INFONCE, SIGMOID], ids=lambda config: config.contrastive)
def test_shares_of_the_gradient_cache_are_the_loss_and_its_gradient(config: LossConfig) -> None:
    whole, cached = inputs(), inputs()
    expected = global_contrastive(ModelOutput(*whole), config, PAIRS)
    expected.backward()

    sizes = [2, 2, 1]
    parts = zip(*(torch.split(rows, sizes) for rows in cached[:2]), strict=True)
    outputs = [ModelOutput(protein, text, cached[2], cached[3]) for protein, text in parts]
    cache = GradientCache(outputs, config, PAIRS)
    assert all(leaf.grad is None for leaf in cached), "nothing flows through the first phase"
    shares = [cache.share(index, output) for index, output in enumerate(outputs)]
    torch.testing.assert_close(sum(shares), expected)
    for share in shares:
        share.backward()
    for one, other in zip(cached, whole, strict=True):
        torch.testing.assert_close(one.grad, torch.zeros_like(one) if other.grad is None else other.grad)
