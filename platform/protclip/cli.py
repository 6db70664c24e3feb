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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from protclip import __version__
from protclip.cluster.errors import user_error
from protclip.commands import COMMANDS, Command, Result
from protclip.config.help import help_text
from protclip.config.keys import keys_of
from protclip.config.load import dump_yaml, load_config
from protclip.errors import ConfigError

NOISY = ("ray", "mlflow", "alembic", "aiobotocore", "botocore", "httpx", "transformers")
INTERRUPTED = 130
VERSION = f"protclip {__version__}\n"


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
