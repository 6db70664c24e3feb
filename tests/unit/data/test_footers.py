from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from protclip import storage
from protclip.data import footers
from protclip.data.footers import add_footers, read_footers
from protclip.data.manifest import FileEntry
from protclip.errors import DataError

SCHEMA = pa.schema(
    [
        ("length", pa.int32()),
        ("function", pa.large_string()),
        ("annotation_date", pa.date32()),
        ("tokens", pa.large_list(pa.uint16())),
    ]
)


def write(root: str, path: str, lengths: list[int], row_group_rows: int = 4) -> FileEntry:
    columns = {
        "length": lengths,
        "function": ["text" if n % 2 else None for n in lengths],
        "annotation_date": [date(2000 + n, 1, 1) if n < 20 else None for n in lengths],
        "tokens": [[1] * (n % 3) for n in lengths],
    }
    table = pa.table(columns, schema=SCHEMA)
    stored = storage.write_parquet(storage.join(root, path), table, row_group_rows)
    return FileEntry.of(path, stored, len(lengths), row_group_rows)


def three(root: str) -> list[FileEntry]:
    return [
        write(root, "a/1.parquet", list(range(3, 13))),
        write(root, "a/2.parquet", [30, 31]),
        write(root, "b/1.parquet", list(range(100, 109))),
    ]


def test_read_footers_adds_up_to_what_the_rows_say(tmp_path: Path) -> None:
    files = three(str(tmp_path))
    lengths = [*range(3, 13), 30, 31, *range(100, 109)]
    each = read_footers(str(tmp_path), files)
    assert [f.rows for f in each] == [10, 2, 9]
    found = add_footers(each)
    assert (found.files, found.rows, found.row_groups) == (3, 21, 3 + 1 + 3)
    assert found.num_bytes == sum(f.stat().st_size for f in tmp_path.rglob("*.parquet"))
    assert found.ranges == {"length": (3, 108), "annotation_date": (date(2003, 1, 1), date(2012, 1, 1))}
    assert found.values["function"] == sum(n % 2 for n in lengths)
    assert found.values["annotation_date"] == 10
    assert found.values["tokens"] == sum(n % 3 for n in lengths)
    assert set(found.column_bytes) == set(SCHEMA.names)
    assert 0 < found.column_bytes.total() < found.num_bytes


def test_add_footers_of_none_is_empty() -> None:
    assert add_footers([]) == footers.Footers()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "there is no such file"),
        ("truncated", r"bytes, the manifest says \d"),
        ("rows", r"9 rows in 3 row groups, the manifest says 10 in 3"),
        ("groups", r"10 rows in 2 row groups, the manifest says 10 in 3"),
        ("sizes", r"10 rows in 3 row groups, the manifest says 10 in 3 of other sizes"),
        ("flipped", "cannot be read as Parquet"),
    ],
)
def test_read_footers_names_the_file_that_disagrees(tmp_path: Path, damage: str, message: str) -> None:
    files = three(str(tmp_path))
    path = tmp_path / "a/1.parquet"
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-30])
    elif damage == "rows":
        write(str(tmp_path), "a/1.parquet", list(range(9)))
    elif damage == "groups":
        write(str(tmp_path), "a/1.parquet", list(range(10)), row_group_rows=5)
    elif damage == "sizes":
        files[0] = files[0].model_copy(update={"row_groups": (2, 4, 4)})
    else:
        raw = path.read_bytes()
        path.write_bytes(raw[:-60] + bytes(40) + raw[-20:])
    if damage in {"rows", "groups"}:
        files[0] = files[0].model_copy(update={"num_bytes": path.stat().st_size})
    with pytest.raises(DataError, match=message) as caught:
        read_footers(str(tmp_path), files)
    text = str(caught.value)
    assert f"{tmp_path}: 1 of 3 files are not what the manifest says" in text
    assert f"{path}: " in text
    assert "2.parquet" not in text


def test_read_footers_names_a_file_of_other_bytes(tmp_path: Path) -> None:
    files = three(str(tmp_path))
    write(str(tmp_path), "a/2.parquet", [7, 8000])
    files[1] = files[1].model_copy(update={"num_bytes": files[1].num_bytes + 1})
    with pytest.raises(DataError, match=r"a/2\.parquet: [\d,]+ bytes, the manifest says [\d,]+;"):
        read_footers(str(tmp_path), files)


def test_read_footers_names_some_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footers, "NAMED_PROBLEMS", 2)
    files = three(str(tmp_path))
    for file in files:
        (tmp_path / file.path).unlink()
    (tmp_path / "other").write_text("")
    with pytest.raises(DataError) as caught:
        read_footers(str(tmp_path), files)
    assert str(caught.value).splitlines()[1:] == [
        f"{tmp_path}/a/1.parquet: there is no such file",
        f"{tmp_path}/a/2.parquet: there is no such file",
        "… and 1 more",
    ]
