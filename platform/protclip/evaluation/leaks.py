"""What a model must not have seen: the test sequences of benchmarks."""

import logging
from collections.abc import Iterable
from pathlib import Path

from protclip.evaluation.formats import FORMATS, Sources
from protclip.evaluation.registry import load_benchmark
from protclip.evaluation.spec import HeldOutPairs

log = logging.getLogger(__name__)


def held_out_sequences(benchmarks: Iterable[str], data_root: str, conf_dir: Path) -> dict[str, list[str]]:
    """The sequences of each benchmark's test examples, upper case.

    Benchmarks on held-out pairs have none of their own and are skipped.

    Args:
        benchmarks: Names of files in `benchmarks/` of the configuration directory.
        data_root: URI under which their data lies.
        conf_dir: The configuration directory.

    Raises:
        BenchmarkError: A benchmark's file or data is wrong.
        DataError: Its data is missing.
    """
    sequences = {}
    for name in dict.fromkeys(benchmarks):
        spec = load_benchmark(name, conf_dir)
        if isinstance(spec.data, HeldOutPairs):
            log.info("%s is about held-out pairs: it has no sequences to exclude", name)
            continue
        splits = FORMATS[spec.data.format](spec.data, Sources(data_root, pairs="", tokenizer=""))
        sequences[name] = [sequence.upper() for sequence in splits["test"].sequences]
    return sequences
