"""Every job script and every command keeps the contract that others build on."""

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from protclip.commands import COMMANDS
from protclip.config.base import Config
from protclip.config.benchmarks import SuiteConfig
from protclip.config.data import DownloadConfig, PrepareConfig, SampleConfig
from protclip.config.keys import keys_of
from protclip.config.load import load_config
from protclip.config.schema import EmbedConfig, PretrainConfig
from protclip.config.study import AblationConfig, SweepConfig

REPO = Path(__file__).resolve().parents[2]
JOBS = sorted((REPO / "jobs").glob("*.py"))
CONFIGS: dict[str, tuple[type[Config], tuple[str, ...]]] = {
    "conf/pretrain/*.yaml": (PretrainConfig, ("data=d", "run.name=n")),
    "conf/data/download*.yaml": (DownloadConfig, ("output=o",)),
    "conf/data/prepare*.yaml": (PrepareConfig, ("inputs=a,b", "output=o")),
    "conf/data/sample*.yaml": (SampleConfig, ("source=s", "output=o")),
    "conf/embed/*.yaml": (EmbedConfig, ("source=s", "checkpoint=c", "output=o")),
    "conf/suites/*.yaml": (SuiteConfig, ("checkpoint=c", "output=o")),
    "conf/sweeps/*.yaml": (SweepConfig, ("data=d",)),
    "conf/ablations/*.yaml": (AblationConfig, ("data=d",)),
}
"""Which schema the files of a folder have, and the keys only a user can give."""
FILES = [
    (path, schema, required)
    for pattern, (schema, required) in CONFIGS.items()
    for path in sorted(REPO.glob(pattern))
]


def run(job: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(REPO / "platform")}
    command = [sys.executable, str(job), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, check=False)


def command_of(job: Path) -> str:
    """The command a script runs: the text it gives to `run_job`."""
    calls = (node for node in ast.walk(ast.parse(job.read_text())) if isinstance(node, ast.Call))
    (found,) = (c.args[0] for c in calls if isinstance(c.func, ast.Name) and c.func.id == "run_job")
    assert isinstance(found, ast.Constant)
    return str(found.value)


@pytest.mark.parametrize("job", JOBS, ids=lambda p: p.name)
def test_job_is_short_and_documented(job: Path) -> None:
    text = job.read_text()
    assert len(text.splitlines()) <= 40
    assert f"python jobs/{job.name}" in (ast.get_docstring(ast.parse(text)) or "")


@pytest.mark.parametrize("job", JOBS, ids=lambda p: p.name)
def test_job_name_shadows_no_module(job: Path) -> None:
    assert importlib.util.find_spec(job.stem) is None


def test_commands_name_their_scripts() -> None:
    assert {job.stem: command_of(job) for job in JOBS} == {
        command.script: name for name, command in COMMANDS.items() if command.script
    }


@pytest.mark.parametrize("job", JOBS, ids=lambda p: p.name)
def test_job_help_lists_every_key(job: Path) -> None:
    done = run(job, "--help")
    assert done.returncode == 0, done.stderr
    for name in keys_of(COMMANDS[command_of(job)].schema).by_name:
        assert f"\n  {name} " in done.stdout


def test_job_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from protclip.cli import run_job; run_job('pretrain', ['--help']); "
        "sys.exit(sorted({'torch', 'ray', 'mlflow', 'transformers', 'pandas'} & set(sys.modules)) or 0)"
    )
    env = {**os.environ, "PYTHONPATH": str(REPO / "platform")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr


def test_job_dry_run_ends_stdout_with_json() -> None:
    arguments = ("--config", "conf/pretrain/quickstart.yaml", "data=d", "run.name=n", "--dry-run")
    done = run(REPO / "jobs" / "pretrain.py", *(str(REPO / a) if "/" in a else a for a in arguments))
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout.splitlines()[-1])
    assert made["dry_run"] is True
    assert PretrainConfig.model_validate(made["config"]).run.name == "n"


def test_job_exits_2_with_one_message_for_a_mistake() -> None:
    done = run(REPO / "jobs" / "pretrain.py", "data=d", "run.name=n", "optim.learning_rate=1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: command line: unknown key 'optim.learning_rate'; did you mean 'optim.lr'?\n"


@pytest.mark.parametrize(("path", "schema", "required"), FILES, ids=[str(f[0].name) for f in FILES])
def test_config_file_is_valid(path: Path, schema: type[Config], required: tuple[str, ...]) -> None:
    load_config(schema, path, required)


def test_config_paper_is_the_paper() -> None:
    config = load_config(PretrainConfig, REPO / "conf/pretrain/paper.yaml", ("data=d", "run.name=n"))
    assert (config.optim.lr, config.optim.weight_decay, config.optim.warmup_share) == (1e-5, 0, 0.03)
    assert (config.loss.gc, config.loss.bsr, config.loss.mlm, config.loss.pda.weight) == (1, 0.7, 0.3, 1)
    assert (config.loss.temperature, config.loss.pda.theta, config.train.global_batch) == (0.07, 0.3, 2048)
    assert (config.model.protein.max_tokens, config.model.text.max_tokens) == (1024, 512)
    assert config.model.protein.checkpointing
    assert config.model.protein.trainable
    assert not config.model.text.trainable
