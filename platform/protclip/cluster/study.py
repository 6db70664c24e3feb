"""What sweeps and ablations have in common around their trainings."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from protclip import storage
from protclip.cluster.candidate import draw_pairs
from protclip.cluster.pretrain import check_data
from protclip.config.keys import flatten
from protclip.config.load import dump_yaml
from protclip.config.study import StudyConfig
from protclip.data.manifest import StrataManifest
from protclip.evaluation.registry import load_benchmark
from protclip.evaluation.runner import check_prepared
from protclip.tracking.base import Tracker
from protclip.tracking.ending import closing
from protclip.tracking.mlflow import open_run
from protclip.tracking.params import masked
from protclip.tuning.candidate import Template


def check_inputs(template: Template, conf_dir: Path) -> None:
    """Looks for pairs or strata and for the benchmarks' data, before hours are spent on trainings.

    Raises:
        BenchmarkError: A benchmark's file is wrong.
        DataError: Something is not there, or there are too few pairs.
        ConfigError: The pairs are of another tokenizer.
    """
    base = template.base
    if base.sample is None:
        check_data(base.pretrain)
    else:
        StrataManifest.load(base.sample.source)
    if base.suite is not None:
        specs = [load_benchmark(name, conf_dir) for name in base.suite.benchmarks]
        check_prepared(specs, base.suite.data_root)


def draw_held_out(template: Template, conf_dir: Path) -> None:
    """Draws the pairs on whose held-out ones every model is tested, where a study draws its own."""
    if template.base.sample is not None and template.base.suite is not None:
        draw_pairs(template.base.sample, conf_dir)


@contextmanager
def remembered(config: StudyConfig, template: Template, job: str, run_id: str | None) -> Iterator[Tracker]:
    """The MLflow run of a study, which holds its configuration and ends with the block.

    Args:
        config: The study.
        template: Tells its place, where the configuration is kept too.
        job: "sweep" or "ablate".
        run_id: The run of an earlier submission.

    Raises:
        DataError: The place cannot be written.
        TrackingError: The server does not answer.
    """
    text = dump_yaml(config)
    storage.write_bytes(storage.join(template.place, f"{job}.yaml"), text.encode())
    tracker = open_run(config.tracking, config.name, run_id=run_id, tags={"job": job})
    with closing(tracker):
        if tracker.run_id != run_id:
            # They do not change in MLflow; how many trials there are may.
            tracker.log_params(flatten(config))
        tracker.log_text(masked(text), f"{job}.yaml")
        yield tracker
