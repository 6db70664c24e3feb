import numpy as np
import torch

from protclip.evaluation.cnn import OneHotCnn
from protclip.evaluation.embed import pad_tokens
from protclip.tensors import PAD, tokenize_residues


def outputs(network: OneHotCnn, *sequences: str) -> np.ndarray:
    tokens = [tokenize_residues(sequence, 100) for sequence in sequences]
    with torch.inference_mode():
        return network(pad_tokens(tokens, PAD)[0]).numpy()


def test_one_hot_cnn_does_not_see_padding():
    network = OneHotCnn(3, seed=0)
    alone = np.concatenate([outputs(network, s) for s in ("MKV", "MKTAYIAKQR" * 5, "X")])
    np.testing.assert_allclose(outputs(network, "MKV", "MKTAYIAKQR" * 5, "X"), alone, atol=1e-6)
    assert not np.allclose(outputs(network, "MKVX"), alone[0])


def test_one_hot_cnn_depends_on_order_and_its_seed():
    first, again, other = (OneHotCnn(2, seed) for seed in (0, 0, 1))
    assert not np.allclose(outputs(first, "MKTAYI"), outputs(first, "MKATYI"))
    np.testing.assert_array_equal(outputs(first, "MKTAYI"), outputs(again, "MKTAYI"))
    assert not np.allclose(outputs(first, "MKTAYI"), outputs(other, "MKTAYI"))
