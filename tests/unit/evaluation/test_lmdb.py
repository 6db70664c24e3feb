import io
import json
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from made_raw import write_lmdb_archive
from protclip.errors import BenchmarkError
from protclip.evaluation.raw.base import RawTables
from protclip.evaluation.raw.lmdb import LmdbSection, read


def section(**keys: Any) -> LmdbSection:
    return LmdbSection.model_validate({"format": "lmdb", "files": {"archive": {"path": "a"}}, **keys})


def records(field: str, *targets: object) -> list[dict[str, object]]:
    return [{"primary": f"MKV{'A' * i}", field: t, "protein_length": 3 + i} for i, t in enumerate(targets)]


def rows(raw: RawTables) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in raw.tables["examples"].to_pylist()]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "task.tar.gz"


def test_read_gives_numbers_of_all_splits_in_order(archive: Path) -> None:
    train = records("score", 1, np.float32(2.5), np.array([3.25]), np.array(4, dtype=np.int64), float("nan"))
    write_lmdb_archive(archive, "task", {"test": records("score", [0.5]), "train": train})
    found = read(section(target="score"), {"archive": archive})
    assert found.labels == ()
    assert rows(found)[:4] == [
        ("train 0", "train", "MKV", 1.0),
        ("train 1", "train", "MKVA", 2.5),
        ("train 2", "train", "MKVAA", 3.25),
        ("train 3", "train", "MKVAAA", 4.0),
    ]
    assert np.isnan(found.tables["examples"]["value"][4].as_py())
    assert rows(found)[5:] == [("test 0", "test", "MKV", 0.5)]


def test_read_names_classes_and_keeps_the_number_of_one_that_has_none(archive: Path) -> None:
    write_lmdb_archive(archive, "loc", {"train": records("loc", 1, np.array([0]), 7, -1)})
    found = read(section(target="loc", classes=["membrane", "soluble"]), {"archive": archive})
    assert found.labels == ("membrane", "soluble")
    assert found.tables["examples"]["label"].to_pylist() == ["soluble", "membrane", "7", "-1"]
    numbered = read(section(target="loc", classes=12), {"archive": archive})
    assert numbered.labels == tuple(map(str, range(12)))
    assert numbered.tables["examples"]["label"].to_pylist() == ["1", "0", "7", "-1"]


def test_read_takes_records_in_numeric_order(archive: Path) -> None:
    # LMDB sorts keys as text: 0, 1, 10, 11, 2 …
    write_lmdb_archive(archive, "task", {"train": records("y", *range(12))})
    values = read(section(target="y"), {"archive": archive}).tables["examples"]["value"].to_pylist()
    assert values == list(range(12))


def test_read_takes_the_json_that_tape_publishes(archive: Path) -> None:
    with tarfile.open(archive, "w:gz") as tar:
        for split in ("train", "test"):
            content = json.dumps(records("log_fluorescence", [3.5], [float("nan")])).encode()
            info = tarfile.TarInfo(f"fluorescence/fluorescence_{split}.json")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    found = read(section(target="log_fluorescence"), {"archive": archive})
    assert rows(found)[0] == ("train 0", "train", "MKV", 3.5)
    assert found.tables["examples"]["split"].to_pylist() == ["train"] * 2 + ["test"] * 2


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"primary": "MKV"}, r"record 0 has no 'y'; it has primary\. Check data\.target"),
        ({"primary": 3, "y": 1}, "no dictionary with a text 'primary'"),
        ({"primary": "MKV", "y": [1, 2]}, "y of record 0 is no number"),
        ({"primary": "MKV", "y": "nucleus"}, "y of record 0 is no number"),
        ({"primary": "MKV", "y": Evil()}, r"train, record 0: the pickle asks for .*system"),
    ],
)
def test_read_names_a_record_that_is_none(archive: Path, record: dict[str, object], message: str) -> None:
    write_lmdb_archive(archive, "task", {"train": [record]})
    with pytest.raises(BenchmarkError, match=message):
        read(section(target="y"), {"archive": archive})


def test_read_refuses_a_class_that_is_no_whole_number(archive: Path) -> None:
    for value in (0.5, float("nan")):
        write_lmdb_archive(archive, "task", {"train": records("y", value)})
        with pytest.raises(BenchmarkError, match="y of record 0 is no class"):
            read(section(target="y", classes=2), {"archive": archive})


def test_read_names_a_role_that_is_none(archive: Path) -> None:
    with pytest.raises(BenchmarkError, match="reads the role 'archive', not train"):
        read(section(target="y"), {"train": archive})


def pack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / "data.mdb", "task/task_train.lmdb/data.mdb")


@pytest.mark.parametrize("damage", ["count", "record", "number", "cut", "noise"])
def test_read_names_a_database_that_is_not_whole(tmp_path: Path, archive: Path, damage: str) -> None:
    folder = tmp_path / "made"
    with lmdb.open(str(folder), map_size=2**24) as env, env.begin(write=True) as transaction:
        for index in range(200):
            transaction.put(str(index).encode(), pickle.dumps({"primary": "MKV" * 100, "y": index}))
        if damage != "count":
            count = {"record": 201, "number": "many"}.get(damage, 200)
            transaction.put(b"num_examples", pickle.dumps(count))
    database = folder / "data.mdb"
    if damage == "cut":
        database.write_bytes(database.read_bytes()[: database.stat().st_size // 2])
    if damage == "noise":
        database.write_bytes(np.random.default_rng(0).bytes(2**14))
    pack(archive, folder)
    message = {
        "count": "has no key 'num_examples'",
        "record": "has no key '200'",
        "number": "num_examples is 'many'",
        "cut": r"data\.mdb is cut off",
        "noise": "no LMDB",
    }[damage]
    with pytest.raises(BenchmarkError, match=message):
        read(section(target="y"), {"archive": archive})


def test_read_refuses_a_split_that_comes_twice(archive: Path, tmp_path: Path) -> None:
    write_lmdb_archive(archive, "a", {"train": records("y", 1)})
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "a", filter="data")
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("a", "b"):
            tar.add(tmp_path / "a/a/a_train.lmdb/data.mdb", f"{name}/{name}_train.lmdb/data.mdb")
    with pytest.raises(BenchmarkError, match="holds train twice"):
        read(section(target="y"), {"archive": archive})
