"""`protclip ablate` from its command line to what is remembered; the trainings themselves are made up."""

import json
from pathlib import Path

import numpy as np
import pytest

from made_results import kind, result, spec, write_report
from notebook import Notebook
from protclip.cli import main
from protclip.cluster.claim import Claim
from protclip.errors import StoppedError
from protclip.evaluation import registry
from protclip.tuning.candidate import Outcome

CONF = Path(__file__).resolve().parents[3] / "conf"
SHARES = {"separate": 0.4, "shared": 0.7}


class Trainings:
    """What takes the place of Ray Tune."""

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.ran: list[str] = []
        self.stop_after = 99

    def __call__(self, source, template, config, conf_dir, parent_id):
        assert (conf_dir, parent_id) == (CONF, "parent")
        while (candidate := source.next()) is not None:
            if len(self.ran) == self.stop_after:
                raise StoppedError("stopped")
            self.ran.append(candidate.name)
            variant, seed = candidate.varied["variant"], candidate.pretrain.train.seed
            if candidate.name in self.failing:
                source.finish(Outcome(candidate.name, "failed", error="the loss is not finite"))
                continue
            hits = np.random.default_rng([len(str(variant)), seed]).random(300) < SHARES[str(variant)]
            Path(candidate.suite.output).mkdir(parents=True, exist_ok=True)
            runs = [(spec("places"), [result("places", hits, model_digest=candidate.name)])]
            report = write_report(Path(candidate.suite.output), runs)
            metrics = {"valid/t2p_r10": SHARES[str(variant)] + seed / 50 * (len(str(variant)) - 5)}
            assert source.observe(candidate.name, metrics, 1) is False
            source.finish(Outcome(candidate.name, "complete", metrics=metrics, report=report))


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    made = Trainings()
    monkeypatch.setattr("protclip.cluster.ablate.run_candidates", made)
    monkeypatch.setitem(registry.KINDS, "hits", kind())
    return made


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    made = Notebook()

    def open_run(*_, **keys):
        made.opened.append(keys)
        return made

    monkeypatch.setattr("protclip.cluster.study.open_run", open_run)
    return made


@pytest.fixture
def command(tiny_pairs: Path, tmp_path: Path) -> list[str]:
    return [
        *("ablate", "--config", str(CONF / "ablations/corruption.yaml"), f"data={tiny_pairs}"),
        *(f"storage={tmp_path}", "pretrain=quickstart", "suite=smoke,benchmarks=heldout_retrieval"),
        *("metrics=valid/t2p_r10", "resamples=100"),
    ]  # fmt: skip


def test_ablate_writes_a_report_and_remembers_it(command, tmp_path, trainings, notebook, capfd):
    assert main(command) == 0
    made = json.loads(capfd.readouterr().out.splitlines()[-1])
    place = tmp_path / "corruption"
    assert made == {"output": str(place), "verdicts": {"shared": {"better": 2}}, "run_id": "parent"}
    assert trainings.ran[:2] == ["corruption-separate-s0", "corruption-shared-s0"]
    assert len(trainings.ran) == 6
    files = {path.name: path.read_bytes() for path in place.glob("ablation*")}
    assert files.keys() == {f"ablation.{end}" for end in ("html", "md", "json", "png")}
    told = notebook.told
    assert {name: told[f"results/{name}"] for name in files} == files
    assert told["ablation/shared/bench/places/share/difference"] == pytest.approx(0.3, abs=0.05)
    assert told["ablation/separate/valid/t2p_r10/mean"] == pytest.approx(0.4 + 0.06)
    assert 0 < told["ablation/shared/valid/t2p_r10/corrected_p"] < 0.05
    assert [row["verdict"] for row in told["results/ablation_table.json"]] == ["better", "better"]
    assert "places · share" in told["mlflow.note.content"]
    assert told["reference"] == "separate"
    assert told["status"] == "FINISHED"
    assert [run["run_id"] for run in notebook.opened] == [None]


def test_ablate_reports_the_others_when_one_fails_and_repeats_only_that(
    command, tmp_path, trainings, notebook, capfd
):
    trainings.failing = {"corruption-shared-s1"}
    assert main(command) == 7
    message = capfd.readouterr().err
    assert "1 of 6 trainings failed; what succeeded is reported in" in message
    assert "- corruption-shared-s1: the loss is not finite" in message
    assert notebook.told["status"] == "FAILED"
    markdown = (tmp_path / "corruption/ablation.md").read_text()
    assert "- corruption-shared-s1 is missing: the loss is not finite" in markdown
    trainings.failing, trainings.ran = set(), []
    assert main(command) == 0
    assert trainings.ran == ["corruption-shared-s1"]
    assert "is missing" not in (tmp_path / "corruption/ablation.md").read_text()
    assert notebook.opened[-1]["run_id"] == "parent"


def test_ablate_without_any_success_says_why(command, tmp_path, trainings, notebook, capfd):
    trainings.failing = {f"corruption-{v}-s{s}" for v in SHARES for s in range(3)}
    assert main(command) == 7
    assert "6 of 6 trainings failed" in capfd.readouterr().err
    assert not (tmp_path / "corruption/ablation.md").exists()


def test_ablate_that_is_stopped_shows_what_is_there_and_goes_on(command, tmp_path, trainings, notebook):
    trainings.stop_after = 4
    assert main(command) == 75
    assert notebook.told["status"] == "KILLED"
    markdown = (tmp_path / "corruption/ablation.md").read_text()
    assert "corruption-shared-s2 is missing: not run yet" in markdown
    assert "| shared | 2 |" in markdown
    trainings.stop_after = 99
    assert main(command) == 0
    assert trainings.ran[4:] == ["corruption-separate-s2", "corruption-shared-s2"]


def test_ablate_leaves_one_that_is_running_alone(command, tmp_path, trainings, notebook, capfd):
    claim = Claim(str(tmp_path / "corruption"))
    claim.acquire()
    try:
        assert main(command) == 3
    finally:
        claim.release()
    assert "another job is writing here" in capfd.readouterr().err
    assert (trainings.ran, notebook.opened) == ([], [])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["data=nowhere"], "nowhere"),
        (["data=null", "sample=sample,source=nowhere"], "nowhere"),
        (["suite=smoke,data_root=nowhere"], "not prepared, or by other settings: made_location"),
    ],
    ids=["pairs", "strata", "benchmarks"],
)
def test_ablate_looks_for_all_data_first(command, tmp_path, trainings, notebook, capfd, given, message):
    assert main([*command, *given]) == 3
    assert message in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_ablate_draws_the_pairs_that_all_are_tested_on(command, trainings, notebook, monkeypatch):
    drawn = []
    monkeypatch.setattr("protclip.cluster.ablate.check_inputs", lambda *_: None)
    monkeypatch.setattr("protclip.cluster.study.draw_pairs", lambda config, _: drawn.append(config.output))
    assert main([*command, "data=null", "sample=sample,source=strata"]) == 0
    (pairs,) = drawn
    assert f"/corruption/pairs/{pairs.rpartition('/')[2]}" in pairs
