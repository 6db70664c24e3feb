"""Official files of benchmarks to tables, on Ray, from a web server and from object storage."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from flaky_http import FlakyServer
from made_raw import write_lmdb_archive
from protclip import storage
from protclip.cli import run_job
from protclip.cluster.prepare_benchmarks import prepare_benchmarks
from protclip.config.benchmarks import PrepareBenchmarksConfig
from protclip.errors import BenchmarkError
from protclip.evaluation.prepared import PreparedManifest, load
from protclip.evaluation.raw import lmdb
from protclip.evaluation.raw.base import Format, RawTables
from protclip.evaluation.raw.lmdb import LmdbSection
from protclip.evaluation.registry import FORMATS

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

SPEC = """
name: {name}
title: t
group: g
kind: regression
metric: spearman
citation: Someone 2020.
licence: l
data:
  format: lmdb
  target: score
  files: {{archive: {{path: {name}/{name}.tar.gz, url: {url}}}}}
  expected: {{train: {train}}}
"""
PAIRS = "name: held\ntitle: t\ngroup: g\nkind: retrieval\nmetric: t2p_r10\ncitation: c\nlicence: l\n"


class Made:
    """A folder of benchmarks' files, and a server that has two of their archives."""

    def __init__(self, root: Path, server: FlakyServer) -> None:
        self.conf, self.server = root / "conf", server
        (self.conf / "benchmarks").mkdir(parents=True)
        for name in ("good", "other"):
            self.spec(name, url=f"{server.url}/{name}.tar.gz")
            self.publish(name, root, [0.5, 1.5, 2.5, float("nan")])

    def spec(self, name: str, url: str = "null", train: int = 3) -> None:
        """Writes a benchmark's file."""
        text = SPEC.format(name=name, url=url, train=train)
        (self.conf / "benchmarks" / f"{name}.yaml").write_text(text)

    def publish(self, name: str, root: Path, scores: list[float]) -> None:
        """Puts its archive on the server."""
        train = [{"primary": f"MKV{'A' * i}", "score": score} for i, score in enumerate(scores)]
        test = [{"primary": "MKV", "score": 1.0}, {"primary": "MCC", "score": 2.0}]
        write_lmdb_archive(root / "made.tar.gz", name, {"train": train, "test": test})
        self.server.files[f"/{name}.tar.gz"] = (root / "made.tar.gz").read_bytes()

    def prepare(self, root: str, *benchmarks: str, **keys: Any) -> dict[str, Any]:
        """Runs the job."""
        places = {"raw": storage.join(root, "raw"), "output": storage.join(root, "tables")}
        config = PrepareBenchmarksConfig.model_validate({"benchmarks": benchmarks, **places, **keys})
        return prepare_benchmarks(config, conf_dir=self.conf)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    with FlakyServer().running() as server:
        yield Made(tmp_path / "made", server)


def test_prepare_benchmarks_fetches_reads_checks_and_keeps(
    made: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, tables = str(tmp_path), str(tmp_path / "tables")
    (made.conf / "benchmarks/held.yaml").write_text(PAIRS + "data: {format: pairs}\n")
    caplog.set_level("INFO")
    done = made.prepare(root, "good", "held", "other", "good")
    counts = {"train": 3, "test": 2}
    assert done == {"output": tables, "prepared": {"good": counts, "other": counts}, "kept": []}
    assert "held is about held-out pairs" in caplog.text
    found = load(tables, "good")
    assert found.split("train")["value"].to_pylist() == [0.5, 1.5, 2.5]
    assert found.notes == (
        "1 left out: value is no finite number",
        "1 kept: a test sequence that is in train, too",
    )
    assert f"good: {found.notes[0]}" in caplog.text

    # Again: nothing is fetched, read or written.
    digests = {name: load(tables, name).digest for name in ("good", "other")}
    asked = made.server.ranges.copy()
    assert made.prepare(root, "good", "other")["kept"] == ["good", "other"]
    # What was made stays when the official files are gone, as long as the settings are the same.
    (tmp_path / "raw/good/good.tar.gz").unlink()
    assert made.prepare(root, "good", "other")["kept"] == ["good", "other"]
    assert made.server.ranges == asked
    assert {name: load(tables, name).digest for name in digests} == digests

    # Other settings, other files, or the wish for it: prepared again.
    made.spec("good", url=f"{made.server.url}/good.tar.gz", train=5161)
    assert made.prepare(root, "good", "other")["kept"] == ["other"]
    assert load(tables, "good").notes[0] == "train: 3, published 5,161"
    assert "good: train is 3, published 5161" in caplog.text
    made.publish("other", tmp_path, [0.5, 1.5])
    (tmp_path / "raw/other/other.tar.gz").write_bytes(made.server.files["/other.tar.gz"])
    done = made.prepare(root, "good", "other")
    assert (done["kept"], done["prepared"]["other"]) == (["good"], {"train": 2, "test": 2})
    assert made.prepare(root, "good", overwrite=True)["kept"] == []


def test_prepare_benchmarks_that_fail_do_not_stop_the_others(made: Made, tmp_path: Path) -> None:
    root = str(tmp_path)
    made.spec("absent")
    made.spec("broken", url=f"{made.server.url}/broken.tar.gz")
    made.server.files["/broken.tar.gz"] = b"no archive at all"
    made.publish("other", tmp_path, [1.0, 1.0])
    with pytest.raises(BenchmarkError) as caught:
        made.prepare(root, "absent", "broken", "other", "good")
    message = str(caught.value)
    assert message.startswith("3 of 4 benchmarks could not be prepared:\nabsent: ")
    assert "no program can fetch it. Source: Someone 2020." in message
    assert "broken.tar.gz: not an archive that can be read" in message
    assert "\nother: all 2 examples of split train have the value 1.0" in message
    assert load(f"{root}/tables", "good").split("test").num_rows == 2
    assert not storage.exists(f"{root}/tables/other/manifest.json")


def test_prepare_benchmarks_outlive_a_reader_that_fails(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def read(section: LmdbSection, files: Mapping[str, Path]) -> RawTables:
        if "other" in section.files["archive"].path:
            raise KeyError("a bug")
        return lmdb.read(section, files)

    monkeypatch.setitem(FORMATS, "lmdb", Format(LmdbSection, read, ("regression",)))
    message = r"1 of 2 benchmarks could not be prepared:\nother: its reader failed \(KeyError\)"
    with pytest.raises(BenchmarkError, match=message):
        made.prepare(str(tmp_path), "other", "good")
    assert "a bug" in caplog.text
    assert load(f"{tmp_path}/tables", "good").split("test").num_rows == 2


def test_prepare_benchmarks_checks_all_files_of_benchmarks_first(made: Made, tmp_path: Path) -> None:
    (made.conf / "benchmarks/wrong.yaml").write_text("name: wrong\nkind: regression\ndata: {format: lmbd}\n")
    with pytest.raises(BenchmarkError, match=r"data\.format 'lmbd' is none that kind regression can use"):
        made.prepare(str(tmp_path), "good", "wrong")
    assert not (tmp_path / "raw").exists()


def test_prepare_benchmarks_from_and_to_object_storage(made: Made, bucket: str) -> None:
    made.prepare(bucket, "good")
    assert storage.exists(f"{bucket}/raw/good/good.tar.gz")
    manifest = PreparedManifest.load(f"{bucket}/tables/good")
    assert (manifest.counts, manifest.odd) == ({"train": 3, "test": 2}, {"value is no finite number": 1})
    assert load(f"{bucket}/tables", "good").split("test")["sequence"].to_pylist() == ["MKV", "MCC"]
    assert made.prepare(bucket, "good")["kept"] == ["good"]


def test_prepare_benchmarks_command(
    made: Made, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made.conf.parent)
    places = [f"raw={tmp_path}/raw", f"output={tmp_path}/tables"]
    assert run_job("prepare-benchmarks", ["benchmarks=good", *places]) == 0
    last = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert last["prepared"] == {"good": {"train": 3, "test": 2}}
    assert run_job("prepare-benchmarks", ["benchmarks=god", *places]) == 5
    assert "did you mean 'good'?" in capfd.readouterr().err
