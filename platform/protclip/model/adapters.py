"""Low-rank adapters (LoRA, Hu et al. 2021) of the protein tower, made by peft.

An adapter adds `alpha / rank · B·A` to a matrix. `B` starts at 0, so that a fresh adapter changes
nothing; folded into its matrix it costs nothing. What is trained is `training.freezing`'s to say.
"""

from dataclasses import dataclass
from typing import Any

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn


@dataclass(frozen=True, slots=True)
class Adapters:
    """What a checkpoint must know to have a place for the adapters' weights.

    Attributes:
        rank: Rows of A and columns of B.
        alpha: Scale, divided by the rank.
        targets: Names of the linear modules adapted in every layer.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Adapters":
        """Of plain values, as JSON keeps them."""
        return cls(values["rank"], values["alpha"], tuple(values["targets"]))


def inject(encoder: nn.Module, adapters: Adapters) -> None:
    """Adapts an encoder's matrices in place; its own parameters get `.base_layer` into their names.

    The random start of every `A` comes from torch's default generator.
    """
    config = LoraConfig(
        r=adapters.rank,
        lora_alpha=adapters.alpha,  # pyright: ignore[reportArgumentType] a fraction does as well
        target_modules=list(adapters.targets),
    )
    inject_adapter_in_model(config, encoder)
    del encoder.peft_config  # `Architecture` remembers, and survives merging


def merge(encoder: nn.Module) -> None:
    """Folds adapters into the matrices they adapt, in place; parameters have their plain names again."""
    for name, module in list(encoder.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            encoder.set_submodule(name, module.get_base_layer())


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name belongs to an adapter."""
    return ".lora_" in name
