"""GC, the global contrastive loss: symmetric InfoNCE over the pairs of all ranks.

Shape suffixes as in `tensors.py`: B pairs of this rank, G pairs of all ranks, D embedding width.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from protclip import parallel


def global_contrastive(protein_BD: Tensor, text_BD: Tensor, scale: Tensor) -> Tensor:
    """Each protein picks its text among all G, each text its protein (paper, L_GC).

    A rank computes its own (B, G) logits in both directions, never (G, G). It returns the mean over
    its own pairs; as the gather sums every rank's gradient, averaging gradients over ranks, which
    DDP does, gives the gradient one rank would have.

    Args:
        protein_BD: L2-normalised protein embeddings, the same B on every rank.
        text_BD: L2-normalised embeddings of their texts.
        scale: Inverse temperature, scalar.

    Returns:
        Scalar.
    """
    all_proteins_GD, all_texts_GD = parallel.gather_rows(torch.stack((protein_BD, text_BD), dim=1)).unbind(1)
    first = parallel.rank() * len(protein_BD)
    own_B = torch.arange(first, first + len(protein_BD), device=protein_BD.device)
    to_text = cross_entropy(scale * protein_BD @ all_texts_GD.T, own_B)
    to_protein = cross_entropy(scale * text_BD @ all_proteins_GD.T, own_B)
    return (to_text + to_protein) / 2
