"""What the ranks of `test_parallel` compute."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.optim.lr_scheduler import LambdaLR
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from protclip import parallel
from protclip.config.schema import LossConfig, PretrainConfig
from protclip.losses.contrastive import infonce, sigmoid
from protclip.model.build import build
from protclip.tensors import CLS, EOS, PAD, Batch, ModelOutput
from protclip.training import freezing
from protclip.training.replica import Replica
from protclip.training.step import StepResult, train_step

LENGTHS = (12, 5, 9, 1, 7, 3, 14, 2, 6, 11, 4, 8, 10)
WIDTH, WORDS, VOCAB = 16, 9, 40

Results = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """A step on `pairs` pairs in so many microbatches; with 0 pairs, on one for each rank of four."""

    micro: int = 1
    pairs: int = len(LENGTHS)
    contrastive: str = "infonce"
    absent: int | None = None

    @property
    def alone(self) -> "Case":
        """The same on one rank at once."""
        return Case(1, self.pairs, self.contrastive, self.absent)


CASES = {
    "plain": Case(),
    "two_micro": Case(micro=2),
    "three_uneven_micro": Case(micro=3),
    "property_absent_everywhere": Case(micro=2, absent=1),
    "one_pair_per_rank": Case(pairs=4),
    "sigmoid": Case(micro=2, contrastive="sigmoid"),
}


def global_batch(case: Case) -> Batch:
    """Pairs of which the last four have no MLM mask and a single property."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.full((len(LENGTHS), WIDTH), PAD)
    mlm, segment = (torch.zeros(tokens.shape, dtype=torch.bool) for _ in range(2))
    for i, length in enumerate(LENGTHS):
        tokens[i, 0], tokens[i, length + 1] = CLS, EOS
        tokens[i, 1 : length + 1] = torch.randint(4, 24, (length,), generator=generator)
        mlm[i, 1 : 2 + length // 3] = i < 9
        segment[i, 1 : 1 + length // 2] = True
    text = torch.randint(5, VOCAB, (len(LENGTHS), 5, WORDS), generator=generator)
    real = torch.arange(WORDS) < torch.randint(3, WORDS, (len(LENGTHS), 5, 1), generator=generator)
    real[1, 2] = real[9:, 2:] = False
    if case.absent is not None:
        real[:, 1 + case.absent] = False
    whole = Batch(
        tokens_BL=tokens,
        mlm_mask_BL=mlm,
        segment_mask_BL=segment,
        text_BT=text[:, 0],
        text_mask_BT=real[:, 0],
        property_BKT=text[:, 1:],
        property_mask_BKT=real[:, 1:],
        keys_B=torch.arange(len(LENGTHS)) + 2**62,
    )
    return rows_of(whole, 0, case.pairs)


def rows_of(batch: Batch, start: int, stop: int) -> Batch:
    """Some pairs of a batch."""
    tensors = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return Batch(**{name: value[start:stop] for name, value in tensors.items() if isinstance(value, Tensor)})


def make_replica(contrastive: str = "infonce", kind: type[Replica] = Replica) -> tuple[Replica, LossConfig]:
    """A small ProtCLIP in float64, both towers trained."""
    config = PretrainConfig.model_validate(
        {
            "data": "none",
            "run": {"name": "ranks"},
            "model": {
                "protein": {"source": "esm2-tiny"},
                "text": {"source": "bert-tiny", "trainable": True},
                "projection_dim": 16,
                "num_prototypes": 8,
                "fusion_heads": 2,
            },
            "loss": {"contrastive": contrastive},
        }
    )
    model = build(config.model, config.loss, VOCAB, seed=0).double().train()
    freezing.apply(model, config.model, step=0)
    return kind(model, config, torch.device("cpu")), config.loss


def step(replica: Replica, batches: Sequence[Batch], loss: LossConfig, pairs: int, lr: float) -> StepResult:
    """One step without clipping."""
    optimizer = torch.optim.AdamW(replica.bare.parameters(), lr=lr, weight_decay=0, fused=True)
    schedule = LambdaLR(optimizer, lambda _: 1.0)
    return train_step(
        replica,
        batches,
        optimizer,
        schedule,
        loss,
        global_batch=pairs,
        seed=5,
        step=3,
        clip_norm=torch.inf,
    )


def training_step(case: Case) -> Results:
    """Terms, norms, and every gradient of one step on this rank's share."""
    replica, loss = make_replica(case.contrastive)
    start, stop = parallel.bounds(case.pairs)
    batch = global_batch(case)
    parts = [parallel.part(stop - start, index, case.micro) for index in range(case.micro)]
    batches = [rows_of(batch, start + first, start + last) for first, last in parts]
    result = step(replica, batches, loss, case.pairs, lr=0)
    results = {f"loss/{name}": value for name, value in result.losses.terms.items()}
    results |= {"loss/total": result.losses.total, "grad_norm": result.grad_norm, "skipped": result.skipped}
    for name, parameter in replica.bare.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            results[f"grad/{name}"] = parameter.grad
    return results


class _PoisonedReplica(Replica):
    """The last rank's masked-residue logits are not numbers."""

    def forward(self, batch: Batch, noise_BKP: Tensor | None) -> ModelOutput:
        output = super().forward(batch, noise_BKP)
        if parallel.rank() == parallel.world_size() - 1:
            output.mlm_logits_MV = output.mlm_logits_MV * torch.nan
        return output


def poisoned_step() -> Results:
    """Whether an update is left out, and what it changes, when one rank's loss is not a number."""
    replica, loss = make_replica(kind=_PoisonedReplica)
    before = [parameter.detach().clone() for parameter in replica.bare.parameters()]
    case = Case(pairs=8)
    result = step(replica, [rows_of(global_batch(case), *parallel.bounds(8))], loss, 8, lr=1e-2)
    same = [torch.equal(p, q) for p, q in zip(replica.bare.parameters(), before, strict=True)]
    return {"poisoned/skipped": result.skipped, "poisoned/unchanged": torch.tensor(all(same))}


class _Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [t.numel() for t in tree_leaves(result) if isinstance(t, Tensor)]
        self.numel = max(self.numel, *sizes, 0)
        return result


def largest_tensor(contrastive: str, pairs: int) -> Tensor:
    """Elements of the largest tensor of the contrastive loss and its gradient."""
    start, stop = parallel.bounds(pairs)
    protein, text = (normalize(torch.randn(stop - start, 2), dim=1).requires_grad_() for _ in range(2))
    scale, bias = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    with _Largest() as largest:
        if contrastive == "sigmoid":
            sigmoid(protein, text, scale, bias, pairs).backward()
        else:
            infonce(protein, text, scale, pairs).backward()
    return torch.tensor(largest.numel)


def collectives() -> Results:
    """Rows of all ranks, and the gradient of something that weighs them differently on each."""
    start, stop = parallel.bounds(5)
    rows = torch.arange(10.0).view(5, 2)[start:stop].requires_grad_()
    gathered = parallel.gather_rows(rows, 5)
    (gathered * torch.arange(10.0).view(5, 2) * (parallel.rank() + 1)).sum().backward()
    return {
        "gathered": gathered.detach(),
        "rows_grad": rows.grad,
        "sum": parallel.sum_over_ranks(torch.tensor(1 + parallel.rank())),
        "mean": parallel.mean_over_ranks(torch.tensor(1.0 + parallel.rank(), requires_grad=True)),
    }


def compute() -> Results:
    """Everything one rank computes."""
    results = collectives() | poisoned_step()
    for contrastive in ("infonce", "sigmoid"):
        for pairs in (64, 128):
            results[f"largest/{contrastive}/{pairs}"] = largest_tensor(contrastive, pairs)
    for name, case in CASES.items():
        results |= {f"{name}/{key}": value for key, value in training_step(case).items()}
    return results
