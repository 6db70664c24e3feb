"""A small convolutional network on one-hot residues, trained on the task alone: what no pre-training gives.

Shape suffixes: B sequences, L residues, V residue tokens, W channels, O outputs.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from protclip.tensors import VOCAB_SIZE, residue_mask

CHANNELS, KERNEL, LR = 64, 7, 1e-3


class OneHotCnn(nn.Module):
    """Two convolutions over residues, their mean and maximum per sequence, a linear layer.

    The plain peer of FLIP's benchmarks (one convolution and a maximum there). Padding and special tokens take
    no part.

    Args:
        outputs: Width of the output.
        seed: Seed of the weights.
    """

    def __init__(self, outputs: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Conv1d(VOCAB_SIZE, CHANNELS, KERNEL, padding="same")
            self.second = nn.Conv1d(CHANNELS, CHANNELS, KERNEL, padding="same")
            self.out = nn.Linear(2 * CHANNELS, outputs)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """(B, O) outputs of residue tokens; each sequence has at least one residue."""
        real_B1L = residue_mask(tokens_BL)[:, None]
        x_BVL = one_hot(tokens_BL, VOCAB_SIZE).transpose(1, 2).float() * real_B1L
        x_BWL = torch.relu(self.first(x_BVL)) * real_B1L
        x_BWL = torch.relu(self.second(x_BWL)) * real_B1L
        mean_BW = x_BWL.sum(2) / real_B1L.sum(2)
        # After a ReLU no residue is below the 0 of padding.
        return self.out(torch.cat([mean_BW, x_BWL.amax(2)], dim=1))
