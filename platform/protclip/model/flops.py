"""Floating-point operations of a training step's encoders, for the utilisation of a device (MFU).

Counted as in PaLM (Chowdhery et al. 2022, appendix B): what the step needs by its mathematics. Real
tokens only; what is computed twice to save memory (gradient caching, checkpointing, attention's
backward pass) counts once. Projections, heads and losses are left out: 1 % at the paper's sizes.
"""

from collections.abc import Iterable, Sequence
from itertools import chain

from torch import nn

from protclip.model.protclip import ProtCLIP
from protclip.tensors import Batch


def training_flops(model: ProtCLIP, batches: Sequence[Batch]) -> int:
    """Operations of one step's forward and backward passes through both towers on this rank.

    What is frozen now has no gradient of its own, and none goes below the lowest trained layer.

    Args:
        model: The bare model.
        batches: The step's microbatches; only their counts are looked at, which are on the host.
    """
    protein, text = model.protein_encoder, model.text_encoder.bert
    sizes = model.architecture
    return _tower_flops(
        protein.embed_tokens,
        protein.layers,
        sizes.protein.width,
        list(chain.from_iterable(_protein_lengths(model.terms, batch) for batch in batches)),
    ) + _tower_flops(
        text.embeddings,
        text.encoder.layer,
        sizes.text.width,
        list(chain.from_iterable(_text_lengths(model.terms, batch) for batch in batches)),
    )


def _protein_lengths(terms: frozenset[str], batch: Batch) -> tuple[int, ...]:
    """Tokens of every protein in every pass."""
    corrupted = len(terms & {"mlm", "bsr"})
    clean = not terms.isdisjoint({"gc", "pda"})
    return batch.counts.protein_lengths * (clean + (min(corrupted, 1) if batch.shared else corrupted))


def _text_lengths(terms: frozenset[str], batch: Batch) -> tuple[int, ...]:
    """Tokens of every biotext and property text that is encoded."""
    biotexts = () if terms.isdisjoint({"gc", "bsr"}) else batch.counts.text_lengths
    return biotexts + (batch.counts.property_lengths if "pda" in terms else ())


def _tower_flops(
    embedding: nn.Module, layers: Iterable[nn.Module], width: int, lengths: Sequence[int]
) -> int:
    """Operations of one encoder; two per multiplication and addition."""
    tokens, squares = sum(lengths), sum(n * n for n in lengths)
    flops, backward = 0, _trained(embedding)
    for layer in layers:
        backward = backward or _trained(layer)
        # Queries by keys and weights by values; each has two gradients.
        flops += 2 * 2 * width * squares * (3 if backward else 1)
        for module in layer.modules():
            if isinstance(module, nn.Linear):
                products = 1 + backward + module.weight.requires_grad
                flops += 2 * module.in_features * module.out_features * tokens * products
    return flops


def _trained(module: nn.Module) -> bool:
    """Whether any of its parameters is."""
    return any(parameter.requires_grad for parameter in module.parameters())
