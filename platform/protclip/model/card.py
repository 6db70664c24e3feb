"""The model card of an exported model."""

from protclip.checkpoint import LoadedCheckpoint
from protclip.model.protclip import Architecture

CODE = """\
import torch
from safetensors.torch import load_file
from torch.nn.functional import linear, normalize, relu
from transformers import AutoModel, AutoTokenizer

heads = load_file("protclip.safetensors")

@torch.inference_mode()
def embed(tower, inputs):
    batch = AutoTokenizer.from_pretrained(tower)(inputs, padding=True, truncation=True, return_tensors="pt")
    states = AutoModel.from_pretrained(tower, add_pooling_layer=False).eval()(**batch).last_hidden_state
    mask = batch["input_ids"] > 2 if tower == "protein" else batch["attention_mask"].bool()
    x = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    w = {k.removeprefix(f"{tower}_projection."): v for k, v in heads.items()}
    return normalize(linear(relu(linear(x, w["0.weight"], w["0.bias"])), w["2.weight"], w["2.bias"]))

proteins = embed("protein", ["MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"])
texts = embed("text", ["FUNCTION: Catalyzes the hydrolysis of ATP.", "SUBCELLULAR LOCATION: Nucleus."])
print(proteins @ texts.T)
"""
"""Works inside an exported directory; a test runs it."""


def card(architecture: Architecture, loaded: LoadedCheckpoint) -> str:
    """README.md of an export: what the model is, what it was made of, how well it does, how to use it."""
    config, meta = loaded.config, loaded.meta
    protein, text = architecture.protein, architecture.text
    start = (
        f"`{config.model.init}`"
        if config.model.init
        else f"`{config.model.protein.source}` and `{config.model.text.source}`"
    )
    weights = ", ".join(f"{name} {weight:g}" for name, weight in config.loss.weights.items())
    metrics = "".join(f"| `{name}` | {value:.4g} |\n" for name, value in sorted(meta.metrics.items()))
    results = f"| metric | value |\n|---|---|\n{metrics}" if metrics else "None were stored.\n"
    return f"""---
library_name: transformers
tags: [protein, protclip, esm, feature-extraction]
---
# {config.run.name}: a ProtCLIP model

Proteins and descriptions of them in one space of {architecture.projection_dim} dimensions, after ProtCLIP
(AAAI 2025, [arXiv 2412.20014](https://arxiv.org/abs/2412.20014)).

## Use

`protein/` and `text/` load with `AutoModel` and `AutoTokenizer`; the pooler of either is not part of the
model. Inside this directory:

```python
{CODE}```

Sequences beyond {config.model.protein.max_tokens} tokens and texts beyond {config.model.text.max_tokens} are
cut. Texts looked like `PROTEIN NAME: … FUNCTION: … SUBCELLULAR LOCATION: … SIMILARITY: …` in training, any
but the first absent. `config.json` says how embeddings are made.

## Made of

| | |
|---|---|
| protein tower | ESM-2, {protein.num_layers} layers, width {protein.width}, {protein.num_heads} heads |
| text tower | BERT, {text.num_layers} layers, width {text.width}, {text.vocab_size:,} pieces |
| began from | {start} |
| objectives | {weights} |
| steps | {meta.step:,} of {config.train.max_steps:,}, global batch {config.train.global_batch:,} |
| pairs | `{config.data}`, manifest sha256 `{meta.data_manifest or "unknown"}` |
| checkpoint | `{loaded.uri}` |
| code | {meta.git_sha or "unknown"} |

## Results

Measured while it was trained, at or before its last step:

{results}
## Licence

These weights are made from others. ESM-2 and BiomedBERT were published under the MIT licence, UniProtKB under
CC BY 4.0; if this model began from them or was trained on it, their terms and attributions go with it.
"""
