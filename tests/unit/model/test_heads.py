import torch
from torch import Tensor

from protclip.model.heads import Fusion, Prototypes, gather_masked, masked_mean, positions, spread, take


def test_masked_mean_counts_true_positions_only() -> None:
    states = torch.randn(3, 5, 4)
    mask = torch.tensor([[0, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]).bool()
    expected = torch.stack((states[0, 1:3].mean(0), states[1].mean(0), torch.zeros(4)))
    torch.testing.assert_close(masked_mean(states, mask), expected)


def test_masked_mean_of_bfloat16_is_float32() -> None:
    assert (
        masked_mean(torch.randn(1, 2, 4, dtype=torch.bfloat16), torch.ones(1, 2).bool()).dtype
        == torch.float32
    )


def test_gather_masked_keeps_the_order_of_boolean_indexing() -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(4, 9, 3, generator=generator)
    mask = torch.rand(4, 9, generator=generator) < 0.4
    mask[2] = False
    most = int(mask.sum(1).max())
    gathered, real = gather_masked(states, mask, most)
    assert gathered.shape == (4, most, 3)
    assert torch.equal(gathered[real], states[mask])


def test_gather_masked_of_nothing_is_empty() -> None:
    gathered, real = gather_masked(torch.randn(2, 3, 4), torch.zeros(2, 3).bool(), 0)
    assert gathered.shape == (2, 0, 4)
    assert real.shape == (2, 0)


def test_take_is_boolean_indexing_and_spread_undoes_it() -> None:
    states, mask = torch.randn(2, 5, 3), torch.tensor([[0, 1, 1, 0, 1], [0, 0, 0, 0, 0]]).bool()
    at = positions(mask, int(mask.sum()))
    assert torch.equal(take(states, at), states[mask])
    assert torch.equal(spread(take(states, at), at, mask.numel()).view(2, 5, 3), states * mask[..., None])


def _naive_fusion(fusion: Fusion, residues: Tensor, text: Tensor, mask: Tensor) -> Tensor:
    """Loops over pairs, residues and heads; the softmax runs over the text tokens."""
    attention = fusion.attention
    dim, heads = attention.embed_dim, attention.num_heads
    wq, wk, wv = attention.in_proj_weight.chunk(3)
    bq, bk, bv = attention.in_proj_bias.chunk(3)
    out = torch.zeros_like(residues)
    for b in range(len(residues)):
        words = fusion.text_norm(text[b][mask[b]])
        for m in range(residues.shape[1]):
            query = wq @ fusion.residue_norm(residues[b, m]) + bq
            found = []
            for h in range(heads):
                part = slice(h * dim // heads, (h + 1) * dim // heads)
                keys, values = (words @ wk.T + bk)[:, part], (words @ wv.T + bv)[:, part]
                weights = ((keys @ query[part]) / (dim / heads) ** 0.5).softmax(0)
                found.append(weights @ values)
            out[b, m] = residues[b, m] + attention.out_proj(torch.cat(found))
    return out


def test_fusion_attends_over_real_text_tokens() -> None:
    torch.manual_seed(0)
    fusion = Fusion(12, 3).double()
    residues, text = torch.randn(2, 4, 12).double(), torch.randn(2, 6, 12).double()
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()
    torch.testing.assert_close(fusion(residues, text, mask), _naive_fusion(fusion, residues, text, mask))


def test_prototypes_mix_by_gumbel_softmax() -> None:
    prototypes = Prototypes(5, 3, temperature=0.5)
    properties, noise = torch.randn(2, 4, 3), torch.randn(2, 4, 5)
    mixed = prototypes(properties, noise)
    logits = properties[1, 2] @ prototypes.bank_PD.T
    weights = ((logits + noise[1, 2]) / 0.5).softmax(0)
    torch.testing.assert_close(mixed[1, 2], weights @ prototypes.bank_PD)
    plain = (logits / 0.5).softmax(0) @ prototypes.bank_PD
    torch.testing.assert_close(prototypes(properties, None)[1, 2], plain)
