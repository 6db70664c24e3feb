import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from protclip.errors import BenchmarkError, DataError
from protclip.evaluation.leaks import held_out_sequences
from protclip.evaluation.prepared import SCHEMAS, PreparedManifest, save

REPO = Path(__file__).resolve().parents[3]
LABELLED = """
name: some
title: t
group: g
kind: regression
metric: spearman
citation: c
licence: l
data: {format: lmdb, target: y, files: {archive: {path: a.tar.gz}}}
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    folder = tmp_path / "conf" / "benchmarks"
    folder.mkdir(parents=True)
    (folder / "some.yaml").write_text(LABELLED)
    shutil.copy(REPO / "conf/benchmarks/heldout_retrieval.yaml", folder)
    rows = [("a", "train", "MAA", 1.0), ("b", "test", "MKV", 2.0), ("c", "test", "MCC", 3.0)]
    schema = SCHEMAS["regression"]["examples"]
    table = pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema)
    manifest = PreparedManifest(
        benchmark="some", task="regression", settings={}, sources=(), counts={"train": 1, "test": 2}
    )
    save(str(tmp_path / "data" / "some"), manifest, {"examples": table}, [])
    return folder.parent


def test_held_out_sequences_are_those_of_the_test_split(conf: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    names = ["some", "heldout_retrieval", "some"]
    assert held_out_sequences(names, str(conf.parent / "data"), conf) == {"some": ["MKV", "MCC"]}
    assert "heldout_retrieval is about held-out pairs" in caplog.text


def test_held_out_sequences_refuses_what_is_not_there(conf: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"no benchmark 'somme'.*did you mean 'some'"):
        held_out_sequences(["somme"], str(conf.parent), conf)
    with pytest.raises(DataError, match="benchmark some is not prepared here"):
        held_out_sequences(["some"], str(conf.parent / "nowhere"), conf)
