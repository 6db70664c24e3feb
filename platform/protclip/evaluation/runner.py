"""What a suite runs: reading its benchmarks, planning trials, and doing one of them."""

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from protclip import __version__, storage
from protclip.config.benchmarks import SuiteConfig
from protclip.data.manifest import MANIFEST_NAME
from protclip.errors import BenchmarkError, DataError
from protclip.evaluation.kind import Encoder, Mode, Wanted
from protclip.evaluation.pairs import read_pairs
from protclip.evaluation.prepared import Prepared, PreparedManifest, load
from protclip.evaluation.registry import KINDS
from protclip.evaluation.spec.base import Benchmark
from protclip.evaluation.spec.retrieval import HeldOutPairs
from protclip.evaluation.trial import ALONE, CHECKPOINT, UNTOUCHED, Result, Trial

log = logging.getLogger(__name__)

Spec = Benchmark[Any]

WITHOUT_EFFECT = {"title", "group", "notes", "published", "tolerance", "citation", "licence", "baselines"}
"""Keys of a benchmark that change no number of a trial."""


def read_data(specs: Iterable[Spec], data_root: str, pairs: str, tokenizer: str) -> dict[str, Prepared]:
    """The data of benchmarks by name.

    Args:
        specs: The benchmarks.
        data_root: URI of the prepared ones.
        pairs: URI of the pairs for those on held-out pairs.
        tokenizer: Fingerprint of the checkpoint's text tokenizer.

    Raises:
        DataError: Benchmarks are not prepared, prepared by other settings, or damaged; or there are no such
            pairs.
        BenchmarkError: The held-out split is empty.
    """
    specs = list(specs)
    check_prepared(specs, data_root)
    return {
        spec.name: read_pairs(spec.data, pairs, tokenizer)
        if isinstance(spec.data, HeldOutPairs)
        else load(data_root, spec.name)
        for spec in specs
    }


def check_prepared(specs: Iterable[Spec], data_root: str) -> None:
    """Looks whether benchmarks are prepared, without reading their tables.

    Raises:
        DataError: Some are not, or by other settings.
    """
    own = [spec for spec in specs if not isinstance(spec.data, HeldOutPairs)]
    stale = [spec.name for spec in own if not _is_prepared(spec, storage.join(data_root, spec.name))]
    if stale:
        raise DataError(
            f"{data_root}: not prepared, or by other settings: {', '.join(stale)}; run `protclip "
            f"prepare-benchmarks benchmarks={','.join(stale)} raw=… output={data_root} overwrite=true`, or "
            "mend data_root"
        )


def _is_prepared(spec: Spec, uri: str) -> bool:
    """Whether a benchmark's tables are there and made as its file says now, published counts aside."""
    if not storage.exists(storage.join(uri, MANIFEST_NAME)):
        return False
    made_by = PreparedManifest.load(uri)
    settings = spec.data.model_dump(mode="json")
    about_files = {"files", "expected"}
    same = all(made_by.settings.get(k) == v for k, v in settings.items() if k not in about_files)
    return same and made_by.task == spec.kind


def version_of(spec: Spec, data: Prepared) -> str:
    """What changes when a trial of the benchmark could give other numbers: protocol, data, our release."""
    settings = spec.model_dump(mode="json", exclude=WITHOUT_EFFECT)
    text = json.dumps([__version__, data.digest, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def plan(
    specs: Iterable[Spec], data: Mapping[str, Prepared], config: SuiteConfig, digests: Mapping[str, str]
) -> list[Trial]:
    """All trials of a suite.

    A kind that cannot do any of the protocols asked for is run frozen.

    Args:
        specs: The benchmarks.
        data: Their data by name.
        config: Protocols, seeds, and whether baselines are run.
        digests: What identifies the weights of `CHECKPOINT` and `UNTOUCHED`.

    Returns:
        Benchmark by benchmark; in each the checkpoint's first.
    """
    trials = []
    for spec in specs:
        kind = KINDS[spec.kind]
        version = version_of(spec, data[spec.name])
        seeds = dict.fromkeys(config.seeds if kind.seeded else config.seeds[:1])
        modes = [mode for mode in dict.fromkeys(config.protocols) if mode in kind.modes] or ["frozen"]
        runs = [(CHECKPOINT, mode) for mode in modes]
        for name in dict.fromkeys(spec.baselines if config.baselines else ()):
            runs += [(name, mode) for mode in (modes if name == UNTOUCHED else [ALONE])]
        trials += [
            Trial(spec.name, version, model, digests.get(model, ""), protocol, seed)
            for model, protocol in runs
            for seed in seeds
        ]
    return trials


def wanted_vectors(
    trials: Iterable[Trial], specs: Mapping[str, Spec], data: Mapping[str, Prepared]
) -> dict[str, dict[Wanted, list[str]]]:
    """Everything that frozen trials will ask of each encoder: items, each once, by model and sort."""
    asked = dict.fromkeys((t.model, t.benchmark) for t in trials if t.protocol == "frozen")
    needs: dict[str, Mapping[Wanted, Sequence[str]]] = {}
    for name in dict.fromkeys(name for _, name in asked):
        try:
            needs[name] = KINDS[specs[name].kind].needs(specs[name], data[name])
        except BenchmarkError as error:
            # Its trials fail by the same; those of other benchmarks need not.
            log.debug("%s: nothing is embedded: %s", name, error)
    found: dict[str, dict[Wanted, dict[str, None]]] = {}
    for model, name in asked:
        for what, items in needs.get(name, {}).items():
            found.setdefault(model, {}).setdefault(what, {}).update(dict.fromkeys(items))
    return {model: {what: list(items) for what, items in by.items()} for model, by in found.items()}


def run_trial(trial: Trial, spec: Spec, data: Prepared, encoder: Encoder) -> Result:
    """Does what a trial says.

    Args:
        trial: What is run.
        spec: Its benchmark.
        data: The benchmark's data.
        encoder: That of `trial.model`; not touched by a baseline without one.

    Raises:
        BenchmarkError: The benchmark cannot be run with this data or this encoder.
    """
    kind = KINDS[spec.kind]
    start = time.perf_counter()
    if trial.protocol == ALONE:
        outcome = kind.baselines[trial.model](spec, data, trial.seed)
    else:
        mode: Mode = "finetune" if trial.protocol == "finetune" else "frozen"
        outcome = kind.run(spec, data, encoder, mode, trial.seed)
    sizes = {name: len(values) for name, values in outcome.units.items()}
    if set(sizes.values()) != {len(outcome.ids)} or not outcome.ids:
        raise BenchmarkError(f"{spec.name}: nothing was measured, or units do not go together: {sizes}")
    return Result(
        trial=trial,
        metrics=kind.score(outcome.units),
        units=outcome.units,
        ids=outcome.ids,
        counts=outcome.counts,
        notes=[*data.notes, *outcome.notes],
        seconds=time.perf_counter() - start,
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    )
