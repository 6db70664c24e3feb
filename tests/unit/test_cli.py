"""What the command line promises: exit codes, one message, one JSON line."""

import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from protclip import __version__, cli
from protclip.cli import main, run_job
from protclip.cluster.errors import user_error
from protclip.commands import COMMANDS, Command
from protclip.config.base import Config
from protclip.config.places import IN_JOB
from protclip.errors import (
    BenchmarkError,
    CheckpointError,
    ConfigError,
    DataError,
    TrackingError,
    TrainingError,
)


class JobConfig(Config):
    """One key."""

    value: int = 1


class Job:
    """A job whose behaviour the test sets."""

    def __init__(self) -> None:
        self.result: object = {"made": "x"}
        self.seen: tuple[JobConfig, Path | None] | None = None

    def __call__(self, config: JobConfig, file: Path | None) -> object:
        self.seen = config, file
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    made = Job()
    monkeypatch.setitem(COMMANDS, "job", Command(JobConfig, "Does it.", made))  # pyright: ignore[reportArgumentType]
    return made


def test_run_job_ends_stdout_with_one_json_object(
    job: Job, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest's own sys.stdout does not write to file descriptor 1, a program's does.
    monkeypatch.setattr(sys, "stdout", open(1, "w", closefd=False))  # noqa: SIM115

    def noisy(config: JobConfig, file: Path | None) -> object:
        sys.stdout.write("from python\n")
        os.write(1, b"from C\n")
        logging.getLogger("some.library").info("from a log")
        return {"value": config.value, "name": "µ"}

    COMMANDS["job"] = Command(JobConfig, "Does it.", noisy)  # pyright: ignore[reportArgumentType]
    assert run_job("job", ["value=3"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == {"value": 3, "name": "µ"}
    assert out.count("\n") == 1
    for text in ("from python", "from C", "INFO from a log"):
        assert text in err


def test_run_job_dry_run_resolves_and_does_nothing(
    job: Job, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("value: 5")
    assert run_job("job", ["--dry-run", "--config", str(file)]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == {"dry_run": True, "config": {"value": 5}}
    assert err == "value: 5\n"
    assert job.seen is None


def test_run_job_takes_overrides_between_options(job: Job, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("value: 5")
    assert run_job("job", ["value=6", "--config", str(file), "value=7", "-v"]) == 0
    assert job.seen == (JobConfig(value=7), file)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("two\nlines"), 2),
        (DataError("no such file"), 3),
        (CheckpointError("damaged"), 4),
        (BenchmarkError("unknown"), 5),
        (TrackingError("away"), 6),
        (TrainingError("not finite"), 7),
    ],
)
def test_run_job_turns_errors_into_a_message_and_a_code(
    job: Job, capfd: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    job.result = error
    assert run_job("job", []) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "error: " + str(error).replace("\n", "\n       ") + "\n"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["valu=1"], "error: command line: unknown key 'valu'; did you mean 'value'?\n"),
        (["value=x"], "error: command line: value: expected whole number, got 'x'\n"),
        (["--config", "none.yaml"], "error: none.yaml: cannot be read: No such file or directory"),
        (["--confg", "x"], "error: unrecognized arguments: --confg; see protclip job --help\n"),
        (["--config"], "error: argument --config: expected one argument; see protclip job --help\n"),
    ],
)
def test_run_job_exits_2_for_a_wrong_command_line(
    job: Job, capfd: pytest.CaptureFixture[str], argv: list[str], expected: str
) -> None:
    assert run_job("job", argv) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(expected)
    assert job.seen is None


def test_run_job_reports_an_interruption(job: Job, capfd: pytest.CaptureFixture[str]) -> None:
    job.result = KeyboardInterrupt()
    assert run_job("job", []) == 130
    assert capfd.readouterr().err == "interrupted\n"


def test_run_job_lets_a_bug_through_and_restores_stdout(job: Job, capfd: pytest.CaptureFixture[str]) -> None:
    job.result = ZeroDivisionError("bug")
    handlers = list(logging.getLogger().handlers)
    with pytest.raises(ZeroDivisionError):
        run_job("job", [])
    os.write(1, b"still stdout\n")
    assert capfd.readouterr().out == "still stdout\n"
    assert logging.getLogger().handlers == handlers


def test_run_job_prints_help_and_version(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job("job", ["--help"]) == 0
    assert "Usage: protclip job" in capsys.readouterr().out
    assert run_job("job", ["--version"]) == 0
    assert capsys.readouterr().out == f"protclip {__version__}\n"


def test_main_lists_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in ([], ["--help"]):
        assert main(argv) == 0
        out = capsys.readouterr().out
        assert all(f"\n  {name} " in out for name in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"protclip {__version__}\n"


def test_main_refuses_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train"]) == 2
    assert capsys.readouterr().err == (
        f"error: unknown command 'train'; the commands are {', '.join(COMMANDS)}, submit\n"
    )


def test_benchmark_finds_benchmarks_beside_the_suites(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []
    module = type(sys)("protclip.cluster.evaluate")
    module.run_benchmarks = lambda config, conf_dir: seen.append(conf_dir) or {}  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "protclip.cluster.evaluate", module)
    config = COMMANDS["benchmark"].schema(benchmarks=("a",), checkpoint="c", output="o")  # pyright: ignore[reportCallIssue]
    cli.COMMANDS["benchmark"].run(config, Path("/x/conf/suites/smoke.yaml"))
    cli.COMMANDS["benchmark"].run(config, None)
    assert seen == [Path("/x/conf"), Path("conf")]


def test_user_error_finds_the_cause_inside_wrappers() -> None:
    mistake = DataError("wrong file")
    # The two shapes Ray gives: a class that is both, with a traceback as its text; errors by rank.
    dual = type("RayTaskError(DataError)", (DataError,), {"cause": mistake})("Traceback …")
    by_rank = RuntimeError("training failed")
    by_rank.worker_failures = {1: dual}  # pyright: ignore[reportAttributeAccessIssue]
    chained = RuntimeError("stage failed")
    chained.__cause__ = by_rank
    for error in (mistake, dual, by_rank, chained):
        assert user_error(error) is mistake
    assert user_error(KeyError("x")) is None
    own = ConfigError("ours")
    own.__cause__ = mistake
    assert user_error(own) is own


def test_submit_help_lists_options_and_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "--help"]) == 0
    text = capsys.readouterr().out
    for name in ("--address URL", "--print-id", "--no-wait", "pretrain", "prepare-benchmarks"):
        assert name in text
    assert "theta-report" not in text


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "error: no job is named; see protclip submit --help\n"),
        (["stats"], "error: 'stats' is no job; see protclip submit --help\n"),
        (
            ["--adress", "x", "pretrain"],
            "error: unrecognized arguments: --adress; see protclip submit --help\n",
        ),
        (
            ["pretrain", "data=d", "run.name=n", "lr=1"],
            "error: command line: unknown key 'lr'; did you mean 'optim.lr'?\n",
        ),
    ],
)
def test_submit_exits_2_for_a_wrong_command_line(
    capsys: pytest.CaptureFixture[str], argv: list[str], expected: str
) -> None:
    assert main(["submit", *argv]) == 2
    assert capsys.readouterr().err.startswith(expected.rstrip("\n"))


def test_submit_prints_the_id_alone(capsys: pytest.CaptureFixture[str]) -> None:
    keys = ["data=s3://b/p", "run.name=first", "run.storage=s3://b/r", "--dry-run"]
    assert main(["submit", "--print-id", "pretrain", *keys]) == 0
    assert capsys.readouterr().out == "pretrain-first\n"


def test_run_job_says_that_an_upload_lacks_the_file(
    job: Job, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(IN_JOB, "{}")
    assert run_job("job", ["--config", "none.yaml"]) == 2
    assert "this job sees only what was uploaded: look at --working-dir" in capfd.readouterr().err


def test_run_job_refuses_places_that_go_with_an_upload(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(IN_JOB, "{}")
    monkeypatch.chdir(tmp_path)
    assert run_job("pretrain", ["data=s3://b/d", "run.name=n", "--dry-run"]) == 2
    assert capfd.readouterr().err.startswith(
        "error: run.storage=outputs/runs: a relative path lies in the job's"
    )
