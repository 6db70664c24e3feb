"""A checkpoint as a directory for everyone: each tower as transformers loads it, the rest beside them.

    README.md                     model card, with code that embeds a protein and a text
    config.json                   sizes, how embeddings are pooled, the configuration of the training
    protein/                      `AutoModel`, `AutoTokenizer`: ESM-2
    text/                         `AutoModel`, `AutoTokenizer`: BERT
    tokenizer.json                the text tokenizer as in training, without `[CLS]` and `[SEP]`
    protclip.safetensors          projections, heads, prototypes, temperatures, by our names
    SHA256SUMS                    of all these; written last, so that without it an export is incomplete

Adapters are folded into the tower they adapt.
"""

import logging
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import (
    BertConfig,
    BertModel,
    EsmConfig,
    EsmModel,
    EsmTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from protclip import checkpoint, storage
from protclip.checkpoint import LoadedCheckpoint
from protclip.config.export import ExportConfig
from protclip.errors import DataError
from protclip.model.build import rebuild
from protclip.model.card import card
from protclip.model.protclip import ProtCLIP
from protclip.model.weights.encoders import ESM2_REQUIRES
from protclip.model.weights.names import to_hugging_face
from protclip.model.weights.start import (
    CONFIG,
    HEADS,
    OURS,
    PROTEIN,
    PROTEIN_PARTS,
    TEXT,
    TEXT_PARTS,
    TOKENIZER,
    TOWER,
)
from protclip.tensors import RESIDUE_TOKENS

log = logging.getLogger(__name__)

SUMS, CARD = "SHA256SUMS", "README.md"
SPECIALS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def export(config: ExportConfig) -> dict[str, object]:
    """Writes a checkpoint as a directory that transformers loads.

    Returns:
        The directory, the checkpoint, and the number of files.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        DataError: The output is there already, or cannot be written.
    """
    _check_output(config)
    loaded = checkpoint.load(config.checkpoint)
    model = rebuild(loaded)
    with tempfile.TemporaryDirectory(prefix="protclip-") as name:
        directory = Path(name)
        _write(model, loaded, directory)
        files = sorted(path for path in directory.rglob("*") if path.is_file())
        if config.overwrite:
            storage.remove(config.output)
        sums = []
        for path in files:
            relative = path.relative_to(directory).as_posix()
            stored = storage.copy_to(path, storage.join(config.output, relative))
            sums.append(f"{stored.sha256}  {relative}\n")
        storage.write_bytes(storage.join(config.output, SUMS), "".join(sums).encode())
    log.info("%s: exported to %s", loaded.uri, config.output)
    return {"export": config.output, "checkpoint": loaded.uri, "files": len(files) + 1}


def _check_output(config: ExportConfig) -> None:
    """Refuses to write over anything but an export that may be replaced."""
    if not storage.exists(config.output) or not storage.list_files(config.output):
        return
    if not storage.exists(storage.join(config.output, SUMS)):
        raise DataError(
            f"{config.output}: something is there already, and no exported model; choose another directory"
        )
    if not config.overwrite:
        raise DataError(f"{config.output}: an exported model is there already; set overwrite=true")


def _write(model: ProtCLIP, loaded: LoadedCheckpoint, directory: Path) -> None:
    """All files but the checksums."""
    limits = loaded.config.model
    rest: dict[str, Tensor] = {}
    protein: dict[str, Tensor] = {}
    text: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name.startswith(PROTEIN_PARTS):
            protein[to_hugging_face(name.removeprefix(PROTEIN_PARTS))] = tensor
        elif name.startswith(TEXT_PARTS):
            text[name.removeprefix(TEXT_PARTS)] = tensor
        else:
            rest[name] = tensor
    sizes = model.architecture.protein
    esm = EsmConfig.from_dict(
        ESM2_REQUIRES
        | {
            "hidden_size": sizes.width,
            "num_hidden_layers": sizes.num_layers,
            "num_attention_heads": sizes.num_heads,
            "intermediate_size": 4 * sizes.width,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        }
    )
    bert = BertConfig.from_dict(model.text_encoder.bert.config.to_dict())
    with torch.device("meta"):
        towers = EsmModel(esm, add_pooling_layer=False), BertModel(bert, add_pooling_layer=False)
    _save_tower(towers[0], protein, directory / PROTEIN)
    _save_tower(towers[1], text, directory / TEXT)
    _residue_tokenizer(directory / PROTEIN, limits.protein.max_tokens)
    _text_tokenizer(loaded.tokenizer_json, limits.text.max_tokens).save_pretrained(directory / TEXT)
    storage.write_bytes(str(directory / TOKENIZER), loaded.tokenizer_json.encode())
    save_file(rest, directory / HEADS, {"format": "pt"})
    values = {
        "model_type": OURS,
        "architecture": model.architecture.to_dict(),
        "embedding": {
            "protein": "mean over residues of the last hidden state, without <cls>, <eos> and padding; "
            "protein_projection; L2 norm 1",
            "text": "mean over tokens of the last hidden state, with [CLS] and [SEP], without padding; "
            "text_projection; L2 norm 1",
            "projection": "Linear (0), ReLU, Linear (2)",
            "dim": model.architecture.projection_dim,
        },
        "checkpoint": loaded.meta.model_dump(mode="json", exclude={"files"}),
        "training": loaded.config.model_dump(mode="json"),
    }
    storage.write_json(str(directory / CONFIG), values)
    storage.write_bytes(str(directory / CARD), card(model.architecture, loaded).encode())


def _save_tower(tower: PreTrainedModel, weights: dict[str, Tensor], directory: Path) -> None:
    """Writes a tower as transformers keeps it, and nothing that it does not have."""
    missing, left = tower.load_state_dict(weights, strict=False, assign=True)
    # Ours has no head for contact maps; the frequencies of rotary positions are computed.
    assert not left, left
    assert all(name.startswith(("contact_head.", "rotary_embeddings.")) for name in missing), missing
    tower.config.architectures = [type(tower).__name__]
    tower.config.save_pretrained(directory)
    # The library's own writer calls a norm's weight and bias gamma and beta, as nobody else does.
    save_file(weights, directory / TOWER, {"format": "pt"})


def _residue_tokenizer(directory: Path, max_tokens: int) -> None:
    """ESM-2's tokenizer, whose ids are ours."""
    (directory / "vocab.txt").write_text("\n".join(RESIDUE_TOKENS))
    EsmTokenizer(str(directory / "vocab.txt"), model_max_length=max_tokens).save_pretrained(directory)


def _text_tokenizer(tokenizer_json: str, max_tokens: int) -> PreTrainedTokenizerFast:
    """The biotext tokenizer, which puts `[CLS]` and `[SEP]` around by itself."""
    tokenizer = Tokenizer.from_str(tokenizer_json)
    ids = {token: tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]")}
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=list(ids.items()))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_tokens, **SPECIALS)
