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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from protclip import __version__
from protclip.cluster.errors import user_error
from protclip.commands import COMMANDS, Command, Result
from protclip.config.base import Config
from protclip.config.help import help_text
from protclip.config.keys import keys_of
from protclip.config.load import dump_yaml, load_config
from protclip.config.places import IN_JOB, check_places
from protclip.errors import ConfigError

NOISY = ("ray", "mlflow", "alembic", "aiobotocore", "botocore", "httpx", "transformers")
INTERRUPTED = 130
VERSION = f"protclip {__version__}\n"
SUBMIT = "submit"
SUBMIT_SUMMARY = "Run a job on a Ray cluster, over HTTP, and follow it to its end."
SUBMIT_HELP = f"""\
Usage: protclip submit [options] JOB [--config FILE] [key=value …]

{SUBMIT_SUMMARY} What stands
after JOB is the job's own command line. The same again follows the job while it runs, and
submits it once more when it has ended; a training then continues. Ctrl-C leaves it running.
The exit code is the job's own, 75 when it was stopped.

Options:
  --address URL         the cluster's dashboard; default RAY_API_SERVER_ADDRESS or RAY_ADDRESS
  --id ID               the job's name on the cluster; default made of job and run name
  --print-id            prints that name, does nothing
  --no-wait             returns once the job is submitted
  --working-dir DIR     what is uploaded; default the current directory
  --runtime-env FILE    what of it, and the job's variables; default k8s/runtime_env.yaml
  -v, --verbose         shows debug messages
  -h, --help            shows this text

Jobs: {", ".join(name for name, command in COMMANDS.items() if command.script)}
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def run_job(name: str, argv: Sequence[str]) -> int:
    """Runs one command and returns its exit code; an unknown exception is a bug and passes through.

    Args:
        name: A key of `COMMANDS`.
        argv: Options and overrides, see `--help`.
    """
    return _guarded(lambda: _run(_parse(name, argv)))


def submit_job(argv: Sequence[str]) -> int:
    """Runs one command on a cluster and returns its exit code.

    Args:
        argv: Options, the command's name, and its own options and overrides.
    """
    return _guarded(lambda: _submit(argv))


def _guarded(call: Callable[[], int]) -> int:
    """The exit code of a call, with a message in place of a traceback where the user can act on it."""
    try:
        return call()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except Exception as error:
        known = user_error(error)
        if known is None:
            raise
        sys.stderr.write("error: " + str(known).replace("\n", "\n       ") + "\n")
        if known.result is not None:
            atexit.register(_divert_stdout)
            _print_result(known.result)
        return known.exit_code


@dataclass(frozen=True, slots=True)
class _Line:
    """A command line; `shown` is what it asks for instead of the command's work."""

    name: str
    file: Path | None
    overrides: list[str]
    dry_run: bool
    verbose: bool
    shown: str | None

    @property
    def command(self) -> Command:
        return COMMANDS[self.name]


def _parse(name: str, argv: Sequence[str]) -> _Line:
    """Takes the command line of a command apart."""
    program, command = f"protclip {name}", COMMANDS[name]
    parser = _Parser(prog=program, add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("-v", "--verbose", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_intermixed_args(argv)
    shown = VERSION if args.version else None
    if args.help:
        shown = help_text(program, command.summary, command.schema)
    overrides = list(args.overrides)
    if command.positional:
        given = list(itertools.takewhile(lambda override: "=" not in override, overrides))
        given = given if keys_of(command.schema).by_name[command.positional].is_list else given[:1]
        if given:
            overrides[: len(given)] = [f"{command.positional}={','.join(given)}"]
    return _Line(name, args.config, overrides, args.dry_run, args.verbose, shown)


def _run(line: _Line) -> int:
    """Does what a command line asks."""
    if line.shown is not None:
        sys.stdout.write(line.shown)
        return 0
    config = _load(line)
    if line.dry_run:
        sys.stderr.write(dump_yaml(config))
        result: Result = {"dry_run": True, "config": config.model_dump(mode="json")}
    else:
        with _logging_to_stderr(line.verbose), _stdout_to_stderr():
            result = line.command.run(config, line.file)
        # A library that says goodbye at exit must not have the last word; handlers run newest first.
        atexit.register(_divert_stdout)
    _print_result(result)
    return 0


def _load(line: _Line) -> Config:
    """The configuration of a command line; in a submitted job, only such as an upload allows."""
    try:
        config = load_config(line.command.schema, line.file, line.overrides)
    except ConfigError as error:
        if IN_JOB in os.environ and isinstance(error.__cause__, FileNotFoundError):
            raise ConfigError(
                f"{error}; this job sees only what was uploaded: look at --working-dir, .gitignore, and "
                "excludes in the runtime environment"
            ) from error
        raise
    if IN_JOB in os.environ:
        check_places(config, Path.cwd())
    return config


def _submit(argv: Sequence[str]) -> int:
    """Does what a command line of `protclip submit` asks."""
    parser = _Parser(prog="protclip submit", add_help=False, allow_abbrev=False)
    parser.add_argument("--address")
    parser.add_argument("--id", dest="job_id")
    parser.add_argument("--print-id", action="store_true")
    parser.add_argument("--no-wait", dest="wait", action="store_false")
    parser.add_argument("--working-dir", type=Path, default=Path())
    parser.add_argument("--runtime-env", type=Path, default=Path("k8s/runtime_env.yaml"))
    parser.add_argument("-v", "--verbose", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("job", nargs="?")
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    args = parser.parse_args(argv)
    if args.help:
        sys.stdout.write(SUBMIT_HELP)
        return 0
    if args.job not in COMMANDS or not COMMANDS[args.job].script:
        problem = "no job is named" if args.job is None else f"{args.job!r} is no job"
        raise ConfigError(f"{problem}; see {parser.prog} --help")
    line = _parse(args.job, args.rest)
    if line.shown is not None:
        sys.stdout.write(line.shown)
        return 0
    from protclip.cluster.submit import Job, Target, submission_id, submit

    with _logging_to_stderr(args.verbose):
        flags = [flag for flag, on in (("--dry-run", line.dry_run), ("--verbose", line.verbose)) if on]
        job = Job(line.command.script, line.command.schema, line.file, line.overrides, flags)
        if args.print_id:
            sys.stdout.write((args.job_id or submission_id(job)) + "\n")
            return 0
        code, result = submit(
            job, Target(args.address, args.working_dir, args.runtime_env, args.job_id, args.wait)
        )
    _print_result(result)
    return code


def _print_result(result: Result) -> None:
    """The last line on stdout."""
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
    if name == SUBMIT:
        return submit_job(rest)
    if name == "--version":
        sys.stdout.write(VERSION)
        return 0
    if name in {"-h", "--help"}:
        summaries = {key: command.summary for key, command in COMMANDS.items()} | {SUBMIT: SUBMIT_SUMMARY}
        rows = "".join(f"  {key:<20}{summary}\n" for key, summary in summaries.items())
        sys.stdout.write(f"Usage: protclip COMMAND [--config FILE] [key=value …]\n\n{rows}\n")
        sys.stdout.write("protclip COMMAND --help lists the keys of a command.\n")
        return 0
    sys.stderr.write(f"error: unknown command {name!r}; the commands are {', '.join([*COMMANDS, SUBMIT])}\n")
    return ConfigError.exit_code
