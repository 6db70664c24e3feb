"""A suite of benchmarks on a checkpoint: all is checked on the driver, then it is run and reported."""

import logging
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from protclip import checkpoint, storage
from protclip.checkpoint import Meta
from protclip.cluster.leak_scan import leak_shares
from protclip.cluster.publish import FOLDER, publish
from protclip.cluster.session import connect
from protclip.cluster.trials import Place, run_trials
from protclip.config.benchmarks import SuiteConfig
from protclip.config.keys import flatten
from protclip.data.picture import render
from protclip.data.tokenizer import TextTokenizer
from protclip.errors import BenchmarkError
from protclip.evaluation import report
from protclip.evaluation.cells import HEADINGS, Provenance, overview
from protclip.evaluation.encoders import digests
from protclip.evaluation.registry import load_benchmark
from protclip.evaluation.results import Summary, summarise
from protclip.evaluation.runner import plan, read_data
from protclip.evaluation.store import ResultStore
from protclip.evaluation.trial import Result
from protclip.tracking.base import Tracker
from protclip.tracking.ending import closing
from protclip.tracking.mlflow import DESCRIPTION_TAG, join, open_run

log = logging.getLogger(__name__)

RESULTS = "results"
"""Where results are kept below the output, unless another place is given."""

Means = dict[str, dict[str, float]]


def run_benchmarks(config: SuiteConfig, conf_dir: Path = Path("conf")) -> dict[str, object]:
    """Evaluates a checkpoint on a suite and writes the report.

    Args:
        config: What to evaluate on what.
        conf_dir: Directory with `benchmarks/*.yaml`.

    Returns:
        The output URI, the mean of every metric by benchmark for the checkpoint's first protocol, and the
        MLflow run id.

    Raises:
        BenchmarkError: A benchmark's file or data is wrong; or a run failed, once all others are finished
            and reported.
        CheckpointError: The checkpoint cannot be used.
        ConfigError: The cluster has no room for a run.
        DataError: Data is missing, or the output cannot be written.
    """
    specs = {name: load_benchmark(name, conf_dir) for name in config.benchmarks}
    uri = checkpoint.resolve(config.checkpoint)
    meta, trained = checkpoint.peek(uri)
    checkpoint.fetch(uri, meta.for_inference())
    tokenizer = TextTokenizer.from_json(checkpoint.read_text(uri, meta, checkpoint.TOKENIZER))
    pairs = config.pairs or trained.data
    data = read_data(specs.values(), config.data_root, pairs, tokenizer.fingerprint)
    trials = plan(specs.values(), data, config, digests(uri, trained, tokenizer))
    results = config.results or storage.join(config.output, RESULTS)
    for place in (config.output, results):
        probe = storage.join(place, ".writable")
        storage.write_bytes(probe, b"")
        storage.remove(probe)
    connect()
    place = Place.of(config, uri, results)
    tags = {"job": "benchmark", "checkpoint": uri, "data_manifest": meta.data_manifest}
    name = f"benchmark-{storage.basename(config.output)}"
    tracker = open_run(config.tracking, name, parent_id=meta.run_id, tags=tags)
    with closing(tracker):
        tracker.log_params(flatten(config))
        leaks = {}
        if config.leaks:
            leaks = leak_shares(specs.values(), data, pairs, meta.data_manifest, ResultStore(results))
        found = run_trials(trials, specs, data, place)
        summaries: list[Summary] = []
        for spec in specs.values():
            own = [result for result in found if result.trial.benchmark == spec.name]
            summaries += summarise(spec, own, leaks.get(spec.name), config.resamples)
        # The results stand in a run of their own and on the page of the run that trained the checkpoint.
        trackers = [tracker, join(config.tracking, meta.run_id)]
        _report(summaries, config, uri, meta, trackers)
        trackers[1].flush()
        _check(found, config.output)
    return {"output": config.output, "results": _means(summaries)[0], "run_id": tracker.run_id}


def _report(
    summaries: Sequence[Summary], config: SuiteConfig, uri: str, meta: Meta, trackers: Sequence[Tracker]
) -> None:
    """Shows the results, writes the report, and tells the trackers."""
    text, _ = render(report.TITLE, HEADINGS, overview(summaries))
    log.info("%s", text)
    provenance = Provenance(
        checkpoint=uri,
        step=meta.step,
        data_manifest=meta.data_manifest,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        results=config.results or RESULTS,
    )
    first, further = _means(summaries)
    metrics = {f"bench/{b}/{m}": v for b, ms in (first | further).items() for m, v in ms.items()}
    for tracker in trackers:
        tracker.log_metrics(metrics, meta.step)
        tracker.set_tags({DESCRIPTION_TAG: report.summary_markdown(summaries)})
        tracker.log_table(report.TABLE_COLUMNS, report.table(summaries), f"{FOLDER}/table.json")
    publish(report.files(provenance, summaries), config.output, trackers)


def _means(summaries: Sequence[Summary]) -> tuple[Means, Means]:
    """Mean of each metric over seeds, if it is a number.

    By benchmark for its first protocol, and by "<benchmark>/<protocol>" for further ones.
    """
    first: Means = {}
    further: Means = {}
    for summary in summaries:
        means = {score.metric: score.mean for score in summary.scores if math.isfinite(score.mean)}
        if summary.spec.name in first:
            further[f"{summary.spec.name}/{summary.protocol}"] = means
        else:
            first[summary.spec.name] = means
    return first, further


def _check(results: Sequence[Result], output: str) -> None:
    """Fails at the end of a suite that is not whole."""
    failed = [result for result in results if result.error is not None]
    if failed:
        lines = "".join(f"\n- {result.trial.label}: {result.error}" for result in failed)
        raise BenchmarkError(
            f"{len(failed)} of {len(results)} runs failed; the others are reported in {output}, and the same "
            f"command repeats only these:{lines}"
        )
