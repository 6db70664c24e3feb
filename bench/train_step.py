"""Speed of one optimisation step and of each tower's pass, as JSON lines.

    python bench/train_step.py --protein esm2_t6_8M_UR50D --text bert-tiny --pairs 16

The protein tower's forward and backward pass is also timed for transformers' `EsmModel` of the same
size on the same padded batch; `ratio` is ours over the peer's, both measured in turn in this run.
Lengths are log-normal (median 300), like UniProtKB's.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import torch
from transformers import EsmConfig, EsmModel

from protclip.config.schema import (
    LossConfig,
    MaskingConfig,
    ModelConfig,
    OptimConfig,
    ProteinEncoderConfig,
    TextEncoderConfig,
)
from protclip.data.collate import Collator, TextTokens
from protclip.model.protclip import build
from protclip.records import PAIRS_SCHEMA, PROPERTIES
from protclip.tensors import PAD, VOCAB_SIZE, Batch, residue_mask
from protclip.training.optim import make_optimizer, make_schedule
from protclip.training.step import train_step

TEXT_VOCAB = 5000


def make_batch(pairs: int, max_tokens: int, rng: np.random.Generator) -> Batch:
    """Random proteins with texts of 60 pieces per property."""
    lengths = np.clip(rng.lognormal(np.log(300), 0.6, pairs).astype(int), 30, max_tokens - 2)
    residues = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    rows = [
        {
            "accession": f"B{i}",
            "sequence": "".join(rng.choice(residues, n)),
            **{str(p): rng.integers(5, TEXT_VOCAB, 60).tolist() for p in PROPERTIES},
            "length": int(n),
            "confidence": 1,
            "coverage": 4,
            "sampling_key": i,
        }
        for i, n in enumerate(lengths)
    ]
    collate = Collator(MaskingConfig(), TextTokens(0, 2, 3), max_tokens, 512, seed=0)
    return collate(pa.Table.from_pylist(rows, schema=PAIRS_SCHEMA), epoch=0)


def median_s(run: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median wall time of a call after one warm-up."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main() -> None:
    """Prints one JSON object per measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--protein", default="esm2_t6_8M_UR50D", help="protein encoder preset")
    parser.add_argument("--text", default="bert-tiny", help="text encoder preset")
    parser.add_argument("--pairs", type=int, default=16, help="pairs per step")
    parser.add_argument("--max-tokens", type=int, default=1024, help="longest protein")
    parser.add_argument("--repeats", type=int, default=5, help="timed repetitions; the median is reported")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    bf16 = device.type == "cuda"
    loss, optim = LossConfig(), OptimConfig()
    model = build(
        ModelConfig(
            protein=ProteinEncoderConfig(source=args.protein, max_tokens=args.max_tokens),
            text=TextEncoderConfig(source=args.text),
        ),
        loss,
        TEXT_VOCAB,
        seed=0,
    ).to(device)
    batch = make_batch(args.pairs, args.max_tokens, np.random.default_rng(0)).to(device)
    residues = int(residue_mask(batch.tokens_BL).sum())
    padding = float((batch.tokens_BL == PAD).float().mean())
    about = {"protein": args.protein, "text": args.text, "pairs": args.pairs, "residues": residues}
    about |= {"padding": round(padding, 3), "device": args.device, "threads": torch.get_num_threads()}

    def emit(what: str, seconds: float, **more: float) -> None:
        rate = {"what": what, "ms": round(seconds * 1e3, 1), "residues_per_s": round(residues / seconds)}
        print(json.dumps(rate | {k: round(v, 2) for k, v in more.items()} | about), flush=True)

    optimizer = make_optimizer(model, optim)
    schedule = make_schedule(optimizer, 1000, optim)

    def step() -> None:
        train_step(
            model,
            batch,
            optimizer,
            schedule,
            loss,
            seed=0,
            step=0,
            num_prototypes=model.architecture.num_prototypes,
            clip_norm=optim.clip_norm,
            bf16=bf16,
        )

    def forward_backward(run: Callable[[], torch.Tensor]) -> Callable[[], None]:
        def go() -> None:
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                states = run()
            states.float().square().mean().backward()

        return go

    emit("step", median_s(step, args.repeats, device))
    encoder = model.protein_encoder
    peer = EsmModel(
        EsmConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=model.architecture.protein.width,
            num_hidden_layers=model.architecture.protein.num_layers,
            num_attention_heads=model.architecture.protein.num_heads,
            intermediate_size=4 * model.architecture.protein.width,
            position_embedding_type="rotary",
            token_dropout=True,
            emb_layer_norm_before=False,
            pad_token_id=PAD,
            mask_token_id=VOCAB_SIZE - 1,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        add_pooling_layer=False,
    ).to(device)
    attention = (batch.tokens_BL != PAD).long()
    ours_s = median_s(forward_backward(lambda: encoder(batch.tokens_BL)), args.repeats, device)
    peer_s = median_s(
        forward_backward(lambda: peer(input_ids=batch.tokens_BL, attention_mask=attention).last_hidden_state),
        args.repeats,
        device,
    )
    emit("protein pass", ours_s)
    emit("protein pass, transformers EsmModel", peer_s, ratio=peer_s / ours_s)
    with torch.no_grad():
        text_s = median_s(lambda: model.embed_text(batch.text_BT, batch.text_mask_BT), args.repeats, device)
    emit("text pass, forward", text_s)


if __name__ == "__main__":
    main()
