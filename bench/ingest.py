"""Speed of the flat file reader, beside Biopython's, a plain `bytes.find` reader and the decompressors.

    python bench/ingest.py [--files FILE.dat[.gz] …] [--repeats N]

Every reader gets the same decompressed bytes in memory, without the few entries from before 2004 that
Biopython refuses: made samples of either section and, with --files, theirs, repeated to the size of a
block of the job. The decompressors get them compressed, repeated to 64 MB at least. One JSON line per
reader (medians of the repeats, all taking turns; MB are decompressed) and one of ratios. Per core means
per second of processor time, of all threads together, so that other work on the machine counts little.
"""

import argparse
import gzip
import importlib
import importlib.util
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
from Bio import SwissProt
from isal import igzip

from protclip.data.strata import Origin, parse_tables
from protclip.data.synthetic import write_sample
from protclip.data.uniprot import BLOCK_BYTES, Block, parse_block, read_blocks
from protclip.records import ProteinRecord

LEAST_COMPRESSED_BYTES = 64 * 10**6


@dataclass(frozen=True)
class Reader:
    """Something that is measured: `read` gives the entries, or the bytes, of its input of `num_bytes`."""

    read: Callable[[], int]
    num_bytes: int


def biopython(data: bytes) -> int:
    """Biopython's `SwissProt.parse`."""
    return sum(1 for _ in SwissProt.parse(io.TextIOWrapper(io.BytesIO(data))))


def naive(data: bytes) -> int:
    """Sequence, accession and the three comment topics by `bytes.find`, nothing checked or unfolded."""
    entries, start = [], 0
    while (end := data.find(b"\n//\n", start)) >= 0:
        entry = data[start:end]
        accession = entry.find(b"\nAC   ") + 6
        found = [entry[accession : entry.find(b";", accession)].decode()]
        for topic in (b"FUNCTION", b"SUBCELLULAR LOCATION", b"SIMILARITY"):
            comment = entry.find(b"\nCC   -!- " + topic)
            found.append(
                entry[comment : entry.find(b"\nCC   -", comment + 1)].decode() if comment >= 0 else ""
            )
        sequence = entry.find(b"\n", entry.find(b"\nSQ   ") + 1)
        entries.append([*found, entry[sequence:].replace(b"\n", b"").replace(b" ", b"").decode()])
        start = end + 4
    return len(entries)


def ours(data: bytes) -> int:
    """What a task of the job does: the block as the table of the strata, sampling keys included."""
    return len(parse_tables(Block(0, data, "flat"), Origin(0, ""), None, missing_confidence=5)[0])


def ours_one_by_one(data: bytes) -> int:
    """The exact parser that reads what is not of plain form: a `ProteinRecord` per entry."""
    return sum(isinstance(item, ProteinRecord) for _, item in parse_block(Block(0, data, "flat")))


def drained(stream: io.BufferedIOBase) -> int:
    """Reads a stream to its end; gives the number of bytes."""
    with stream:
        return sum(map(len, iter(partial(stream.read, 2**20), b"")))


def blocks(path: Path) -> int:
    """What the reading task of the job does: decompress, and cut into blocks of whole entries."""
    return sum(len(block.data) for block in read_blocks(str(path), "flat"))


def parsers(data: bytes) -> dict[str, Reader]:
    """Those that read entries."""
    reads = {"biopython": biopython, "naive": naive, "ours": ours, "ours_one_by_one": ours_one_by_one}
    return {name: Reader(partial(read, data), len(data)) for name, read in reads.items()}


def decompressors(path: Path, num_bytes: int) -> dict[str, Reader]:
    """Those that decompress a file; rapidgzip, which the project does not need, where it is installed."""
    found = {
        "gzip": lambda: drained(gzip.GzipFile(path)),
        "isal": lambda: drained(igzip.IGzipFile(path)),
        "ours_read_blocks": lambda: blocks(path),
    }
    if importlib.util.find_spec("rapidgzip"):
        rapidgzip = importlib.import_module("rapidgzip")
        for threads in (1, 2):
            found[f"rapidgzip_{threads}"] = lambda n=threads: drained(rapidgzip.open(str(path), n))
    else:
        print(json.dumps({"reader": "rapidgzip", "skipped": "not installed: pip install rapidgzip"}))
    return {name: Reader(read, num_bytes) for name, read in found.items()}


def readable_by_all(files: list[str]) -> bytes:
    """The entries of all files, joined, that Biopython reads."""
    kept: list[bytes] = []
    for file in files:
        data = b"".join(block.data for block in read_blocks(file, "flat"))
        for text in data.replace(b"\r\n", b"\n").split(b"\n//\n"):
            entry = text.strip(b"\n/") + b"\n//\n"
            try:
                kept += [entry] * biopython(entry)
            except ValueError:
                continue
    return b"".join(kept)


def measure(readers: dict[str, Reader], repeats: int) -> dict[str, tuple[float, float]]:
    """Median (wall, processor) seconds of each reader."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
    for _ in range(repeats):
        for name, reader in readers.items():
            wall, processor = time.perf_counter(), time.process_time()
            reader.read()
            times[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return {
        name: (statistics.median(w for w, _ in taken), statistics.median(p for _, p in taken))
        for name, taken in times.items()
    }


def report(sample: str, data: bytes, repeats: int, folder: Path) -> None:
    """Measures all readers on some entries and prints the figures."""
    data *= -(-BLOCK_BYTES // len(data))
    copies = -(-LEAST_COMPRESSED_BYTES // len(data))
    packed = folder / f"{sample}.dat.gz"
    packed.write_bytes(gzip.compress(data * copies, 6))
    inflating = decompressors(packed, copies * len(data))
    readers = {**parsers(data), **inflating}
    entries = ours(data)
    # Biopython takes an entry of the International Protein Index for one of UniProtKB.
    assert ours_one_by_one(data) == entries <= biopython(data) <= 1.01 * entries
    # The line end after the last terminator is in no block.
    assert {reader.read() for reader in inflating.values()} <= {copies * len(data), copies * len(data) - 1}
    speeds: dict[str, float] = {}
    for name, (wall, processor) in measure(readers, repeats).items():
        reader = readers[name]
        speeds[name] = reader.num_bytes / processor / 1e6
        figures = {
            "mb_per_s": round(reader.num_bytes / wall / 1e6, 1),
            "mb_per_s_per_core": round(speeds[name], 1),
        }
        if name not in inflating:
            figures["entries_per_s_per_core"] = round(entries / processor)
        print(json.dumps({"sample": sample, "reader": name, **figures}), flush=True)
    fastest = max((name for name in inflating if not name.startswith("ours")), key=speeds.__getitem__)
    ratios = {
        "bytes_per_entry": round(len(data) / entries),
        "ours_over_biopython": round(speeds["ours"] / speeds["biopython"], 2),
        "ours_over_naive": round(speeds["ours"] / speeds["naive"], 2),
        "ours_over_fastest_decompressor": round(speeds["ours"] / speeds[fastest], 2),
        "fastest_decompressor": fastest,
    }
    print(json.dumps({"sample": sample, "reader": "ratio", **ratios}), flush=True)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--files", nargs="+", help="flat files to read besides a made sample of 3,000 entries"
    )
    parser.add_argument("--repeats", type=int, default=5, help="measurements per reader, at least 3")
    arguments = parser.parse_args()
    if arguments.repeats < 3:
        parser.error("--repeats must be at least 3, the median of fewer says little")
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as folder:
        for name, reviewed, unreviewed in (("made TrEMBL", 0, 6000), ("made Swiss-Prot", 3000, 0)):
            made = write_sample(folder, reviewed, unreviewed, seed=0)
            data = readable_by_all([uri for uri in made.values() if ".dat" in uri])
            report(name, data, arguments.repeats, Path(folder))
        if arguments.files:
            report("files", readable_by_all(arguments.files), arguments.repeats, Path(folder))


if __name__ == "__main__":
    main()
