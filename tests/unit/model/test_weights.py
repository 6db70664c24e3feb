import argparse
import json
import logging
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch
from esm.model.esm2 import ESM2
from transformers import BertConfig, BertForMaskedLM, EsmConfig, EsmForMaskedLM

from faulty_s3 import FaultyS3, error
from protclip import storage
from protclip.config.schema import LossConfig, ModelConfig, ProteinEncoderConfig, TextEncoderConfig
from protclip.errors import CheckpointError, ConfigError
from protclip.model.build import build
from protclip.model.esm2 import Esm2, Esm2Sizes
from protclip.model.text import TextEncoder
from protclip.model.weights import protein_encoder, text_encoder
from protclip.model.weights.names import to_fair_esm, to_hugging_face
from protclip.tensors import CLS, EOS, MASK, PAD, VOCAB_SIZE

TOKENS = torch.tensor([[CLS, 5, MASK, 9, 20, 4, EOS], [CLS, 11, 6, EOS, PAD, PAD, PAD]])
REAL = TOKENS != PAD
SIZES = Esm2Sizes(2, 32, 4)


def load_protein(source: str | Path) -> Esm2:
    found = protein_encoder(str(source))
    encoder = Esm2(found.sizes)
    found.load_into(encoder)
    return encoder


def load_text(source: str | Path, vocab_size: int = 50) -> TextEncoder:
    found = text_encoder(str(source), vocab_size)
    encoder = TextEncoder(found.sizes)
    found.load_into(encoder)
    return encoder


@pytest.fixture
def fair() -> ESM2:
    torch.manual_seed(0)
    return ESM2(SIZES.num_layers, SIZES.width, SIZES.num_heads).eval()


@pytest.fixture
def fair_file(fair: ESM2, tmp_path: Path) -> Path:
    """The official layout: a namespace under cfg, prefixed names, the language-model head, buffers."""
    settings = argparse.Namespace(
        encoder_layers=2, encoder_embed_dim=32, encoder_attention_heads=4, token_dropout=True
    )
    model = {}
    for name, weight in fair.state_dict().items():
        if not name.startswith("contact_head."):
            prefix = "encoder." if name.startswith("lm_head.") else "encoder.sentence_encoder."
            model[prefix + name] = weight
    path = tmp_path / "esm2_t2_tiny.pt"
    torch.save({"cfg": {"model": settings}, "model": model}, path)
    return path


@pytest.fixture(scope="module")
def esm_directory(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EsmForMaskedLM]:
    torch.manual_seed(1)
    config = EsmConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        position_embedding_type="rotary",
        token_dropout=True,
        emb_layer_norm_before=False,
        layer_norm_eps=1e-5,
        pad_token_id=PAD,
        mask_token_id=MASK,
    )
    model = EsmForMaskedLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    path = tmp_path_factory.mktemp("esm")
    model.save_pretrained(path)
    return path, model


@pytest.fixture(scope="module")
def bert_directory(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BertForMaskedLM]:
    torch.manual_seed(2)
    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    model = BertForMaskedLM(config).eval()
    path = tmp_path_factory.mktemp("bert")
    model.save_pretrained(path)
    return path, model


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def copy_of(directory: Path, target: Path, **changes: object) -> Path:
    """A model directory with other values in its config.json."""
    shutil.copytree(directory, target)
    config = json.loads((directory / "config.json").read_text()) | changes
    (target / "config.json").write_text(json.dumps(config))
    return target


def test_a_fair_esm_file_loads_completely(
    fair: ESM2, fair_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        encoder = load_protein(fair_file)
    with torch.no_grad():
        expected = fair(TOKENS, repr_layers=[2])["representations"][2]
        torch.testing.assert_close(encoder(TOKENS)[REAL], expected[REAL], atol=1e-5, rtol=1e-5)
    assert "lm_head.dense.weight" in caplog.text
    assert "inv_freq" not in caplog.text


def test_a_fair_esm_file_with_a_missing_parameter_is_refused(fair_file: Path) -> None:
    content = torch.load(fair_file, weights_only=False)
    del content["model"]["encoder.sentence_encoder.layers.1.fc1.weight"]
    torch.save(content, fair_file)
    with pytest.raises(CheckpointError, match=r"1 of 35 .*num_layers=2.*layers\.1\.fc1\.weight"):
        load_protein(fair_file)


def test_a_fair_esm_file_of_another_shape_is_refused(fair_file: Path) -> None:
    content = torch.load(fair_file, weights_only=False)
    content["cfg"]["model"].encoder_embed_dim = 64
    torch.save(content, fair_file)
    with pytest.raises(CheckpointError, match=r"embed_tokens\.weight is 33×32, expected 33×64"):
        load_protein(fair_file)


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch ran_code",)


def test_a_malicious_file_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "esm2_evil.pt"
    torch.save({"cfg": Malicious(), "model": {}}, path)
    with pytest.raises(CheckpointError, match="would run code"):
        load_protein(path)
    assert not (tmp_path / "ran_code").exists()


@pytest.mark.parametrize("content", [b"", b"not a model" * 20])
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "esm2.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"esm2\.pt"):
        load_protein(path)


def test_a_file_of_another_layout_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save({"state_dict": {}}, path)
    with pytest.raises(CheckpointError, match="not a fair-esm ESM-2 file"):
        load_protein(path)


def test_an_esm_directory_loads_completely(
    esm_directory: tuple[Path, EsmForMaskedLM], caplog: pytest.LogCaptureFixture
) -> None:
    path, model = esm_directory
    with caplog.at_level(logging.INFO):
        encoder = load_protein(path)
    with torch.no_grad():
        expected = model.esm(input_ids=TOKENS, attention_mask=REAL.long()).last_hidden_state
        torch.testing.assert_close(encoder(TOKENS)[REAL], expected[REAL], atol=1e-5, rtol=1e-5)
    assert "lm_head.dense.weight" in caplog.text


@pytest.mark.parametrize(
    ("key", "value"), [("position_embedding_type", "absolute"), ("token_dropout", False), ("vocab_size", 40)]
)
def test_an_esm_directory_that_is_no_esm2_is_refused(
    key: str, value: object, esm_directory: tuple[Path, EsmForMaskedLM], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=f"{key}|embed"):
        load_protein(copy_of(esm_directory[0], tmp_path / "copy", **{key: value}))


def test_an_esm_directory_with_too_few_layers_is_refused(
    esm_directory: tuple[Path, EsmForMaskedLM], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"num_layers=3.*layers\.2\."):
        load_protein(copy_of(esm_directory[0], tmp_path / "copy", num_hidden_layers=3))


def test_a_bert_directory_loads_completely(bert_directory: tuple[Path, BertForMaskedLM]) -> None:
    path, model = bert_directory
    encoder = load_text(path)
    tokens = torch.tensor([[2, 9, 8, 7, 3], [2, 6, 3, 0, 0]])
    real = tokens != 0
    with torch.no_grad():
        expected = model.bert(input_ids=tokens, attention_mask=real.long()).last_hidden_state
        torch.testing.assert_close(encoder(tokens, real)[real], expected[real], atol=1e-5, rtol=1e-5)


def test_a_bert_directory_of_another_width_is_refused(
    bert_directory: tuple[Path, BertForMaskedLM], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="is 50×32, expected 50×64"):
        load_text(copy_of(bert_directory[0], tmp_path / "copy", hidden_size=64))


def test_a_text_encoder_of_another_vocabulary_is_refused(
    bert_directory: tuple[Path, BertForMaskedLM],
) -> None:
    with pytest.raises(ConfigError, match=r"50 tokens.* 51"):
        load_text(bert_directory[0], vocab_size=51)


def test_damaged_safetensors_are_refused(
    bert_directory: tuple[Path, BertForMaskedLM], tmp_path: Path
) -> None:
    path = copy_of(bert_directory[0], tmp_path / "copy")
    (path / "model.safetensors").write_bytes(b"garbage" * 9)
    with pytest.raises(CheckpointError, match="copy"):
        load_text(path)


def test_a_directory_of_another_kind_is_refused(
    bert_directory: tuple[Path, BertForMaskedLM], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="model_type 'bert'"):
        load_protein(bert_directory[0])
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        load_protein(tmp_path)


def test_a_source_that_does_not_exist_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or directory"):
        load_protein(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="no such file or directory"):
        load_protein(tmp_path / "nothing.pt")


@pytest.mark.usefixtures("offline")
def test_a_hub_name_without_the_hub_says_how_to_provide_it() -> None:
    with pytest.raises(ConfigError, match=r"HF_HUB_OFFLINE is set.*hf download facebook/esm2_t6_8M_UR50D"):
        protein_encoder("facebook/esm2_t6_8M_UR50D")
    with pytest.raises(ConfigError, match="bert-tiny"):
        text_encoder("bert-tinny", 50)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[socket.socket]:
    """A hub that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(
            huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}"
        )
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
        yield server


@pytest.mark.usefixtures("hub")
def test_a_silent_hub_costs_seconds(esm_directory: tuple[Path, EsmForMaskedLM], tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(ConfigError, match="hf download facebook/esm2_t6_8M_UR50D"):
        protein_encoder("facebook/esm2_t6_8M_UR50D")
    assert time.monotonic() - started < 10
    kept = tmp_path / "hub" / "models--facebook--esm2_t6_8M_UR50D"
    shutil.copytree(esm_directory[0], kept / "snapshots" / ("0" * 40))
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0" * 40)
    assert protein_encoder("facebook/esm2_t6_8M_UR50D").sizes == SIZES


def test_a_published_models_preset_name_warns_of_random_weights(caplog: pytest.LogCaptureFixture) -> None:
    assert protein_encoder("esm2_t6_8M_UR50D").weights is None
    assert "RANDOM" in caplog.text
    caplog.clear()
    assert protein_encoder("esm2-tiny").weights is None
    assert text_encoder("bert-tiny", 77).sizes.vocab_size == 77
    assert not caplog.text


def test_build_loads_both_encoders(
    fair: ESM2, fair_file: Path, bert_directory: tuple[Path, BertForMaskedLM]
) -> None:
    path, bert = bert_directory
    config = ModelConfig(
        protein=ProteinEncoderConfig(source=str(fair_file)),
        text=TextEncoderConfig(source=str(path), trainable=True),
    )
    model = build(config, LossConfig(), vocab_size=50, seed=0)
    assert torch.equal(model.protein_encoder.layers[1].fc2.weight, fair.layers[1].fc2.weight)
    ours, theirs = model.text_encoder.bert.state_dict(), bert.bert.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(p.requires_grad for p in model.parameters())


def test_an_encoder_of_another_size_is_refused(fair_file: Path) -> None:
    source = protein_encoder(str(fair_file))
    with pytest.raises(CheckpointError, match=r"embed_tokens\.weight is 33×32, expected 33×48"):
        source.load_into(Esm2(Esm2Sizes(2, 48, 4)))


def test_encoders_come_from_an_object_store_once(
    fair_file: Path,
    bert_directory: tuple[Path, BertForMaskedLM],
    bucket: str,
    faults: FaultyS3,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    storage.copy_to(fair_file, f"{bucket}/esm2.pt")
    for path in bert_directory[0].iterdir():
        storage.copy_to(path, f"{bucket}/bert/{path.name}")
    storage.write_bytes(f"{bucket}/bert/flax_model.msgpack", b"not for us")
    for _ in range(2):
        load_protein(f"{bucket}/esm2.pt")
        load_text(f"{bucket}/bert")
    assert faults.count(r"GET .*esm2\.pt") == faults.count(r"GET .*model\.safetensors") == 1
    assert faults.count(r"GET .*msgpack") == 0
    with pytest.raises(ConfigError, match=r"nothing\.pt: no such file"):
        load_protein(f"{bucket}/nothing.pt")
    faults.fail(r"bert/config\.json", error("403 Forbidden", "AccessDenied"))
    with pytest.raises(ConfigError, match="not permitted"):
        load_text(f"{bucket}/bert")


def test_names_in_transformers_are_turned_back(esm_directory: tuple[Path, EsmForMaskedLM]) -> None:
    names = Esm2(SIZES).state_dict().keys()
    assert {to_fair_esm(to_hugging_face(name)) for name in names} == names
    assert {to_hugging_face(name) for name in names} < esm_directory[1].esm.state_dict().keys()
