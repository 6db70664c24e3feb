"""One step of a run again, pair by pair, to see which of them made its loss or gradient what it was.

Order, masks, crops and noise of a step are functions of seed, position and step, so its global batch is
rebuilt exactly. Weights come from the newest checkpoint before it. Each pair is computed by itself with
its share of the contrastive loss's gradient (see `GradientCache`), so the gradients of the pairs add up
to the step's. A pair whose own embedding is not finite is shown to the others as zeros: otherwise
all of them would look like it.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from protclip import checkpoint
from protclip.checkpoint import LoadedCheckpoint
from protclip.config.schema import PretrainConfig, ReplayConfig
from protclip.data.collate import Collator, TextTokens
from protclip.data.dataset import COLUMNS, PairsDataset, Position
from protclip.data.manifest import PairsManifest
from protclip.data.picture import render
from protclip.data.tokenizer import TextTokenizer
from protclip.errors import CheckpointError, DataError
from protclip.losses.contrastive import GradientCache
from protclip.losses.objective import Totals, objective
from protclip.model.protclip import Architecture, ProtCLIP
from protclip.progress import progress
from protclip.tensors import Batch, LossReport, ModelOutput
from protclip.training import freezing
from protclip.training.replica import Replica
from protclip.training.sharding import load_parameters
from protclip.training.step import gumbel_noise
from protclip.training.watch import printable

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pair:
    """What one pair of the batch did.

    Attributes:
        accession: Its entry.
        length: Residues of the protein, those cut off included.
        losses: What it adds to each term of the step but GC, of which one pair alone has no share.
        grad_norm: Norm of what it adds to the step's gradient, that of GC included.
        first: Where something not finite was met first; empty when all is finite.
    """

    accession: str
    length: int
    losses: dict[str, float]
    grad_norm: float
    first: str


@dataclass(slots=True)
class Findings:
    """What the pairs of a step did.

    Attributes:
        losses: Total and terms of the step.
        pairs: Every pair, in the order of the global batch.
        gradient: The step's gradient by parameter, without pairs whose own is not finite.
        not_finite: Parameters of which some pair's gradient is not finite.
    """

    losses: dict[str, float] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    gradient: dict[str, Tensor] = field(default_factory=dict)
    not_finite: set[str] = field(default_factory=set)


def replay(config: ReplayConfig) -> dict[str, Any]:
    """Computes a step's global batch again and reports what is not finite and what is largest.

    Nothing of the run is changed. Tables go to the log.

    Returns:
        With which weights it was computed, the losses, what is not finite, and the pairs and parameters
        with the largest gradients; numbers that are not finite as text.

    Raises:
        CheckpointError: The run has no complete checkpoint.
        DataError: The pairs are not those of the run.
    """
    loaded = checkpoint.load(_nearest(config.run, config.step))
    train = loaded.config.train
    data = config.pairs or loaded.config.data
    if PairsManifest.digest(data) != loaded.meta.data_manifest:
        raise DataError(f"{data}: not the pairs this run was trained on; name theirs by pairs=URI")
    dataset = PairsDataset(data, "train", train.seed, (*COLUMNS, "accession"))
    position = position_of(dataset, train.global_batch, config.step)
    first = position.batch_index * train.global_batch
    rows = dataset.rows(position.epoch, first, first + train.global_batch)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    replica = _replica(loaded, device, config.step)
    batches = _singles(rows, loaded, position.epoch, device)
    found = examine(replica, batches, rows, loaded.config, config.step)
    norms = {name: gradient.norm().item() for name, gradient in found.gradient.items()}
    finite = [pair for pair in found.pairs if not pair.first]
    report = {
        "run": config.run,
        "step": config.step,
        **position._asdict(),
        "checkpoint": loaded.uri,
        "updates_missing": config.step - 1 - loaded.meta.step,
        "losses": found.losses,
        "grad_norm": math.hypot(*norms.values()),
        "not_finite": {
            "weights": [name for name, p in replica.bare.named_parameters() if not p.isfinite().all()],
            "pairs": [asdict(pair) for pair in found.pairs if pair.first],
            "gradients": sorted(found.not_finite),
        },
        "largest": {
            "pairs": [asdict(pair) for pair in sorted(finite, key=lambda p: -p.grad_norm)[: config.top]],
            "gradients": dict(sorted(norms.items(), key=lambda item: -item[1])[: config.top]),
        },
    }
    _show(report)
    return printable(report)


def position_of(dataset: PairsDataset, global_batch: int, step: int) -> Position:
    """The global batch of a run's step, the first of which is 1: every step has used one."""
    left = step - 1
    for epoch in count():
        batches = dataset.num_pairs(epoch) // global_batch
        if left < batches:
            return Position(epoch, left)
        left -= batches
    raise AssertionError("epochs never end")


def examine(
    replica: Replica, batches: Sequence[Batch], rows: pa.Table, config: PretrainConfig, step: int
) -> Findings:
    """Loss and gradient of a step, pair by pair.

    Args:
        replica: The model, in training mode.
        batches: Each of one pair, on the model's device; together the global batch.
        rows: The same pairs with `accession` and `sequence`.
        config: Of the run.
        step: The step, the first of which is 1.
    """
    model = replica.bare
    one_pair = _OnePair(replica, batches, config, step)
    found, names = Findings(), rows.column("accession").to_pylist()
    sums: Counter[str] = Counter()
    with progress("replaying", " pairs", total=len(batches)) as bar:
        for index, (name, sequence) in enumerate(zip(names, rows.column("sequence"), strict=True)):
            report = one_pair(index)
            gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
            norm = get_total_norm(gradients.values()).item()
            losses = {term: value.item() for term, value in report.terms.items()}
            sums.update(losses | {"total": report.total.item()})
            first = ""
            if math.isfinite(norm) and bool(report.total.isfinite()):
                for n, gradient in gradients.items():
                    found.gradient[n] = found.gradient[n].add_(gradient) if n in found.gradient else gradient
            else:
                found.not_finite |= {n for n, g in gradients.items() if not g.isfinite().all()}
                first = _first_fault(model, lambda index=index: one_pair(index))
            losses.pop("gc", None)
            found.pairs.append(Pair(name, len(sequence.as_py()), losses, norm, first))
            bar.update()
    found.losses = dict(sums)
    return found


class _OnePair:
    """Loss and gradient of single pairs of a step, as their shares of the step's."""

    def __init__(self, replica: Replica, batches: Sequence[Batch], config: PretrainConfig, step: int) -> None:
        self._replica, self._batches, self._config, self._step = replica, batches, config, step
        self._totals = Totals.of(batches, len(batches))
        self._cache = None
        if config.loss.gc:
            embedded = [_zero_if_not_finite(replica.embed(batch)) for batch in batches]
            self._cache = GradientCache(embedded, config.loss, len(batches))

    def __call__(self, index: int) -> LossReport:
        """Leaves the gradient of one pair in the parameters; fresh tensors every time."""
        replica, batch, loss = self._replica, self._batches[index], self._config.loss
        replica.bare.zero_grad(set_to_none=True)
        noise_BKP = None
        if loss.pda.weight:
            prototypes = replica.bare.architecture.num_prototypes
            noise_BKP = gumbel_noise(self._config.train.seed, self._step - 1, batch.keys_B, prototypes)
        output = replica.forward(batch, noise_BKP)
        gc = self._cache.share(index, output) if self._cache else None
        report = objective(output, loss, self._totals, gc)
        report.total.backward()
        return report


def _zero_if_not_finite(output: ModelOutput) -> ModelOutput:
    """The embeddings of one pair as the others see them."""
    pair = [rows for rows in (output.protein_BD, output.text_BD) if rows is not None]
    seen = [rows if all(r.isfinite().all() for r in pair) else torch.zeros_like(rows) for rows in pair]
    return replace(output, protein_BD=seen[0], text_BD=seen[1])


def _first_fault(model: nn.Module, compute: Callable[[], object]) -> str:
    """Computes again and names the module that first gave, or was given a gradient, that is not finite."""
    seen: list[str] = []

    def hook_of(name: str) -> Callable[..., None]:
        def backward(gradient: Tensor) -> None:
            if not gradient.isfinite().all():
                seen.append(f"gradient at the output of {name}")

        def forward(_module: nn.Module, _inputs: object, output: object) -> None:
            if not isinstance(output, Tensor):
                return
            if not output.isfinite().all():
                seen.append(f"output of {name}")
            elif output.requires_grad:
                output.register_hook(backward)

        return forward

    hooks = [module.register_forward_hook(hook_of(name)) for name, module in model.named_modules()]
    try:
        compute()
    finally:
        for hook in hooks:
            hook.remove()
    return seen[0] if seen else "loss"


def _nearest(run: str, step: int) -> str:
    """The newest checkpoint from before a step; if none is kept, the oldest from after it."""
    there = checkpoint.complete(run)
    if not there:
        raise CheckpointError(f"{run}: no complete checkpoint here; give the directory of a run")
    return next((uri for uri, meta in there if meta.step < step), there[-1][0])


def _replica(loaded: LoadedCheckpoint, device: torch.device, step: int) -> Replica:
    """The run's model with the checkpoint's weights, trained where it was trained at the step."""
    config = loaded.config
    model = ProtCLIP(Architecture.from_dict(loaded.architecture), config.loss)
    load_parameters(model, loaded.weights)
    freezing.apply(model, config.model, step - 1)
    uncompiled = config.model_copy(update={"train": config.train.model_copy(update={"compile": False})})
    replica = Replica(model, uncompiled, device)
    model.train()
    return replica


def _singles(rows: pa.Table, loaded: LoadedCheckpoint, epoch: int, device: torch.device) -> list[Batch]:
    """Every pair as a batch of its own."""
    config, tokenizer = loaded.config, TextTokenizer.from_json(loaded.tokenizer_json)
    collate = Collator(
        masking=config.masking,
        text_tokens=TextTokens(tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id),
        max_protein_tokens=config.model.protein.max_tokens,
        max_text_tokens=config.model.text.max_tokens,
        seed=config.train.seed,
    )
    return [collate(rows.slice(index, 1), epoch).to(device) for index in range(len(rows))]


def _show(report: Mapping[str, Any]) -> None:
    """The report as tables in the log, and how far it is what happened in the run."""
    missing = report["updates_missing"]
    if missing:
        log.warning(
            "weights of %d updates %s the step (%s): data, masks and noise are the run's, losses and "
            "gradients are not quite",
            *(abs(missing), "before" if missing > 0 else "after", report["checkpoint"]),
        )
    losses = ", ".join(f"{name} {value:.4g}" for name, value in report["losses"].items())
    log.info("step %d: %s, gradient %.4g", report["step"], losses, report["grad_norm"])
    bad, largest = report["not_finite"], report["largest"]
    for what in ("weights", "gradients"):
        if names := bad[what]:
            log.info("%s that are not finite (%d): %s", what, len(names), ", ".join(names[:10]))
    for title, pairs in (
        ("Pairs that are not finite", bad["pairs"]),
        ("Largest gradients", largest["pairs"]),
    ):
        if pairs:
            terms = list(pairs[0]["losses"])
            cells = [
                [
                    *(pair["accession"], str(pair["length"]), f"{pair['grad_norm']:.4g}"),
                    *(f"{pair['losses'][term]:.4g}" for term in terms),
                    pair["first"],
                ]
                for pair in pairs
            ]
            log.info("%s", render(title, ["pair", "residues", "gradient", *terms, "first met in"], cells)[0])
    cells = [[name, f"{norm:.4g}"] for name, norm in largest["gradients"].items()]
    log.info("%s", render("Largest gradients by parameter", ["parameter", "gradient"], cells)[0])
