import pytest
import torch
from torch import Tensor

from protclip.losses.pda import dynamic_segments, segment_alignment


def naive_segment(prototype: Tensor, residues: Tensor, theta: float) -> Tensor:
    """One property of one protein, given its real residues only."""
    similarity = [prototype @ residue for residue in residues]
    lowest, highest = min(similarity), max(similarity)
    if highest == lowest:
        return residues.mean(0)
    normalised = [(s - lowest) / (highest - lowest) for s in similarity]
    weights = [n if n >= theta else n * 0 for n in normalised]
    return sum(w * r for w, r in zip(weights, residues, strict=True)) / sum(weights)


def naive_alignment(
    segments: Tensor, prototypes: Tensor, present: Tensor, scale: Tensor, count: Tensor
) -> Tensor:
    """Loops over proteins, properties and candidates."""

    def cosine(a: Tensor, b: Tensor) -> Tensor:
        return a @ b / (a.norm() * b.norm())

    total = segments.new_zeros(())
    for b in range(len(segments)):
        there = [k for k in range(segments.shape[1]) if present[b, k]]
        if len(there) < 2:
            continue
        for k in there:
            for queries, keys in ((segments[b], prototypes[b]), (prototypes[b], segments[b])):
                logits = torch.stack([scale * cosine(queries[k], keys[j]) for j in there])
                total = total - (logits.softmax(0)[there.index(k)]).log() / 2
    return total / count


PRESENT = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 1], [1, 0, 0, 0], [1, 0, 0, 1]]).bool()
NUM_ALIGNED = torch.tensor(9)
LENGTHS = (7, 5, 4, 1)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    prototypes = torch.randn(4, 4, 6, generator=generator, dtype=torch.float64)
    residues = torch.randn(4, 9, 6, generator=generator, dtype=torch.float64)
    mask = torch.zeros(4, 9, dtype=torch.bool)
    for row, length in zip(mask, LENGTHS, strict=True):
        row[1 : length + 1] = True
    return prototypes.requires_grad_(), residues.requires_grad_(), mask


@pytest.mark.parametrize("theta", [[0.3] * 4, [0.0, 0.2, 0.5, 0.9], [0.999] * 4])
def test_dynamic_segments_equal_the_loop(theta: list[float]) -> None:
    prototypes, residues, mask = inputs()
    weight = torch.randn(4, 4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    segments = dynamic_segments(prototypes, residues, mask, torch.tensor(theta, dtype=torch.float64))
    (segments * weight).sum().backward()

    other_prototypes, other_residues, _ = inputs()
    naive = torch.stack(
        [
            naive_segment(other_prototypes[b, k], other_residues[b][mask[b]], theta[k])
            for b in range(4)
            for k in range(4)
        ]
    ).view(4, 4, 6)
    (naive * weight).sum().backward()
    torch.testing.assert_close(segments, naive)
    torch.testing.assert_close(residues.grad, other_residues.grad)
    torch.testing.assert_close(prototypes.grad, other_prototypes.grad)


def test_dynamic_segments_of_equally_similar_residues_are_their_mean() -> None:
    prototypes = torch.randn(1, 4, 3, requires_grad=True)
    residues = torch.randn(1, 1, 3).repeat(1, 6, 1).requires_grad_()
    mask = torch.tensor([[0, 1, 1, 1, 0, 0]]).bool()
    segments = dynamic_segments(prototypes, residues, mask, torch.full((4,), 0.3))
    segments.square().sum().backward()
    torch.testing.assert_close(segments, residues[:, :1].expand(1, 4, 3))
    assert prototypes.grad.isfinite().all()
    assert residues.grad.isfinite().all()
    assert residues.grad[0, ~mask[0]].abs().sum() == 0


def test_dynamic_segments_ignore_what_stands_at_padding() -> None:
    prototypes, residues, mask = inputs()
    theta = torch.full((4,), 0.3, dtype=torch.float64)
    other = torch.where(mask[..., None], residues, 1e6)
    torch.testing.assert_close(
        dynamic_segments(prototypes, residues, mask, theta), dynamic_segments(prototypes, other, mask, theta)
    )


def test_segment_alignment_equals_the_double_loop() -> None:
    results = []
    for loss_of in (segment_alignment, naive_alignment):
        prototypes, residues, _ = inputs()
        segments = residues[:, :4]
        scale = torch.tensor(10.0, dtype=torch.float64, requires_grad=True)
        loss = loss_of(segments, prototypes, PRESENT, scale, NUM_ALIGNED)
        loss.backward()
        results.append((loss.detach(), prototypes.grad, residues.grad, scale.grad))
    for ours, naive in zip(*results, strict=True):
        torch.testing.assert_close(ours, naive)
    assert results[0][1][2].abs().sum() == 0, "a single property has nothing to tell apart"


def test_segment_alignment_without_two_properties_anywhere_is_zero_with_a_gradient() -> None:
    prototypes, residues, _ = inputs()
    present = torch.zeros(4, 4, dtype=torch.bool)
    present[:3, 0] = True
    loss = segment_alignment(residues[:, :4], prototypes, present, torch.tensor(10.0), torch.tensor(0))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(prototypes.grad, torch.zeros_like(prototypes))
