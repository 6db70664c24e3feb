"""The command line: one command per job, the same functions as the scripts in `jobs/`.

What a user can rely on: the last line on stdout is one JSON object with what was made, everything else
goes to stderr; a mistake is one message and an exit code (see `errors.py`), never a traceback.
"""

import argparse
import atexit
import itertools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from protclip import __version__
from protclip.cluster.errors import user_error
from protclip.config import benchmarks, data, export, report, schema, study
from protclip.config.base import Config
from protclip.config.help import help_text
from protclip.config.keys import keys_of
from protclip.config.load import dump_yaml, load_config
from protclip.errors import ConfigError

NOISY = ("ray", "mlflow", "alembic", "aiobotocore", "botocore", "httpx", "transformers")
INTERRUPTED = 130
VERSION = f"protclip {__version__}\n"

Result = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Command:
    """One job.

    Attributes:
        schema: Its configuration.
        summary: What it does, in a sentence.
        run: Does it; takes the configuration and the file it came from, imports what it needs itself.
        positional: The key that a first argument without `=` stands for, if there is one; all such
            arguments at the beginning, where the key is a list.
    """

    schema: type[Config]
    summary: str
    run: Callable[[Any, Path | None], Result]
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


def _quickstart(config: schema.QuickstartConfig, _: Path | None) -> Result:
    from protclip.cluster.quickstart import quickstart

    return quickstart(config)


COMMANDS: dict[str, Command] = {
    "quickstart": Command(
        schema.QuickstartConfig,
        "The whole path at small scale: make a sample, prepare, sample, pre-train, evaluate.",
        _quickstart,
    ),
    "synthesize": Command(data.SynthesizeConfig, "Write a made sample of UniProtKB flat files.", _synthesize),
    "download": Command(
        data.DownloadConfig,
        "Fetch UniProtKB: sections of a release, verified and resumable, or what a query finds.",
        _download,
    ),
    "prepare": Command(
        data.PrepareConfig,
        "Read UniProtKB files and store their entries by confidence and coverage.",
        _prepare,
    ),
    "sample": Command(
        data.SampleConfig,
        "Draw pairs by property-driven sampling, tokenise, shuffle and split them.",
        _sample,
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
    ),
    "benchmark": Command(
        benchmarks.SuiteConfig, "Evaluate a checkpoint on a suite of benchmarks.", _benchmark
    ),
    "compare": Command(
        benchmarks.CompareConfig,
        "Hold results of checkpoints against those of the first: which differences are real.",
        _compare,
        positional="reports",
    ),
    "sweep": Command(
        study.SweepConfig,
        "Search configuration keys for their best values by many trainings; submitted again, continues.",
        _sweep,
    ),
    "ablate": Command(
        study.AblationConfig,
        "Train named variants with several seeds and hold each against a reference.",
        _ablate,
    ),
    "embed": Command(
        schema.EmbedConfig,
        "Embed proteins and texts, and score how well those of an entry agree.",
        _embed,
    ),
    "import": Command(
        export.ImportConfig,
        "Make a checkpoint of the weights that ProtCLIP's authors published, or of an exported model.",
        _import,
    ),
    "export": Command(
        export.ExportConfig,
        "Write a checkpoint as a directory that transformers loads, with a model card.",
        _export,
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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def run_job(name: str, argv: Sequence[str]) -> int:
    """Runs one command and returns its exit code; an unknown exception is a bug and passes through.

    Args:
        name: A key of `COMMANDS`.
        argv: Options and overrides, see `--help`.
    """
    try:
        _run(f"protclip {name}", COMMANDS[name], argv)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except Exception as error:
        known = user_error(error)
        if known is None:
            raise
        sys.stderr.write("error: " + str(known).replace("\n", "\n       ") + "\n")
        return known.exit_code
    return 0


def _run(program: str, command: Command, argv: Sequence[str]) -> None:
    """Parses the command line and does what it asks."""
    parser = _Parser(prog=program, add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("-v", "--verbose", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_intermixed_args(argv)
    if args.help:
        sys.stdout.write(help_text(program, command.summary, command.schema))
        return
    if args.version:
        sys.stdout.write(VERSION)
        return
    overrides = list(args.overrides)
    if command.positional:
        given = list(itertools.takewhile(lambda override: "=" not in override, overrides))
        given = given if keys_of(command.schema).by_name[command.positional].is_list else given[:1]
        if given:
            overrides[: len(given)] = [f"{command.positional}={','.join(given)}"]
    config = load_config(command.schema, args.config, overrides)
    if args.dry_run:
        sys.stderr.write(dump_yaml(config))
        result: Result = {"dry_run": True, "config": config.model_dump(mode="json")}
    else:
        with _logging_to_stderr(args.verbose), _stdout_to_stderr():
            result = command.run(config, args.config)
        # A library that says goodbye at exit must not have the last word; handlers run newest first.
        atexit.register(_divert_stdout)
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


@contextmanager
def _logging_to_stderr(verbose: bool) -> Iterator[None]:
    """Time, level and message on stderr; chatty libraries from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    root.addHandler(handler)
    level = root.level
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Keeps what anything writes to file descriptor 1 off stdout, also Ray and C libraries."""
    saved = os.dup(1)
    _divert_stdout()
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


def _divert_stdout() -> None:
    """Sends file descriptor 1 to stderr from here on."""
    sys.stdout.flush()
    os.dup2(2, 1)


def main(argv: Sequence[str] | None = None) -> int:
    """`protclip COMMAND …`; returns the exit code."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in COMMANDS:
        return run_job(name, rest)
    if name == "--version":
        sys.stdout.write(VERSION)
        return 0
    if name in {"-h", "--help"}:
        rows = "".join(f"  {key:<20}{command.summary}\n" for key, command in COMMANDS.items())
        sys.stdout.write(f"Usage: protclip COMMAND [--config FILE] [key=value …]\n\n{rows}\n")
        sys.stdout.write("protclip COMMAND --help lists the keys of a command.\n")
        return 0
    sys.stderr.write(f"error: unknown command {name!r}; the commands are {', '.join(COMMANDS)}\n")
    return ConfigError.exit_code
