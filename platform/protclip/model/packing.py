"""Rows of different lengths as one long sequence, so that nothing is computed on padding.

Shape suffixes: B rows, L padded length, N real tokens of all rows, A heads, E width of a head, H
width of a state.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention

from protclip.model.heads import positions, spread, take

FLASH_CAPABILITY = (8, 0)
"""First generation of NVIDIA GPUs (Ampere) on which torch's variable-length attention runs."""


@dataclass(slots=True)
class Packing:
    """Where the real tokens of right-padded rows are; the rows' tokens follow one another.

    Not frozen: torch.compile would guard the fields of a frozen one by value and compile anew for
    every batch.

    Attributes:
        lengths: Real tokens of each row, on the host.
        longest: The most of them.
        at_N: Flat index of each token in (B, L).
        row_N: Its row.
        position_N: Its place in the row.
        starts: int32 (B + 1), where each row begins, and the end.
        shape: B and L.
        flash: Whether the device has variable-length attention.
    """

    lengths: Sequence[int]
    longest: int
    at_N: Tensor
    row_N: Tensor
    position_N: Tensor
    starts: Tensor
    shape: tuple[int, int]
    flash: bool

    @classmethod
    def of(cls, mask_BL: Tensor, lengths: Sequence[int] | None = None) -> Self:
        """Finds the real tokens.

        Args:
            mask_BL: True on real tokens, which come first in their row; at least one per row.
            lengths: Their number per row, where the host knows it; without, the host waits for the device.
        """
        num_rows, width = mask_BL.shape
        lengths_B = mask_BL.sum(1, dtype=torch.int32)
        lengths = lengths_B.tolist() if lengths is None else lengths
        at_N = positions(mask_BL, sum(lengths))
        on_cuda = mask_BL.is_cuda and torch.cuda.get_device_capability(mask_BL.device) >= FLASH_CAPABILITY
        return cls(
            lengths=lengths,
            longest=max(lengths),
            at_N=at_N,
            row_N=at_N // width,
            position_N=at_N % width,
            starts=torch.nn.functional.pad(lengths_B.cumsum(0, dtype=torch.int32), (1, 0)),
            shape=(num_rows, width),
            flash=on_cuda,
        )

    def pack(self, rows_BL: Tensor) -> Tensor:
        """The real tokens (N, …) of (B, L, …)."""
        return take(rows_BL, self.at_N)

    def unpack(self, states_NH: Tensor) -> Tensor:
        """States (B, L, H) of packed ones, zeros at padding."""
        num_rows, width = self.shape
        return spread(states_NH, self.at_N, num_rows * width).unflatten(0, self.shape)

    def attend(self, q_NAE: Tensor, k_NAE: Tensor, v_NAE: Tensor) -> Tensor:
        """Attention (N, A, E) of every token to the tokens of its own row.

        One kernel in half precision on a GPU that has it, otherwise one call per row.
        """
        if self.flash and v_NAE.dtype in (torch.bfloat16, torch.float16):
            ends = self.starts, self.starts, self.longest, self.longest
            return varlen_attn(q_NAE, k_NAE, v_NAE, *ends)  # pyright: ignore[reportReturnType] no extras asked for
        return _row_by_row(q_NAE, k_NAE, v_NAE, self)


@torch.compiler.disable(reason="unrolled, it would be compiled anew for every batch")
def _row_by_row(q_NAE: Tensor, k_NAE: Tensor, v_NAE: Tensor, packing: Packing) -> Tensor:
    """Attention within each row by torch's ordinary kernel."""
    rows = zip(
        *(x.transpose(0, 1).split(list(packing.lengths), dim=1) for x in (q_NAE, k_NAE, v_NAE)), strict=True
    )
    attended = [scaled_dot_product_attention(*(x[None] for x in row))[0] for row in rows]
    return torch.cat([x_AnE.transpose(0, 1) for x_AnE in attended])
