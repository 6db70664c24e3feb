import numpy as np
import pytest

from protclip import checkpoint
from protclip.data.tokenizer import TextTokenizer
from protclip.evaluation.embed import Embedder
from protclip.evaluation.encoders import ModelEncoder, digests, untouched
from protclip.evaluation.store import VectorStore
from protclip.evaluation.trial import CHECKPOINT, UNTOUCHED
from protclip.model.build import rebuild

SEQUENCES = ["MKTAYIAKQR", "GGSS", "MKTAYIAKQRQISFVKSHFSRQ", "GGSS"]


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    return checkpoint.load(str(tiny_checkpoint))


@pytest.fixture(scope="module")
def embedder(loaded):
    return Embedder(loaded)


@pytest.fixture
def kept(tmp_path):
    return VectorStore(str(tmp_path), "d")


def never():
    raise AssertionError("the model is not needed")


@pytest.mark.parametrize(
    ("what", "method"),
    [
        ("features", "protein_features"),
        ("projected", "embed_proteins"),
        ("texts", "embed_texts"),
        ("text_features", "text_features"),
    ],
)
def test_encoder_computes_what_is_not_kept(embedder, kept, what, method):
    encoder = ModelEncoder("some", lambda: embedder, kept)
    vectors_ND = encoder.vectors(what, SEQUENCES)
    np.testing.assert_allclose(vectors_ND, getattr(embedder, method)(SEQUENCES), atol=2e-5)
    assert encoder.name == "some"
    assert encoder.embedder is embedder


def test_encoder_loads_no_model_for_what_is_kept(embedder, kept):
    planted_ND = np.arange(9, dtype=np.float32).reshape(3, 3)
    kept.add("features", SEQUENCES[:3], planted_ND)
    found_ND = ModelEncoder("some", never, kept).vectors("features", SEQUENCES)
    np.testing.assert_array_equal(found_ND, planted_ND[[0, 1, 2, 1]])


def test_encoder_puts_kept_and_computed_vectors_together(embedder, kept):
    planted_NH = np.ones((1, 64), np.float32)
    kept.add("features", ["GGSS"], planted_NH)
    vectors_NH = ModelEncoder("some", lambda: embedder, kept).vectors("features", SEQUENCES)
    computed_NH = embedder.protein_features(SEQUENCES)
    np.testing.assert_array_equal(vectors_NH[[1, 3]], planted_NH[[0, 0]])
    np.testing.assert_allclose(vectors_NH[[0, 2]], computed_NH[[0, 2]], atol=2e-5)


def test_untouched_is_the_model_that_training_begins_from(loaded, tiny_checkpoint):
    """The fixture's model is untrained, made with the seed that its configuration names."""
    trained = {name: weight + 1 for name, weight in loaded.weights.items()}
    changed = checkpoint.LoadedCheckpoint(
        loaded.uri, loaded.meta, loaded.config, loaded.architecture, loaded.tokenizer_json, trained
    )
    again = untouched(changed)
    assert again.weights.keys() == loaded.weights.keys()
    for name, weight in loaded.weights.items():
        np.testing.assert_array_equal(again.weights[name], weight)
    rebuild(again)


def test_digests_tell_weights_apart_wherever_they_lie(loaded, tiny_checkpoint):
    tokenizer = TextTokenizer.from_json(loaded.tokenizer_json)
    found = digests(str(tiny_checkpoint), loaded.config, tokenizer)
    assert found.keys() == {CHECKPOINT, UNTOUCHED}
    assert found[CHECKPOINT] != found[UNTOUCHED]
    moved = loaded.config.model_copy(update={"data": "elsewhere"})
    assert digests(str(tiny_checkpoint), moved, tokenizer) == found
    train = loaded.config.train.model_copy(update={"seed": 1})
    other = digests(str(tiny_checkpoint), loaded.config.model_copy(update={"train": train}), tokenizer)
    assert other[CHECKPOINT] == found[CHECKPOINT]
    assert other[UNTOUCHED] != found[UNTOUCHED]
