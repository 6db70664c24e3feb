"""What one rank of `test_replica` computes."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.functional import cross_entropy

from protclip import parallel
from protclip.config.schema import MaskingConfig, PretrainConfig
from protclip.data.collate import Collator, TextTokens
from protclip.model.build import build
from protclip.records import PAIRS_SCHEMA, PROPERTIES
from protclip.tensors import Batch, ModelOutput
from protclip.training import freezing
from protclip.training.optim import make_optimizer
from protclip.training.replica import Replica
from protclip.training.sharding import full_moments, full_parameters, load_moments, load_parameters

NUM_PAIRS, VOCAB, PROTOTYPES, STEPS = 8, 60, 16, 3
UNFREEZE_AT = 1
CLIP_NORM = 0.05

Results = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """A way to compute what one process computes at once."""

    strategy: str = "ddp"
    micro: int = 1
    checkpointing: bool = False
    unfreeze: bool = False
    precision: str = "fp32"
    compiled: bool = False


CASES = {
    f"{strategy}{name}": Case(strategy, **settings)
    for strategy in ("ddp", "fsdp")
    for name, settings in {
        "_micro": {"micro": 2, "checkpointing": True},
        "_unfreeze": {"unfreeze": True},
        "_bf16": {"precision": "bf16", "unfreeze": True},
    }.items()
}


def settings_of(case: Case) -> PretrainConfig:
    """Two tiny towers, both trained in the end."""
    return PretrainConfig.model_validate(
        {
            "data": "none",
            "run": {"name": "replica"},
            "model": {
                "protein": {"source": "esm2-tiny", "checkpointing": case.checkpointing},
                "text": {
                    "source": "bert-tiny",
                    "trainable": True,
                    "unfreeze_at": UNFREEZE_AT if case.unfreeze else 0,
                    "checkpointing": case.checkpointing,
                },
                "projection_dim": 24,
                "num_prototypes": PROTOTYPES,
                "fusion_heads": 4,
            },
            "optim": {"lr": 1e-3, "eps": 1e-4},
            "train": {"precision": case.precision, "compile": case.compiled},
            "scaling": {"strategy": case.strategy},
        }
    )


def make_batch(start: int, stop: int) -> Batch:
    """Pairs of the global batch; every second protein has two properties, some texts are long."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "accession": f"P{i}",
            "sequence": "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), n)),
            **{
                str(p): [] if i % 2 and k > 1 else rng.integers(5, VOCAB, 2 + 2 * i).tolist()
                for k, p in enumerate(PROPERTIES)
            },
            "length": n,
            "confidence": 1,
            "coverage": 4,
            "sampling_key": i,
        }
        for i, n in enumerate((30, 12, 50, 21, 11, 40, 33, 60))
    ]
    collate = Collator(MaskingConfig(), TextTokens(0, 2, 3), 80, 64, seed=0)
    return collate(pa.Table.from_pylist(rows[start:stop], schema=PAIRS_SCHEMA), epoch=0)


def summed_loss(output: ModelOutput) -> Tensor:
    """A loss of all outputs that is a sum over pairs, and so the same however they are divided."""
    assert output.protein_BD is not None
    assert output.text_BD is not None
    assert output.mlm_logits_MV is not None
    assert output.mlm_targets_M is not None
    assert output.bsr_logits_MV is not None
    assert output.bsr_targets_M is not None
    assert output.residues_BLD is not None
    assert output.prototypes_BKD is not None
    assert output.pda_scale is not None
    aligned = output.prototypes_BKD.sum(1) * output.residues_BLD.sum(1)
    return (
        (output.protein_BD * output.text_BD).sum() * output.scale
        + cross_entropy(output.mlm_logits_MV, output.mlm_targets_M, reduction="sum")
        + cross_entropy(output.bsr_logits_MV, output.bsr_targets_M, reduction="sum")
        + aligned.tanh().sum() * output.pda_scale / 10
    ).sum()


class Run:
    """A model in training, from the same start whatever the case."""

    def __init__(self, case: Case, seed: int = 0) -> None:
        config = settings_of(case)
        self.model_config, self.case = config.model, case
        model = build(config.model, config.loss, VOCAB, seed)
        if case.precision == "fp32":
            model.double()
        freezing.apply(model, config.model, step=0)
        self.replica = Replica(model, config, torch.device("cpu"))
        self.optimizer = make_optimizer(model, config.model, config.optim)

    def backward(self) -> None:
        """The gradient of the loss over the global batch."""
        start, stop = (NUM_PAIRS * (parallel.rank() + i) // parallel.world_size() for i in range(2))
        cuts = [start + (stop - start) * i // self.case.micro for i in range(self.case.micro + 1)]
        noise_BKP = torch.randn(NUM_PAIRS, 4, PROTOTYPES, generator=torch.Generator().manual_seed(1))
        for first, end in pairwise(cuts):
            with self.replica.reducing(last=end == stop):
                output = self.replica.forward(make_batch(first, end), noise_BKP[first:end])
                (summed_loss(output) * parallel.world_size() / NUM_PAIRS).backward()

    def step(self, number: int) -> Results:
        """One update; gives the norms of the gradient."""
        self.optimizer.zero_grad(set_to_none=True)
        if freezing.apply(self.replica.bare, self.model_config, number):
            self.replica.rewrap()
        self.backward()
        parts = self.replica.part_norms()
        norms = {f"norm/{name}": norm for name, norm in parts.items()}
        norms["norm"] = self.replica.clip(CLIP_NORM, parts)
        self.optimizer.step()
        return {name: norm.clone() for name, norm in norms.items()}

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Whole parameters and optimizer moments."""
        yield from full_parameters(self.replica.bare)
        yield from full_moments(self.optimizer, self.replica.bare)


def train(case: Case) -> Results:
    """Gradients and norms of the first step, everything after the second and after the last."""
    run = Run(case)
    results = {f"first/{name}": norm for name, norm in run.step(0).items()}
    for name, parameter in run.replica.bare.named_parameters():
        if (gradient := parameter.grad) is not None:
            whole = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
            results[f"grad/{name}"] = whole.clone()
    for number in range(1, STEPS):
        run.step(number)
        results |= {f"after_{number + 1}/{name}": tensor.clone() for name, tensor in run.parameters()}
    return results


def look(case: Case) -> Results:
    """Whether looking at the model changes it: embeddings, evaluation, other forward methods."""
    run = Run(case)
    run.step(0)
    before = {name: tensor.clone() for name, tensor in run.parameters()}
    run.backward()
    run.replica.bare.eval()
    batch = make_batch(0, 3)
    with torch.no_grad():
        embedded, output = run.replica.embed(batch), run.replica.forward(batch, None)
        blind_MV = run.replica.bare.bsr_logits(batch, use_text=False)
    run.replica.bare.train()
    assert output.bsr_logits_MV is not None
    own = [p.to_local() if isinstance(p, DTensor) else p for p in run.replica.bare.parameters()]
    after = dict(run.parameters())
    return {
        "changed": torch.tensor([not torch.equal(before[name], after[name]) for name in before]).sum(),
        "own_bytes": torch.tensor(sum(p.nbytes for p in own)),
        "whole_bytes": torch.tensor(sum(p.nbytes for _, p in full_parameters(run.replica.bare))),
        "embedded": torch.stack((embedded.protein_BD, embedded.text_BD)),
        "output": torch.stack((output.protein_BD, output.text_BD)),
        "with_text": output.bsr_logits_MV,
        "blind": blind_MV,
        "norm": run.replica.clip(1.0, run.replica.part_norms()),
        "norm_clipped": run.replica.clip(1.0, run.replica.part_norms()),
    }


def exchange(sharded: Case, whole: Case) -> Results:
    """A sharded run's state goes on in an unsharded one, and the other way round; then a skipped update."""
    results: Results = {}
    for name, case, other in (("to_whole", sharded, whole), ("to_sharded", whole, sharded)):
        first, second = Run(case), Run(other, seed=1)
        first.step(0)
        load_parameters(second.replica.bare, dict(full_parameters(first.replica.bare)))
        load_moments(
            second.optimizer, second.replica.bare, dict(full_moments(first.optimizer, first.replica.bare))
        )
        second.step(1)
        results |= {f"{name}/{key}": tensor.clone() for key, tensor in second.parameters()}
        second.optimizer.grad_scale, second.optimizer.found_inf = None, torch.tensor(1.0)
        second.step(2)
        results |= {f"{name}_skipped/{key}": tensor.clone() for key, tensor in second.parameters()}
    return results


def compute() -> Results:
    """Everything one rank computes."""
    results = {f"{name}/{key}": value for name, case in CASES.items() for key, value in train(case).items()}
    for strategy in ("ddp", "fsdp"):
        seen = look(CASES[f"{strategy}_micro"])
        results |= {f"look_{strategy}/{key}": value for key, value in seen.items()}
    results |= exchange(Case("fsdp"), Case("ddp"))
    return {key: value.detach() for key, value in results.items()}
