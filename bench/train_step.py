"""What one optimisation step with all four objectives costs, and what each choice buys, as JSON lines.

    python bench/train_step.py                                      # CPU: ESM-2 8M, BERT 4 x 256, 16 pairs
    python bench/train_step.py --protein esm2-tiny --text bert-tiny --pairs 32
    python bench/train_step.py --device cuda                        # ESM-2 650M, BERT base, 32 pairs, bf16
    python bench/train_step.py --device cuda --pairs 128 --micro 16 --rows separate compile

The peer is the same step written the plain way: transformers' `EsmModel` and `BertModel` on padded
batches, a call for each pass over the proteins and for each property, torch's ordinary AdamW; heads and
losses are ours. Both start from the same weights and must come to the same losses, or the bench fails.
Steps are timed in turn, `ratio` is the peer's time over a row's. Protein lengths are log-normal (median
300) like UniProtKB's, property texts log-normal with some absent. On the CPU seconds are processor time
of one thread, so that other work on the machine counts less.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, EsmConfig, EsmModel

from protclip.config.schema import MaskingConfig, PretrainConfig
from protclip.data.collate import Collator, TextTokens
from protclip.losses.objective import Totals, objective
from protclip.model.esm2 import PRESETS, Esm2Sizes
from protclip.model.flops import training_flops
from protclip.model.heads import positions
from protclip.model.protclip import Architecture, ProtCLIP
from protclip.model.text import BertSizes
from protclip.model.weights.names import to_hugging_face
from protclip.progress import progress
from protclip.records import NUM_PROPERTIES, PAIRS_SCHEMA, PROPERTIES
from protclip.tensors import MASK, PAD, VOCAB_SIZE, Batch
from protclip.training import freezing
from protclip.training.optim import make_optimizer, make_schedule
from protclip.training.replica import Replica
from protclip.training.step import gumbel_noise, train_step
from protclip.training.watch import peak_tflops

TEXT_VOCAB = 5000
TEXTS: dict[str, BertSizes] = {
    "bert-tiny": BertSizes(TEXT_VOCAB, 2, 128, 2, 512, 512),
    "bert-small": BertSizes(TEXT_VOCAB, 4, 256, 4, 1024, 512),
    "bert-base": BertSizes(TEXT_VOCAB, 12, 768, 12, 3072, 512),
}
PIECES = {"protein_name": 8, "function": 60, "subcellular_location": 12, "similarity": 14}
"""Median length of each property's text; the last three are absent from a fifth of the proteins."""

ROWS: dict[str, dict[str, dict[str, object]]] = {
    "separate": {},
    "shared": {"masking": {"corruption": "shared"}},
    "micro": {},
    "checkpointing": {"model": {"protein": {"checkpointing": True}}},
    "compile": {"train": {"compile": True}},
}
"""Name of a row to what it changes in the configuration; `micro` cuts the batch up."""

TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}


def make_rows(pairs: int, rng: np.random.Generator) -> pa.Table:
    """Random proteins and texts of lengths as in UniProtKB, shortest proteins first."""
    lengths = np.sort(np.clip(rng.lognormal(np.log(300), 0.6, pairs).astype(int), 30, 5000))
    residues = np.array(list("ACDEFGHIKLMNPQRSTVWY"))

    def text(name: str) -> list[int]:
        if name != PROPERTIES[0] and rng.random() < 0.2:
            return []
        return rng.integers(5, TEXT_VOCAB, max(2, int(rng.lognormal(np.log(PIECES[name]), 0.7)))).tolist()

    rows = [
        {
            "accession": f"B{i}",
            "sequence": "".join(rng.choice(residues, n)),
            **{str(name): text(str(name)) for name in PROPERTIES},
            "length": int(n),
            "confidence": 1,
            "coverage": 4,
            "sampling_key": i,
        }
        for i, n in enumerate(lengths)
    ]
    return pa.Table.from_pylist(rows, schema=PAIRS_SCHEMA)


def make_batch(
    pairs: int, max_tokens: int, rng: np.random.Generator, masking: MaskingConfig | None = None
) -> Batch:
    """One batch of `make_rows`."""
    collate = Collator(masking or MaskingConfig(), TextTokens(0, 2, 3), max_tokens, 512, seed=0)
    return collate(make_rows(pairs, rng), epoch=0)


class PlainProtCLIP(ProtCLIP):
    """ProtCLIP on transformers' encoders, with the weights of one of ours."""

    def __init__(self, ours: ProtCLIP) -> None:
        super().__init__(ours.architecture)
        protein, text = ours.protein_encoder.state_dict(), ours.text_encoder.bert.state_dict()
        self.load_state_dict(ours.state_dict())
        self.protein_encoder = plain_esm2(ours.architecture.protein)
        named = {to_hugging_face(name): weight for name, weight in protein.items()}
        self.protein_encoder.load_state_dict(named, strict=False)  # it also keeps the rotary frequencies
        config = ours.text_encoder.bert.config.to_dict()
        self.text_encoder = BertModel(BertConfig(**config), add_pooling_layer=False)
        self.text_encoder.load_state_dict(text)

    def _encode_proteins(self, batch: Batch, *, clean: bool) -> dict[str, Tensor]:
        """A call for each pass."""
        passes = {"clean": batch.tokens_BL} if clean else {}
        passes |= {"mlm": batch.mlm_tokens_BL, "segment": batch.segment_tokens_BL}
        real_BL = (batch.tokens_BL != PAD).long()
        return {
            name: self.protein_encoder(input_ids=tokens_BL, attention_mask=real_BL).last_hidden_state
            for name, tokens_BL in passes.items()
        }

    def _encode_texts(self, batch: Batch, present_BK: Tensor, *, biotext: bool) -> dict[str, Tensor]:
        """A call for the biotexts and one for each property."""
        encode = self.text_encoder
        texts_BTH = encode(input_ids=batch.text_BT, attention_mask=batch.text_mask_BT).last_hidden_state
        properties_KBTH = []
        for k in range(NUM_PROPERTIES):
            mask_BT = batch.property_mask_BKT[:, k]
            states_BTH = encode(input_ids=batch.property_BKT[:, k], attention_mask=mask_BT).last_hidden_state
            properties_KBTH.append(states_BTH)
        states_BKTH = torch.stack(properties_KBTH, dim=1)
        at_N = positions(present_BK, batch.counts.properties)
        return {"biotext": texts_BTH, "property": states_BKTH.flatten(0, 1).index_select(0, at_N)}


def plain_esm2(sizes: Esm2Sizes) -> EsmModel:
    """Transformers' ESM-2 without dropout."""
    config = EsmConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=sizes.width,
        num_hidden_layers=sizes.num_layers,
        num_attention_heads=sizes.num_heads,
        intermediate_size=4 * sizes.width,
        position_embedding_type="rotary",
        token_dropout=True,
        emb_layer_norm_before=False,
        pad_token_id=PAD,
        mask_token_id=MASK,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = EsmModel(config, add_pooling_layer=False)
    del model.contact_head
    return model


@dataclass(frozen=True, slots=True)
class Way:
    """One way of making a step.

    Attributes:
        step: Makes it and returns the loss before the update.
        protein_pass: Forward and backward pass of the protein tower over the clean proteins.
        flops: Operations of a step's towers.
    """

    step: Callable[[], Tensor]
    protein_pass: Callable[[], None]
    flops: int


def protein_pass(encode: Callable[[], Tensor], replica: Replica) -> Callable[[], None]:
    """A forward and backward pass."""

    def run() -> None:
        with replica.autocast():
            states = encode()
        states.float().square().mean().backward()

    return run


def our_way(
    architecture: Architecture, config: PretrainConfig, batches: list[Batch], device: torch.device
) -> tuple[Way, ProtCLIP]:
    """The step of this package, and its model."""
    torch.manual_seed(0)
    protein = config.model.protein
    model = ProtCLIP(architecture, config.loss, checkpointing=protein.checkpointing).train()
    freezing.apply(model, config.model, step=0)
    replica = Replica(model, config, device)
    optimizer = make_optimizer(model, config.model, config.optim)
    schedule = make_schedule(optimizer, config.train.max_steps, config.optim)
    pairs = sum(batch.num_pairs for batch in batches)

    def step() -> Tensor:
        result = train_step(
            replica,
            batches,
            optimizer,
            schedule,
            config.loss,
            global_batch=pairs,
            seed=0,
            step=0,
            clip_norm=config.optim.clip_norm,
        )
        return result.losses.total

    def encode() -> Tensor:
        return model.protein_encoder(batches[0].tokens_BL, batches[0].counts.protein_lengths)

    return Way(step, protein_pass(encode, replica), training_flops(model, batches)), model


def plain_way(ours: ProtCLIP, config: PretrainConfig, batch: Batch, device: torch.device) -> Way:
    """The step as one would write it with transformers."""
    model = PlainProtCLIP(ours).train().to(device)
    freezing.apply(model, config.model, step=0)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.optim.lr, weight_decay=0.0)
    replica = Replica(model, config, device)
    totals = Totals.of([batch], batch.num_pairs)

    def step() -> Tensor:
        noise_BKP = gumbel_noise(0, 0, batch.keys_B, model.architecture.num_prototypes)
        with replica.autocast():
            output = model(batch, noise_BKP)
        report = objective(output, config.loss, totals)
        optimizer.zero_grad()
        report.total.backward()
        nn.utils.clip_grad_norm_(trained, config.optim.clip_norm)
        optimizer.step()
        return report.total.detach()

    real_BL = (batch.tokens_BL != PAD).long()

    def encode() -> Tensor:
        return model.protein_encoder(input_ids=batch.tokens_BL, attention_mask=real_BL).last_hidden_state

    return Way(step, protein_pass(encode, replica), training_flops(ours, [batch]))


def timed(runs: Mapping[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each, run in turn, after two warm-up rounds."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    with progress("timing", " runs", (repeats + 2) * len(runs)) as bar:
        for _ in range(repeats + 2):
            for name, run in runs.items():
                started = clock()
                run()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                times[name].append(clock() - started)
                bar.update()
    return {name: statistics.median(seconds[2:]) for name, seconds in times.items()}


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Most memory in use during a run on a GPU."""
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return torch.cuda.max_memory_allocated(device)


def configured(args: argparse.Namespace, row: str) -> PretrainConfig:
    """The configuration of a row."""
    values: dict[str, object] = {"data": "none", "run": {"name": "bench"}}
    return PretrainConfig.model_validate(values | ROWS[row])


def collated(args: argparse.Namespace, row: str, config: PretrainConfig) -> list[Batch]:
    """A row's microbatches: all pairs in one, or neighbours in length together."""
    table = make_rows(args.pairs, np.random.default_rng(0))
    collate = Collator(config.masking, TextTokens(0, 2, 3), args.max_tokens, 512, seed=0)
    most = args.micro if row == "micro" else args.pairs
    return [collate(table.slice(start, most), epoch=0) for start in range(0, args.pairs, most)]


def main() -> None:
    """Prints one JSON object per measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--protein", choices=PRESETS, help="default: 8M on the CPU, else 650M")
    parser.add_argument("--text", choices=TEXTS, help="default: bert-small on the CPU, else bert-base")
    parser.add_argument("--pairs", type=int, help="pairs per step; default 16 on the CPU, else 32")
    parser.add_argument("--micro", type=int, help="pairs per microbatch in row `micro`; default a quarter")
    parser.add_argument("--max-tokens", type=int, default=1024, help="longest protein")
    parser.add_argument("--repeats", type=int, default=5, help="timed repetitions; the median is reported")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="ways to measure")
    parser.add_argument("--no-peer", action="store_true", help="leave the peer out")
    args = parser.parse_args()
    device = torch.device(args.device)
    small = device.type == "cpu"
    if small:
        torch.set_num_threads(1)
    args.protein = args.protein or ("esm2_t6_8M_UR50D" if small else "esm2_t33_650M_UR50D")
    args.text = args.text or ("bert-small" if small else "bert-base")
    args.pairs = args.pairs or (16 if small else 32)
    args.micro = args.micro or max(1, args.pairs // 4)
    architecture = Architecture(PRESETS[args.protein], TEXTS[args.text], 512, 512, 8)

    plain = configured(args, "separate")
    batch = collated(args, "separate", plain)[0].to(device)
    tokens = sum(batch.counts.protein_lengths)
    about = {
        "protein": args.protein,
        "text": args.text,
        "pairs": args.pairs,
        "residues": batch.counts.residues,
    }
    about |= {"padding": round(1 - tokens / batch.tokens_BL.numel(), 3), "device": args.device}
    peak = peak_tflops(plain, device)

    ways: dict[str, Way] = {}
    torch.manual_seed(0)
    first = ProtCLIP(architecture)
    if not args.no_peer:
        ways["plain"] = plain_way(first, plain, batch, device)
    for row in args.rows:
        config = configured(args, row)
        batches = [b.to(device) for b in collated(args, row, config)]
        ways[row], _ = our_way(architecture, config, batches, device)
    losses = {name: way.step().item() for name, way in ways.items() if name != "shared"}
    tolerance = TOLERANCE["fp32" if small else "bf16"]
    for name, value in losses.items():
        if abs(value / next(iter(losses.values())) - 1) > tolerance:
            raise SystemExit(f"the ways disagree: total losses {losses}, {name} by more than {tolerance}")

    seconds = timed({name: way.step for name, way in ways.items()}, args.repeats, device)
    for name, way in ways.items():
        row = {"step": name, "ms": round(seconds[name] * 1e3, 1)}
        row["residues_per_s"] = round(batch.counts.residues / seconds[name])
        row["tflops"] = round(way.flops / seconds[name] / 1e12, 3)
        if peak:
            row["mfu"] = round(row["tflops"] / peak, 3)
        if device.type == "cuda":
            row["peak_gb"] = round(peak_bytes(way.step, device) / 1e9, 2)
        if "plain" in seconds:
            row["ratio"] = round(seconds["plain"] / seconds[name], 2)
        print(json.dumps(row | about), flush=True)
    passes = {name: ways[name].protein_pass for name in ("plain", "separate", "compile") if name in ways}
    seconds = timed(passes, args.repeats, device)
    for name in passes:
        row = {"protein pass": name, "ms": round(seconds[name] * 1e3, 1)}
        row["tokens_per_s"] = round(tokens / seconds[name])
        if "plain" in seconds:
            row["ratio"] = round(seconds["plain"] / seconds[name], 2)
        print(json.dumps(row | about), flush=True)


if __name__ == "__main__":
    main()
