"""The data jobs end to end on a made UniProtKB of any size: rows per second and peak memory of each stage.

    python bench/scale.py --entries 5000000 --workdir DIR [--stages prepare,sample,iterate] [--workers N]

Every stage is the command a user would give, run as a process of its own; memory is the proportional set
size of its whole process tree (Ray and its workers included), looked at twice a second. What an earlier
run left in the working directory is used again, except the output of the stages asked for. One JSON line
per stage.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

from protclip.config.schema import MaskingConfig
from protclip.data.collate import Collator, TextTokens
from protclip.data.dataset import BatchIterator, PairsDataset, Position
from protclip.data.manifest import TOKENIZER_NAME, PairsManifest, StrataManifest
from protclip.data.tokenizer import TextTokenizer

REVIEWED_SHARE = 0.02


def memory(root: psutil.Process) -> int:
    """Bytes of physical memory that a process and its descendants hold together."""
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def run(*command: str) -> tuple[float, int]:
    """Seconds and peak memory of a command.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    watched, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        try:
            peak = max(peak, memory(watched))
        except psutil.NoSuchProcess:
            break
        time.sleep(0.5)
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - begin, peak


def report(stage: str, rows: int, seconds: float, peak: int, cores: int, **more: float) -> None:
    """Prints one line."""
    rate = rows / seconds
    figures = {
        "stage": stage,
        "rows": rows,
        "seconds": round(seconds, 1),
        "rows_per_s": round(rate),
        "cores": cores,
        "rows_per_s_and_core": round(rate / cores),
        "peak_gb": round(peak / 1e9, 2),
        **more,
    }
    print(json.dumps(figures), flush=True)


def iterate(pairs: str, seconds: float, global_batch: int) -> None:
    """Reads, decodes and collates training batches for some time, on the paper's lengths."""
    tokenizer = TextTokenizer.from_json((Path(pairs) / TOKENIZER_NAME).read_text())
    tokens = TextTokens(tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id)
    collate = Collator(MaskingConfig(), tokens, max_protein_tokens=1024, max_text_tokens=512, seed=0)
    dataset = PairsDataset(pairs, "train", seed=0)
    batches = iter(BatchIterator(dataset, collate, global_batch, 0, 1, Position()))
    here, peak, rows = psutil.Process(), 0, 0
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        rows += len(next(batches).keys)
        peak = max(peak, here.memory_full_info().pss)
    taken = time.perf_counter() - begin
    batches.close()
    report("iterate", rows, taken, peak, 1, global_batch=global_batch)


def main() -> None:
    """Runs the stages and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entries", type=int, default=100_000, help="made entries, 2 %% of them reviewed")
    parser.add_argument("--workdir", type=Path, required=True, help="directory for data; needs 3 kB an entry")
    parser.add_argument("--stages", default="prepare,sample,iterate", help="which stages, comma-separated")
    parser.add_argument("--seconds", type=float, default=30, help="how long to iterate")
    parser.add_argument("--global-batch", type=int, default=256, help="pairs in a batch when iterating")
    arguments = parser.parse_args()
    stages = arguments.stages.split(",")
    work, cores = arguments.workdir, os.cpu_count() or 1
    protclip = shutil.which("protclip", path=str(Path(sys.executable).parent)) or "protclip"
    print(json.dumps({"machine": platform.processor() or platform.machine(), "cores": cores}))
    made = work / "made"
    if not made.exists():
        reviewed = round(arguments.entries * REVIEWED_SHARE)
        sizes = (f"num_reviewed={reviewed}", f"num_unreviewed={arguments.entries - reviewed}")
        taken, peak = run(protclip, "synthesize", f"output={made}", *sizes)
        report("synthesize", arguments.entries, taken, peak, 1)
    strata, pairs = str(work / "strata"), str(work / "pairs")
    if "prepare" in stages:
        inputs = ",".join(str(path) for path in sorted(made.glob("*.dat.gz")))
        taken, peak = run(
            protclip, "prepare", "--config", "conf/data/prepare.yaml", f"inputs={inputs}",
            f"output={strata}", "overwrite=true", "tracking.enabled=false",
        )  # fmt: skip
        rows = StrataManifest.load(strata).rows
        report("prepare", rows, taken, peak, cores, gz_bytes=sum(p.stat().st_size for p in made.glob("*.gz")))
    if "sample" in stages:
        taken, peak = run(
            protclip, "sample", "--config", "conf/data/sample.yaml", f"source={strata}",
            f"output={pairs}", "overwrite=true", "tracking.enabled=false",
        )  # fmt: skip
        rows = StrataManifest.load(strata).rows
        report("sample", rows, taken, peak, cores, pairs=PairsManifest.load(pairs).rows)
    if "iterate" in stages:
        iterate(pairs, arguments.seconds, arguments.global_batch)


if __name__ == "__main__":
    main()
