import numpy as np
import pytest
import torch
from torch import nn

from protclip.errors import BenchmarkError
from protclip.evaluation.embed import Embedder
from protclip.evaluation.heads import EncoderWithHead, FeatureInputs, fit, make_head, outputs
from protclip.evaluation.spec.sequences import HeadProtocol

CPU = torch.device("cpu")


def test_feature_inputs_are_standardised_by_the_reference():
    rng = np.random.default_rng(0)
    reference = rng.normal(3, 5, (500, 4)).astype(np.float32)
    reference[:, 3] = 7
    standardised = FeatureInputs(reference, reference, CPU).batch(np.arange(500))
    np.testing.assert_allclose(standardised.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(standardised.std(0, correction=0)[:3], 1, atol=1e-5)
    other = FeatureInputs(reference[:2] + 5, reference, CPU).batch(np.arange(2))
    np.testing.assert_allclose(
        other[:, :3], standardised[:2, :3].numpy() + 5 / reference.std(0)[:3], atol=1e-4
    )


def test_make_head_depends_on_its_generator_alone():
    heads = [make_head(6, None, 3, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert [tuple(p.shape) for p in heads[0].parameters()] == [(6, 6), (6,), (3, 6), (3,)]
    assert torch.equal(heads[0][0].weight, heads[1][0].weight)
    assert not torch.equal(heads[0][0].weight, heads[2][0].weight)
    assert make_head(6, 11, 3, torch.Generator())[0].out_features == 11


def test_fit_keeps_the_best_epoch_and_stops_after_patience():
    network = nn.Linear(2, 1)
    inputs = FeatureInputs(np.eye(2), np.eye(2), CPU)
    scores = iter([(0.1, 9), (0.5, 1), (0.5, 2), (0.4, 9), (0.5, 2), (0.5, 1), (0.9, 9)])
    seen = []

    def score(net):
        seen.append({name: value.clone() for name, value in net.state_dict().items()})
        return next(scores)

    # Equal metrics are decided by the second number; three epochs in a row are no better than the third.
    best = fit(
        network,
        [{"params": list(network.parameters()), "lr": 0.1}],
        inputs,
        torch.zeros(2, 1),
        nn.functional.mse_loss,
        score,
        HeadProtocol(patience=3, epochs=50, batch=1),
        seed=0,
    )
    assert (best, len(seen)) == (3, 6)
    assert all(torch.equal(value, seen[2][name]) for name, value in network.state_dict().items())
    assert not torch.equal(network.weight, seen[5]["weight"])


def test_fit_tells_of_a_learning_rate_that_is_too_high():
    network = nn.Linear(2, 1)
    inputs = FeatureInputs(np.eye(2), np.eye(2), CPU)
    with pytest.raises(BenchmarkError, match="lower lr"):
        fit(
            network,
            [{"params": list(network.parameters()), "lr": 1e30}],
            inputs,
            torch.zeros(2, 1),
            nn.functional.mse_loss,
            lambda _: (0, 0),
            HeadProtocol(epochs=5),
            seed=0,
        )


def test_outputs_cover_every_example_in_order():
    inputs = FeatureInputs(np.arange(300.0)[:, None], np.array([[-1.0], [1.0]]), CPU)
    np.testing.assert_allclose(outputs(nn.Identity(), inputs)[:, 0], np.arange(300.0))


def test_encoder_with_head_passes_gradient_to_the_encoder_only_of_its_copy(tiny_checkpoint):
    model = Embedder.from_checkpoint(str(tiny_checkpoint)).model
    model.requires_grad_(False)
    network = EncoderWithHead(model, "pooled", make_head(64, 8, 2, torch.Generator().manual_seed(0)))
    network(torch.tensor([[0, 5, 6, 7, 2], [0, 5, 2, 1, 1]])).sum().backward()
    assert network.model.protein_encoder.layers[0].fc1.weight.grad.abs().sum() > 0
    assert model.protein_encoder.layers[0].fc1.weight.grad is None
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("features", ["pooled", "projected"])
def test_encoder_with_head_sees_the_features_the_frozen_head_sees(tiny_checkpoint, features):
    embedder = Embedder.from_checkpoint(str(tiny_checkpoint))
    network = EncoderWithHead(embedder.model, features, nn.Identity())
    tokens = torch.as_tensor(embedder.residue_tokens(["MKTAYIAK"])[0].astype(np.int64))[None]
    embed = embedder.embed_proteins if features == "projected" else embedder.protein_features
    with torch.inference_mode():
        np.testing.assert_allclose(network(tokens).numpy(), embed(["MKTAYIAK"]), atol=1e-5)
