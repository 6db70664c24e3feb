"""`protclip compare` from its command line to what is remembered."""

import json
from pathlib import Path

import numpy as np
import pytest

from made_results import kind, result, spec, write_report
from notebook import Notebook
from protclip.cli import main
from protclip.evaluation import registry


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two reports, `first` and the better `second`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(registry.KINDS, "hits", kind())
    for name, share in (("first", 0.4), ("second", 0.7)):
        hits = np.arange(200) % 10 < share * 10
        runs = [(spec(task), [result(task, hits)]) for task in ("places", "more")]
        write_report(tmp_path / name, runs)
    return tmp_path


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    """What takes the place of MLflow."""
    made = Notebook()
    monkeypatch.setattr("protclip.cluster.compare.open_run", lambda *_, **__: made)
    return made


def test_compare_writes_a_report_and_remembers_it(
    reports: Path, notebook: Notebook, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "first", "second", "output=compared", "resamples=100"]) == 0
    made = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert made["verdicts"] == {"second": {"better": 2}}
    files = {path.name: path.read_bytes() for path in (reports / "compared").iterdir()}
    assert files.keys() == {"compare.html", "compare.md", "compare.json", "compare.png"}
    told = notebook.told
    assert {name: told[f"results/{name}"] for name in files} == files
    assert told["compare/second/places/frozen/difference"] == pytest.approx(0.3)
    assert [row["verdict"] for row in told["results/compare_table.json"]] == ["better", "better"]
    assert "## second against first" in told["mlflow.note.content"]
    assert told["status"] == "FINISHED"


def test_compare_warns_of_resamples_that_can_show_nothing(
    reports: Path, notebook: Notebook, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "first", "second", "output=compared", "resamples=60"]) == 0
    captured = capfd.readouterr()
    verdicts = json.loads(captured.out.splitlines()[-1])["verdicts"]
    assert verdicts == {"second": {"no difference shown": 2}}
    said = "60 resamples cannot show a difference among 2 benchmarks at level 0.05; give resamples=80"
    assert said in captured.err


def test_compare_that_fails_ends_its_run_as_failed(
    reports: Path, notebook: Notebook, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(registry.KINDS, "hits")
    assert main(["compare", "first", "second", "output=compared"]) == 5
    assert notebook.told["status"] == "FAILED"
    assert "unknown kind 'hits'" in capfd.readouterr().err


def test_compare_of_what_is_no_report_begins_no_run(
    reports: Path, notebook: Notebook, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "nowhere", "first", "output=compared"]) == 3
    (message,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]
    assert "nowhere/results.json" in message
    assert notebook.told == {}
