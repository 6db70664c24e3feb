from pathlib import Path

import pytest
import torch

import published
from protclip import checkpoint
from protclip.config.export import ExportConfig, ImportConfig
from protclip.data.tokenizer import TextTokenizer
from protclip.errors import ConfigError, DataError
from protclip.evaluation.embed import Embedder
from protclip.model import weights
from protclip.model.export import export
from protclip.training.imported import import_model


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("published")
    published.write(directory, TextTokenizer.load("builtin").vocab_size)
    return directory


def test_the_authors_weights_become_a_checkpoint_that_embeds(theirs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    made = import_model(ImportConfig(checkpoint=str(theirs), output=str(run), tokenizer="builtin"))
    assert set(made["unused"]) == published.UNUSED
    assert "logit_bias" in made["fresh"]
    loaded = checkpoint.load(str(run))
    assert (loaded.meta.step, loaded.config.model.init) == (0, str(theirs))
    expected = weights.start(str(theirs)).weights
    for name, tensor in loaded.weights.items():
        assert name in made["fresh"] or torch.equal(tensor, expected[name])
    embedder = Embedder(loaded, torch.device("cpu"))
    assert (
        embedder.embed_proteins(["MKT"]).shape == embedder.embed_texts(["zinc"]).shape == (1, published.DIM)
    )
    assert loaded.config.model.text.max_tokens == 512


def test_pairs_given_at_import_are_those_of_benchmarks(
    theirs: Path, tiny_pairs: Path, tmp_path: Path
) -> None:
    config = {"checkpoint": str(theirs), "tokenizer": "builtin"}
    import_model(ImportConfig(**config, output=str(tmp_path / "a"), pairs=str(tiny_pairs)))
    assert checkpoint.load(str(tmp_path / "a")).config.data == str(tiny_pairs)
    import_model(ImportConfig(**config, output=str(tmp_path / "b")))
    assert checkpoint.load(str(tmp_path / "b")).config.data.endswith("pairs-of-this-model-are-unknown")


def test_an_exported_model_comes_back_as_it_was(tiny_checkpoint: Path, tmp_path: Path) -> None:
    export(ExportConfig(checkpoint=str(tiny_checkpoint), output=str(tmp_path / "model")))
    made = import_model(ImportConfig(checkpoint=str(tmp_path / "model"), output=str(tmp_path / "run")))
    assert (made["fresh"], made["unused"]) == ([], [])
    before, after = (checkpoint.load(str(uri)) for uri in (tiny_checkpoint, tmp_path / "run"))
    assert all(torch.equal(tensor, after.weights[name]) for name, tensor in before.weights.items())
    assert after.tokenizer_json == before.tokenizer_json
    assert after.architecture == before.architecture
    assert after.config.data == before.config.data
    assert after.config.model.protein.max_tokens == 128


def test_import_refuses_another_tokenizer_and_an_output_in_use(
    theirs: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    published.write(other, vocab_size=50)
    with pytest.raises(ConfigError, match="50 tokens"):
        import_model(ImportConfig(checkpoint=str(other), output=str(tmp_path / "run"), tokenizer="builtin"))
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").touch()
    with pytest.raises(DataError, match="choose another output"):
        import_model(ImportConfig(checkpoint=str(theirs), output=str(tmp_path / "run"), tokenizer="builtin"))
