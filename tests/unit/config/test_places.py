"""A job whose working directory is an upload is given no places in it."""

from pathlib import Path

import pytest

from protclip.config.base import Config, Uri
from protclip.config.places import check_places
from protclip.errors import ConfigError


class Section(Config):
    storage: Uri = "runs"


class Job(Config):
    inputs: tuple[Uri, ...] = ()
    extra: Uri = "data/extra"
    text: str = "data/text"
    section: Section


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "conf").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_check_places_takes_what_outlives_the_job_or_was_uploaded(root: Path) -> None:
    section = Section(storage="s3://b/runs")
    check_places(Job(inputs=("/mnt/a", "s3://b/c", "conf"), section=section), root)


def test_check_places_names_what_goes_with_the_job(root: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^inputs=a,b, extra=data/other, section\.storage=runs: a relative"
    ):
        check_places(Job(inputs=("a", "/mnt/c", "b"), extra="data/other", section=Section()), root)
