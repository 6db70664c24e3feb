"""Training a small head on the protein encoder, frozen or fine-tuned along with it.

Shape suffixes: N examples, B examples of one update, F feature width, O outputs.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from protclip.errors import BenchmarkError
from protclip.evaluation.arrays import standardised
from protclip.evaluation.embed import pad_tokens
from protclip.evaluation.spec.sequences import HeadProtocol
from protclip.model.protclip import ProtCLIP
from protclip.tensors import PAD, uses_bf16

PREDICT_AT_ONCE = 64
ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Inputs(Protocol):
    """Examples a network can be fed with."""

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def batch(self, rows: np.ndarray) -> Tensor:
        """The examples at `rows`, as the network takes them."""
        ...


class FeatureInputs:
    """Fixed vectors, standardised with the mean and deviation of `reference_NF`."""

    def __init__(self, features_NF: np.ndarray, reference_NF: np.ndarray, device: torch.device) -> None:
        ready_NF = standardised(features_NF, reference_NF).astype(np.float32)
        self._features_NF = torch.from_numpy(ready_NF).to(device)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self._features_NF)

    def batch(self, rows: np.ndarray) -> Tensor:
        """(B, F)."""
        return self._features_NF[torch.from_numpy(rows)]


class ResidueInputs:
    """Residue tokens, padded per batch."""

    def __init__(self, tokens: Sequence[np.ndarray], device: torch.device) -> None:
        self._tokens = tokens
        self._device = device

    def __len__(self) -> int:
        """Number of examples."""
        return len(self._tokens)

    def batch(self, rows: np.ndarray) -> Tensor:
        """(B, L)."""
        return pad_tokens([self._tokens[i] for i in rows], PAD)[0].to(self._device)


def make_head(width: int, hidden: int | None, outputs: int, rng: torch.Generator) -> nn.Sequential:
    """Linear, ReLU, Linear, initialised from `rng` (ProtST's head; `hidden` None: as wide as the input)."""
    hidden = hidden or width
    sizes = (width, hidden), (hidden, outputs)
    layers = [nn.Linear(*size, device="meta").to_empty(device="cpu") for size in sizes]
    for layer in layers:
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=rng)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1])


class EncoderWithHead(nn.Module):
    """A copy of the protein tower, every parameter trainable, with a head on its features.

    Args:
        model: The pre-trained model; left as it is.
        features: "pooled" or "projected", as in `HeadProtocol`.
        head: The head.
    """

    def __init__(self, model: ProtCLIP, features: str, head: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_()
        self.head = head
        self._encode = self.model.embed_protein if features == "projected" else self.model.protein_features

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """(B, O) outputs of residue tokens; in bf16 where a GPU computes in it; weights stay float32."""
        bf16 = uses_bf16("auto", tokens_BL.device)
        with torch.autocast(tokens_BL.device.type, dtype=torch.bfloat16, enabled=bf16):
            features_BF = self._encode(tokens_BL)
        return self.head(features_BF.float())


def fit(
    network: ModuleT,
    parameter_groups: list[dict[str, object]],
    inputs: Inputs,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    score: Callable[[ModuleT], tuple[float, float]],
    protocol: HeadProtocol,
    seed: int,
) -> int:
    """Trains with Adam until `score` has not risen for `patience` epochs; keeps the best epoch's weights.

    Args:
        network: Maps a batch of `inputs` to outputs; holds the best weights afterwards.
        parameter_groups: Adam's parameter groups with their learning rates.
        inputs: Training examples.
        targets: Target of each example, on the network's device.
        loss: Mean loss of (outputs, targets).
        score: Validation metric of the network and what decides between equal ones (small validation
            parts have many), higher is better.
        protocol: Batch, epochs, patience.
        seed: Seed of the order of examples.

    Returns:
        The best epoch, counted from 1.

    Raises:
        BenchmarkError: The loss is not finite.
    """
    optimizer = torch.optim.Adam(parameter_groups)
    best_score, best_epoch, best_weights = (-np.inf, -np.inf), 0, {}
    for epoch in tqdm(range(1, protocol.epochs + 1), desc="head", unit="epoch", disable=None, leave=False):
        network.train()
        order = np.random.default_rng([seed, epoch]).permutation(len(inputs))
        total = torch.zeros((), device=targets.device)
        for start in range(0, len(order), protocol.batch):
            rows = order[start : start + protocol.batch]
            optimizer.zero_grad()
            value = loss(network(inputs.batch(rows)), targets[torch.from_numpy(rows)])
            value.backward()
            optimizer.step()
            total += value.detach()
        if not torch.isfinite(total):
            raise BenchmarkError(
                f"training the head came to a loss of {total.item()} in epoch {epoch}; lower lr, or look "
                "for vectors that are not finite"
            )
        network.eval()
        epoch_score = score(network)
        if epoch_score > best_score:
            best_score, best_epoch = epoch_score, epoch
            best_weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
        elif epoch - best_epoch >= protocol.patience:
            break
    network.load_state_dict(best_weights)
    return best_epoch


@torch.inference_mode()
def outputs(network: nn.Module, inputs: Inputs) -> np.ndarray:
    """(N, O) outputs of every example, float32."""
    rows = np.arange(len(inputs))
    pieces = [rows[i : i + PREDICT_AT_ONCE] for i in range(0, len(rows), PREDICT_AT_ONCE)]
    return np.concatenate([network(inputs.batch(piece)).float().cpu().numpy() for piece in pieces])
