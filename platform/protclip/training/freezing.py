"""Which parameters are trained at a step: the one place that decides.

A parameter is trained when an active objective uses its part of the model (data-parallel training
would wait for a gradient that never comes) and, within a tower, when `model.{protein,text}` says so:
`trainable`, `unfreeze_at`, `train_layers`, and `lora`, which leaves the tower's own weights as they
are. The answer is a function of configuration and step, so that a resumed run trains what the
uninterrupted one would. Nothing runs backward below the lowest layer that is trained.
"""

import re

from protclip.config.schema import ModelConfig
from protclip.model.adapters import is_adapter
from protclip.model.protclip import ProtCLIP

ENCODER_LAYER = re.compile(r"\.layers?\.(\d+)\.")
EMBEDDING = -1


def encoder_layer(name: str, num_layers: int) -> int:
    """The layer an encoder's parameter is in: -1 for the embedding, the last one for the final norm."""
    if found := ENCODER_LAYER.search(name):
        return int(found[1])
    return EMBEDDING if "embed" in name else num_layers - 1


def trained_since(model: ProtCLIP, config: ModelConfig) -> dict[str, int]:
    """The step from which on a parameter is trained, by name; those never trained are not in it."""
    sizes = model.architecture
    towers = {
        "protein_encoder": (config.protein, sizes.protein.num_layers, sizes.adapters is not None),
        "text_encoder": (config.text, sizes.text.num_layers, False),
    }
    since: dict[str, int] = {}
    for name, _ in model.named_parameters():
        part = name.partition(".")[0]
        if part not in model.used:
            continue
        if part not in towers:
            since[name] = 0
            continue
        tower, num_layers, adapted = towers[part]
        lowest = num_layers - tower.train_layers if tower.train_layers else EMBEDDING
        frozen = (adapted and not is_adapter(name)) or encoder_layer(name, num_layers) < lowest
        if tower.trainable and not frozen:
            since[name] = tower.unfreeze_at
    return since


def apply(model: ProtCLIP, config: ModelConfig, step: int) -> bool:
    """Freezes and unfreezes parameters for the update that follows `step` updates.

    Args:
        model: The bare model.
        config: Its configuration.
        step: Updates done.

    Returns:
        Whether the set of trained parameters changed; a wrapper made for the earlier one must be
        made anew.
    """
    since = trained_since(model, config)
    changed = False
    for name, parameter in model.named_parameters():
        trained = name in since and step >= since[name]
        changed |= trained != parameter.requires_grad
        parameter.requires_grad_(trained)
    return changed
