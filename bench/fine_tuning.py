"""What it costs to train all of the protein tower, its last layers, or adapters.

    OMP_NUM_THREADS=1 PYTHONPATH=platform python bench/fine_tuning.py [--protein esm2_t6_8M_UR50D]

Every way runs in a process of its own: four objectives, text tower frozen, batches of `bench/train_step.py`.
Memory is the peak of the steps over what the process held before the first: activations, gradients, moments.
For memory alone set MALLOC_MMAP_THRESHOLD_=262144: glibc else keeps what was freed between larger blocks, as
much again at worst, and the steps are faster for it.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import psutil
import torch
from train_step import TEXT_VOCAB, make_batch

from protclip.config.schema import PretrainConfig
from protclip.model.build import build
from protclip.tensors import residue_mask
from protclip.training import freezing
from protclip.training.optim import make_optimizer, make_schedule
from protclip.training.replica import Replica
from protclip.training.step import train_step

MATRICES = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
WAYS: dict[str, dict[str, object]] = {
    "all": {},
    "last 2 layers": {"train_layers": 2},
    "LoRA, rank 8, q and v": {"lora": {"rank": 8}},
    "LoRA, rank 8, every matrix": {"lora": {"rank": 8, "targets": MATRICES}},
    "none": {"trainable": False},
}


def measure(way: str, args: argparse.Namespace) -> dict[str, object]:
    """Trained parameters of the tower, median processor time of a step, peak memory of the steps."""
    config = PretrainConfig.model_validate(
        {
            "data": "none",
            "run": {"name": "bench"},
            "model": {
                "protein": {"source": args.protein, "max_tokens": args.max_tokens, **WAYS[way]},
                "text": {"source": "bert-tiny"},
            },
        }
    )
    device = torch.device("cpu")
    model = build(config.model, config.loss, TEXT_VOCAB, seed=0)
    freezing.apply(model, config.model, step=0)
    replica = Replica(model, config, device)
    model.train()
    optimizer = make_optimizer(model, config.model, config.optim)
    schedule = make_schedule(optimizer, config.train.max_steps, config.optim)
    batch = make_batch(args.pairs, args.max_tokens, np.random.default_rng(0))
    before = psutil.Process().memory_info().rss
    seconds = []
    for step in range(args.repeats + 1):
        started = time.process_time()
        train_step(
            replica,
            [batch],
            optimizer,
            schedule,
            config.loss,
            global_batch=args.pairs,
            seed=0,
            step=step,
            clip_norm=1.0,
        )
        seconds.append(time.process_time() - started)
    tower = list(model.protein_encoder.parameters())
    return {
        "trained": way,
        "parameters": sum(p.numel() for p in tower if p.requires_grad),
        "step_cpu_ms": round(statistics.median(seconds[1:]) * 1e3),
        "peak_mb": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 1e6),
        "protein": args.protein,
        "pairs": args.pairs,
        "residues": int(residue_mask(batch.tokens_BL).sum()),
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Prints one JSON object per way."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--protein", default="esm2_t6_8M_UR50D", help="protein encoder preset")
    parser.add_argument("--pairs", type=int, default=16, help="pairs per step")
    parser.add_argument("--max-tokens", type=int, default=512, help="longest protein")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps; the median is reported")
    parser.add_argument("--way", choices=WAYS, help="only this one, in this process")
    args = parser.parse_args()
    if args.way:
        print(json.dumps(measure(args.way, args)), flush=True)
        return
    for way in WAYS:
        subprocess.run([sys.executable, *sys.argv, "--way", way], check=True)


if __name__ == "__main__":
    main()
