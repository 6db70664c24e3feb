import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protclip.cluster import join as module
from protclip.cluster.join import SideTable, join
from protclip.cluster.journal import Journal
from protclip.cluster.tasks import Stage
from protclip.data.families import content_ids
from protclip.errors import ConfigError, DataError, ProtclipError
from protclip.records import sampling_keys

ROWS = [(f"A{i:05d}", f"UniRef50_{i // 3}") for i in range(3000)]
CLUSTER_IDS = content_ids(pa.array([cluster for _, cluster in ROWS]))
KEYS = sampling_keys([accession for accession, _ in ROWS])


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def serially(items: Iterable, *stages: Stage) -> Iterator:
        for stage in stages:
            items = [result for item in items for result in stage.run(item)]
        return iter(items)

    monkeypatch.setattr(module, "run_stages", serially)
    monkeypatch.setattr(module, "ROWS_PER_FILE", 700)
    monkeypatch.setattr(module, "ROW_GROUP_ROWS", 50)
    monkeypatch.setattr(module, "PIECE_BYTES", 20_000)
    monkeypatch.setattr(module, "CELLS", 16)


def joined(uri: Path, kind: str = "clusters") -> SideTable:
    return join(kind, str(uri), Journal(str(uri.parent / "staging"), {}))


def lines(rows: list[tuple[str, str]], width: int = 2) -> bytes:
    if width == 2:
        return "".join(f"{a}\t{c}\n" for a, c in rows).encode()
    return "".join("\t".join([a, *["x"] * 8, c, *["y"] * 12]) + "\n" for a, c in rows).encode()


def check(table: SideTable) -> None:
    assert (table.rows, table.unreadable, table.repeated) == (3000, 0, 0)
    values, found = table.look_up(KEYS)
    assert found.all()
    assert (values == CLUSTER_IDS).all()


@pytest.mark.parametrize("name", ["c.tsv", "c.tsv.gz", "idmapping_selected.tab", "idmapping_selected.tab.gz"])
def test_join_reads_text_tables(tmp_path: Path, name: str) -> None:
    data = lines(ROWS, 22 if "selected" in name else 2)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    table = joined(tmp_path / name)
    assert len(table.files) == 5
    check(table)


def test_join_reads_a_text_without_a_last_newline_and_with_carriage_returns(tmp_path: Path) -> None:
    (tmp_path / "c.tsv").write_bytes(lines(ROWS).replace(b"\n", b"\r\n").rstrip())
    check(joined(tmp_path / "c.tsv"))


def test_join_reads_a_folder_of_parquet_files(tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    for part in range(3):
        rows = ROWS[part::3]
        columns = {"accession": [a for a, _ in rows], "cluster": [c for _, c in rows], "other": rows}
        pq.write_table(pa.table(columns), folder / f"{part}.parquet", row_group_size=400)
    check(joined(folder))


def test_join_counts_rows_that_cannot_be_read(tmp_path: Path) -> None:
    bad = b"A\tB\tC\n\tUniRef50_1\nB00001\t\nonly one\n"
    (tmp_path / "c.tsv").write_bytes(
        lines(ROWS[:1500]) + bad + b"\xff\xfe\tUniRef50_3\n" + lines(ROWS[1500:])
    )
    table = joined(tmp_path / "c.tsv")
    assert (table.rows, table.unreadable) == (3001, 4)


def test_join_takes_the_first_of_two_clusters(tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "1.tsv").write_bytes(lines([("A1", "first"), ("A2", "b")]))
    (folder / "2.tsv").write_bytes(lines([("A1", "second"), ("A3", "c"), ("A3", "d"), ("A3", "c")]))
    table = joined(folder)
    assert (table.rows, table.repeated) == (3, 3)
    values, _ = table.look_up(sampling_keys(["A1", "A2", "A3"]))
    assert values.tolist() == content_ids(pa.array(["first", "b", "c"])).tolist()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4000), max_size=40))
def test_look_up_finds_what_is_there_and_nothing_else(looked_up: SideTable, numbers: list[int]) -> None:
    keys = sampling_keys([f"A{i:05d}" for i in numbers])
    values, found = looked_up.look_up(keys)
    assert found.tolist() == [number < 3000 for number in numbers]
    assert (values[found] == [CLUSTER_IDS[number] for number in numbers if number < 3000]).all()


@pytest.fixture(scope="module")
def looked_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SideTable]:
    with pytest.MonkeyPatch.context() as patch:
        _no_ray.__wrapped__(patch)
        folder = tmp_path_factory.mktemp("table")
        (folder / "c.tsv").write_bytes(lines(ROWS))
        yield joined(folder / "c.tsv")


def test_look_up_opens_only_the_files_its_keys_touch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.tsv").write_bytes(lines(ROWS))
    table = joined(tmp_path / "c.tsv")
    opened: list[str] = []
    reading = module._row_groups
    monkeypatch.setattr(module, "_row_groups", lambda uri, *keys: opened.append(uri) or reading(uri, *keys))
    table.look_up(np.sort(KEYS)[:20])
    assert opened == [table.files[0]]


def test_join_reads_scores(tmp_path: Path) -> None:
    folder = tmp_path / "scores"
    folder.mkdir()
    scores = [0.5, -0.25, None, float("nan"), 7.0]
    columns = {
        "accession": [a for a, _ in ROWS[:5]],
        "sampling_key": KEYS[:5],
        "consistency": pa.array(scores, pa.float32()),
    }
    pq.write_table(pa.table(columns), folder / "part-0.parquet")
    with pytest.raises(DataError, match=r"scores: no manifest\.json here"):
        joined(folder, "consistency")
    (folder / "manifest.json").write_text("{}")
    table = joined(folder, "consistency")
    assert (table.rows, table.unreadable) == (2, 3)
    values, found = table.look_up(KEYS[:5])
    assert found.tolist() == [True, True, False, False, False]
    assert values[:2].tolist() == [0.5, -0.25]


def test_join_is_not_done_twice(tmp_path: Path) -> None:
    (tmp_path / "c.tsv").write_bytes(lines(ROWS))
    table = joined(tmp_path / "c.tsv")
    (tmp_path / "c.tsv").unlink()
    assert joined(tmp_path / "c.tsv") == table


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"A\tB\tC\n", r"its first line has 3 columns"),
        (b"\n\n", r"no row of it gives accession and cluster"),
        (gzip.compress(lines(ROWS))[:-2000], r"t\.tsv: damaged or cut off"),
        (b"\x1f\x8b" + b"x" * 3000, r"t\.tsv: damaged or cut off"),
        (b"PAR1 but not really", r"t\.tsv: cannot be read as Parquet"),
    ],
)
def test_join_says_what_is_wrong_with_a_table(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.tsv").write_bytes(content)
    with pytest.raises(ProtclipError, match=message):
        joined(tmp_path / "t.tsv")


def test_join_says_which_column_or_table_is_missing(tmp_path: Path) -> None:
    pq.write_table(pa.table({"accession": ["A"], "uniref": ["B"]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="no column 'cluster'; it has accession, uniref"):
        joined(tmp_path / "t.parquet")
    (tmp_path / "t.tsv").write_text("A\tB\n")
    with pytest.raises(DataError, match="not a Parquet file"):
        joined(tmp_path / "t.tsv", "consistency")
    with pytest.raises(ConfigError, match=r"clusters=.*none: nothing is there"):
        joined(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").write_text("hello")
    with pytest.raises(ConfigError, match="no table in this folder"):
        joined(tmp_path / "empty")
