import math

import numpy as np
import pytest
import torch

from protclip.config.schema import PretrainConfig
from protclip.data.sampling import splitmix64
from protclip.model.build import build
from protclip.tensors import CLS, EOS, Batch
from protclip.training import freezing
from protclip.training.optim import make_optimizer, make_schedule
from protclip.training.replica import Replica
from protclip.training.step import StepResult, gumbel_noise, train_step

PAIRS, VOCAB, PROTOTYPES = 6, 40, 8


class Run:
    """A tiny model with its optimizer, trained on always the same pairs."""

    def __init__(self, precision: str = "fp32", **loss: object) -> None:
        self.config = PretrainConfig.model_validate(
            {
                "data": "none",
                "run": {"name": "step"},
                "model": {
                    "protein": {"source": "esm2-tiny"},
                    "text": {"source": "bert-tiny"},
                    "projection_dim": 16,
                    "num_prototypes": PROTOTYPES,
                    "fusion_heads": 2,
                },
                "loss": loss,
                "optim": {"lr": 1e-2, "warmup_share": 0},
                "train": {"precision": precision, "global_batch": PAIRS},
            }
        )
        self.model = build(self.config.model, self.config.loss, VOCAB, seed=0).train()
        freezing.apply(self.model, self.config.model, step=0)
        self.replica = Replica(self.model, self.config, torch.device("cpu"))
        self.optimizer = make_optimizer(self.model, self.config.model, self.config.optim)
        self.schedule = make_schedule(self.optimizer, 100, self.config.optim)
        self.steps = 0

    def step(self, micro: int = 1, clip_norm: float = 1.0) -> StepResult:
        self.steps += 1
        return train_step(
            self.replica,
            batches(micro),
            self.optimizer,
            self.schedule,
            self.config.loss,
            global_batch=PAIRS,
            seed=0,
            step=self.steps - 1,
            clip_norm=clip_norm,
        )

    def snapshot(self) -> list[torch.Tensor]:
        """Copies of every parameter and of all the optimizer's state."""
        state = [t for s in self.optimizer.state.values() for t in s.values()]
        return [t.detach().clone() for t in (*self.model.parameters(), *state)]


def batches(micro: int) -> tuple[Batch, ...]:
    """Six pairs in microbatches."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(4, 24, (PAIRS, 14), generator=generator)
    tokens[:, 0], tokens[:, -1] = CLS, EOS
    mlm, segment = (torch.zeros(tokens.shape, dtype=torch.bool) for _ in range(2))
    mlm[:, 2], segment[:, 5:8] = True, True
    text = torch.randint(5, VOCAB, (PAIRS, 5, 7), generator=generator)
    real = torch.ones(text.shape, dtype=torch.bool)
    keys = torch.arange(PAIRS) * 7919
    whole = (tokens, mlm, segment, text[:, 0], real[:, 0], text[:, 1:], real[:, 1:], keys)
    return tuple(Batch(*parts) for parts in zip(*(t.chunk(micro) for t in whole), strict=True))


@pytest.mark.parametrize("contrastive", ["infonce", "sigmoid"])
def test_step_learns(contrastive: str) -> None:
    run = Run(contrastive=contrastive)
    results = [run.step(micro=2) for _ in range(12)]
    first, last = results[0].losses, results[-1].losses
    assert set(first.terms) == {"gc", "bsr", "mlm", "pda"}
    weighted = first.terms["gc"] + 0.7 * first.terms["bsr"] + 0.3 * first.terms["mlm"] + first.terms["pda"]
    torch.testing.assert_close(first.total, weighted)
    assert last.total < 0.8 * first.total
    assert last.terms["gc"] < first.terms["gc"]
    assert not any(result.skipped for result in results)


@pytest.mark.parametrize("micro", [2, 3, 6])
def test_step_of_microbatches_has_the_terms_and_norms_of_one_batch(micro: int) -> None:
    one, many = Run(), Run()
    whole, parts = one.step(), many.step(micro)
    torch.testing.assert_close(parts.grad_norm, whole.grad_norm, rtol=1e-4, atol=0)
    for name, value in whole.part_norms.items():
        torch.testing.assert_close(parts.part_norms[name], value, rtol=1e-3, atol=1e-6)
    for name, value in whole.losses.terms.items():
        torch.testing.assert_close(parts.losses.terms[name], value)


def test_step_without_the_contrastive_term_embeds_nothing_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(gc=0)
    monkeypatch.setattr(Replica, "embed", lambda *_: pytest.fail("embedded"))
    assert set(run.step(micro=3).losses.terms) == {"bsr", "mlm", "pda"}


def test_step_clips_the_gradient_and_tells_its_norm_before() -> None:
    run = Run()
    norm = run.step(clip_norm=0.01).grad_norm
    left = torch.stack([p.grad.norm() for p in run.model.parameters() if p.grad is not None]).norm()
    assert norm > 1
    assert left.item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("micro", [1, 2])
def test_step_leaves_everything_as_it_was_where_a_gradient_is_not_finite(micro: int) -> None:
    run = Run()
    run.step(micro)
    weight = run.model.mlm_head[0].weight
    kept = weight[0, 0].item()
    weight.data[0, 0] = math.inf
    before, rate = run.snapshot(), run.schedule.get_last_lr()
    result = run.step(micro)
    assert result.skipped.item() == 1
    assert not result.losses.total.isfinite()
    for one, other in zip(run.snapshot(), before, strict=True):
        assert torch.equal(one, other)
    assert run.schedule.get_last_lr() != rate, "the schedule follows the step number"

    weight.data[0, 0] = kept
    assert run.step(micro).skipped.item() == 0
    after = run.snapshot()
    assert all(t.isfinite().all() for t in after)
    assert not torch.equal(after[0], before[0])


def test_step_holds_the_scales_in_bounds_and_lets_them_come_down_again() -> None:
    run = Run()
    with torch.no_grad():
        run.model.log_scale.fill_(9.0)
    run.step()
    assert run.model.scale().item() == pytest.approx(100, rel=1e-4)
    run.step()
    assert run.model.log_scale.grad.item() != 0


def test_step_computes_losses_in_float32_under_bf16() -> None:
    run = Run(precision="bf16")
    result = run.step(micro=2)
    assert {value.dtype for value in (result.losses.total, *result.losses.terms.values())} == {torch.float32}
    assert result.grad_norm.dtype == torch.float32
    exact = Run().step()
    torch.testing.assert_close(result.losses.total, exact.losses.total, rtol=2e-2, atol=0)


def test_step_trains_no_frozen_tower() -> None:
    run = Run()
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    run.step(micro=2)
    changed = {name for name, p in run.model.named_parameters() if not torch.equal(p, before[name])}
    assert not any(name.startswith(("text_encoder", "logit_bias")) for name in changed)
    assert any(name.startswith("protein_encoder") for name in changed)


def test_sigmoid_form_trains_its_bias_and_the_other_does_not() -> None:
    biases = []
    for contrastive in ("sigmoid", "infonce"):
        run = Run(contrastive=contrastive)
        assert run.model.logit_bias.item() == -10
        run.step(micro=3)
        biases.append(run.model.logit_bias.item())
    assert biases[0] != -10
    assert biases[1] == -10


def test_terms_of_weight_zero_are_neither_computed_nor_reported() -> None:
    run = Run(bsr=0, mlm=0, pda={"weight": 0})
    assert set(run.step(micro=2).losses.terms) == {"gc"}


def naive_gumbel(seed: int, step: int, key: int, num: int) -> list[float]:
    """One number after the other, in numpy's unsigned arithmetic."""
    salt = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        mixed = splitmix64((np.array([key], np.uint64) ^ salt) - golden)
        bits = splitmix64(mixed + np.arange(num, dtype=np.uint64) * golden) >> np.uint64(41)
    return [-math.log(-math.log((int(b) + 0.5) / 2**23)) for b in bits]


def test_gumbel_noise_is_a_hash_of_key_property_and_prototype() -> None:
    keys = np.array([3, 2**63 + 11, 2**64 - 1], dtype=np.uint64)
    noise = gumbel_noise(7, 4, torch.from_numpy(keys.view(np.int64)), PROTOTYPES)
    assert noise.shape == (3, 4, PROTOTYPES)
    expected = [naive_gumbel(7, 4, int(key), 4 * PROTOTYPES) for key in keys]
    np.testing.assert_allclose(noise.flatten(1).numpy(), expected, rtol=1e-4, atol=1e-4)


def test_gumbel_noise_of_a_pair_does_not_change_with_its_neighbours() -> None:
    keys = torch.arange(5) * 12345
    whole = gumbel_noise(0, 9, keys, PROTOTYPES)
    assert torch.equal(gumbel_noise(0, 9, keys[[3, 1]], PROTOTYPES), whole[[3, 1]])
    assert not torch.equal(gumbel_noise(0, 10, keys, PROTOTYPES), whole)
    assert not torch.equal(gumbel_noise(1, 9, keys, PROTOTYPES), whole)


def test_gumbel_noise_has_the_gumbel_distribution() -> None:
    noise = gumbel_noise(0, 0, torch.arange(500), 64).double()
    assert noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(np.euler_gamma, abs=0.01)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.03)
    uniform = torch.exp(-torch.exp(-noise)).flatten().sort().values
    steps = (torch.arange(len(uniform)) + 0.5) / len(uniform)
    assert (uniform - steps).abs().max() < 1.7 / len(uniform) ** 0.5, "Kolmogorov-Smirnov at 0.5 %"
