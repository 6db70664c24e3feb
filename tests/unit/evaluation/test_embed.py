import shutil

import numpy as np
import pytest

from protclip import storage
from protclip.errors import CheckpointError
from protclip.evaluation.embed import Embedder

SEQUENCES = ["MKTAYIAKQR", "M", "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ" * 3, "GGSS", "MKTAYIAKQR", "MXUBZ"]
TEXTS = ["PROTEIN NAME: Kinase.", "FUNCTION: Binds.", "", "PROTEIN NAME: Kinase. FUNCTION: " + "Binds. " * 80]


@pytest.fixture(scope="module")
def embedder(tiny_checkpoint):
    return Embedder.from_checkpoint(str(tiny_checkpoint), batch_size=4)


def test_embeddings_have_the_promised_shapes_and_length(embedder):
    proteins, texts = embedder.embed_proteins(SEQUENCES), embedder.embed_texts(TEXTS)
    features = embedder.protein_features(SEQUENCES)
    assert (proteins.shape, texts.shape, features.shape) == ((6, 32), (4, 32), (6, 64))
    assert proteins.dtype == texts.dtype == features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(proteins, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "inputs"),
    [
        ("embed_proteins", SEQUENCES),
        ("protein_features", SEQUENCES),
        ("embed_texts", TEXTS),
        ("text_features", TEXTS),
    ],
)
def test_embeddings_do_not_depend_on_batch_neighbours_or_order(embedder, method, inputs):
    embed = getattr(embedder, method)
    together = embed(inputs)
    alone = np.concatenate([embed([one]) for one in inputs])
    np.testing.assert_allclose(together, alone, atol=2e-5)
    np.testing.assert_allclose(embed(inputs[::-1])[::-1], together, atol=2e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_embeddings_of_nothing_keep_their_width(embedder):
    assert embedder.embed_proteins([]).shape == embedder.embed_texts([]).shape == (0, 32)
    assert embedder.protein_features([]).shape == (0, 64)
    assert embedder.text_features([]).shape == (0, embedder.model.architecture.text.width)


def test_embed_text_tokens_equals_embed_texts(embedder):
    tokens = embedder.tokenizer.encode(TEXTS)
    np.testing.assert_array_equal(embedder.embed_text_tokens(tokens), embedder.embed_texts(TEXTS))


def test_protein_features_are_the_mean_over_residues_alone(embedder):
    import torch

    tokens = torch.as_tensor(embedder.residue_tokens(["MKTAYIAKQR"])[0].astype(np.int64))[None]
    with torch.inference_mode():
        states = embedder.model.protein_encoder(tokens)[0, 1:-1]
    np.testing.assert_allclose(
        embedder.protein_features(["MKTAYIAKQR"])[0], states.mean(0).numpy(), atol=1e-5
    )


def test_text_features_are_the_mean_over_tokens_alone(embedder):
    import torch

    text = TEXTS[0]
    ids = embedder.tokenizer.with_specials(embedder.tokenizer.encode([text])[0], 64)
    tokens = torch.as_tensor(ids)[None]
    with torch.inference_mode():
        states = embedder.model.text_encoder(tokens, torch.ones_like(tokens, dtype=torch.bool))[0, 1:-1]
    features = embedder.text_features([text, "", TEXTS[3]])
    np.testing.assert_allclose(features[0], states.mean(0).numpy(), atol=1e-5)
    assert not features[1].any()


def test_scale_is_the_inverse_of_the_temperature(embedder):
    assert embedder.scale == pytest.approx(1 / 0.07, rel=1e-3)


def test_long_sequences_are_cut_to_the_models_length(embedder):
    long = "ACDEFGHIKLMNPQRSTVWY" * 10
    np.testing.assert_allclose(
        embedder.embed_proteins([long]), embedder.embed_proteins([long[:126]]), atol=1e-6
    )


def test_from_checkpoint_refuses_weights_of_another_size(tiny_checkpoint, tmp_path):
    directory = shutil.copytree(tiny_checkpoint, tmp_path / "step")
    [path] = directory.glob("*/architecture.json")
    architecture = storage.read_json(str(path))
    architecture["protein"]["width"] *= 2
    stored = storage.write_json(str(path), architecture)
    meta = storage.read_json(str(directory / "meta.json"))
    entry = {"num_bytes": stored.num_bytes, "sha256": stored.sha256}
    meta["files"][str(path.relative_to(directory))] = entry
    storage.write_json(str(directory / "meta.json"), meta)
    with pytest.raises(CheckpointError, match="another size") as caught:
        Embedder.from_checkpoint(str(directory))
    assert "\n" not in str(caught.value)


def test_from_checkpoint_refuses_a_damaged_file(tiny_checkpoint, tmp_path):
    directory = shutil.copytree(tiny_checkpoint, tmp_path / "step")
    [path] = directory.glob("*/model-*.safetensors")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"model-.*\.safetensors: missing or damaged"):
        Embedder.from_checkpoint(str(directory))


def test_batches_keep_within_both_bounds_and_hold_every_row(tiny_checkpoint, monkeypatch):
    embedder = Embedder.from_checkpoint(str(tiny_checkpoint), batch_size=3, batch_tokens=40)
    shapes = []
    forward = embedder.model.embed_protein
    monkeypatch.setattr(embedder.model, "embed_protein", lambda x: shapes.append(x.shape) or forward(x))
    sequences = ["M" * n for n in (100, 3, 18, 18, 5, 5, 5, 5)]
    together = embedder.embed_proteins(sequences)
    # 100 residues alone are over the budget; of 18 two fit, of 5 three by number.
    assert [tuple(shape) for shape in shapes] == [(1, 102), (2, 20), (3, 7), (2, 7)]
    alone = Embedder.from_checkpoint(str(tiny_checkpoint), batch_size=1).embed_proteins(sequences)
    np.testing.assert_allclose(together, alone, atol=2e-5)


def test_bf16_embeddings_are_near_those_of_fp32(tiny_checkpoint, embedder):
    bf16 = Embedder.from_checkpoint(str(tiny_checkpoint), precision="bf16").embed_proteins(SEQUENCES)
    exact = embedder.embed_proteins(SEQUENCES)
    assert bf16.dtype == np.float32
    assert 0 < np.abs(bf16 - exact).max() < 3e-2
