import pytest
import torch
from esm.model.esm2 import ESM2
from torch import Tensor

from protclip.model import lengths
from protclip.model.esm2 import PRESETS, Esm2, Esm2Sizes
from protclip.tensors import CLS, EOS, MASK, PAD, VOCAB_SIZE

SIZES = (Esm2Sizes(2, 32, 4), Esm2Sizes(3, 60, 6))


def reference(sizes: Esm2Sizes, seed: int = 0) -> ESM2:
    """fair-esm's model, every parameter random, the norms' too."""
    torch.manual_seed(seed)
    model = ESM2(sizes.num_layers, sizes.width, sizes.num_heads)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def ours(fair: ESM2, sizes: Esm2Sizes) -> Esm2:
    model = Esm2(sizes)
    expected = model.state_dict()
    model.load_state_dict({n: w for n, w in fair.state_dict().items() if n in expected})
    return model


def rows(row_lengths: list[int], masked: float = 0.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.full((len(row_lengths), max(row_lengths) + 2), PAD)
    for row, n in zip(tokens, row_lengths, strict=True):
        residues = torch.randint(4, 24, (n,), generator=generator)
        residues[torch.rand(n, generator=generator) < masked] = MASK
        row[: n + 2] = torch.cat((torch.tensor([CLS]), residues, torch.tensor([EOS])))
    return tokens


def fair_states(fair: ESM2, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return fair(tokens, repr_layers=[fair.num_layers])["representations"][fair.num_layers]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(
    ("row_lengths", "masked"),
    [([40], 0.0), ([40], 0.3), ([40, 7, 23, 1], 0.0), ([40, 7, 23, 33], 0.3), ([5, 5], 1.0)],
)
def test_esm2_equals_fair_esm(sizes: Esm2Sizes, row_lengths: list[int], masked: float) -> None:
    fair = reference(sizes)
    tokens = rows(row_lengths, masked)
    real = tokens != PAD
    with torch.no_grad():
        states = ours(fair, sizes)(tokens)
    torch.testing.assert_close(states[real], fair_states(fair, tokens)[real], atol=1e-5, rtol=1e-5)


def test_esm2_has_fair_esms_parameters_and_no_others() -> None:
    names = set(Esm2(SIZES[0]).state_dict())
    fair = {n for n in reference(SIZES[0]).state_dict() if not n.endswith("rot_emb.inv_freq")}
    assert names == {n for n in fair if not n.startswith(("lm_head.", "contact_head."))}


def test_esm2_chunks_change_neither_states_nor_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = rows([60, 8, 35, 9, 20, 41], masked=0.2)
    real = tokens != PAD
    results = []
    for fewest in (0, 10**9):
        monkeypatch.setattr(lengths, "FEWEST_TOKENS", fewest)
        model = ours(reference(SIZES[0]), SIZES[0])
        states = model(tokens)[real]
        states.square().mean().backward()
        gradients = [p.grad for p in model.parameters()]
        assert all(g is not None for g in gradients)
        results.append([states.detach(), *gradients])
    for chunked, whole in zip(*results, strict=True):
        torch.testing.assert_close(chunked, whole, atol=1e-5, rtol=1e-4)


def test_esm2_checkpointing_changes_no_gradient() -> None:
    tokens = rows([20, 8])
    plain = ours(reference(SIZES[0]), SIZES[0])
    thrifty = Esm2(SIZES[0], checkpointing=True)
    thrifty.load_state_dict(plain.state_dict())
    saved = []
    for model in (plain, thrifty):
        kept = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            loss = model(tokens)[tokens != PAD].square().mean()
        loss.backward()
        saved.append(kept)
    for one, other in zip(plain.parameters(), thrifty.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    assert saved[1] < saved[0] / 2


def test_esm2_under_bf16_autocast_stays_close() -> None:
    tokens = rows([30, 12])
    model = ours(reference(SIZES[0]), SIZES[0])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        states = model(tokens)
    real = tokens != PAD
    similar = torch.cosine_similarity(states[real].float(), model(tokens)[real], dim=-1)
    assert similar.min() > 0.99


@pytest.mark.parametrize("name", [n for n in PRESETS if n != "esm2-tiny"])
def test_presets_have_the_size_in_their_name(name: str) -> None:
    _, layers, size, _ = name.split("_")
    with torch.device("meta"):
        model = Esm2(PRESETS[name])
    # The published counts include the heads, which are small but for the smallest models.
    count = sum(p.numel() for p in model.parameters()) + PRESETS[name].width * (VOCAB_SIZE + 1)
    stated = float(size[:-1]) * {"M": 1e6, "B": 1e9}[size[-1]]
    assert len(model.layers) == int(layers[1:])
    assert count == pytest.approx(stated, rel=0.08)
