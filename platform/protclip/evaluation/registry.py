"""Which benchmarks there are: kinds by name, and benchmark files found, read and checked."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from protclip.config.load import load_config
from protclip.errors import BenchmarkError, ConfigError
from protclip.evaluation.embed import Embedder
from protclip.evaluation.formats import Splits
from protclip.evaluation.kinds.classification import run_classification
from protclip.evaluation.kinds.retrieval import run_retrieval
from protclip.evaluation.results import Outcome
from protclip.evaluation.spec import BenchmarkSpec, ClassificationSpec, RetrievalSpec

FOLDER = "benchmarks"


@dataclass(frozen=True, slots=True)
class Kind:
    """What is done in a benchmark.

    Attributes:
        spec: What its files may say.
        run: Does it once; takes the spec, the splits, the model and a seed.
        seeded: False when every seed gives the same numbers, so that one is enough.
    """

    spec: type[BenchmarkSpec]
    run: Callable[[Any, Splits[Any], Embedder, int], Outcome]
    seeded: bool


KINDS: dict[str, Kind] = {
    "retrieval": Kind(RetrievalSpec, run_retrieval, seeded=False),
    "classification": Kind(ClassificationSpec, run_classification, seeded=True),
}


class _KindOfFile(BaseModel):
    """The key that decides what else a file may say."""

    model_config = ConfigDict(extra="ignore")

    kind: str


def load_benchmark(name: str, conf_dir: Path) -> BenchmarkSpec:
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
        kind = load_config(_KindOfFile, path).kind
        if kind not in KINDS:
            raise BenchmarkError(f"{path}: unknown kind {kind!r}; known: {', '.join(KINDS)}")
        spec = load_config(KINDS[kind].spec, path)
    except ConfigError as error:
        raise BenchmarkError(str(error)) from error
    if spec.name != name:
        raise BenchmarkError(f"{path}: name is {spec.name!r}; it must be that of the file, {name!r}")
    return spec
