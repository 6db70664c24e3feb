"""What a pre-training costs on V100, A100, H100 and H200: GPU hours, memory, bytes, as JSON lines.

    python bench/sizing.py                                       # the paper's recipe, four cards
    python bench/sizing.py --markdown                            # the tables of docs/sizing.md
    python bench/sizing.py --card H100 --residues-per-s 20000    # measured on one card: no assumption left
    python bench/sizing.py --pairs s3://bucket/pairs             # lengths of one's own pairs
    python bench/sizing.py --check                               # holds the count against torch and the clock

Operations are counted, not estimated: the real model, with all four objectives, runs forward and backward
without memory for its numbers (torch's meta device) under torch's operation counter, recomputation by
checkpointing and gradient caching included. Bytes kept for the backward pass are counted the same way,
in a model of one and of two layers, and extended to all. What share of its peak a card reaches cannot be
counted; `Card.share` is assumed until `--residues-per-s` replaces it by what
`bench/train_step.py --device cuda` (per card) or `train/residues_per_s` (of all workers) says.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from train_step import TEXTS, make_rows, our_way

from protclip.config.schema import LossConfig, PretrainConfig
from protclip.data.collate import Collator, TextTokens
from protclip.data.dataset import PairsDataset
from protclip.losses.contrastive import GradientCache
from protclip.losses.objective import Totals, objective
from protclip.model.esm2 import PRESETS, Esm2Sizes
from protclip.model.flops import training_flops
from protclip.model.protclip import Architecture, ProtCLIP
from protclip.model.text import BertSizes
from protclip.storage.objects import PART_BYTES
from protclip.tensors import Batch
from protclip.training import freezing
from protclip.training.replica import state_bytes
from protclip.training.step import gumbel_noise

Line: TypeAlias = Mapping[str, object]
META = torch.device("meta")
PUBMEDBERT = BertSizes(30522, 12, 768, 12, 3072, 512)
MANY = 2048
STORED_BYTES = 460
"""Bytes of a stored pair: 457 in 815 real ones, 360 in made ones."""
OTHER_GB = 2.5
"""CUDA context, NCCL, workspaces; assumed."""
SLACK = 1.15
"""What the allocator and passing tensors take on top of what is kept; assumed."""


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU.

    Attributes:
        memory_gb: Sizes it is sold in, 10⁹ bytes.
        precision: What this platform computes in on it.
        peak_tflops: Dense peak in that precision (data sheet).
        share: Lower and upper end of the share of the peak that executed operations reach, assumed:
            A100: ESM-2 3B 59 % (arXiv 2411.10548: 10¹² tokens in 4.2 days on 256 cards), torchtitan 52-58 %
            on 64 cards, and less for a smaller model written plainly; H100: 33 % of NeMo's recipes.
        watts: Of the card (data sheet).
        node_watts: Of a node of eight (DGX data sheets), divided by eight.
    """

    memory_gb: tuple[int, ...]
    precision: str
    peak_tflops: float
    share: tuple[float, float]
    watts: int
    node_watts: int


CARDS: dict[str, Card] = {
    "V100": Card((16, 32), "fp32", 15.7, (0.50, 0.75), 300, 440),
    "A100": Card((40, 80), "bf16", 312, (0.30, 0.50), 400, 810),
    "H100": Card((80,), "bf16", 989, (0.25, 0.40), 700, 1275),
    "H200": Card((141,), "bf16", 989, (0.25, 0.45), 700, 1275),
}

RUNS: dict[str, float] = {
    "one epoch of the paper's sample": 1.2e6,
    "conf/pretrain/paper.yaml: 10,000 steps": 10_000 * 2048,
    "35 epochs of the paper's sample": 35 * 1.2e6,
    "every pair of ProtAnno once": 251.5e6,
}
"""What is trained to pairs seen; the sample's size is derived in docs/sizing.md."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a pair costs on average.

    Attributes:
        residues: Residues, once, however many passes.
        tokens: Protein tokens of a pass.
        spread: Standard deviation of the tokens.
        model_tflop: 10¹² operations the mathematics needs: what `train/mfu` counts.
        executed_tflop: With what is computed twice, heads and losses.
    """

    residues: float
    tokens: float
    spread: float
    model_tflop: float
    executed_tflop: float


@dataclass(frozen=True, slots=True)
class Kept:
    """Bytes kept for the backward pass.

    Attributes:
        fixed: Whatever the batch: half-precision copies of the weights.
        per_token: For each protein token of a pass.
    """

    fixed: float
    per_token: float


def build(config: PretrainConfig, protein: Esm2Sizes, text: BertSizes, device: torch.device) -> ProtCLIP:
    """The model of a configuration in training mode, with what is frozen frozen."""
    sizes = config.model
    with torch.device(device):
        model = ProtCLIP(
            Architecture(protein, text, sizes.projection_dim, sizes.num_prototypes, sizes.fusion_heads),
            config.loss,
            checkpointing=sizes.protein.checkpointing,
        ).train()
    freezing.apply(model, sizes, step=0)
    return model


def forward(
    model: ProtCLIP, batch: Batch, loss: LossConfig, cache: GradientCache | None, index: int
) -> Tensor:
    """The weighted loss of a microbatch."""
    noise_BKP = gumbel_noise(0, 0, batch.keys_B, model.architecture.num_prototypes)
    output = model(batch, noise_BKP)
    totals = Totals.of([batch], batch.num_pairs)
    return objective(output, loss, totals, cache.share(index, output) if cache else None).total


def executed_flops(model: ProtCLIP, batches: Sequence[Batch], loss: LossConfig) -> int:
    """Operations of a step but the optimizer's, as torch counts them."""
    batches = [batch.to(next(model.parameters()).device) for batch in batches]
    # Other kernels of attention are not counted on the CPU, or compute the scores anew.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        pairs = sum(batch.num_pairs for batch in batches)
        embedded = [model.embed(batch) for batch in batches] if len(batches) > 1 else []
        cache = GradientCache(embedded, loss, pairs) if embedded else None
        for index, batch in enumerate(batches):
            forward(model, batch, loss, cache, index).backward()
    model.zero_grad(set_to_none=True)
    return counter.get_total_flops()


def measured_work(config: PretrainConfig, protein: Esm2Sizes, rows: pa.Table, micro: int | None) -> Work:
    """Counts what the pairs of a table cost in microbatches of a size; None: all at once."""
    batches = list(collated(config, rows, micro or len(rows)))
    tokens = [n for batch in batches for n in batch.counts.protein_lengths]

    def counted(protein_layers: int, text_layers: int) -> int:
        towers = replace(protein, num_layers=protein_layers), replace(PUBMEDBERT, num_layers=text_layers)
        return executed_flops(build(config, *towers, META), batches, config.loss)

    # Layers are alike: what one more of either tower adds tells of all, and torch counts slowly.
    least, deeper, wordier = counted(1, 1), counted(2, 1), counted(1, 2)
    executed = least + (protein.num_layers - 1) * (deeper - least)
    executed += (PUBMEDBERT.num_layers - 1) * (wordier - least)
    model = build(config, protein, PUBMEDBERT, META)
    return Work(
        residues=sum(batch.counts.residues for batch in batches) / len(rows),
        tokens=statistics.fmean(tokens),
        spread=statistics.pstdev(tokens),
        model_tflop=training_flops(model, batches) / len(rows) / 1e12,
        executed_tflop=executed / len(rows) / 1e12,
    )


def collated(config: PretrainConfig, rows: pa.Table, micro: int) -> Iterator[Batch]:
    """Batches of a table, `micro` pairs each."""
    lengths = config.model.protein.max_tokens, config.model.text.max_tokens
    collate = Collator(config.masking, TextTokens(0, 2, 3), *lengths, seed=0)
    for start in range(0, len(rows), micro):
        yield collate(rows.slice(start, micro), epoch=0)


def kept_bytes(config: PretrainConfig, protein: Esm2Sizes, rows: pa.Table, *, bf16: bool) -> Kept:
    """Counts what the forward pass keeps, at the real widths, and extends it from two layers to all.

    With checkpointing a layer's own is added once: it is computed anew while the gradient passes it. The
    half-precision copies of all weights are there in either case, until the forward pass ends.
    """
    few, many = (rows.slice(len(rows) // 8, pairs) for pairs in (1, 3))  # short ones, for the sake of time

    def kept(layers: int, pairs: pa.Table, config: PretrainConfig) -> tuple[int, int]:
        """Tokens, and bytes kept for them."""
        model = build(config, replace(protein, num_layers=layers), TEXTS["bert-tiny"], torch.device("cpu"))
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        storages: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        (batch,) = collated(config, pairs, len(pairs))
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16), saved_tensors_hooks(note, lambda t: t):
            loss = forward(model, batch, config.loss, None, 0)
        assert loss.requires_grad
        return sum(batch.counts.protein_lengths), sum(storages.values())

    def line(layers: int, config: PretrainConfig) -> np.ndarray:
        """Bytes whatever the tokens, and per token."""
        (tokens, fewer), (more_tokens, more) = (kept(layers, pairs, config) for pairs in (few, many))
        slope = (more - fewer) / (more_tokens - tokens)
        return np.array([fewer - slope * tokens, slope])

    def whole(config: PretrainConfig) -> tuple[np.ndarray, np.ndarray]:
        """Of all layers, and of one."""
        one, two = line(1, config), line(2, config)
        return one + (protein.num_layers - 1) * (two - one), two - one

    plain, layer = whole(configured(config.masking.corruption, checkpointing=False))
    if not config.model.protein.checkpointing:
        return Kept(*plain.tolist())
    return Kept(plain[0], whole(config)[0][1] + layer[1])


def peak_gb(state: float, kept: Kept, work: Work, micro: int, longest: int) -> float:
    """Most memory of a step: state, and what the heaviest of a million microbatches keeps."""
    tokens = min(micro * longest, micro * work.tokens + 5 * work.spread * math.sqrt(micro))
    return (state + SLACK * (kept.fixed + kept.per_token * tokens)) / 1e9 + OTHER_GB


def configured(corruption: str, *, checkpointing: bool) -> PretrainConfig:
    """The paper's recipe with two choices."""
    return PretrainConfig.model_validate(
        {
            "data": "none",
            "run": {"name": "sizing"},
            "masking": {"corruption": corruption},
            "model": {"protein": {"checkpointing": checkpointing}},
        }
    )


def traffic(args: argparse.Namespace, pairs: float, checkpoint_bytes: int) -> dict[str, float]:
    """Bytes and requests of a run, without a cache on the nodes."""
    steps = pairs / args.global_batch
    rows = steps * args.workers * min(args.global_batch, args.global_batch / args.workers + args.row_group)
    saves = max(1, round(steps / args.checkpoint_every))
    return {
        "read_tb": round(rows * STORED_BYTES / 1e12, 2),
        "get_requests": round(rows / args.row_group),
        "checkpoints": saves,
        "written_tb": round(saves * checkpoint_bytes / 1e12, 2),
        "put_requests": round(saves * checkpoint_bytes / PART_BYTES),
    }


def cost(card: Card, work: Work, pairs: float, workers: int, rates: Sequence[float]) -> dict[str, object]:
    """GPU hours and what follows from them; rates in residues/s of a card."""
    hours = [pairs * work.residues / rate / 3600 for rate in rates]
    return {
        "gpu_hours": [round(h) for h in hours],
        "node_hours": [round(h / 8) for h in hours],
        "wall_hours": [round(h / workers, 1) for h in hours],
        "card_kwh": [round(h * card.watts / 1e3) for h in hours],
        "node_kwh": [round(h * card.node_watts / 1e3) for h in hours],
    }


def sized(args: argparse.Namespace) -> Iterator[Line]:
    """All lines: work per pair, state and memory per card, hours per run and card."""
    protein, rows = PRESETS[args.protein], drawn(args)
    each = args.global_batch // args.workers
    works: dict[tuple[str, bool, bool], Work] = {}
    for corruption, checkpointing in (("separate", False), ("separate", True), ("shared", True)):
        for cut in (False, True):
            config = configured(corruption, checkpointing=checkpointing)
            work = measured_work(config, protein, rows, 4 if cut else None)
            works[corruption, checkpointing, cut] = work
            about = {"corruption": corruption, "checkpointing": checkpointing, "microbatches": cut}
            yield {"table": "work"} | about | rounded(asdict(work))
    config = configured("separate", checkpointing=True)
    model = build(config, protein, PUBMEDBERT, META)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    weights = sum(p.numel() for p in model.parameters())
    learnt = sum(p.numel() for p in model.parameters() if p.requires_grad)
    saved = 4 * weights + 8 * learnt
    states = {n: state_bytes(model, trained, n) for n in (1, 8, args.workers)}
    yield {
        "table": "state",
        "parameters": weights,
        "trained": learnt,
        "checkpoint_gb": round(saved / 1e9, 2),
        "state_gb": {str(n): round(size / 1e9, 2) for n, size in states.items()},
    }
    fits: dict[str, bool] = {}
    for precision in ("fp32", "bf16"):
        for checkpointing in (False, True):
            config = configured("separate", checkpointing=checkpointing)
            kept, work = (
                kept_bytes(config, protein, rows, bf16=precision == "bf16"),
                works["separate", True, True],
            )
            yield {"table": "kept", "precision": precision, "checkpointing": checkpointing} | rounded(
                asdict(kept)
            )
            for name, card in CARDS.items():
                for memory in card.memory_gb if card.precision == precision else ():
                    most = {}
                    for shards, state in states.items():
                        sizes = (2**n for n in range(8, -1, -1))
                        room = (m for m in sizes if peak_gb(state, kept, work, m, 1024) < 0.95 * memory)
                        most["ddp" if shards == 1 else f"fsdp over {shards}"] = next(room, 0)
                    fits[name] = fits.get(name, False) or (checkpointing and most["ddp"] >= each)
                    about = {"card": name, "memory_gb": memory, "checkpointing": checkpointing}
                    yield {"table": "memory"} | about | {"most_pairs": most}
    for name in [args.card] if args.card else CARDS:
        card, work = CARDS[name], works[args.corruption, True, not fits[name]]
        rates = [share * card.peak_tflops * work.residues / work.executed_tflop for share in card.share[::-1]]
        rates = [args.residues_per_s] if args.residues_per_s else rates
        mfu = [rate / work.residues * work.model_tflop / card.peak_tflops for rate in rates]
        about = {"card": name, "precision": card.precision, "microbatches": not fits[name]}
        about |= {"residues_per_s": [round(rate) for rate in rates], "mfu": [round(m, 3) for m in mfu]}
        yield {"table": "speed"} | about
        for run, pairs in RUNS.items():
            spent = cost(card, work, pairs, args.workers, rates)
            yield {
                "table": "run",
                "run": run,
                "card": name,
                "steps": round(pairs / args.global_batch),
            } | spent
    for run, pairs in RUNS.items():
        yield {"table": "traffic", "run": run} | traffic(args, pairs, saved)


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Four digits that count."""
    return {name: float(f"{value:.4g}") for name, value in values.items()}


def drawn(args: argparse.Namespace) -> pa.Table:
    """Pairs whose lengths stand for all: evenly spaced among many sorted by length, made or of a data set."""
    if args.pairs:
        dataset = PairsDataset(args.pairs, "train", 0)
        rows = dataset.rows(0, 0, min(MANY, len(dataset)))
        lengths = pa.array([len(sequence) for sequence in rows["sequence"].to_pylist()])
        rows = rows.append_column("length", lengths).sort_by("length")
    else:
        rows = make_rows(MANY, np.random.default_rng(0))
    return rows.take(((np.arange(args.count) + 0.5) * len(rows) / args.count).astype(int))


def check() -> Line:
    """The counts held against each other and against the clock, on one core, with ESM-2 8M and 8 pairs."""
    torch.set_num_threads(1)
    sizes, text = PRESETS["esm2_t6_8M_UR50D"], TEXTS["bert-small"]
    config = configured("separate", checkpointing=False)
    rows = make_rows(8, np.random.default_rng(0))
    batches = list(collated(config, rows, len(rows)))
    way, model = our_way(Architecture(sizes, text, 512, 512, 8), config, batches, torch.device("cpu"))
    counted = {
        "formula": way.flops,
        "torch_meta": executed_flops(build(config, sizes, text, META), batches, config.loss),
        "torch_cpu": executed_flops(model, batches, config.loss),
    }
    square = torch.randn(2048, 2048)

    def seconds(run: Callable[[], object]) -> float:
        times = []
        for _ in range(4):
            began = time.process_time()
            run()
            times.append(time.process_time() - began)
        return statistics.median(times[1:])

    step_s, product_s = seconds(way.step), seconds(lambda: square @ square)
    achieved, peak = way.flops / step_s / 1e9, 2 * 2048**3 / product_s / 1e9
    speed = {"residues_per_s": batches[0].counts.residues / step_s, "gflops": achieved, "matmul_gflops": peak}
    return {"table": "check"} | counted | rounded(speed | {"share": achieved / peak})


def main() -> None:
    """Prints one JSON object per line, or tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--protein", choices=PRESETS, default="esm2_t33_650M_UR50D", help="protein encoder")
    parser.add_argument(
        "--corruption", choices=["separate", "shared"], default="separate", help="of the runs"
    )
    parser.add_argument("--workers", type=int, default=64, help="cards, one worker on each")
    parser.add_argument("--global-batch", type=int, default=2048, help="pairs per step over all workers")
    parser.add_argument("--row-group", type=int, default=8192, help="pairs in a row group")
    parser.add_argument("--checkpoint-every", type=int, default=500, help="steps between checkpoints")
    parser.add_argument("--card", choices=CARDS, help="only this one")
    parser.add_argument("--residues-per-s", type=float, help="measured on one card, instead of Card.share")
    parser.add_argument("--pairs", help="URI of pairs whose lengths are used instead of made ones")
    parser.add_argument("--count", type=int, default=24, help="pairs that are counted")
    parser.add_argument("--markdown", action="store_true", help="tables instead of JSON lines")
    parser.add_argument("--check", action="store_true", help="hold the count against torch and the clock")
    args = parser.parse_args()
    if args.residues_per_s and not args.card:
        parser.error("--residues-per-s is measured on one card: name it with --card")
    lines = [check()] if args.check else sized(args)
    table = None
    for line in lines:
        if not args.markdown:
            print(json.dumps(line), flush=True)
            continue
        if line["table"] != table:
            table = line["table"]
            print(f"\n| {' | '.join(list(line)[1:])} |\n|{'---|' * (len(line) - 1)}")
        print("|", " | ".join(cell(value) for value in list(line.values())[1:]), "|", flush=True)


def cell(value: object) -> str:
    """A value as a table shows it; a range from its lower to its upper end."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {inner}" for name, inner in value.items())
    if isinstance(value, list):
        return "–".join(f"{end:,}" for end in sorted(value))
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


if __name__ == "__main__":
    main()
