import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import normalize

import published
from faulty_s3 import FaultyS3, error
from protclip import storage
from protclip.config.export import ExportConfig
from protclip.config.schema import (
    LossConfig,
    ModelConfig,
)
from protclip.data.tokenizer import TextTokenizer
from protclip.errors import CheckpointError, ConfigError
from protclip.model import weights
from protclip.model.build import build
from protclip.model.export import export
from protclip.model.protclip import ProtCLIP
from protclip.tensors import CLS, EOS, PAD

TOKENS = torch.tensor([[CLS, 5, 7, 9, EOS], [CLS, 6, EOS, PAD, PAD]])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module, nn.Module]:
    directory = tmp_path_factory.mktemp("published")
    esm, bert = published.write(directory)
    return directory, esm, bert


def model_config(init: Path | str, **changes: object) -> ModelConfig:
    keys = {"projection_dim": published.DIM, "num_prototypes": published.PROTOTYPES, "fusion_heads": 4}
    return ModelConfig.model_validate({"init": str(init), **keys, **changes})


def test_the_authors_weights_fill_towers_projections_heads_prototypes_and_temperatures(
    theirs: tuple[Path, nn.Module, nn.Module],
) -> None:
    directory, esm, bert = theirs
    raw = {name: tensor.float() for name, tensor in load_file(directory / "model.safetensors").items()}
    model = build(model_config(directory), LossConfig(), vocab_size=50, seed=0).eval()
    real = TOKENS > 2
    with torch.inference_mode():
        states = esm(input_ids=TOKENS, attention_mask=(TOKENS != PAD).long()).last_hidden_state
        mean = (states * real[..., None]).sum(1) / real.sum(1, keepdim=True)
        x = torch.relu(mean @ raw["protein_projection.0.weight"].T + raw["protein_projection.0.bias"])
        expected = x @ raw["protein_projection.2.weight"].T + raw["protein_projection.2.bias"]
        torch.testing.assert_close(model.embed_protein(TOKENS), normalize(expected), atol=1e-5, rtol=1e-5)
        text = torch.tensor([[2, 9, 3], [2, 3, 0]])
        mask = torch.tensor([[True, True, True], [True, True, False]])
        states = bert(input_ids=text, attention_mask=mask.long()).last_hidden_state
        torch.testing.assert_close(model.text_encoder(text, mask)[mask], states[mask], atol=1e-5, rtol=1e-5)
    ours = model.state_dict()
    for name, their_name in {
        "text_projection.2.bias": "text_projection.2.bias",
        "mlm_head.3.weight": "mlm_head.3.weight",
        "bsr_head.2.weight": "t2p_mlm_head.2.weight",
        "prototypes.bank_PD": "proto_bank.prototype.weight",
    }.items():
        assert torch.equal(ours[name], raw[their_name])
    assert model.log_scale.tolist() == [3.5]
    assert model.log_pda_scale.tolist() == [2.0]


def test_weights_without_a_place_and_places_without_weights_are_listed(
    theirs: tuple[Path, nn.Module, nn.Module], caplog: pytest.LogCaptureFixture
) -> None:
    model = build(model_config(theirs[0]), LossConfig(), vocab_size=50, seed=0)
    transfer = weights.start(str(theirs[0])).load_into(model)
    assert set(transfer.unused) == published.UNUSED
    fresh = {name for name in model.state_dict() if name.startswith("fusion.") or name == "logit_bias"}
    assert set(transfer.fresh) == fresh
    assert all(name in caplog.text for name in (*published.UNUSED, *fresh))
    raw = load_file(theirs[0] / "model.safetensors")
    frequencies = {name for name in raw if name.endswith("inv_freq")}
    assert len(raw) - len(frequencies) - len(transfer.unused) == len(model.state_dict()) - len(fresh)


def test_fresh_weights_are_those_of_the_seed(theirs: tuple[Path, nn.Module, nn.Module]) -> None:
    models = [build(model_config(theirs[0]), LossConfig(), 50, seed) for seed in (0, 0, 1)]
    first, again, other = (model.fusion.attention.in_proj_weight for model in models)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def changed(directory: Path, target: Path, drop: str = "", **keys: object) -> Path:
    """A copy of their directory without a weight, with other keys in its configuration."""
    target.mkdir()
    state = {n: t for n, t in load_file(directory / "model.safetensors").items() if n != drop}
    save_file(state, target / "model.safetensors")
    config = json.loads((directory / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | keys))
    return target


def test_a_directory_of_the_authors_that_is_damaged_is_refused(
    theirs: tuple[Path, nn.Module, nn.Module], tmp_path: Path
) -> None:
    def start_from(directory: Path, **keys: object) -> ProtCLIP:
        return build(model_config(directory, **keys), LossConfig(), vocab_size=50, seed=0)

    name = "text_projection.0.weight"
    with pytest.raises(CheckpointError, match=r"1 of \d+ parameters are missing: text_projection\.0\.weight"):
        start_from(changed(theirs[0], tmp_path / "a", drop=name))
    with pytest.raises(CheckpointError, match="is 16×32, expected 8×32"):
        start_from(changed(theirs[0], tmp_path / "b", projection_dim=8), projection_dim=8)
    cut = changed(theirs[0], tmp_path / "c")
    content = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        start_from(cut)
    (cut / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing; put it beside config\.json"):
        start_from(cut)
    with pytest.raises(CheckpointError, match=r"config\.json is not that of ProtCLIP's authors"):
        start_from(changed(theirs[0], tmp_path / "d", text_model_config="bert"))
    esm = json.loads((theirs[0] / "config.json").read_text())["protein_model_config"]
    with pytest.raises(CheckpointError, match="not an ESM-2: token_dropout is False"):
        start_from(changed(theirs[0], tmp_path / "e", protein_model_config=esm | {"token_dropout": False}))


def test_a_model_to_start_from_must_be_known_and_fit_the_configuration(
    theirs: tuple[Path, nn.Module, nn.Module], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"model\.projection_dim=512.*set model\.projection_dim=16"):
        build(model_config(theirs[0], projection_dim=512), LossConfig(), 50, 0)
    with pytest.raises(ConfigError, match=r"50 tokens.* 51"):
        build(model_config(theirs[0]), LossConfig(), 51, 0)
    with pytest.raises(ConfigError, match=r"text\.max_tokens=513"):
        build(model_config(theirs[0], text={"max_tokens": 513}), LossConfig(), 50, 0)
    with pytest.raises(ConfigError, match=r"of type 'llama', known are protclip, FST"):
        weights.start(str(changed(theirs[0], tmp_path / "llama", model_type="llama")))
    with pytest.raises(CheckpointError, match="checkpoint here"):
        weights.start(str(tmp_path / "nothing"))


def test_a_checkpoint_is_started_from_with_its_adapters_folded_in(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    tokenizer = TextTokenizer.load("builtin")
    keys = {"projection_dim": 32, "num_prototypes": 16, "fusion_heads": 4, "text": {"max_tokens": 64}}
    config = ModelConfig.model_validate({"init": str(tiny_checkpoint.parent), **keys})
    model = build(config, LossConfig(), tokenizer.vocab_size, 5, tokenizer.to_json())
    source = weights.start(str(tiny_checkpoint))
    assert source.load_into(model).fresh == ()
    assert all(torch.equal(t, source.weights[name]) for name, t in model.state_dict().items())
    adapted = ModelConfig.model_validate(
        {"init": str(tiny_checkpoint), "protein": {"lora": {"rank": 2}}, **keys}
    )
    assert build(adapted, LossConfig(), tokenizer.vocab_size, 5).architecture.adapters is not None


def test_a_checkpoint_of_another_vocabulary_of_the_same_size_is_refused(tiny_checkpoint: Path) -> None:
    tokenizer = json.loads(TextTokenizer.load("builtin").to_json())
    pieces = tokenizer["model"]["vocab"]
    pieces["a"], pieces["b"] = pieces["b"], pieces["a"]
    keys = {"projection_dim": 32, "num_prototypes": 16, "fusion_heads": 4}
    config = ModelConfig.model_validate({"init": str(tiny_checkpoint), **keys})
    with pytest.raises(ConfigError, match=r"2 of .* pieces differ, 'a' for example"):
        build(config, LossConfig(), len(pieces), 0, json.dumps(tokenizer))


def test_an_exported_model_is_started_from(tiny_checkpoint: Path, tmp_path: Path) -> None:
    export(ExportConfig(checkpoint=str(tiny_checkpoint), output=str(tmp_path / "model")))
    source, expected = weights.start(str(tmp_path / "model")), weights.start(str(tiny_checkpoint))
    assert source.weights.keys() == expected.weights.keys()
    assert all(torch.equal(tensor, source.weights[name]) for name, tensor in expected.weights.items())
    assert (source.protein, source.text, source.trained) == (
        expected.protein,
        expected.text,
        expected.trained,
    )


def test_a_model_in_an_object_store_is_started_from(
    theirs: tuple[Path, nn.Module, nn.Module], bucket: str, faults: FaultyS3
) -> None:
    for path in theirs[0].iterdir():
        storage.copy_to(path, f"{bucket}/published/{path.name}")
    model = build(model_config(f"{bucket}/published"), LossConfig(), 50, 0)
    assert model.log_scale.tolist() == [3.5]
    faults.reset()
    weights.start(f"{bucket}/published")
    assert faults.count(r"GET .*model\.safetensors") == 0
    faults.fail("config", error("403 Forbidden", "AccessDenied"))
    with pytest.raises(ConfigError, match="not permitted"):
        weights.start(f"{bucket}/published")
