"""The whole platform at small scale, in one call: made UniProtKB files to a benchmarked model."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from protclip import storage
from protclip.cluster.evaluate import run_benchmarks
from protclip.cluster.prepare import prepare
from protclip.cluster.prepare_benchmarks import prepare_benchmarks
from protclip.cluster.pretrain import pretrain
from protclip.cluster.sample import sample
from protclip.cluster.session import connect
from protclip.config.base import Config
from protclip.config.benchmarks import PrepareBenchmarksConfig, SuiteConfig
from protclip.config.data import PrepareConfig, SampleConfig
from protclip.config.load import load_config
from protclip.config.schema import PretrainConfig, QuickstartConfig
from protclip.data.synthetic import write_sample
from protclip.tracking.server import tracking_uri

log = logging.getLogger(__name__)

CONF = Path("conf")
T = TypeVar("T", bound=Config)


def quickstart(config: QuickstartConfig) -> dict[str, object]:
    """Makes a sample of UniProtKB and takes it through every stage.

    Each stage's equivalent command is shown, so that it can be repeated with other data.

    Returns:
        URIs of what was made, the benchmark results and the MLflow run ids.
    """
    place = {
        name: storage.join(config.output, name)
        for name in ("uniprot", "benchmarks", "strata", "pairs", "runs", "report")
    }
    for uri in place.values():
        storage.remove(uri)
    connect(min_cpus=config.num_workers)
    _say(
        "1/6 make a sample of UniProtKB",
        f"protclip synthesize output={place['uniprot']} num_reviewed={config.num_reviewed} "
        f"num_unreviewed={config.num_unreviewed} seed={config.seed}",
    )
    made = write_sample(place["uniprot"], config.num_reviewed, config.num_unreviewed, config.seed)
    prepare_benchmarks(
        _stage(
            "2/6 prepare the benchmark that lies beside it",
            "jobs/prepare_benchmarks.py",
            PrepareBenchmarksConfig,
            None,
            [
                "benchmarks=made_location",
                f"raw={place['uniprot']}/benchmarks",
                f"output={place['benchmarks']}",
            ],
        ),
        conf_dir=CONF,
    )
    prepared = prepare(
        _stage(
            "3/6 read it into strata",
            "jobs/prepare_data.py",
            PrepareConfig,
            "data/prepare.yaml",
            [
                f"inputs={place['uniprot']}/uniprot_sprot.dat.gz,{place['uniprot']}/uniprot_trembl.dat.gz",
                f"output={place['strata']}",
            ],
        )
    )
    sampled = sample(
        _stage(
            "4/6 sample it by property, tokenise, shuffle, split",
            "jobs/sample_data.py",
            SampleConfig,
            "data/sample.yaml",
            [
                f"source={place['strata']}",
                f"output={place['pairs']}",
                f"seed={config.seed}",
                "exclude.benchmarks=made_location",
                f"exclude.data_root={place['benchmarks']}",
            ],
        ),
        conf_dir=CONF,
    )
    trained = pretrain(
        _stage(
            "5/6 pre-train ProtCLIP with all four objectives",
            "jobs/pretrain.py",
            PretrainConfig,
            "pretrain/quickstart.yaml",
            [
                f"data={place['pairs']}",
                "run.name=quickstart",
                f"run.storage={place['runs']}",
                f"train.max_steps={config.max_steps}",
                f"train.seed={config.seed}",
                f"scaling.num_workers={config.num_workers}",
            ],
        )
    )
    evaluated = run_benchmarks(
        _stage(
            "6/6 evaluate it on held-out proteins",
            "jobs/run_benchmarks.py",
            SuiteConfig,
            "suites/smoke.yaml",
            [
                f"checkpoint={trained['run']}",
                f"output={place['report']}",
                f"data_root={place['benchmarks']}",
            ],
        ),
        conf_dir=CONF,
    )
    log.info("The results table is in %s/report.html", place["report"])
    log.info(
        "Compare the runs in MLflow: .venv/bin/mlflow ui --backend-store-uri %s --port 5000, then open "
        "http://127.0.0.1:5000",
        tracking_uri(None),
    )
    return {
        "sample": made,
        "strata": prepared["strata"],
        "pairs": sampled["pairs"],
        "checkpoint": trained["checkpoint"],
        "report": evaluated["output"],
        "results": evaluated["results"],
        "run_ids": [stage["run_id"] for stage in (prepared, sampled, trained, evaluated)],
    }


def _stage(title: str, job: str, schema: type[T], conf: str | None, overrides: Sequence[str]) -> T:
    """Announces a stage with its command and loads that command's configuration."""
    path = None if conf is None else CONF / conf
    given = list(overrides) if path is None else ["--config", str(path), *overrides]
    _say(title, " ".join(["python", job, *given]))
    return load_config(schema, path, overrides)


def _say(title: str, command: str) -> None:
    """Tells what comes next and how to do it by hand."""
    log.info("%s\n    %s", title, command)
