"""Where architectures and weights come from.

The source of an encoder is one of

- a preset name: the architecture with random weights (all presets; nothing is downloaded for them),
- a fair-esm `.pt` file (protein only),
- a Hugging Face directory (`config.json`, `model.safetensors`),
- a Hugging Face hub name, `facebook/esm2_t33_650M_UR50D`.

A whole model starts from (`model.init`)

- a checkpoint of this platform,
- a directory with the weights that the authors of ProtCLIP published.

Files and directories are local or in an object store, whence each node fetches them once (`storage.cached`);
`.pt` files also come from `https://`. No pickle is ever executed: `.pt` and `.bin` files are read by
torch's weights-only reader.
"""

from protclip.model.weights.encoders import protein_encoder, text_encoder
from protclip.model.weights.source import EncoderSource
from protclip.model.weights.start import Start, start

__all__ = ["EncoderSource", "Start", "protein_encoder", "start", "text_encoder"]
