import pytest
import torch
from esm.model.esm2 import ESM2
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from protclip.model.esm2 import PRESETS, Esm2, Esm2Sizes
from protclip.tensors import CLS, EOS, MASK, PAD

SIZES = (Esm2Sizes(2, 32, 4), Esm2Sizes(3, 60, 6), Esm2Sizes(4, 128, 2))


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


@pytest.mark.parametrize("sizes", SIZES)
def test_esm2_has_fair_esms_gradients(sizes: Esm2Sizes) -> None:
    fair = reference(sizes)
    packed = ours(fair, sizes)
    tokens = rows([40, 7, 23, 33], masked=0.2)
    real = tokens != PAD
    fair(tokens, repr_layers=[fair.num_layers])["representations"][fair.num_layers][
        real
    ].square().mean().backward()
    packed(tokens)[real].square().mean().backward()
    expected = dict(fair.named_parameters())
    for name, parameter in packed.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, atol=1e-5, rtol=1e-3, msg=name)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(0, 5), st.data())
def test_esm2_states_do_not_change_with_padding_or_neighbours(
    row_lengths: list[int], padding: int, data: st.DataObject
) -> None:
    model = ours(reference(SIZES[0]), SIZES[0])
    tokens = torch.nn.functional.pad(rows(row_lengths, masked=0.2), (0, padding), value=PAD)
    row = data.draw(st.integers(0, len(row_lengths) - 1))
    alone = tokens[row][tokens[row] != PAD][None]
    with torch.no_grad():
        states = model(tokens)
        torch.testing.assert_close(states[row, : alone.shape[1]], model(alone)[0], atol=1e-5, rtol=1e-5)
    assert not states[tokens == PAD].any()


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


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_fair_esms_parameters(name: str) -> None:
    sizes = PRESETS[name]
    with torch.device("meta"):
        model, fair = Esm2(sizes), ESM2(sizes.num_layers, sizes.width, sizes.num_heads)
    heads = ("lm_head.", "contact_head.")
    expected = {n: p.shape for n, p in fair.named_parameters() if not n.startswith(heads)}
    assert {n: p.shape for n, p in model.named_parameters()} == expected
    count = sum(p.numel() for p in fair.parameters())
    stated = {"M": 1e6, "B": 1e9}
    if name != "esm2-tiny":
        _, layers, size, _ = name.split("_")
        assert len(model.layers) == int(layers[1:])
        assert count == pytest.approx(float(size[:-1]) * stated[size[-1]], rel=0.08)
