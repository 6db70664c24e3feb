"""Sweeps: the best values of configuration keys, sought by many trainings and remembered for good."""

import logging
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from protclip import storage
from protclip.cluster.claim import claimed
from protclip.cluster.publish import FOLDER, publish
from protclip.cluster.study import check_inputs, draw_held_out, remembered
from protclip.cluster.tune import run_candidates
from protclip.config.load import dump_yaml
from protclip.config.study import SweepConfig
from protclip.data.picture import render
from protclip.errors import TrainingError
from protclip.provenance import git_sha
from protclip.tracking.base import Tracker
from protclip.tracking.mlflow import DESCRIPTION_TAG
from protclip.tracking.models import register
from protclip.tracking.params import masked
from protclip.tuning import sweep_report
from protclip.tuning.candidate import SERVER_WAIT_S, Candidate, Template
from protclip.tuning.study import Study
from protclip.tuning.tried import Results, Tried

log = logging.getLogger(__name__)


def sweep(config: SweepConfig, conf_dir: Path = Path("conf")) -> dict[str, object]:
    """Searches a space of configurations by trainings, and reports the best.

    Submitting the same name and storage again goes on: finished trials are kept, interrupted ones continue
    from their checkpoints, and a larger `num_trials` adds more.

    Args:
        config: What is searched and how.
        conf_dir: Directory of `pretrain/`, `data/`, `suites/` and `benchmarks/`.

    Returns:
        The output URI, the best trial's name, values and configuration, trials by state, and the MLflow
        run id.

    Raises:
        ConfigError: A dimension, an objective or another key is wrong, or the sweep exists with other ones.
        DataError: Pairs are missing, or another job runs this sweep.
        TrainingError: Every trial failed.
        StoppedError: It was asked to stop; every training has written a checkpoint.
    """
    template = Template(config, conf_dir)
    check_inputs(template, conf_dir)
    study = Study(config, template)
    with claimed(template.place), remembered(config, template, "sweep", study.run_id) as tracker:
        study.run_id = tracker.run_id
        draw_held_out(template, conf_dir)
        try:
            run_candidates(study, template, config, conf_dir, tracker.run_id)
        finally:
            results = study.results()
            if results.tried:
                _report(study, results, config, template.place, tracker)
        if not results.best:
            raise TrainingError(
                f"none of {len(results.tried)} trials has succeeded; {template.place} tells why"
            )
    chosen = results.best[0].outcome.name
    return {
        "output": template.place,
        "best": {tried.outcome.name: _sought(tried, results) for tried in results.best},
        "config": storage.join(template.place, _config_name(chosen)),
        "trials": Counter(tried.outcome.state for tried in results.tried),
        "run_id": tracker.run_id,
    }


def _report(study: Study, results: Results, config: SweepConfig, place: str, tracker: Tracker) -> None:
    """Shows what has been found so far, writes it, and tells the tracker."""
    headings, rows = sweep_report.log_table(results)
    log.info("%s", render(f"Sweep {config.name}", headings, rows)[0])
    commands = {}
    for tried in results.best:
        written = _write_configs(study.candidate(tried), config, place, tracker)
        commands[tried.number] = f"python jobs/pretrain.py --config {written}"
    provenance = sweep_report.Provenance(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        git_sha=git_sha(),
        config=storage.join(place, "sweep.yaml"),
        store=study.store,
        commands=commands,
    )
    publish(sweep_report.files(results, provenance), place, [tracker])
    columns = sweep_report.table_columns(results)
    tracker.log_table(columns, sweep_report.table(results), f"{FOLDER}/trials_table.json")
    tracker.set_tags({DESCRIPTION_TAG: sweep_report.summary_markdown(results)})
    counts = Counter(tried.outcome.state for tried in results.tried)
    tracker.log_metrics({f"sweep/trials/{state}": count for state, count in counts.items()})
    if results.best:
        _choose(results, config, tracker)


def _write_configs(candidate: Candidate, config: SweepConfig, place: str, tracker: Tracker) -> str:
    """Stores the configurations a candidate is trained again by; returns the training's URI."""
    name = candidate.name
    # Under a name of its own: by the candidate's it would be that run, which has ended.
    run = candidate.pretrain.run.model_copy(update={"name": f"{name}-again"})
    again = candidate.pretrain.model_copy(update={"run": run, "tracking": config.tracking})
    texts = {_config_name(name): dump_yaml(again)}
    if candidate.sample is not None:
        texts[f"best-{name}-sample.yaml"] = dump_yaml(candidate.sample)
    for file, text in texts.items():
        storage.write_bytes(storage.join(place, file), text.encode())
        tracker.log_text(masked(text), f"{FOLDER}/{file}")
    return storage.join(place, _config_name(name))


def _choose(results: Results, config: SweepConfig, tracker: Tracker) -> None:
    """Remembers the best trial with the sweep, and its model in the registry."""
    best = results.best[0]
    tracker.log_metrics({f"sweep/best/{metric}": v for metric, v in _sought(best, results).items()})
    outcome = best.outcome
    tracker.set_tags({"best_trial": outcome.name, "best_run": outcome.run_id or ""})
    if config.register_as is None or outcome.model is None:
        return
    tags = {"sweep": config.name, "trial": outcome.name, "checkpoint": outcome.checkpoint or ""}
    version = register(
        tracker, outcome.model, config.register_as, f"best-{config.name}", tags, wait_s=SERVER_WAIT_S
    )
    if version is not None:
        log.info("%s is %s, alias best-%s, in MLflow's model registry", outcome.name, version, config.name)


def _config_name(candidate: str) -> str:
    """File with the configuration of one of the best."""
    return f"best-{candidate}.yaml"


def _sought(tried: Tried, results: Results) -> dict[str, float]:
    """The objectives of a complete trial by metric."""
    return dict(zip(results.objectives, tried.values or (), strict=True))
