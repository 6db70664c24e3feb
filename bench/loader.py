"""Whether a training step waits for its data when the pairs lie on an object store, as JSON lines.

    python bench/loader.py --delay 0.05 --step-ms 5 20 100 500 --group-rows 1024

A moto server in a process of its own answers each request after `--delay` seconds. The consumer takes a
batch and sleeps for the time of a step; `wait_share` is the share of the run it spent waiting for
batches, the first few left out. Readers: ours; ours without reading ahead (`rows` and `collate` in turn);
and torch's `DataLoader` with one worker process over a pyarrow data set on Arrow's own S3 client, which
reads the row groups in a random order too and uses our collator. Rows: log-normal lengths (median 300),
biotexts of about 100 tokens. The last lines give the rows one core decodes and collates per second.
"""

import argparse
import json
import logging
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import torch
from pyarrow import fs as pafs
from torch.utils.data import DataLoader, IterableDataset

from protclip import storage
from protclip.config.schema import MaskingConfig
from protclip.data.collate import Collator, TextTokens
from protclip.data.dataset import COLUMNS, BatchIterator, PairsDataset, Position
from protclip.data.manifest import FileEntry, PairsManifest, Split, TokenizerEntry
from protclip.records import PAIRS_SCHEMA, PROPERTIES, sampling_keys
from protclip.tensors import Batch

BUCKET = "pairs"
WARM_UP = 5
TEXTS = {"protein_name": (12, 1.0), "function": (60, 0.95), "subcellular_location": (12, 0.8)}
TEXTS["similarity"] = (15, 0.9)
"""Mean tokens of each property and how often it is present."""

SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Counters:
    """What the processes share: the delay, and what has been asked for and sent since a reset."""

    delay: "Synchronized[float]"
    requests: "Synchronized[int]"
    sent: "Synchronized[int]"
    groups: "Synchronized[int]"

    def reset(self) -> None:
        """Sets the counts to 0."""
        for counter in (self.requests, self.sent, self.groups):
            counter.value = 0


def serve(counters: Counters, port: "Synchronized[int]") -> None:
    """The S3 server, in a process of its own."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class KeepAlive(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = DomainDispatcherApplication(create_backend_app)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        time.sleep(counters.delay.value)
        body = b"".join(app(environ, start_response))
        with counters.requests, counters.sent:
            counters.requests.value += 1
            counters.sent.value += len(body)
        return [body]

    server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=KeepAlive)
    port.value = server.server_port
    server.serve_forever()


def made_pairs(rows: int) -> pa.Table:
    """Pairs of realistic sizes; residues and tokens are random, so they compress a little worse."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(300), 0.6, rows).astype(int), 20, 5000)
    letters = np.frombuffer(b"ALGVEISKDRTPQNFYMHCW", np.uint8)
    residues = rng.choice(letters, lengths.sum()).tobytes().decode()
    ends = np.cumsum(lengths)
    names = [f"A0A{i:07d}" for i in range(rows)]
    columns: dict[str, object] = {
        "accession": names,
        "sequence": [residues[end - n : end] for end, n in zip(ends, lengths, strict=True)],
        "length": lengths,
        "confidence": np.ones(rows, np.int8),
        "coverage": np.full(rows, 4, np.int8),
        "sampling_key": sampling_keys(names),
    }
    for prop in PROPERTIES:
        mean, present = TEXTS[prop]
        sizes = rng.poisson(mean, rows) * (rng.random(rows) < present)
        tokens = (rng.zipf(1.3, sizes.sum()) % 28_000).astype(np.uint16)
        columns[prop] = pa.LargeListArray.from_arrays(np.cumsum([0, *sizes]), tokens)
    return pa.table({name: columns[name] for name in PAIRS_SCHEMA.names}, schema=PAIRS_SCHEMA)


def write_pairs(uri: str, rows: int, group_rows: int, shards: int) -> int:
    """Writes a data set; gives its bytes."""
    table, files = made_pairs(rows), []
    for shard in range(shards):
        piece = table.slice(shard * rows // shards, rows // shards)
        path = f"train/shard-{shard:05d}.parquet"
        stored = storage.write_parquet(storage.join(uri, path), piece, group_rows)
        files.append(FileEntry.of(path, stored, len(piece), group_rows))
    PairsManifest(
        source="made",
        source_manifest_sha256="",
        seed=0,
        evidence="strip",
        max_text_tokens=510,
        tokenizer=TokenizerEntry(source="builtin", fingerprint="", vocab_size=28_000),
        strata=(),
        splits={"train": Split(rows=sum(f.rows for f in files), files=tuple(files))},
    ).save(uri)
    return sum(f.num_bytes for f in files)


class CountingDataset(PairsDataset):
    """Counts the row groups it reads."""

    counters: Counters

    def read(self, where: Any) -> pa.Table:
        """A row group."""
        with self.counters.groups:
            self.counters.groups.value += 1
        return super().read(where)


@dataclass(frozen=True)
class Run:
    """What every reader is given: per-rank batches of `pairs` as rank 0 of `ranks`."""

    uri: str
    collate: Collator
    pairs: int
    ranks: int
    counters: Counters

    def dataset(self) -> CountingDataset:
        """Our data set."""
        dataset = CountingDataset(self.uri, "train", 0)
        dataset.counters = self.counters
        return dataset


def ours(run: Run) -> Iterator[Batch]:
    """Our iterator."""
    batches = BatchIterator(run.dataset(), run.collate, run.pairs * run.ranks, 0, run.ranks, Position())
    with closing(iter(batches)) as stream:
        for loaded in stream:
            yield from loaded.batches


def in_turn(run: Run) -> Iterator[Batch]:
    """Our data set, read and collated when a batch is asked for."""
    dataset = run.dataset()
    step = run.pairs * run.ranks
    for start in range(0, 10**9, step):
        epoch, index = divmod(start // step, len(dataset) // step)
        yield run.collate(dataset.rows(epoch, index * step, index * step + run.pairs), epoch)


class ArrowBatches(IterableDataset[Batch]):
    """Batches out of the row groups of a pyarrow data set, in a random order."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __iter__(self) -> Iterator[Batch]:
        run = self._run
        torch.set_num_threads(1)
        endpoint = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
        s3 = pafs.S3FileSystem(endpoint_override=endpoint, scheme="http", region="us-east-1")
        path = run.uri.removeprefix("s3://") + "/train"
        files = pyarrow.dataset.dataset(path, filesystem=s3, format="parquet").get_fragments()
        groups = [group for file in files for group in file.split_by_row_group()]
        rng = np.random.default_rng(0)
        for epoch in range(10**9):
            for index in rng.permutation(len(groups)):
                table = groups[index].to_table(columns=list(COLUMNS), use_threads=False)
                with run.counters.groups:
                    run.counters.groups.value += 1
                rows = table.take(pa.array(rng.permutation(len(table))))
                for start in range(0, len(rows) - run.pairs + 1, run.pairs):
                    yield run.collate(rows.slice(start, run.pairs).combine_chunks(), epoch)


def torch_loader(run: Run) -> Iterator[Batch]:
    """The peer; with one rank only."""
    yield from DataLoader(
        ArrowBatches(run), batch_size=None, num_workers=1, prefetch_factor=4, multiprocessing_context=SPAWN
    )


READERS: dict[str, Callable[[Run], Iterator[Batch]]] = {
    "ours": ours,
    "ours in turn": in_turn,
    "torch DataLoader": torch_loader,
}


def consume(name: str, run: Run, step_s: float, seconds: float) -> dict[str, float]:
    """Takes batches for a while."""
    with closing(READERS[name](run)) as stream:
        run.counters.reset()
        for _ in range(WARM_UP):
            next(stream)
            time.sleep(step_s)
        sent, steps, waited, most = run.counters.sent.value, 0, 0.0, 0
        begin = time.perf_counter()
        while steps < 10 or time.perf_counter() - begin < seconds:
            asked = time.perf_counter()
            next(stream)
            waited += time.perf_counter() - asked
            time.sleep(step_s)
            steps += 1
            most = max(most, pa.total_allocated_bytes())
        elapsed = time.perf_counter() - begin
        sent = run.counters.sent.value - sent
    return {
        "wait_share": round(waited / elapsed, 4),
        "rows_per_s": round(steps * run.pairs / elapsed),
        "steps": steps,
        "requests_per_row_group": round(run.counters.requests.value / run.counters.groups.value, 2),
        "kb_per_step": round(sent / steps / 1e3),
        "arrow_mb": round(most / 1e6, 1),
    }


def per_core(collate: Collator, pairs: int, group_rows: int) -> dict[str, float]:
    """Rows one thread decodes from local files, and collates, per second."""
    with tempfile.TemporaryDirectory() as folder:
        write_pairs(folder, 32_768, group_rows, 1)
        dataset = PairsDataset(folder, "train", 0)
        begin = time.perf_counter()
        table = dataset.rows(0, 0, len(dataset))
        decoded = time.perf_counter()
    pieces = [table.slice(i * pairs, pairs).combine_chunks() for i in range(50)]
    begun = time.perf_counter()
    for piece in pieces:
        collate(piece, 0)
    collated = time.perf_counter()
    return {
        "decoded_rows_per_s": round(len(table) / (decoded - begin)),
        "collated_rows_per_s": round(50 * pairs / (collated - begun)),
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--delay", type=float, default=0.05, help="seconds before a request is answered")
    parser.add_argument("--step-ms", type=float, nargs="+", default=[5, 20, 100, 500])
    parser.add_argument("--group-rows", type=int, nargs="+", default=[1024], help="rows of a row group")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1], help="world sizes, seen from rank 0")
    parser.add_argument("--pairs", type=int, default=64, help="pairs of a rank's batch")
    parser.add_argument("--rows", type=int, default=65_536, help="rows of the data set")
    parser.add_argument("--seconds", type=float, default=6, help="length of a measurement, at least 10 steps")
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    counters = Counters(SPAWN.Value("d", 0.0), SPAWN.Value("q", 0), SPAWN.Value("q", 0), SPAWN.Value("q", 0))
    port = SPAWN.Value("i", 0)
    server = SPAWN.Process(target=serve, args=(counters, port), daemon=True)
    server.start()
    while not port.value:
        time.sleep(0.05)
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port.value}"
    os.environ |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "bench")
    pafs.S3FileSystem(
        endpoint_override=f"127.0.0.1:{port.value}", scheme="http", allow_bucket_creation=True
    ).create_dir(BUCKET)
    collate = Collator(MaskingConfig(), TextTokens(0, 2, 3), 512, 128, 0)
    for group_rows in arguments.group_rows:
        uri = f"s3://{BUCKET}/{group_rows}"
        counters.delay.value = 0
        num_bytes = write_pairs(uri, arguments.rows, group_rows, shards=4)
        counters.delay.value = arguments.delay
        given = {"group_rows": group_rows, "bytes_per_row": round(num_bytes / arguments.rows)}
        for ranks in arguments.ranks:
            run = Run(uri, collate, arguments.pairs, ranks, counters)
            for step_ms in arguments.step_ms:
                rates = {}
                for name in arguments.readers:
                    if name == "torch DataLoader" and ranks > 1:
                        continue
                    figures = consume(name, run, step_ms / 1e3, arguments.seconds)
                    rates[name] = figures["rows_per_s"]
                    print(
                        json.dumps({"reader": name, "step_ms": step_ms, **given, "ranks": ranks, **figures}),
                        flush=True,
                    )
                ratios = {
                    f"ours over {n}": round(rates["ours"] / r, 2) for n, r in rates.items() if n != "ours"
                }
                print(json.dumps({"reader": "ratio of rows_per_s", "step_ms": step_ms, **given, **ratios}))
        print(json.dumps({"reader": "one core", **given, **per_core(collate, arguments.pairs, group_rows)}))
    server.terminate()


if __name__ == "__main__":
    main()
