"""Speed of the flat file reader on one core, beside Biopython's and a plain `bytes.find` reader.

    python bench/ingest.py [--files FILE.dat[.gz] …] [--repeats N]

Every reader gets the same decompressed bytes in memory, without the few entries from before 2004 that
Biopython refuses. One JSON line per reader (median of the repeats, readers taking turns) and one with
our speed as a multiple of the others'.
"""

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable

from Bio import SwissProt

from protclip.data.synthetic import write_sample
from protclip.data.uniprot import Block, parse_block, read_blocks
from protclip.records import ProteinRecord


def biopython(data: bytes) -> int:
    """Biopython's `SwissProt.parse`; gives the number of entries."""
    return sum(1 for _ in SwissProt.parse(io.TextIOWrapper(io.BytesIO(data))))


def ours(data: bytes) -> int:
    """Our reader, all fields of `ProteinRecord` filled."""
    return sum(isinstance(item, ProteinRecord) for _, item in parse_block(Block(0, data, "flat")))


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


READERS: dict[str, Callable[[bytes], int]] = {"biopython": biopython, "ours": ours, "naive": naive}


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


def measure(data: bytes, repeats: int) -> dict[str, float]:
    """Median seconds of each reader."""
    times: dict[str, list[float]] = {name: [] for name in READERS}
    for _ in range(repeats):
        for name, read in READERS.items():
            begin = time.perf_counter()
            read(data)
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(taken) for name, taken in times.items()}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", nargs="+", help="flat files; default: a made sample of 3,000 entries")
    parser.add_argument("--repeats", type=int, default=5, help="measurements per reader, at least 3")
    arguments = parser.parse_args()
    if arguments.repeats < 3:
        parser.error("--repeats must be at least 3, the median of fewer says little")
    if arguments.files:
        data = readable_by_all(arguments.files)
    else:
        with tempfile.TemporaryDirectory() as folder:
            made = write_sample(folder, num_reviewed=1500, num_unreviewed=1500, seed=0)
            data = readable_by_all([uri for uri in made.values() if ".dat" in uri])
    entries = {name: read(data) for name, read in READERS.items()}
    seconds = measure(data, arguments.repeats)
    for name, taken in seconds.items():
        figures = {
            "reader": name,
            "entries": entries[name],
            "entries_per_s": round(entries[name] / taken),
            "mb_per_s": round(len(data) / taken / 1e6, 1),
        }
        print(json.dumps(figures))
    ratios = {
        f"ours_over_{name}": round(seconds[name] / seconds["ours"], 2) for name in ("biopython", "naive")
    }
    print(json.dumps({"reader": "ratio", "bytes_per_entry": round(len(data) / entries["ours"]), **ratios}))


if __name__ == "__main__":
    main()
