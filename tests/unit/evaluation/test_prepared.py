from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from protclip.errors import DataError
from protclip.evaluation.prepared import SCHEMAS, PreparedManifest, Source, load, save
from protclip.evaluation.raw.base import Odd

ROWS = {
    "proteins": [("p", "MKV"), ("q", "MK")],
    "pairs": [("p", "q", ["binding", "reaction"])],
    "nodes": [("1", "protein", "n", None, "MKV", [0.5, 1.5]), ("2", "drug", "n", "text", None, None)],
    "edges": [("1", "targets", "2")],
}


def tables(kind: str) -> dict[str, pa.Table]:
    return {
        name: pa.Table.from_pylist([dict(zip(schema.names, r, strict=True)) for r in ROWS[name]], schema)
        for name, schema in SCHEMAS[kind].items()
    }


def manifest(kind: str = "ppi", **keys: object) -> PreparedManifest:
    values = {"benchmark": "some", "task": kind, "settings": {}, "sources": [], "counts": {"pairs": 1}}
    return PreparedManifest.model_validate({**values, **keys})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save(str(tmp_path / "some"), manifest(labels=["reaction", "binding"]), tables("ppi"), [])
    return tmp_path


@pytest.mark.parametrize("kind", ["ppi", "transformation"])
def test_load_gives_back_what_save_wrote(tmp_path: Path, kind: str) -> None:
    odd = [Odd("x", "no sequence"), Odd("y", "leak", "z", kept=True)]
    made = save(str(tmp_path / "some"), manifest(kind, labels=["b", "a"]), tables(kind), odd)
    found = load(str(tmp_path), "some")
    assert found.tables == tables(kind)
    assert found.labels == ("b", "a")
    assert {f.path for f in made.files} == {f"{n}.parquet" for n in (*SCHEMAS[kind], "odd")}
    assert PreparedManifest.load(str(tmp_path / "some")) == made
    assert pq.read_table(tmp_path / "some/odd.parquet").to_pylist()[1] == {
        **{"id": "y", "reason": "leak", "detail": "z", "kept": True}
    }


def test_save_gives_the_same_digest_for_the_same_data(root: Path) -> None:
    before = load(str(root), "some").digest
    save(str(root / "some"), manifest(labels=["reaction", "binding"]), tables("ppi"), [])
    assert load(str(root), "some").digest == before
    save(str(root / "some"), manifest(labels=["binding", "reaction"]), tables("ppi"), [])
    assert load(str(root), "some").digest != before


def test_save_that_fails_leaves_no_manifest(root: Path) -> None:
    (root / "some/pairs.parquet").unlink()
    (root / "some/pairs.parquet").mkdir()
    with pytest.raises(DataError, match=r"pairs\.parquet"):
        save(str(root / "some"), manifest(), tables("ppi"), [])
    with pytest.raises(DataError, match="not prepared"):
        load(str(root), "some")


def test_load_says_how_to_prepare_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not prepared.*prepare-benchmarks benchmarks=some"):
        load(str(tmp_path), "some")


def test_load_refuses_changed_missing_and_foreign_files(root: Path) -> None:
    path = root / "some/pairs.parquet"
    good = path.read_bytes()
    path.write_bytes(good[:-20] + b"?" * 20)
    with pytest.raises(DataError, match=r"pairs\.parquet: not the file that its manifest describes"):
        load(str(root), "some")
    path.unlink()
    with pytest.raises(DataError, match=r"pairs\.parquet: no such file"):
        load(str(root), "some")
    path.write_bytes(good)
    (root / "some").rename(root / "other")
    with pytest.raises(DataError, match="holds some, a benchmark of kind ppi; run"):
        load(str(root), "other")


def test_load_refuses_tables_of_another_version(root: Path) -> None:
    old = {**tables("ppi"), "pairs": tables("ppi")["pairs"].drop_columns("labels")}
    save(str(root / "some"), manifest(), old, [])
    with pytest.raises(DataError, match=r"pairs\.parquet: its columns are not those of this version"):
        load(str(root), "some")
    save(str(root / "some"), manifest(), {"pairs": old["pairs"]}, [])
    with pytest.raises(DataError, match="has no table proteins"):
        load(str(root), "some")


def test_notes_say_what_a_reader_must_know(tmp_path: Path) -> None:
    source = Source(path="a.zip", url=None, num_bytes=1, sha256="0" * 64, as_published=False)
    made = manifest(
        sources=[source, source.model_copy(update={"path": "b.zip", "as_published": None})],
        expected={"pairs": 1234},
        odd={"no sequence": 1000},
        kept={"a test sequence that is in train, too": 2},
    )
    save(str(tmp_path / "some"), made, tables("ppi"), [])
    assert load(str(tmp_path), "some").notes == (
        "a.zip is not the published file: its size or checksum differs",
        "pairs: 1, published 1,234",
        "1,000 left out: no sequence",
        "2 kept: a test sequence that is in train, too",
    )


def test_split_gives_the_examples_of_a_split(tmp_path: Path) -> None:
    splits = ["test", "train", "test"]
    examples = pa.table({"id": list("abc"), "split": splits, "sequence": ["M"] * 3, "value": [1.0, 2, 3]})
    save(str(tmp_path / "some"), manifest("regression"), {"examples": examples}, [])
    found = load(str(tmp_path), "some")
    assert found.split("test")["id"].to_pylist() == ["a", "c"]
    assert found.split("valid").num_rows == 0
