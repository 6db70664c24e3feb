import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer, BertModel, EsmModel

from faulty_s3 import FaultyS3, error
from protclip import checkpoint, storage
from protclip.config.export import ExportConfig
from protclip.config.schema import LoraConfig, ProteinEncoderConfig
from protclip.errors import CheckpointError, DataError
from protclip.evaluation.embed import Embedder
from protclip.model.adapters import is_adapter
from protclip.model.build import build
from protclip.model.export import export
from protclip.training.replica import Replica
from protclip.training.state import TrainState
from protclip.training.store import CheckpointStore

SEQUENCES = ["MKTAYIAKQRQISFVKSHFSRQ", "MXBUZOW", "M" * 300]
LORA = LoraConfig(rank=2)
UNTRAINED = ("pooler.", "contact_head.", "rotary_embeddings.")
"""What transformers makes itself: two heads that are not part of the model, and a constant."""
TEXTS = ["FUNCTION: Acts by its CHHC motif.", "Nucleus (by similarity), 42 kDa."]


@pytest.fixture(scope="module")
def exported(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("exported") / "model"
    made = export(ExportConfig(checkpoint=str(tiny_checkpoint), output=str(output)))
    assert made["export"] == str(output)
    assert made["files"] == len([path for path in output.rglob("*") if path.is_file()])
    return output


@pytest.fixture(scope="module")
def embedder(tiny_checkpoint: Path) -> Embedder:
    return Embedder.from_checkpoint(str(tiny_checkpoint), torch.device("cpu"))


def test_export_gives_towers_that_transformers_loads(exported: Path, embedder: Embedder) -> None:
    esm, found = AutoModel.from_pretrained(exported / "protein", output_loading_info=True)
    assert isinstance(esm, EsmModel)
    assert all(name.startswith(UNTRAINED) for name in found["missing_keys"])
    assert not found["unexpected_keys"]
    batch = AutoTokenizer.from_pretrained(exported / "protein")(
        SEQUENCES, padding=True, truncation=True, return_tensors="pt"
    )
    mask = batch["attention_mask"].bool()
    with torch.inference_mode():
        theirs = esm.eval()(**batch).last_hidden_state
        ours = embedder.model.protein_encoder(batch["input_ids"])
    torch.testing.assert_close(theirs[mask], ours[mask], atol=1e-5, rtol=1e-5)

    bert, found = AutoModel.from_pretrained(exported / "text", output_loading_info=True)
    assert isinstance(bert, BertModel)
    assert all(name.startswith("pooler.") for name in found["missing_keys"])
    batch = AutoTokenizer.from_pretrained(exported / "text")(TEXTS, padding=True, return_tensors="pt")
    mask = batch["attention_mask"].bool()
    with torch.inference_mode():
        theirs = bert.eval()(**batch).last_hidden_state
        ours = embedder.model.text_encoder(batch["input_ids"], mask)
    torch.testing.assert_close(theirs[mask], ours[mask], atol=1e-5, rtol=1e-5)


def test_export_gives_tokenizers_with_the_same_ids(exported: Path, embedder: Embedder) -> None:
    tokenizer = AutoTokenizer.from_pretrained(exported / "protein")
    ours = embedder.residue_tokens(SEQUENCES)
    theirs = tokenizer(SEQUENCES, truncation=True)["input_ids"]
    assert [list(row) for row in ours] == theirs
    assert tokenizer.model_max_length == len(theirs[2]) == 128
    tokenizer = AutoTokenizer.from_pretrained(exported / "text")
    long = [*TEXTS, "word " * 100]
    ours = [embedder.tokenizer.with_specials(ids, 64).tolist() for ids in embedder.tokenizer.encode(long)]
    assert tokenizer(long, truncation=True)["input_ids"] == ours


def test_export_has_a_card_whose_code_gives_our_embeddings(
    exported: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = (exported / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(exported)
    found: dict[str, torch.Tensor] = {}
    exec(code, found)
    proteins = embedder.embed_proteins(["MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"])
    texts = embedder.embed_texts(
        ["FUNCTION: Catalyzes the hydrolysis of ATP.", "SUBCELLULAR LOCATION: Nucleus."]
    )
    np.testing.assert_allclose(found["proteins"], proteins, atol=1e-5)
    np.testing.assert_allclose(found["texts"], texts, atol=1e-5)


def test_export_says_what_the_model_is(exported: Path, tiny_checkpoint: Path, tiny_pairs: Path) -> None:
    config = json.loads((exported / "config.json").read_text())
    assert config["model_type"] == "protclip"
    assert config["embedding"]["dim"] == 32
    assert config["checkpoint"]["step"] == 3
    card = (exported / "README.md").read_text()
    for part in (
        "esm2-tiny",
        str(tiny_pairs),
        checkpoint.read_meta(str(tiny_checkpoint)).data_manifest,
        "3 of 10,000",
        "gc 1, bsr 0.7, mlm 0.3, pda 1",
        "## Licence",
    ):
        assert part in card
    esm = json.loads((exported / "protein" / "config.json").read_text())
    assert (esm["token_dropout"], esm["position_embedding_type"], esm["vocab_size"]) == (True, "rotary", 33)
    rest = load_file(exported / "protclip.safetensors")
    assert {name.partition(".")[0] for name in rest} == {
        "protein_projection", "text_projection", "mlm_head", "bsr_head", "fusion", "prototypes",
        "log_scale", "log_pda_scale", "logit_bias",
    }  # fmt: skip


def test_export_lists_the_checksum_of_every_file(exported: Path) -> None:
    lines = (exported / "SHA256SUMS").read_text().splitlines()
    listed = dict(reversed(line.split("  ")) for line in lines)
    files = {p.relative_to(exported).as_posix() for p in exported.rglob("*") if p.is_file()}
    assert listed.keys() == files - {"SHA256SUMS"}
    for name, digest in listed.items():
        assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == digest


def test_export_folds_adapters_in(tiny_checkpoint: Path, tmp_path: Path) -> None:
    config = checkpoint.load(str(tiny_checkpoint)).config
    model = build(
        config.model.model_copy(update={"protein": ProteinEncoderConfig(source="esm2-tiny", lora=LORA)}),
        config.loss,
        checkpoint.load(str(tiny_checkpoint)).architecture["text"]["vocab_size"],
        seed=0,
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_adapter(name):
                parameter.normal_()
    state = TrainState.create(Replica(model, config, torch.device("cpu")), config)
    tokenizer_json = checkpoint.load(str(tiny_checkpoint)).tokenizer_json
    with CheckpointStore(str(tmp_path / "run"), keep_last=1, keep_best=0, best_metric="") as store:
        store.save(state, config, tokenizer_json, "", None, {"valid/t2p_r10": 0.25})
    export(ExportConfig(checkpoint=str(tmp_path / "run"), output=str(tmp_path / "model")))
    esm = AutoModel.from_pretrained(tmp_path / "model" / "protein", add_pooling_layer=False).eval()
    tokens = torch.tensor([[0, 5, 7, 9, 2]])
    with torch.inference_mode():
        theirs, ours = esm(input_ids=tokens).last_hidden_state, model.protein_encoder(tokens)
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)
    assert "| `valid/t2p_r10` | 0.25 |" in (tmp_path / "model" / "README.md").read_text()


def test_export_replaces_an_export_only_when_told_and_nothing_else_ever(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    def run(output: Path, *, overwrite: bool = False) -> None:
        export(ExportConfig(checkpoint=str(tiny_checkpoint), output=str(output), overwrite=overwrite))

    output = tmp_path / "model"
    run(output)
    (output / "text" / "old.json").touch()
    with pytest.raises(DataError, match="set overwrite=true"):
        run(output)
    run(output, overwrite=True)
    assert not (output / "text" / "old.json").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(DataError, match="no exported model; choose another"):
        run(tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.tex").exists()
    with pytest.raises(CheckpointError, match="checkpoint here"):
        export(ExportConfig(checkpoint=str(tmp_path / "mine"), output=str(tmp_path / "other")))
    assert not (tmp_path / "other").exists()


def test_export_to_an_object_store_is_complete_or_without_checksums(
    tiny_checkpoint: Path, bucket: str, faults: FaultyS3, exported: Path
) -> None:
    config = ExportConfig(checkpoint=str(tiny_checkpoint), output=f"{bucket}/model")
    rule = faults.fail(r"PUT .*/text/model\.safetensors", error("403 Forbidden", "AccessDenied"))
    with pytest.raises(DataError, match=r"text/model\.safetensors.*not permitted"):
        export(config)
    assert rule.done
    assert not storage.exists(f"{bucket}/model/SHA256SUMS")
    faults.reset()
    export(config.model_copy(update={"output": f"{bucket}/again"}))
    puts = [line for line in faults.seen if line.startswith("PUT")]
    assert puts[-1].split("?")[0].endswith("again/SHA256SUMS")
    assert (
        storage.read_bytes(f"{bucket}/again/protclip.safetensors")
        == (exported / "protclip.safetensors").read_bytes()
    )
