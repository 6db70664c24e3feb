"""Runs that several modules look at."""

from pathlib import Path
from typing import NamedTuple

import pytest

from protclip.config.schema import PretrainConfig
from watched_runs import Recorder, planted, settings, train


class Watched(NamedTuple):
    """A finished run of seven steps, and what it logged."""

    config: PretrainConfig
    logged: dict[int, dict[str, float]]


@pytest.fixture(scope="session")
def watched_run(tiny_pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """Nothing is wrong with it."""
    config, recorder = settings(tiny_pairs, tmp_path_factory.mktemp("runs"), max_steps=7), Recorder()
    train(config, recorder)
    return Watched(config, recorder.logged)


@pytest.fixture(scope="session")
def planted_run(tiny_pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """One pair of its batches is planted."""
    config, recorder = settings(tiny_pairs, tmp_path_factory.mktemp("runs"), max_steps=7), Recorder()
    with planted():
        train(config, recorder)
    return Watched(config, recorder.logged)
