"""Running an encoder on rows of very different lengths without computing on padding."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

SHORTEST_SHARE = 0.8
FEWEST_TOKENS = 512


def by_length(
    encode: Callable[[Tensor, Tensor | None], Tensor], tokens_BL: Tensor, mask_BL: Tensor
) -> Tensor:
    """Encodes right-padded rows; on the CPU in a few chunks of rows of similar length.

    On other devices it is one call: chunks would cost launches there, and under sharded parameters
    every rank has to run its layers equally often.

    Args:
        encode: Maps tokens (N, l) and their mask, None when nothing is padding, to states (N, l, H).
        tokens_BL: int64 tokens of at least one row.
        mask_BL: bool, True on real tokens.

    Returns:
        (B, L, H) states; what stands at padding is unspecified but finite.
    """
    if tokens_BL.device.type != "cpu":
        return encode(tokens_BL, mask_BL)
    lengths_B, order_B = mask_BL.sum(1).sort(descending=True, stable=True)
    lengths = lengths_B.tolist()
    chunks = []
    for start, stop in _cuts(lengths):
        rows, longest = order_B[start:stop], lengths[start]
        mask = mask_BL[rows, :longest] if lengths[stop - 1] < longest else None
        states = encode(tokens_BL[rows, :longest], mask)
        chunks.append(pad(states, (0, 0, 0, tokens_BL.shape[1] - longest)))
    return torch.cat(chunks).index_select(0, order_B.argsort())


def _cuts(lengths: list[int]) -> Iterator[tuple[int, int]]:
    """Ranges of descending lengths; a range ends where padding would weigh more than a further call."""
    start = 0
    for i, length in enumerate(lengths):
        longest = lengths[start]
        if length < SHORTEST_SHARE * longest and (i - start) * longest >= FEWEST_TOKENS:
            yield start, i
            start = i
    yield start, len(lengths)
