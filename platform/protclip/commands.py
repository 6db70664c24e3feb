"""What the command line offers: each command's configuration, what it does, and its job script."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protclip.config import benchmarks, data, doctor, export, report, schema, study
from protclip.config.base import Config

Result = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Command:
    """One job.

    Attributes:
        schema: Its configuration.
        summary: What it does, in a sentence.
        run: Does it; takes the configuration and the file it came from, imports what it needs itself.
        script: Its script in `jobs/`, without `.py`; empty for what is done on one machine alone.
    positional: The key that a first argument without `=` stands for, if there is one; all such
            arguments at the beginning, where the key is a list.
    """

    schema: type[Config]
    summary: str
    run: Callable[[Any, Path | None], Result]
    script: str = ""
    positional: str = ""


def _conf_dir(file: Path | None) -> Path:
    """The folder of `benchmarks/`, from a file in a folder beside it, conf/data/sample.yaml for example."""
    return Path("conf") if file is None else file.absolute().parent.parent


def _prepare(config: data.PrepareConfig, _: Path | None) -> Result:
    from protclip.cluster.prepare import prepare

    return prepare(config)


def _sample(config: data.SampleConfig, file: Path | None) -> Result:
    from protclip.cluster.sample import sample

    return sample(config, conf_dir=_conf_dir(file))


def _stats(config: data.StatsConfig, _: Path | None) -> Result:
    from protclip.data.stats import stats

    return stats(config)


def _pretrain(config: schema.PretrainConfig, _: Path | None) -> Result:
    from protclip.cluster.pretrain import pretrain

    return pretrain(config)


def _replay(config: schema.ReplayConfig, _: Path | None) -> Result:
    from protclip.training.replay import replay

    return replay(config)


def _prepare_benchmarks(config: benchmarks.PrepareBenchmarksConfig, file: Path | None) -> Result:
    from protclip.cluster.prepare_benchmarks import prepare_benchmarks

    return prepare_benchmarks(config, conf_dir=_conf_dir(file))


def _benchmark(config: benchmarks.SuiteConfig, file: Path | None) -> Result:
    from protclip.cluster.evaluate import run_benchmarks

    return run_benchmarks(config, conf_dir=_conf_dir(file))


def _compare(config: benchmarks.CompareConfig, _: Path | None) -> Result:
    from protclip.cluster.compare import compare_reports

    return compare_reports(config)


def _sweep(config: study.SweepConfig, file: Path | None) -> Result:
    from protclip.cluster.sweep import sweep

    return sweep(config, conf_dir=_conf_dir(file))


def _ablate(config: study.AblationConfig, file: Path | None) -> Result:
    from protclip.cluster.ablate import ablate

    return ablate(config, conf_dir=_conf_dir(file))


def _embed(config: schema.EmbedConfig, _: Path | None) -> Result:
    from protclip.cluster.embed import embed

    return embed(config)


def _import(config: export.ImportConfig, _: Path | None) -> Result:
    from protclip.training.imported import import_model

    return import_model(config)


def _export(config: export.ExportConfig, _: Path | None) -> Result:
    from protclip.model.export import export

    return export(config)


def _synthesize(config: data.SynthesizeConfig, _: Path | None) -> Result:
    from protclip.data.synthetic import write_sample

    return write_sample(config.output, config.num_reviewed, config.num_unreviewed, config.seed)


def _download(config: data.DownloadConfig, _: Path | None) -> Result:
    from protclip.cluster.claim import claimed
    from protclip.data.download import download

    with claimed(config.output):
        return download(config)


def _segments(config: report.SegmentsConfig, _: Path | None) -> Result:
    from protclip.evaluation.segments_report import segments

    return segments(config)


def _theta_report(config: report.ThetaReportConfig, _: Path | None) -> Result:
    from protclip.evaluation.theta_report import theta_report

    return theta_report(config)


def _doctor(config: doctor.DoctorConfig, _: Path | None) -> Result:
    from protclip.cluster.doctor import doctor

    return doctor(config)


def _quickstart(config: schema.QuickstartConfig, _: Path | None) -> Result:
    from protclip.cluster.quickstart import quickstart

    return quickstart(config)


COMMANDS: dict[str, Command] = {
    "quickstart": Command(
        schema.QuickstartConfig,
        "The whole path at small scale: make a sample, prepare, sample, pre-train, evaluate.",
        _quickstart,
    ),
    "doctor": Command(
        doctor.DoctorConfig,
        "Check in a minute whether storage, MLflow, every node and the network are ready for a job.",
        _doctor,
        script="doctor",
    ),
    "synthesize": Command(data.SynthesizeConfig, "Write a made sample of UniProtKB flat files.", _synthesize),
    "download": Command(
        data.DownloadConfig,
        "Fetch UniProtKB: sections of a release, verified and resumable, or what a query finds.",
        _download,
        script="download_data",
    ),
    "prepare": Command(
        data.PrepareConfig,
        "Read UniProtKB files and store their entries by confidence and coverage.",
        _prepare,
        script="prepare_data",
    ),
    "sample": Command(
        data.SampleConfig,
        "Draw pairs by property-driven sampling, tokenise, shuffle and split them.",
        _sample,
        script="sample_data",
    ),
    "stats": Command(
        data.StatsConfig,
        "Describe strata or pairs in tables and pictures, without reading their rows.",
        _stats,
        positional="source",
    ),
    "pretrain": Command(
        schema.PretrainConfig,
        "Pre-train ProtCLIP on pairs; submitted again, continues its run.",
        _pretrain,
        script="pretrain",
    ),
    "replay": Command(
        schema.ReplayConfig,
        "Compute a step of a run again and say which pairs and parameters stand out.",
        _replay,
    ),
    "prepare-benchmarks": Command(
        benchmarks.PrepareBenchmarksConfig,
        "Make the tables of benchmarks from their official files, which are fetched and verified.",
        _prepare_benchmarks,
        script="prepare_benchmarks",
    ),
    "benchmark": Command(
        benchmarks.SuiteConfig,
        "Evaluate a checkpoint on a suite of benchmarks.",
        _benchmark,
        script="run_benchmarks",
    ),
    "compare": Command(
        benchmarks.CompareConfig,
        "Hold results of checkpoints against those of the first: which differences are real.",
        _compare,
        positional="reports",
        script="compare",
    ),
    "sweep": Command(
        study.SweepConfig,
        "Search configuration keys for their best values by many trainings; submitted again, continues.",
        _sweep,
        script="sweep",
    ),
    "ablate": Command(
        study.AblationConfig,
        "Train named variants with several seeds and hold each against a reference.",
        _ablate,
        script="ablate",
    ),
    "embed": Command(
        schema.EmbedConfig,
        "Embed proteins and texts, and score how well those of an entry agree.",
        _embed,
        script="embed",
    ),
    "import": Command(
        export.ImportConfig,
        "Make a checkpoint of the weights that ProtCLIP's authors published, or of an exported model.",
        _import,
        script="import_model",
    ),
    "export": Command(
        export.ExportConfig,
        "Write a checkpoint as a directory that transformers loads, with a model card.",
        _export,
        script="export_model",
    ),
    "segments": Command(
        report.SegmentsConfig,
        "Hold what each property's segment looks at against annotated sites.",
        _segments,
    ),
    "theta-report": Command(
        report.ThetaReportConfig,
        "Measure how alignment varies with PDA's threshold, by property and protein family.",
        _theta_report,
    ),
}
