"""Speed and memory of the sampling decision on as many keys as UniProt has entries.

    python bench/sampling.py [--rows 251500000] [--peer-rows 2000000]

The keys lie in Parquet files, one per stratum, as many as the published shares of TrEMBL give; 8 bytes per
key, made here in a temporary folder (2 GB for all of UniProt), which is removed. No stratum is pruned, so
that every key is read and decided. Peers, on a part of the keys: the loop of the authors' code (one row of
a CSV file at a time, the global generator) and numpy's `Generator.choice` with probabilities. Each runs in
a process of its own. One JSON line each, and one with the ratios; `seconds_for_all` is by proportion.
"""

import argparse
import csv
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from protclip.config.data import SampleConfig
from protclip.data.law import Law, solved_scale, stratum_population
from protclip.data.manifest import StratumCount
from protclip.data.sampling import keep, splitmix64

LEVELS = (0.0013, 0.0057, 0.3269, 0.6661, 0.0)
COVERAGES = (0.6211, 0.1814, 0.1182, 0.0793)
CHUNK = 2**16
SEED = 7


def counts(rows: int) -> list[StratumCount]:
    """Strata of TrEMBL's published shares, C and R taken as independent."""
    return [
        StratumCount(confidence=c, coverage=r, reviewed=0, unreviewed=int(rows * level * coverage))
        for c, level in enumerate(LEVELS, 1)
        for r, coverage in enumerate(COVERAGES, 1)
    ]


def law_for(rows: int, target: int) -> tuple[Law, list[StratumCount]]:
    """The paper's exponents without discarded strata, scaled to `target` pairs."""
    sampling = {"max_confidence": 5, "min_coverage": 1}
    config = SampleConfig.model_validate(
        {"source": "made", "output": "none", "seed": SEED, "target_pairs": target, "sampling": sampling}
    )
    law, strata = Law.of(config), counts(rows)
    scale = solved_scale(strata, stratum_population(strata, law), config)
    return Law(law.seed, law.keep_reviewed, law.corrupt_confidence, law.strata, scale), strata


def file_of(folder: str, stratum: StratumCount) -> Path:
    """A stratum's file."""
    return Path(folder) / f"c{stratum.confidence}r{stratum.coverage}.parquet"


def make(folder: str, rows: int, _: int) -> int:
    """Writes the keys, a chunk at a time."""
    start = 0
    for stratum in counts(rows):
        if not stratum.total:
            continue
        schema = pa.schema([("key", pa.uint64())])
        options = {"compression": "none", "use_dictionary": False}
        with pq.ParquetWriter(file_of(folder, stratum), schema, **options) as writer:
            for first in range(start, start + stratum.total, CHUNK):
                numbers = np.arange(first, min(first + CHUNK, start + stratum.total), dtype=np.uint64)
                writer.write_table(pa.table({"key": splitmix64(numbers)}))
        start += stratum.total
    return start


def ours(folder: str, rows: int, target: int) -> int:
    """Reads and decides every key; gives the number kept."""
    law, strata = law_for(rows, target)
    kept = 0
    for stratum in strata:
        if not stratum.total:
            continue
        file = pq.ParquetFile(file_of(folder, stratum))
        for index in range(file.num_row_groups):
            keys = file.read_row_group(index)["key"].to_numpy()
            levels = np.full(len(keys), stratum.confidence)
            weights = law.weights(levels, stratum.coverage, 1.0)
            rates = law.rates(weights, np.zeros(len(keys), bool))
            kept += int(keep(keys, rates, law.seed).sum())
    return kept


def authors_loop(folder: str, rows: int, target: int) -> int:
    """The reference's way, on the smallest row it could have: accession, C and R in a CSV file."""
    law, strata = law_for(rows, target)
    rng = random.Random(SEED)
    weights = [stratum.total for stratum in strata]
    path = Path(folder) / "rows.csv"
    with path.open("w") as sink:
        for number, stratum in enumerate(rng.choices(strata, weights, k=rows)):
            sink.write(f"A0A{number:09d},{stratum.confidence},{stratum.coverage / 4}\n")
    begin = time.perf_counter()
    kept = []
    with path.open() as source:
        for row in csv.reader(source):
            probability = law.scale * int(row[1]) ** -3 * float(row[2]) ** 0.5
            if rng.random() < probability:
                kept.append(row[0])
    TIMES["authors_loop"] = time.perf_counter() - begin
    return len(kept)


def numpy_choice(_: str, rows: int, target: int) -> int:
    """`Generator.choice` without replacement: exactly `target` of them, all probabilities in memory."""
    law, strata = law_for(rows, target)
    rates = np.concatenate(
        [np.full(s.total, law.scale * law.strata[s.confidence - 1, s.coverage - 1]) for s in strata]
    )
    begin = time.perf_counter()
    chosen = np.random.default_rng(SEED).choice(len(rates), target, replace=False, p=rates / rates.sum())
    TIMES["numpy_choice"] = time.perf_counter() - begin
    return len(chosen)


TIMES: dict[str, float] = {}
"""Seconds of what counts, where a function also has to prepare something."""


def timed(run: Callable[[str, int, int], int], folder: str, rows: int, target: int) -> dict[str, float]:
    """What a function gives, its seconds and the process's peak memory."""
    begin = time.perf_counter()
    result = run(folder, rows, target)
    seconds = TIMES.get(run.__name__, time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"kept": result, "seconds": round(seconds, 2), "peak_mb": round(peak)}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=251_500_000, help="keys to decide")
    parser.add_argument("--peer-rows", type=int, default=2_000_000, help="rows that the peers are given")
    arguments = parser.parse_args()
    rows, few = arguments.rows, min(arguments.rows, arguments.peer_rows)
    per_row: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="protclip-bench-") as folder:
        for run, given in ((make, rows), (ours, rows), (authors_loop, few), (numpy_choice, few)):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                found = pool.submit(timed, run, folder, given, given // 50).result()
            per_row[run.__name__] = found["seconds"] / given
            whole = {"seconds_for_all": round(per_row[run.__name__] * rows, 1)}
            rate = {"rows": given, "rows_per_s": round(given / max(1e-9, found["seconds"]))}
            print(json.dumps({"what": run.__name__, **rate, **found, **whole}), flush=True)
    ratios = {
        f"ours_over_{name}": round(per_row[name] / per_row["ours"], 2)
        for name in ("authors_loop", "numpy_choice")
    }
    print(json.dumps({"what": "ratio", **ratios}))


if __name__ == "__main__":
    main()
