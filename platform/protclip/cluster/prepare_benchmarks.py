"""Official files of benchmarks to tables on Ray: files are fetched by the driver, read by a task each."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from protclip import storage
from protclip.cluster.claim import claimed
from protclip.cluster.session import connect
from protclip.config.benchmarks import PrepareBenchmarksConfig
from protclip.data.manifest import MANIFEST_NAME
from protclip.errors import BenchmarkError, ProtclipError
from protclip.evaluation.prepare import prepare_one
from protclip.evaluation.prepared import PreparedManifest, Source, notes, save
from protclip.evaluation.raw.base import Read
from protclip.evaluation.sources import missing, obtain, place
from protclip.evaluation.spec.base import Benchmark, DataSection
from protclip.evaluation.spec.retrieval import HeldOutPairs
from protclip.progress import progress

log = logging.getLogger(__name__)

COLUMNS = ("benchmark", "counts", "left out", "remarkable", "leaked")
BYTES_PER_BYTE, BASE_BYTES = 10, 2**30
"""About what reading takes: memory for a byte of the official files, which are packed, and for the code."""


@dataclass(frozen=True, slots=True)
class _Job:
    """What a task needs to know of a benchmark; its specification as a whole cannot be pickled."""

    name: str
    kind: str
    data: DataSection
    read: Read
    sources: tuple[Source, ...]
    raw: str
    output: str


def prepare_benchmarks(config: PrepareBenchmarksConfig, conf_dir: Path = Path("conf")) -> dict[str, object]:
    """Makes the tables of benchmarks from their official files, which are fetched if need be.

    What is prepared already, with the same settings and from the same files, is kept. One that fails does
    not stop the others.

    Args:
        config: Which, from where, where to.
        conf_dir: Directory with `benchmarks/*.yaml`.

    Returns:
        The output URI, counts by benchmark, and the names of those that were prepared already.

    Raises:
        BenchmarkError: The file of a benchmark or of the suite is wrong, or some of the benchmarks could not
            be prepared; the message lists them.
    """
    # Workers import this module, but have no use for the kinds of benchmarks and their torch.
    from protclip.evaluation.registry import load_benchmark, load_suite

    names = [*config.benchmarks, *(load_suite(config.suite, conf_dir) if config.suite else ())]
    specs = [load_benchmark(name, conf_dir) for name in dict.fromkeys(names)]
    made: dict[str, PreparedManifest] = {}
    failed: dict[str, str] = {}
    jobs: list[_Job] = []
    for spec in specs:
        if isinstance(spec.data, HeldOutPairs):
            log.info("%s is about held-out pairs of the checkpoint: it has nothing to prepare", spec.name)
            continue
        try:
            found = _plan(spec, config)
        except ProtclipError as error:
            failed[spec.name] = str(error)
            log.error("%s: %s", spec.name, error)
            continue
        if isinstance(found, PreparedManifest):
            log.info("%s is prepared already", spec.name)
            made[spec.name] = found
        else:
            jobs.append(found)
    kept = list(made)
    for name, result in _run_all(jobs):
        if isinstance(result, PreparedManifest):
            made[name] = result
        else:
            failed[name] = result
            log.error("%s: %s", name, result)
    _show({spec.name: made[spec.name] for spec in specs if spec.name in made})
    if failed:
        raise BenchmarkError(
            f"{len(failed)} of {len(specs)} benchmarks could not be prepared:\n"
            + "\n".join(f"{name}: {message}" for name, message in failed.items())
        )
    counts = {spec.name: _main_counts(made[spec.name]) for spec in specs if spec.name in made}
    return {"output": config.output, "prepared": counts, "kept": kept}


def _plan(spec: Benchmark[Any], config: PrepareBenchmarksConfig) -> _Job | PreparedManifest:
    """What is to be done for a benchmark; the manifest when it is prepared already."""
    from protclip.evaluation.registry import FORMATS

    uri = storage.join(config.output, spec.name)
    earlier = None
    if storage.exists(storage.join(uri, MANIFEST_NAME)) and not config.overwrite:
        earlier = PreparedManifest.load(uri)
        if (earlier.task, earlier.settings) != (spec.kind, spec.data.model_dump(mode="json")):
            log.info("%s was prepared by other settings: it is prepared again", spec.name)
            earlier = None
    absent = missing(spec, config.raw)
    if earlier is not None and absent:
        log.info("%s: official files are not under raw any more, what was made of them stays", spec.name)
        return earlier
    fetched = config.download and any(file.url for file in absent)
    with claimed(config.raw) if fetched else nullcontext():
        sources = obtain(
            spec,
            config.raw,
            download=config.download,
            accept_other_versions=config.accept_other_versions,
        )
    if earlier is not None and earlier.sources == sources:
        return earlier
    return _Job(spec.name, spec.kind, spec.data, FORMATS[spec.data.format].read, sources, config.raw, uri)


def _prepare(job: _Job) -> PreparedManifest | str:
    """Task: reads, checks and writes a benchmark; returns what is wrong with it when something is."""
    try:
        files = {role: storage.cached(place(f, job.raw)) for role, f in job.data.files.items()}
        content = prepare_one(job.name, job.kind, job.data, files, job.read)
        with claimed(job.output) as claim:
            manifest = content.manifest(job.name, job.kind, job.data, job.sources)
            claim.check()
            return save(job.output, manifest, content.tables, content.odd)
    except ProtclipError as error:
        return str(error).removeprefix(f"{job.name}: ")


def _run_all(jobs: Sequence[_Job]) -> Iterator[tuple[str, PreparedManifest | str]]:
    """One task per benchmark, as many at a time as memory allows; the name and the result of each."""
    if not jobs:
        return
    connect()
    largest = max(node["Resources"].get("memory", 0) for node in ray.nodes() if node["Alive"])
    pending: dict[ray.ObjectRef, str] = {}
    for job in jobs:
        needed = BASE_BYTES + BYTES_PER_BYTE * sum(source.num_bytes for source in job.sources)
        task = ray.remote(_prepare).options(num_cpus=1, memory=min(needed, largest), max_retries=1)
        pending[task.remote(job)] = job.name
    try:
        with progress("preparing", " benchmarks", len(pending)) as bar:
            while pending:
                (done,), _ = ray.wait(list(pending))
                name = pending.pop(done)
                try:
                    yield name, ray.get(done)
                except RayError as error:
                    # A crash, too little memory or a bug: the others need not suffer from it.
                    log.exception("%s: its reader failed", name)
                    cause = getattr(error, "cause", None) or error
                    yield name, f"its reader failed ({type(cause).__name__}); the traceback is in the log"
                bar.set_postfix_str(name, refresh=False)
                bar.update()
    finally:
        for task_ref in pending:
            ray.cancel(task_ref)


def _main_counts(manifest: PreparedManifest) -> dict[str, int]:
    """The counts without their parts."""
    return {name: count for name, count in manifest.counts.items() if "/" not in name}


def _show(made: Mapping[str, PreparedManifest]) -> None:
    """Logs a table of what was made, and below it what is to be known of each benchmark."""
    from protclip.data.picture import render

    rows = [
        (
            name,
            ", ".join(f"{count} {value:,}" for count, value in _main_counts(manifest).items()),
            *(f"{sum(of.values()):,}" for of in (manifest.odd, manifest.kept, manifest.leaked)),
        )
        for name, manifest in made.items()
    ]
    if rows:
        log.info("%s", render("Prepared benchmarks", COLUMNS, rows)[0])
    for name, manifest in made.items():
        for note in notes(manifest):
            log.info("%s: %s", name, note)
        for count, published in manifest.expected.items():
            log.warning("%s: %s is %d, published %d", name, count, manifest.counts[count], published)
