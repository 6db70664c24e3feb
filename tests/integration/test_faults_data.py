"""Data sets whose files are damaged, missing or not the manifest's: the file is named, never used."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from made_strata import config, made_records, write_strata
from protclip.cluster.sample import sample
from protclip.cluster.shuffle import KeyRange, read_range, write_run
from protclip.data.dataset import PairsDataset
from protclip.data.manifest import FileEntry, PairsManifest, StrataManifest
from protclip.data.strata import read_entries
from protclip.errors import DataError
from protclip.evaluation.pairs import read_pairs
from protclip.evaluation.spec.retrieval import HeldOutPairs
from protclip.records import STRATA_SCHEMA

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

SHARDS = {"rows_per_shard": 150, "row_group_rows": 50}

Change = Callable[[dict[str, Any]], None]


def _flip_in_page(path: Path) -> None:
    column = pq.read_metadata(path).row_group(0).column(pq.read_schema(path).get_field_index("sequence"))
    start = column.dictionary_page_offset or column.data_page_offset
    _flip(path, start + column.total_compressed_size // 2)


def _flip_in_footer(path: Path) -> None:
    _flip(path, -20, b"\xff" * 8)


def _flip(path: Path, place: int, mask: bytes = b"\x10") -> None:
    raw = bytearray(path.read_bytes())
    for i, bits in enumerate(mask):
        raw[place + i] ^= bits
    path.write_bytes(raw)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _cut_last_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _half_write(path: Path) -> None:
    """What a killed writer leaves: a hidden file, and none under the name."""
    path.rename(path.with_name(f".{path.name}.partial"))


def _other_rows(path: Path) -> None:
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.slice(1), path)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "page": _flip_in_page,
    "footer": _flip_in_footer,
    "cut": _cut,
    "last byte": _cut_last_byte,
    "empty": _empty,
    "missing": Path.unlink,
    "half-written": _half_write,
    "other rows": _other_rows,
}
LIES: dict[str, Change] = {
    "rows": lambda entry: entry.update(rows=entry["rows"] + 1),
    "rows and row groups": lambda entry: entry.update(rows=entry["rows"] + 1, row_groups=[entry["rows"] + 1]),
    "row groups": lambda entry: entry.update(row_groups=[1, entry["rows"] - 1]),
    "size": lambda entry: entry.update(num_bytes=entry["num_bytes"] - 1),
    "larger size": lambda entry: entry.update(num_bytes=entry["num_bytes"] + 1),
}
ADVICE = r"(again|check the path|is this the right data set)"


@pytest.fixture(scope="module")
def local_sets(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    strata = write_strata(folder / "strata", 2, made_records(2000))
    sample(config(strata, folder / "pairs", **SHARDS))
    return folder


@pytest.fixture
def strata(local_sets: Path, tmp_path: Path) -> Path:
    return shutil.copytree(local_sets / "strata", tmp_path / "strata")


@pytest.fixture
def pairs(local_sets: Path, tmp_path: Path) -> Path:
    return shutil.copytree(local_sets / "pairs", tmp_path / "pairs")


def _lie(root: Path, find: Callable[[Any], dict[str, Any]], change: Change) -> str:
    """Changes an entry of the manifest, and says which."""
    manifest = json.loads((root / "manifest.json").read_text())
    entry = find(manifest)
    change(entry)
    (root / "manifest.json").write_text(json.dumps(manifest))
    return entry["path"]


def _largest(files: list[dict[str, Any]]) -> dict[str, Any]:
    return max(files, key=lambda entry: entry["rows"])


def _largest_part(strata: Path) -> FileEntry:
    """Of those that sampling reads."""
    files = StrataManifest.load(str(strata)).files
    return max((f for f in files if "confidence=3/coverage=4" in f.path), key=lambda file: file.rows)


def _read_strata(strata: Path) -> None:
    for file in StrataManifest.load(str(strata)).files:
        for _ in read_entries(str(strata), file, STRATA_SCHEMA.names, reviewed=True, unreviewed=True):
            pass


def _read_pairs(pairs: Path) -> None:
    dataset = PairsDataset(str(pairs), "train", seed=0)
    dataset.rows(0, 0, len(dataset))


@pytest.mark.parametrize("damage", DAMAGES)
def test_strata_reader_names_the_damaged_part(strata: Path, damage: str) -> None:
    _read_strata(strata)
    path = _largest_part(strata).path
    DAMAGES[damage](strata / path)
    with pytest.raises(DataError, match=f"^{strata / path}: .*{ADVICE}"):
        _read_strata(strata)


@pytest.mark.parametrize("lie", LIES)
def test_strata_reader_names_the_part_that_is_not_the_manifests(strata: Path, lie: str) -> None:
    path = _lie(strata, lambda manifest: _largest(manifest["files"]), LIES[lie])
    with pytest.raises(DataError, match=f"^{strata}.*{path}.*{ADVICE}"):
        _read_strata(strata)


@pytest.mark.parametrize("damage", DAMAGES)
def test_pairs_reader_names_the_damaged_shard(pairs: Path, damage: str) -> None:
    _read_pairs(pairs)
    path = PairsManifest.load(str(pairs)).splits["train"].files[1].path
    DAMAGES[damage](pairs / path)
    with pytest.raises(DataError, match=f"^{pairs / path}: .*{ADVICE}"):
        _read_pairs(pairs)


@pytest.mark.parametrize("lie", LIES)
def test_pairs_reader_names_the_shard_that_is_not_the_manifests(pairs: Path, lie: str) -> None:
    path = _lie(pairs, lambda manifest: manifest["splits"]["train"]["files"][1], LIES[lie])
    with pytest.raises(DataError, match=f"^{pairs}.*{path}.*{ADVICE}"):
        _read_pairs(pairs)


@pytest.mark.parametrize("damage", DAMAGES)
def test_benchmark_reader_names_the_damaged_shard(pairs: Path, damage: str) -> None:
    manifest = PairsManifest.load(str(pairs))
    wanted = (HeldOutPairs(format="pairs"), str(pairs), manifest.tokenizer.fingerprint)
    assert len(read_pairs(*wanted).split("test")) == manifest.splits["test"].rows
    path = manifest.splits["test"].files[0].path
    DAMAGES[damage](pairs / path)
    with pytest.raises(DataError, match=f"^{pairs / path}: .*{ADVICE}"):
        read_pairs(*wanted)


@pytest.mark.parametrize("damage", ["page", "cut", "missing"])
def test_sample_names_the_damaged_part_and_makes_nothing(strata: Path, tmp_path: Path, damage: str) -> None:
    path = _largest_part(strata).path
    DAMAGES[damage](strata / path)
    with pytest.raises(DataError, match=f"^{strata / path}: .*{ADVICE}"):
        sample(config(str(strata), tmp_path / "out", **SHARDS))
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("name", ["strata", "pairs"])
@pytest.mark.parametrize("content", ["", "{", "[]", '{"kind": "strata"}'])
def test_manifest_that_is_none_is_named(request: pytest.FixtureRequest, name: str, content: str) -> None:
    folder: Path = request.getfixturevalue(name)
    (folder / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=f"^{folder}/manifest.json: not "):
        (_read_strata if name == "strata" else _read_pairs)(folder)


@pytest.mark.parametrize("damage", [_cut, _cut_last_byte, _empty, Path.unlink])
def test_intermediate_file_that_is_damaged_is_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    run = tmp_path / "run.arrow"
    table = pa.table({"key": pa.array(range(1000), pa.uint64())})
    write_run(str(run), table, "key", 4)
    damage(run)
    with pytest.raises(
        DataError, match=f"^{run}: this intermediate file cannot be read: .*remove the folder"
    ):
        read_range([str(run)], KeyRange(0, 0, 2**64), "key", table.schema)
