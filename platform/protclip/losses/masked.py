"""MLM and BSR: cross-entropy on masked residues. Shape suffixes as in `tensors.py`."""

from torch import Tensor
from torch.nn.functional import cross_entropy

from protclip import parallel


def mean_over_all(total: Tensor, count: Tensor) -> Tensor:
    """This rank's share of a mean over things that ranks hold different numbers of.

    Averaged over ranks, Σ totals / Σ counts comes out, and so does its gradient.

    Args:
        total: Sum over this rank's things, scalar with gradient; 0 when it has none.
        count: Number of this rank's things, scalar.

    Returns:
        total / (mean count over ranks); 0 with gradient when no rank has any.
    """
    fewest = 1 / parallel.world_size()
    return total / parallel.mean_over_ranks(count.float()).clamp(min=fewest)


def masked_cross_entropy(logits_MV: Tensor, targets_M: Tensor) -> Tensor:
    """Mean cross-entropy over the masked residues of all ranks (paper, L_MLM and L_BSR).

    Args:
        logits_MV: Residue logits at this rank's masked positions, M may be 0.
        targets_M: The residues that stood there.

    Returns:
        Scalar; its average over ranks is the mean.
    """
    total = cross_entropy(logits_MV, targets_M, reduction="sum")
    return mean_over_all(total, total.new_tensor(len(targets_M)))
