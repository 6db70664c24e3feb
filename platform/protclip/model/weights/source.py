"""What all sources share: fitting weights into a module, naming what does not fit, explaining damage."""

import logging
import pickle
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from safetensors import SafetensorError
from torch import Tensor, nn

from protclip.errors import CheckpointError, ConfigError, DataError

log = logging.getLogger(__name__)

Sizes = TypeVar("Sizes")

NAMES_SHOWN = 4


@dataclass(frozen=True, slots=True)
class EncoderSource(Generic[Sizes]):
    """An encoder to be built.

    Attributes:
        name: The source as configured.
        sizes: Its architecture.
        weights: Its parameters by our names; None for random ones.
    """

    name: str
    sizes: Sizes
    weights: Mapping[str, Tensor] | None = None

    def load_into(self, encoder: nn.Module) -> None:
        """Fills an encoder of these sizes; leaves it as it is when the weights are random.

        Weights without a place are logged by name.

        Raises:
            CheckpointError: Parameters are missing or have another shape.
        """
        if self.weights is None:
            return
        expected = encoder.state_dict()
        if missing := [name for name in expected if name not in self.weights]:
            raise CheckpointError(
                f"{self.name}: {len(missing)} of {len(expected)} parameters of {self.sizes} are missing: "
                f"{some(missing)}; the file is incomplete or of another architecture"
            )
        check_shapes(self.name, self.weights, expected, str(self.sizes))
        log_unused(self.name, self.weights.keys() - expected.keys())
        encoder.load_state_dict({name: self.weights[name] for name in expected})


def check_shapes(
    source: str, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str
) -> None:
    """Compares the tensors that both have.

    Raises:
        CheckpointError: Some have other shapes.
    """
    wrong = [
        f"{name} is {_shape(weights[name])}, expected {_shape(tensor)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if wrong:
        raise CheckpointError(
            f"{source}: {len(wrong)} of {len(expected)} parameters do not have the shape they have in "
            f"{what}: {some(wrong)}; give the weights of this size"
        )


@contextmanager
def explained(source: str) -> Iterator[None]:
    """Turns what readers raise on a damaged or unsafe source into one message."""
    try:
        yield
    except DataError as error:
        raise ConfigError(str(error)) from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{source}: refused, because reading it would run code or it is no PyTorch file; "
            "give the publisher's own file or a safetensors directory"
        ) from error
    except (OSError, EOFError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{source}: cannot be read as weights: {_first_line(error)}") from error


def log_unused(source: str, names: Collection[str]) -> None:
    """Names weights that nothing here takes, such as language-model and contact heads."""
    if unused := sorted(name for name in names if not name.endswith("inv_freq")):
        log.info("%s: weights without a place here: %s", source, ", ".join(unused))


def some(names: list[str]) -> str:
    """The first few names."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _first_line(error: Exception) -> str:
    """The first line of an error's text, or its class name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _shape(tensor: Tensor) -> str:
    """A shape as 33×320."""
    return "×".join(map(str, tensor.shape)) or "one number"
