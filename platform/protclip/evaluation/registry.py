"""Which benchmarks there are: kinds and raw formats by name, and benchmark files found, read and checked."""

import difflib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from protclip.config.load import load_config
from protclip.errors import BenchmarkError, ConfigError
from protclip.evaluation.kind import Kind
from protclip.evaluation.kinds import (
    classification,
    few_shot,
    multilabel,
    ppi,
    regression,
    retrieval,
    similarity,
    transformation,
    zero_shot,
)
from protclip.evaluation.raw import (
    deepfri,
    deeploc,
    flip,
    links,
    lmdb,
    primekg,
    probe,
    protein_pairs,
    string,
    table,
)
from protclip.evaluation.raw.base import Format
from protclip.evaluation.spec.base import Benchmark
from protclip.evaluation.spec.retrieval import RetrievalSpec
from protclip.evaluation.trial import UNTOUCHED

FOLDER, SUITES = "benchmarks", "suites"
PAIRS = "pairs"
"""The one format that is not prepared: the pairs a checkpoint was trained on."""

KINDS: dict[str, Kind] = {
    "classification": classification.KIND,
    "multilabel": multilabel.KIND,
    "regression": regression.KIND,
    "zero_shot": zero_shot.KIND,
    "few_shot": few_shot.KIND,
    "retrieval": retrieval.KIND,
    "transformation": transformation.KIND,
    "similarity": similarity.KIND,
    "ppi": ppi.KIND,
}
"""Kinds by the name that a benchmark's `kind` gives."""

FORMATS: dict[str, Format] = {
    "flip": flip.FORMAT,
    "deepfri": deepfri.FORMAT,
    "deeploc_fasta": deeploc.FORMAT,
    "table": table.FORMAT,
    "lmdb": lmdb.FORMAT,
    "links": links.FORMAT,
    "primekg": primekg.FORMAT,
    "string_actions": string.FORMAT,
    "probe": probe.FORMAT,
    "evokgsim": protein_pairs.FORMAT,
}
"""Readers of official files by the name that a benchmark's `data.format` gives."""


class _FormatOfFile(BaseModel):
    """The key that decides what else a data section may say."""

    model_config = ConfigDict(extra="ignore")

    format: str


class _BenchmarksOfFile(BaseModel):
    """The key of a suite that says what it is about."""

    model_config = ConfigDict(extra="ignore")

    benchmarks: tuple[str, ...]


class _KindOfFile(BaseModel):
    """The keys that decide what else a file may say."""

    model_config = ConfigDict(extra="ignore")

    kind: str
    data: _FormatOfFile


def load_benchmark(name: str, conf_dir: Path) -> Benchmark[Any]:
    """Reads `benchmarks/NAME.yaml` of the configuration directory.

    Raises:
        BenchmarkError: There is none, or a key or value in it is wrong.
    """
    folder = conf_dir / FOLDER
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in folder.glob("*.yaml"))
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise BenchmarkError(f"no benchmark {name!r} in {folder}; {hint}known: {', '.join(known) or 'none'}")
    try:
        head = load_config(_KindOfFile, path)
        if head.kind not in KINDS:
            raise BenchmarkError(f"{path}: unknown kind {head.kind!r}; known: {', '.join(KINDS)}")
        kind = KINDS[head.kind]
        spec = load_config(_schema(path, head.kind, head.data.format), path)
    except ConfigError as error:
        raise BenchmarkError(str(error)) from error
    _check(path, name, spec, kind)
    return spec


def load_suite(name: str, conf_dir: Path) -> tuple[str, ...]:
    """The benchmarks that `suites/NAME.yaml` of the configuration directory names.

    Raises:
        BenchmarkError: There is no such suite, or it names none.
    """
    folder = conf_dir / SUITES
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in folder.glob("*.yaml"))
        raise BenchmarkError(f"no suite {name!r} in {folder}; known: {', '.join(known) or 'none'}")
    try:
        return load_config(_BenchmarksOfFile, path).benchmarks
    except ConfigError as error:
        raise BenchmarkError(str(error)) from error


def _schema(path: Path, kind_name: str, format_name: str) -> type[Benchmark[Any]]:
    """What a file of a kind may say, with a data section of a format."""
    generic: Any = KINDS[kind_name].spec
    if issubclass(generic, RetrievalSpec):
        known = {PAIRS: generic}
    else:
        known = {name: generic[f.section] for name, f in FORMATS.items() if kind_name in f.kinds}
    if format_name not in known:
        raise BenchmarkError(
            f"{path}: data.format {format_name!r} is none that kind {kind_name} can use; known: "
            f"{', '.join(known)}"
        )
    return known[format_name]


def _check(path: Path, name: str, spec: Benchmark[Any], kind: Kind) -> None:
    """What the schema cannot say: names of the kind."""
    if spec.name != name:
        raise BenchmarkError(f"{path}: name is {spec.name!r}; it must be that of the file, {name!r}")
    for what, given, known in (
        ("metric", [spec.metric], kind.metrics),
        ("published", spec.published, kind.metrics),
        ("baselines", spec.baselines, (*kind.baselines, UNTOUCHED)),
    ):
        for one in given:
            if one not in known:
                raise BenchmarkError(
                    f"{path}: {what}: kind {spec.kind} has no {one!r}; known: {', '.join(known)}"
                )
