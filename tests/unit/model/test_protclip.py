import json
import math
from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from protclip.config.schema import LossConfig, ModelConfig, PdaConfig, ProteinEncoderConfig, TextEncoderConfig
from protclip.errors import ConfigError
from protclip.losses.objective import Totals, objective
from protclip.model.build import build
from protclip.model.protclip import USED_BY, Architecture, ProtCLIP
from protclip.tensors import EOS, MASK, PAD, Batch
from protclip.training import freezing

OFF: dict[str, float] = {"gc": 0, "bsr": 0, "mlm": 0}


def only(*terms: str) -> LossConfig:
    weights = OFF | {t: 1.0 for t in terms if t != "pda"}
    return LossConfig(**weights, pda=PdaConfig(weight=float("pda" in terms)))


def rows_of(batch: Batch, rows: list[int]) -> Batch:
    """Some pairs of a batch, at the width they have in it."""
    tensors = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return Batch(**{name: value[rows] for name, value in tensors.items() if isinstance(value, Tensor)})


def totals(batch: Batch) -> Totals:
    """Of a step on this batch alone."""
    return Totals.of([batch], batch.num_pairs)


def trained(model: ProtCLIP, batch: Batch, loss: LossConfig, noise: Tensor | None = None) -> set[str]:
    """Parts of the model that a term's gradient reaches; checks that no trainable one is left out."""
    model.train()
    objective(model(batch, noise), loss, totals(batch)).total.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    return {
        name.partition(".")[0]
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().sum() > 0
    }


def test_embeddings_have_length_one_and_are_repeatable(make_model: Callable, make_batch: Callable) -> None:
    batch, model = make_batch(), make_model()
    output = model.eval()(batch, None)
    torch.testing.assert_close(output.protein_BD.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(output.protein_BD, model.embed_protein(batch.tokens_BL), atol=1e-6, rtol=0)
    embedded = model.embed_text(batch.text_BT, batch.text_mask_BT)
    torch.testing.assert_close(output.text_BD, embedded, atol=1e-6, rtol=0)


def test_embeddings_do_not_change_with_padding_or_neighbours(
    make_model: Callable, make_batch: Callable
) -> None:
    batch, model = make_batch(lengths=(30, 1, 70, 12)), make_model().eval()
    together = model.embed_protein(batch.tokens_BL)
    texts = model.embed_text(batch.text_BT, batch.text_mask_BT)
    for i in range(4):
        alone = batch.tokens_BL[i][batch.tokens_BL[i] != PAD][None]
        torch.testing.assert_close(model.embed_protein(alone)[0], together[i], atol=1e-6, rtol=0)
        words = batch.text_BT[i][batch.text_mask_BT[i]][None]
        text = model.embed_text(words, torch.ones_like(words).bool())
        torch.testing.assert_close(text[0], texts[i], atol=1e-6, rtol=0)


def test_protein_features_are_the_mean_over_residues(make_model: Callable, make_batch: Callable) -> None:
    batch, model = make_batch(lengths=(9, 4)), make_model()
    states = model.protein_encoder(batch.tokens_BL)
    features = model.protein_features(batch.tokens_BL)
    assert batch.tokens_BL[1, 5] == EOS
    torch.testing.assert_close(features[1], states[1, 1:5].mean(0))


def test_a_pairs_logits_do_not_change_with_its_neighbours(
    make_model: Callable, make_batch: Callable, gumbel: Callable
) -> None:
    batch, model, noise = make_batch(), make_model().eval(), gumbel(3)
    whole, part = model(batch, noise), model(rows_of(batch, [1]), noise[[1]])
    before = int(batch.segment_mask_BL[0].sum())
    count = int(batch.segment_mask_BL[1].sum())
    torch.testing.assert_close(
        part.bsr_logits_MV, whole.bsr_logits_MV[before : before + count], atol=2e-6, rtol=0
    )
    torch.testing.assert_close(part.prototypes_BKD[0], whole.prototypes_BKD[1], atol=2e-6, rtol=0)


def test_targets_are_the_residues_under_the_masks(make_model: Callable, make_batch: Callable) -> None:
    batch = make_batch()
    output = make_model()(batch, None)
    assert torch.equal(output.bsr_targets_M, batch.tokens_BL[batch.segment_mask_BL])
    assert torch.equal(output.mlm_targets_M, batch.tokens_BL[batch.mlm_mask_BL])
    assert not (output.mlm_targets_M == MASK).any()
    assert len(output.bsr_logits_MV) == len(output.bsr_targets_M) > 0


@pytest.mark.parametrize("term", ["gc", "bsr", "mlm", "pda"])
def test_each_term_trains_what_it_uses_and_nothing_else(
    term: str, make_model: Callable, make_batch: Callable, gumbel: Callable
) -> None:
    loss = only(term)
    reached = trained(make_model(loss, text_trainable=True), make_batch(), loss, gumbel(3))
    assert reached == {part for part, terms in USED_BY.items() if term in terms} - {"logit_bias"}
    assert "protein_encoder" in reached


def test_all_terms_train_every_parameter(
    make_model: Callable, make_batch: Callable, gumbel: Callable
) -> None:
    for loss, unused in ((LossConfig(), {"logit_bias"}), (LossConfig(contrastive="sigmoid"), set())):
        model = make_model(loss, text_trainable=True)
        assert trained(model, make_batch(), loss, gumbel(3)) == set(USED_BY) - unused


def test_a_frozen_text_encoder_gets_no_gradient(
    make_model: Callable, make_batch: Callable, gumbel: Callable
) -> None:
    model, batch = make_model(), make_batch()
    assert trained(model, batch, LossConfig(), gumbel(3)) == (set(USED_BY) - {"text_encoder", "logit_bias"})
    assert not model.text_encoder(batch.text_BT, batch.text_mask_BT).requires_grad


def test_a_frozen_protein_encoder_gets_no_gradient(make_batch: Callable, gumbel: Callable) -> None:
    config = ModelConfig(
        protein=ProteinEncoderConfig(source="esm2-tiny", trainable=False),
        text=TextEncoderConfig(source="bert-tiny"),
        projection_dim=24,
        num_prototypes=16,
        fusion_heads=2,
    )
    model = build(config, LossConfig(), 60, 0)
    freezing.apply(model, config, step=0)
    expected = set(USED_BY) - {"text_encoder", "protein_encoder", "logit_bias"}
    assert trained(model, make_batch(), LossConfig(), gumbel(3)) == expected


@pytest.mark.parametrize("terms", [("mlm",), ("bsr",), ("bsr", "mlm"), ("pda",), ("gc", "mlm")])
def test_only_the_passes_that_active_terms_need_run(
    terms: tuple[str, ...], make_model: Callable, make_batch: Callable
) -> None:
    batch, loss = make_batch(), only(*terms)
    model = make_model(loss).train()
    seen = {"protein": 0, "text": 0}

    def count(what: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen[what] += len(inputs[0])

        return hook

    model.protein_encoder.register_forward_pre_hook(count("protein"))
    model.text_encoder.register_forward_pre_hook(count("text"))
    output = model(batch, None)
    clean = bool({"gc", "pda"} & set(terms))
    num_properties = int(batch.property_mask_BKT.any(-1).sum())
    assert seen["protein"] == 3 * (clean + ("mlm" in terms) + ("bsr" in terms))
    assert seen["text"] == 3 * bool({"gc", "bsr"} & set(terms)) + num_properties * ("pda" in terms)
    assert set(objective(output, loss, totals(batch)).terms) == set(terms)
    assert model.eval()(batch, None).protein_BD is not None


def test_absent_properties_are_marked_and_do_not_matter(make_model: Callable, make_batch: Callable) -> None:
    batch, model = make_batch(), make_model()
    output = model(batch, None)
    expected = [[True] * 4, [True, False, True, False], [True, True, False, True]]
    assert output.present_BK.tolist() == expected
    batch.property_BKT[1, 1] = 7
    torch.testing.assert_close(model(batch, None).prototypes_BKD, output.prototypes_BKD)


def test_residues_of_length_one_and_fully_masked_proteins_are_finite(
    make_model: Callable, make_batch: Callable, gumbel: Callable
) -> None:
    batch = make_batch(lengths=(1, 6, 3), absent=[(0, p) for p in ("function", "similarity")])
    batch.mlm_mask_BL[1, 1:7] = batch.segment_mask_BL[1, 1:7] = True
    batch = replace(batch)
    assert (batch.segment_tokens_BL[1, 1:7] == MASK).all()
    loss = LossConfig()
    model = make_model()
    report = objective(model(batch, gumbel(3)), loss, totals(batch))
    report.total.backward()
    assert all(value.isfinite() for value in report.terms.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_nothing_masked_still_gives_every_parameter_a_gradient(
    make_model: Callable, make_batch: Callable, gumbel: Callable
) -> None:
    batch = make_batch()
    nothing = torch.zeros_like(batch.mlm_mask_BL)
    batch = replace(batch, mlm_mask_BL=nothing, segment_mask_BL=nothing)
    reached = trained(make_model(), batch, LossConfig(), gumbel(3))
    assert reached == set(USED_BY) - {"text_encoder", "mlm_head", "bsr_head", "fusion", "logit_bias"}


def test_outputs_are_float32_under_bf16_autocast(
    make_model: Callable, make_batch: Callable, gumbel: Callable
) -> None:
    model, batch = make_model(), make_batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(batch, gumbel(3))
        assert model.bsr_logits(batch, use_text=False).dtype == torch.float32
        assert model.protein_projection(torch.zeros(1, 64)).dtype == torch.bfloat16
    for field in fields(output):
        value = getattr(output, field.name)
        if value.is_floating_point():
            assert value.dtype == torch.float32, field.name
    objective(output, LossConfig(), totals(batch)).total.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_bsr_logits_with_text_equal_the_forward_pass(make_model: Callable, make_batch: Callable) -> None:
    model, batch = make_model(), make_batch()
    expected = model(batch, None).bsr_logits_MV
    torch.testing.assert_close(model.bsr_logits(batch, use_text=True), expected, atol=2e-6, rtol=0)


def test_bsr_logits_without_text_ignore_the_words(make_model: Callable, make_batch: Callable) -> None:
    model, batch, other = make_model(), make_batch(), make_batch()
    words = batch.text_BT > 3
    other.text_BT[words] = torch.flip(batch.text_BT[words], (0,))
    without = model.bsr_logits(batch, use_text=False)
    torch.testing.assert_close(model.bsr_logits(other, use_text=False), without)
    given = model.bsr_logits(batch, use_text=True)
    assert (given - without).abs().max() > 1e-4
    assert (model.bsr_logits(other, use_text=True) - given).abs().max() > 1e-5


def test_the_model_has_no_dropout(make_model: Callable, make_batch: Callable, gumbel: Callable) -> None:
    model, batch = make_model(text_trainable=True), make_batch()
    training, evaluating = model.train()(batch, gumbel(3)), model.eval()(batch, gumbel(3))
    for field in fields(training):
        torch.testing.assert_close(getattr(training, field.name), getattr(evaluating, field.name))


def test_scales_start_at_the_configured_temperatures_and_stay_bounded(
    make_model: Callable, make_batch: Callable
) -> None:
    model, batch = make_model().train(), make_batch()
    output = model(batch, None)
    assert output.scale.item() == pytest.approx(1 / 0.07, rel=1e-5)
    assert output.pda_scale.item() == pytest.approx(10, rel=1e-5)
    assert make_model(LossConfig(temperature=1e-3)).scale().item() == pytest.approx(100, rel=1e-4)
    with torch.no_grad():
        model.log_scale.fill_(9.0)
    model.limit_scales()
    output = model(batch, None)
    output.scale.backward()
    assert output.scale.item() == pytest.approx(100, rel=1e-4)
    assert model.log_scale.grad.item() == pytest.approx(100, rel=1e-4), "a bounded scale can come down again"


def test_embed_gives_the_embeddings_of_the_forward_pass_without_gradient(
    make_model: Callable, make_batch: Callable
) -> None:
    model, batch = make_model().train(), make_batch()
    embedded, output = model.embed(batch), model(batch, None)
    for name in ("protein_BD", "text_BD", "scale", "bias"):
        torch.testing.assert_close(getattr(embedded, name), getattr(output, name), atol=2e-6, rtol=0)
        assert not getattr(embedded, name).requires_grad


def test_shared_corruption_takes_two_protein_passes_and_predicts_both_masks(
    make_model: Callable, make_batch: Callable, gumbel: Callable
) -> None:
    batch, model = make_batch(), make_model()
    mlm_mask_BL = batch.mlm_mask_BL & ~batch.segment_mask_BL
    batch = replace(batch, mlm_mask_BL=mlm_mask_BL, shared=True)
    seen: list[Tensor] = []
    hook = model.protein_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    output = model(batch, gumbel(3))
    hook.remove()
    corrupted = batch.tokens_BL.masked_fill(mlm_mask_BL | batch.segment_mask_BL, MASK)
    assert torch.equal(seen[0], torch.cat((batch.tokens_BL, corrupted)))
    assert torch.equal(output.mlm_targets_M, batch.tokens_BL[mlm_mask_BL])
    assert torch.equal(output.bsr_targets_M, batch.tokens_BL[batch.segment_mask_BL])
    expected = model.mlm_head(model.protein_encoder(corrupted)[mlm_mask_BL])
    torch.testing.assert_close(output.mlm_logits_MV, expected, atol=2e-6, rtol=0)
    expected = model.bsr_logits(batch, use_text=True)
    torch.testing.assert_close(output.bsr_logits_MV, expected, atol=2e-6, rtol=0)


def test_build_is_a_function_of_the_seed_and_leaves_the_global_state(make_model: Callable) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    one = make_model(seed=5)
    assert torch.equal(torch.rand(3), expected)
    same, other = make_model(seed=5), make_model(seed=6)
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, same.state_dict()[name])
    assert not torch.equal(one.prototypes.bank_PD, other.prototypes.bank_PD)


def test_weights_do_not_depend_on_the_terms(make_model: Callable) -> None:
    every, single = make_model().state_dict(), make_model(only("mlm")).state_dict()
    assert every.keys() == single.keys()
    assert all(torch.equal(every[name], single[name]) for name in every)


def test_architecture_survives_json_and_rebuilds_the_model(
    make_model: Callable, make_batch: Callable
) -> None:
    model, batch = make_model(), make_batch()
    stored = json.loads(json.dumps(model.architecture.to_dict()))
    architecture = Architecture.from_dict(stored)
    assert architecture == model.architecture
    rebuilt = ProtCLIP(architecture)
    rebuilt.load_state_dict(model.state_dict())
    assert torch.equal(rebuilt.embed_protein(batch.tokens_BL), model.embed_protein(batch.tokens_BL))


def test_theta_decides_the_segments(make_model: Callable, make_batch: Callable) -> None:
    batch, model = make_batch(), make_model()
    output = model(batch, None)
    names = ("protein_name", "function", "subcellular_location", "similarity")

    def pda(theta: float | dict[str, float]) -> float:
        return objective(output, LossConfig(pda=PdaConfig(theta=theta)), totals(batch)).terms["pda"].item()

    assert pda(0.3) == pda(dict.fromkeys(names, 0.3))
    assert not math.isclose(pda(0.3), pda(dict.fromkeys(names, 0.3) | {"function": 0.9}), rel_tol=1e-6)


def test_build_names_sizes_that_do_not_go_together() -> None:
    towers = {
        "protein": ProteinEncoderConfig(source="esm2-tiny"),
        "text": TextEncoderConfig(source="bert-tiny"),
    }
    with pytest.raises(ConfigError, match="fusion_heads=5"):
        build(ModelConfig(**towers, fusion_heads=5), LossConfig(), 60, 0)
    longer = {"text": TextEncoderConfig(source="bert-tiny", max_tokens=600)}
    with pytest.raises(ConfigError, match="at most 512"):
        build(ModelConfig(**(towers | longer)), LossConfig(), 60, 0)
