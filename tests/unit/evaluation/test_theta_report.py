import gzip
import json
import re
from pathlib import Path

import pytest

from protclip import checkpoint
from protclip.config.load import load_config
from protclip.config.report import ThetaReportConfig
from protclip.data.synthetic import write_sample
from protclip.errors import CheckpointError, ConfigError, DataError
from protclip.evaluation import theta_report as job
from protclip.evaluation.theta_report import theta_report
from protclip.records import PROPERTIES


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_sample(str(tmp_path_factory.mktemp("raw")), 160, 3, seed=0)["reviewed"]


def config(tiny_checkpoint: Path, entries: str, output: Path, **changes: object) -> ThetaReportConfig:
    values = dict(
        checkpoint=str(tiny_checkpoint), entries=entries, output=str(output), thetas=(0.0, 0.5), pool=8,
        min_family=4, max_families=3, resamples=200,
    )  # fmt: skip
    return ThetaReportConfig.model_validate(values | changes)


def test_theta_report_writes_page_tables_numbers_and_picture(
    tiny_checkpoint: Path, entries: str, tmp_path: Path
) -> None:
    result = theta_report(config(tiny_checkpoint, entries, tmp_path, limit=150))
    assert result["proteins"] == 150
    assert result["families"] == 3
    assert set(result["best"]) == set(PROPERTIES)
    numbers = json.loads((tmp_path / "theta.json").read_text())
    assert numbers["thetas"] == [0.0, 0.3, 0.5]
    for prop in PROPERTIES:
        found = numbers["properties"][prop]
        share = found["alignment"]["share"]
        assert share["mean"][0] == 1
        assert share["mean"] == sorted(share["mean"], reverse=True)
        assert found["sites"]["any site"]["recall"]["mean"][0] == 1
        assert len(found["families"]) == 3
        assert found["best_theta"]["theta"] in numbers["thetas"]
    text, page = (tmp_path / "theta.md").read_text(), (tmp_path / "theta.html").read_text()
    for sentence in numbers["conclusions"]:
        assert f"- {sentence}\n" in text
    assert "| 0.3 (training) |" in text
    assert "others, or none named" in text
    assert "<svg" in page
    assert re.search(r"Subcellular location: \d+ proteins", page)
    assert (tmp_path / "theta.png").read_bytes().startswith(b"\x89PNG")


def test_theta_report_takes_entries_without_sites_and_families(
    tiny_checkpoint: Path, entries: str, tmp_path: Path
) -> None:
    lines = gzip.decompress(Path(entries).read_bytes()).decode().splitlines(keepends=True)
    (tmp_path / "bare.dat").write_text("".join(line for line in lines if not line.startswith("FT")))
    bare = config(tiny_checkpoint, str(tmp_path / "bare.dat"), tmp_path / "out", min_family=50)
    theta_report(bare)
    numbers = json.loads((tmp_path / "out" / "theta.json").read_text())
    assert numbers["properties"]["function"]["sites"] == {}
    assert any("nothing is said of families" in sentence for sentence in numbers["conclusions"])
    with pytest.raises(DataError, match=r"bare\.dat: no property has an annotated site \(FT lines\)"):
        theta_report(bare.model_copy(update={"criterion": "enrichment"}))


def test_theta_report_refuses_a_checkpoint_without_pda(
    tiny_checkpoint: Path, entries: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = checkpoint.load(str(tiny_checkpoint))
    pda = loaded.config.loss.pda.model_copy(update={"weight": 0.0})
    loss = loaded.config.loss.model_copy(update={"pda": pda})
    object.__setattr__(loaded, "config", loaded.config.model_copy(update={"loss": loss}))
    monkeypatch.setattr(job.checkpoint, "load", lambda _: loaded)
    with pytest.raises(CheckpointError, match=r"trained without PDA \(loss\.pda\.weight=0\)"):
        theta_report(config(tiny_checkpoint, entries, tmp_path))


def test_theta_report_asks_for_evidence_when_the_pairs_are_gone(
    tiny_checkpoint: Path, entries: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = checkpoint.load(str(tiny_checkpoint))
    gone = loaded.config.model_copy(update={"data": str(tmp_path / "gone")})
    object.__setattr__(loaded, "config", gone)
    monkeypatch.setattr(job.checkpoint, "load", lambda _: loaded)
    with pytest.raises(DataError, match="give evidence=strip or evidence=keep"):
        theta_report(config(tiny_checkpoint, entries, tmp_path))


def test_theta_report_needs_two_thetas_to_compare() -> None:
    with pytest.raises(ConfigError, match="thetas needs two different thresholds"):
        load_config(ThetaReportConfig, None, ["checkpoint=c", "entries=e", "output=o", "thetas=0.3,0.3"])
