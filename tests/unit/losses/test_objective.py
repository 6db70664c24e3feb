import pytest
import torch

from protclip.config.schema import LossConfig, PdaConfig
from protclip.losses.objective import TERMS, Totals, objective
from protclip.tensors import ModelOutput

TOTALS = Totals(3, mlm=torch.tensor(5), segment=torch.tensor(6), aligned=torch.tensor(12))


def output() -> ModelOutput:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    return ModelOutput(
        protein_BD=draw(3, 8),
        text_BD=draw(3, 8),
        scale=torch.tensor([14.3]),
        bias=torch.tensor([-10.0]),
        mlm_logits_MV=draw(5, 33),
        mlm_targets_M=torch.arange(4, 9),
        bsr_logits_MV=draw(6, 33),
        bsr_targets_M=torch.arange(4, 10),
        residues_BLD=draw(3, 7, 8),
        residue_mask_BL=torch.ones(3, 7, dtype=torch.bool),
        prototypes_BKD=draw(3, 4, 8),
        present_BK=torch.ones(3, 4, dtype=torch.bool),
        pda_scale=torch.tensor([10.0]),
    )


def test_objective_is_the_weighted_sum_of_its_terms() -> None:
    config = LossConfig(gc=0.5, bsr=0.7, mlm=0.3, pda=PdaConfig(weight=2.0))
    report = objective(output(), config, TOTALS)
    terms = report.terms
    expected = 0.5 * terms["gc"] + 0.7 * terms["bsr"] + 0.3 * terms["mlm"] + 2 * terms["pda"]
    torch.testing.assert_close(report.total.detach(), expected)
    assert report.total.requires_grad
    assert not any(value.requires_grad for value in terms.values())


@pytest.mark.parametrize("off", list(TERMS))
def test_objective_leaves_out_a_term_of_weight_zero(off: str) -> None:
    weights = {"gc": 1.0, "bsr": 1.0, "mlm": 1.0} | ({off: 0.0} if off != "pda" else {})
    config = LossConfig(**weights, pda=PdaConfig(weight=float(off != "pda")))
    report = objective(output(), config, TOTALS)
    assert set(report.terms) == set(TERMS) - {off}
    torch.testing.assert_close(report.total.detach(), torch.stack(list(report.terms.values())).sum())


def test_terms_are_those_that_have_a_weight() -> None:
    assert set(TERMS) == set(LossConfig().weights)
