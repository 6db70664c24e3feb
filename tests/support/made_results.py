"""Results of benchmarks that were never run: each test unit is a hit or a miss."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from protclip.evaluation.kind import Kind
from protclip.evaluation.report import Provenance, to_json
from protclip.evaluation.results import summarise
from protclip.evaluation.spec.base import Benchmark, DataSection
from protclip.evaluation.store import ResultStore
from protclip.evaluation.trial import CHECKPOINT, Result, Trial

Spec = Benchmark[DataSection]


def score(units: Any) -> dict[str, float]:
    """Share of hits, its square, and a number that is nothing like a share."""
    share = float(units["hit"].mean())
    return {"share": share, "square": share**2, "rank": 100 * (1 - share)}


def resample(units: Any, counts_RN: np.ndarray) -> dict[str, np.ndarray]:
    """The same of resampled units."""
    share_R = counts_RN @ units["hit"] / len(units["hit"])
    return {"share": share_R, "square": share_R**2, "rank": 100 * (1 - share_R)}


def kind(**changes: Any) -> Kind:
    """A kind that cannot be run, only scored."""
    unused: Any = None
    plain = Kind(Spec, ("share", "square", "rank"), unused, score, unused, unused, {}, resample=resample)
    return replace(plain, **changes)


def spec(name: str, **keys: Any) -> Spec:
    """A benchmark of kind "hits"."""
    common = {"title": f"about {name}", "group": "g", "kind": "hits", "metric": "share"}
    rest = {"data": {"format": "f", "files": {}}, "citation": "A paper.", "licence": "CC0"}
    return Spec.model_validate({"name": name, **common, **rest, **keys})


def result(name: str, hits: Sequence[float], seed: int = 0, model: str = CHECKPOINT, **keys: Any) -> Result:
    """A finished run; further keys are those of `Trial` and `Result`."""
    of_trial = {"version": "v1", "model_digest": "", "protocol": "frozen"}
    of_trial |= {key: keys.pop(key) for key in set(keys) & set(of_trial)}
    units = {"hit": np.asarray(hits, dtype=np.float64)}
    of_result = {
        "metrics": score(units),
        "ids": [f"u{i}" for i in range(len(hits))],
        "counts": {"test": len(hits)},
        "seconds": 1.5,
    }
    trial = Trial(benchmark=name, model=model, seed=seed, **of_trial)
    return Result(trial=trial, units=units, **(of_result | keys))


def failed(like: Result, error: str) -> Result:
    """The same run, gone wrong."""
    return Result(trial=like.trial, error=error)


def provenance(**changes: Any) -> Provenance:
    """Of a checkpoint that is nowhere."""
    made = Provenance(
        "s3://bucket/run/step-7", 7, "abc", "2026-11-22T12:00:00+00:00", "results", "f00", {"python": "3"}
    )
    return Provenance(**(asdict(made) | changes))


def write_report(output: Path, runs: Sequence[tuple[Spec, Sequence[Result]]], **changes: Any) -> str:
    """What `protclip compare` reads of a report, as `protclip benchmark` leaves it."""
    store = ResultStore(str(output / "results"))
    summaries = []
    for made, results in runs:
        for each in results:
            if each.error is None:
                store.add(each)
        summaries += summarise(made, results, resamples=20)
    (output / "results.json").write_text(json.dumps(to_json(provenance(**changes), summaries)))
    return str(output)
