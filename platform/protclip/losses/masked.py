"""MLM and BSR: cross-entropy on masked residues. Shape suffixes as in `tensors.py`."""

from torch import Tensor
from torch.nn.functional import cross_entropy

from protclip import parallel


def share_of_mean(total: Tensor, count: Tensor | int) -> Tensor:
    """What a part of a step's things adds to their mean.

    Microbatches' shares are summed and ranks' averaged, which data-parallel training does with their
    gradients: the mean over all things of the step comes out, however they lie.

    Args:
        total: Sum over the part's things, with gradient; 0 when it has none.
        count: Number of things of all microbatches and ranks; may be 0.

    Returns:
        total · ranks / count; 0 with gradient when there are none anywhere.
    """
    count = count.clamp(min=1) if isinstance(count, Tensor) else count
    return total * parallel.world_size() / count


def masked_cross_entropy(logits_MV: Tensor, targets_M: Tensor, count: Tensor) -> Tensor:
    """Cross-entropy on masked residues (paper, L_MLM and L_BSR): these pairs' share of the mean.

    Args:
        logits_MV: Residue logits at masked positions, M may be 0.
        targets_M: The residues that stood there.
        count: Masked positions of all microbatches and ranks, int64 scalar.

    Returns:
        Scalar, see `share_of_mean`.
    """
    return share_of_mean(cross_entropy(logits_MV, targets_M, reduction="sum"), count)
