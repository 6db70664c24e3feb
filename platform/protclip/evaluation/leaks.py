"""What a model must not have seen: the test sequences of benchmarks."""

import logging
from collections.abc import Iterable
from pathlib import Path

from protclip.evaluation.prepared import load
from protclip.evaluation.registry import KINDS, load_benchmark
from protclip.evaluation.spec.retrieval import HeldOutPairs

log = logging.getLogger(__name__)


def held_out_sequences(benchmarks: Iterable[str], data_root: str, conf_dir: Path) -> dict[str, list[str]]:
    """The sequences of the proteins that each benchmark measures on, upper case.

    Benchmarks on held-out pairs have none of their own and are skipped.

    Args:
        benchmarks: Names of files in `benchmarks/` of the configuration directory.
        data_root: URI of the prepared benchmarks.
        conf_dir: The configuration directory.

    Raises:
        BenchmarkError: A benchmark's file is wrong.
        DataError: It is not prepared, or its data is damaged.
    """
    sequences = {}
    for name in dict.fromkeys(benchmarks):
        spec = load_benchmark(name, conf_dir)
        if isinstance(spec.data, HeldOutPairs):
            log.info("%s is about held-out pairs: it has no sequences to exclude", name)
            continue
        sequences[name] = list(KINDS[spec.kind].test_sequences(spec, load(data_root, name)))
    return sequences
