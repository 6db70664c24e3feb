"""Benchmarks on Ray: everything is checked on the driver, then one task per (benchmark, seed)."""

import logging
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray
import torch

from protclip import checkpoint, storage
from protclip.cluster.session import connect, has_gpu
from protclip.config.schema import SuiteConfig
from protclip.data.picture import render
from protclip.evaluation import report
from protclip.evaluation.embed import Embedder
from protclip.evaluation.formats import Sources, Splits
from protclip.evaluation.registry import load_benchmark
from protclip.evaluation.results import Result, Summary, summarise
from protclip.evaluation.runner import read_data, run_on_checkpoint, seeds_of
from protclip.evaluation.spec import BenchmarkSpec
from protclip.progress import progress
from protclip.tracking.base import Status
from protclip.tracking.mlflow import DESCRIPTION_TAG, join, open_run
from protclip.tracking.params import flatten

log = logging.getLogger(__name__)


def run_benchmarks(config: SuiteConfig, conf_dir: Path = Path("conf")) -> dict[str, object]:
    """Evaluates a checkpoint on a suite; writes `report.html`, `report.md` and `results.json`.

    Args:
        config: What to evaluate on what.
        conf_dir: Directory with `benchmarks/*.yaml`.

    Returns:
        The output URI, the mean of every metric by benchmark, and the MLflow run id.

    Raises:
        BenchmarkError: A benchmark's file or data is wrong.
        CheckpointError: The checkpoint cannot be used.
        DataError: A file is missing, or the output cannot be written.
    """
    specs = [load_benchmark(name, conf_dir) for name in dict.fromkeys(config.benchmarks)]
    loaded = checkpoint.load(config.checkpoint)
    tokenizer = Embedder(loaded, torch.device("cpu")).tokenizer.fingerprint
    sources = Sources(config.data_root, config.pairs or loaded.config.data, tokenizer)
    data = {spec.name: read_data(spec, sources) for spec in specs}
    provenance = report.Provenance(
        checkpoint=loaded.uri,
        step=loaded.meta.step,
        data_manifest=loaded.meta.data_manifest,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    probe = storage.join(config.output, ".writable")
    storage.write_bytes(probe, b"")
    storage.remove(probe)
    connect()
    tags = {"job": "benchmark", "checkpoint": loaded.uri, "data_manifest": loaded.meta.data_manifest}
    trained = loaded.meta.run_id
    name = f"benchmark-{storage.basename(config.output)}"
    tracker = open_run(config.tracking, name, parent_id=trained, tags=tags)
    status: Status = "FAILED"
    try:
        tracker.log_params(flatten(config))
        summaries = _run_all(specs, data, config, loaded.uri)
        means = {s.spec.name: _finite_means(s) for s in summaries}
        # The results stand in a run of their own and on the page of the run that trained the checkpoint.
        trackers = [tracker, join(config.tracking, trained)]
        metrics = {f"bench/{b}/{m}": v for b, ms in means.items() for m, v in ms.items()}
        for each in trackers:
            each.log_metrics(metrics, loaded.meta.step)
            each.set_tags({DESCRIPTION_TAG: report.summary_markdown(summaries)})
        table, _ = render("Benchmark results", report.HEADINGS, report.overview(summaries))
        log.info("%s", table)
        for name, text in report.files(provenance, summaries).items():
            storage.write_bytes(storage.join(config.output, name), text.encode())
            for each in trackers:
                each.log_text(text, f"results/{name}")
        trackers[1].flush()
        status = "FINISHED"
    finally:
        tracker.close(status)
    return {"output": config.output, "results": means, "run_id": tracker.run_id}


def _run_all(
    specs: Sequence[BenchmarkSpec],
    data: Mapping[str, Splits[Any]],
    config: SuiteConfig,
    checkpoint_uri: str,
) -> list[Summary]:
    """One task per (benchmark, seed), a GPU each when there are any; results in the order of `specs`."""
    task = ray.remote(run_on_checkpoint).options(num_cpus=1, num_gpus=int(has_gpu()))
    stored = {name: ray.put(splits) for name, splits in data.items()}
    pending = [
        task.remote(spec, stored[spec.name], checkpoint_uri, config.batch_size, seed)
        for spec in specs
        for seed in seeds_of(spec, config.seeds)
    ]
    results: list[Result] = []
    try:
        with progress("benchmarks", "run", len(pending)) as bar:
            while pending:
                (done,), pending = ray.wait(pending)
                result = ray.get(done)
                results.append(result)
                bar.set_postfix_str(f"{result.benchmark}, seed {result.seed}", refresh=False)
                bar.update()
    finally:
        for task_ref in pending:
            ray.cancel(task_ref)
    results.sort(key=lambda result: config.seeds.index(result.seed))
    return [summarise(spec, [r for r in results if r.benchmark == spec.name]) for spec in specs]


def _finite_means(summary: Summary) -> dict[str, float]:
    """Mean over seeds by metric, those that are numbers."""
    means = {score.metric: score.mean for score in summary.scores}
    return {name: value for name, value in means.items() if math.isfinite(value)}
