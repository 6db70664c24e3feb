"""GC, the global contrastive loss over the pairs of all ranks, and its gradient microbatch by microbatch.

A rank computes the logits of its own pairs with all others, (B, G), never (G, G). As gathering sums
every rank's gradient, averaging gradients over ranks, which data-parallel training does, gives the
gradient that one rank would have. Shape suffixes as in `tensors.py`: B pairs of this rank, G pairs of
all ranks, D embedding width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid

from protclip import parallel
from protclip.config.schema import LossConfig
from protclip.losses.masked import share_of_mean
from protclip.tensors import ModelOutput


def infonce(protein_BD: Tensor, text_BD: Tensor, scale: Tensor, pairs: int) -> Tensor:
    """Each protein picks its text among all G, each text its protein (paper, L_GC).

    Args:
        protein_BD: L2-normalised protein embeddings, this rank's share of all.
        text_BD: L2-normalised embeddings of their texts.
        scale: Inverse temperature, one element.
        pairs: Pairs of all ranks (G).

    Returns:
        Scalar; its average over ranks is the mean over all pairs.
    """
    all_proteins_GD, all_texts_GD = parallel.gather_rows(
        torch.stack((protein_BD, text_BD), dim=1), pairs
    ).unbind(1)
    own_B = torch.arange(*parallel.bounds(pairs), device=protein_BD.device)
    to_text, to_protein = (
        share_of_mean(cross_entropy(scale * queries_BD @ keys_GD.T, own_B, reduction="sum"), pairs)
        for queries_BD, keys_GD in ((protein_BD, all_texts_GD), (text_BD, all_proteins_GD))
    )
    return (to_text + to_protein) / 2


def sigmoid(protein_BD: Tensor, text_BD: Tensor, scale: Tensor, bias: Tensor, pairs: int) -> Tensor:
    """Every protein says of every text whether it is its own (SigLIP, Zhai et al. 2023).

    Args:
        protein_BD: L2-normalised protein embeddings, this rank's share of all.
        text_BD: L2-normalised embeddings of their texts.
        scale: Inverse temperature, one element.
        bias: Added to the logits, one element.
        pairs: Pairs of all ranks (G).

    Returns:
        Scalar; its average over ranks is −Σ log σ(±logit) over all G × G combinations, over G.
    """
    logits_BG = scale * protein_BD @ parallel.gather_rows(text_BD, pairs).T + bias
    signs_BG = torch.full_like(logits_BG, -1)
    signs_BG.diagonal(parallel.bounds(pairs)[0]).fill_(1)
    return share_of_mean(-logsigmoid(signs_BG * logits_BG).sum(), pairs)


def global_contrastive(output: ModelOutput, config: LossConfig, pairs: int) -> Tensor:
    """GC in the form that is configured, of all this rank's pairs.

    Args:
        output: The two embeddings, scale and bias.
        config: `contrastive` names the form.
        pairs: Pairs of all ranks (G).
    """
    assert output.protein_BD is not None
    assert output.text_BD is not None
    if config.contrastive == "sigmoid":
        return sigmoid(output.protein_BD, output.text_BD, output.scale, output.bias, pairs)
    return infonce(output.protein_BD, output.text_BD, output.scale, pairs)


class GradientCache:
    """GC over all microbatches of a rank, and each one's share of it (GradCache, Gao et al. 2021).

    The loss of the embeddings, which were made without gradient, has gradients with respect to them,
    the scale and the bias. A microbatch that is computed anew, now with gradient, takes its part of them
    as they are: memory is that of one microbatch, gradients are those of one large batch.

    Args:
        embedded: What `ProtCLIP.embed` made of each microbatch, in order.
        config: `contrastive` names the form.
        pairs: Pairs of all ranks (G).
    """

    def __init__(self, embedded: Sequence[ModelOutput], config: LossConfig, pairs: int) -> None:
        proteins = [output.protein_BD for output in embedded if output.protein_BD is not None]
        texts = [output.text_BD for output in embedded if output.text_BD is not None]
        parts = (torch.cat(proteins), torch.cat(texts), embedded[0].scale, embedded[0].bias)
        leaves = [part.detach().requires_grad_() for part in parts]
        loss = global_contrastive(ModelOutput(*leaves), config, pairs)
        grads = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        sizes = [len(protein_BD) for protein_BD in proteins]
        self._proteins, self._texts = (torch.split(grad, sizes) for grad in grads[:2])
        self._scale, self._bias = (grad / len(embedded) for grad in grads[2:])
        self._value = loss.detach() / len(embedded)

    def share(self, index: int, output: ModelOutput) -> Tensor:
        """What a microbatch adds to GC, with its part of the gradient.

        Args:
            index: Which one.
            output: It, computed with gradient.

        Returns:
            Scalar; all shares add up to the loss.
        """
        assert output.protein_BD is not None
        assert output.text_BD is not None
        surrogate = (
            (output.protein_BD * self._proteins[index]).sum()
            + (output.text_BD * self._texts[index]).sum()
            + (output.scale * self._scale + output.bias * self._bias).sum()
        )
        return self._value + surrogate - surrogate.detach()
