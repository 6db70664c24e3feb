from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from protclip.cluster.journal import Journal, keep
from protclip.data.manifest import StratumCount
from protclip.errors import DataError


@dataclass(frozen=True, slots=True)
class Result:
    rows: int
    runs: Mapping[str, tuple[str, int]]
    reasons: Counter[str]
    count: StratumCount


RESULT = Result(
    3,
    {"train": ("a.arrow", 2)},
    Counter({"no sequence": 1}),
    StratumCount(confidence=1, coverage=2, reviewed=3, unreviewed=4),
)


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "j") if request.param == "local" else request.getfixturevalue("bucket") + "/j"


def test_results_come_back_to_a_job_of_the_same_settings(folder: str) -> None:
    first = Journal(folder, {"seed": 0})
    assert first.empty
    assert not first.resumed
    assert keep(folder, "parse", "000001", RESULT) is RESULT
    assert first.noted("run") is None
    first.note("run", "abc")
    again = Journal(folder, {"seed": 0})
    assert again.resumed
    assert not again.empty
    assert again.done("parse", Result) == {"000001": RESULT}
    assert again.done("merge", Result) == {}
    assert again.noted("run") == "abc"


def test_a_job_of_other_settings_begins_anew_and_says_what_changed(
    folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    Journal(folder, {"seed": 0, "files": [("a", 1)]})
    keep(folder, "parse", "0", RESULT)
    other = Journal(folder, {"seed": 0, "files": [("a", 2)]})
    assert other.empty
    assert other.done("parse", Result) == {}
    assert "an interrupted job here had another files" in caplog.text


def test_files_without_settings_are_removed(tmp_path: Path) -> None:
    (tmp_path / "j" / "done" / "parse").mkdir(parents=True)
    (tmp_path / "j" / "done" / "parse" / "0.json").write_bytes(b"{}")
    assert Journal(str(tmp_path / "j"), {}).done("parse", Result) == {}


def test_a_foreign_result_is_named(tmp_path: Path) -> None:
    folder = str(tmp_path / "j")
    Journal(folder, {})
    keep(folder, "parse", "0", StratumCount(confidence=1, coverage=1, reviewed=0, unreviewed=0))
    with pytest.raises(DataError, match="not results of this job"):
        Journal(folder, {}).done("parse", Result)
