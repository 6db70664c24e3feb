import pytest
import torch
from torch import Tensor, nn

from protclip.model.esm2 import Esm2, Esm2Sizes
from protclip.model.packing import Packing
from protclip.model.text import BertSizes, TextEncoder
from protclip.tensors import CLS, EOS, MASK, PAD

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
LENGTHS = (70, 3, 333, 128)


def mask() -> Tensor:
    return torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]


def proteins() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(4, 24, (len(LENGTHS), max(LENGTHS)), generator=generator)
    tokens[torch.rand(tokens.shape, generator=generator) < 0.15] = MASK
    tokens = tokens.where(mask(), PAD)
    tokens[:, 0] = CLS
    for row, n in zip(tokens, LENGTHS, strict=True):
        row[n - 1] = EOS
    return tokens


def relative(one: Tensor, other: Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize("head_width", [16, 24, 32, 64, 128])
def test_attention_in_one_kernel_equals_attention_row_by_row(head_width: int) -> None:
    torch.manual_seed(0)
    q, k, v = (nn.Parameter(torch.randn(sum(LENGTHS), 4, head_width).bfloat16().cuda()) for _ in range(3))
    packing = Packing.of(mask().cuda(), LENGTHS)
    assert packing.flash
    results = []
    for packing.flash in (True, False):
        attended = packing.attend(q, k, v)
        results.append((attended, *torch.autograd.grad(attended.float().square().mean(), (q, k, v))))
    for one, other in zip(*results, strict=True):
        assert relative(one.float(), other.float()) < 0.02


@pytest.mark.parametrize("checkpointing", [False, True])
def test_protein_tower_in_bf16_is_near_the_cpu_in_fp32_and_never_waits(checkpointing: bool) -> None:
    torch.manual_seed(0)
    tokens, real = proteins(), mask()
    model = Esm2(Esm2Sizes(3, 64, 4), checkpointing=checkpointing)
    expected = model(tokens)[real]
    expected.square().mean().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    model.cuda()
    tokens = tokens.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            states = model(tokens, LENGTHS)
        states.float().square().sum().div(expected.numel()).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert relative(states.cpu().float()[real], expected) < 0.02
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert parameter.grad is not None
        assert gradient is not None
        assert relative(parameter.grad.cpu(), gradient) < 0.05


def test_text_tower_in_bf16_is_near_the_cpu_in_fp32() -> None:
    torch.manual_seed(0)
    model = TextEncoder(BertSizes(50, 2, 64, 2, 128, 512))
    tokens, real = torch.randint(5, 50, (len(LENGTHS), max(LENGTHS))), mask()
    expected = model(tokens, real, LENGTHS)[real]
    model.cuda()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        states = model(tokens.cuda(), real.cuda(), LENGTHS)
    assert relative(states.cpu().float()[real], expected) < 0.02
