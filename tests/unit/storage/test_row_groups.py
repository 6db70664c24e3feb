import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from faulty_s3 import INTERNAL_ERROR, SLOW_DOWN, Fault, FaultyS3, cut, drop, short, wait
from protclip import storage
from protclip.errors import DataError
from protclip.storage import RowGroups, StoredFile, filesystems, parquet

ROWS, GROUP = 100, 30
GROUPS = (30, 30, 30, 10)
TABLE = pa.table(
    {
        "name": [f"name {i}" for i in range(ROWS)],
        "text": [f"text {i**5}" * (i % 4) for i in range(ROWS)],
        "ids": pa.array([list(range(i % 5)) for i in range(ROWS)], pa.large_list(pa.uint16())),
        "n": range(ROWS),
    }
)


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else request.getfixturevalue("bucket")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, faults: FaultyS3) -> FaultyS3:
    """The server, and a client that gives up soon."""

    def client(_: str) -> object:
        made = filesystems._s3_client(faults.endpoint, connect_timeout=2, read_timeout=0.5, max_attempts=2)
        made.retries = 2
        return made

    monkeypatch.setattr(filesystems, "_s3", client)
    return faults


def write(root: str) -> StoredFile:
    return storage.write_parquet(storage.join(root, "x.parquet"), TABLE, GROUP)


def opened(stored: StoredFile) -> RowGroups:
    return RowGroups(stored.uri, stored.num_bytes, GROUPS)


def test_row_groups_give_the_columns_asked_for(root: str) -> None:
    file = opened(write(root))
    for columns in (TABLE.column_names, ["ids"], ["text", "n"]):
        tables = [file.read(index, columns) for index in (2, 0, 3, 1)]
        assert [len(t) for t in tables] == [30, 30, 10, 30]
        whole = pa.concat_tables([tables[1], tables[3], tables[0], tables[2]])
        assert whole.combine_chunks().equals(TABLE.select(columns))


def test_row_groups_take_one_request_each_and_one_for_the_footer(bucket: str, faults: FaultyS3) -> None:
    file = opened(write(bucket))
    faults.seen.clear()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: file.read(i % 4, ["text", "n"]), range(12)))
    assert len(faults.seen) == 13
    assert all(re.match(r"GET \S+/x\.parquet", line) for line in faults.seen)


def test_row_groups_ask_only_for_the_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = write(str(tmp_path))
    asked: list[tuple[int, int]] = []

    def read_range(uri: str, start: int, stop: int) -> bytes:
        asked.append((start, stop))
        return storage.read_range(uri, start, stop)

    monkeypatch.setattr(parquet, "read_range", read_range)
    opened(stored).read(1, ["text", "ids"])
    chunks = [pq.read_metadata(stored.uri).row_group(1).column(i) for i in (1, 2)]
    size = sum(chunk.total_compressed_size for chunk in chunks)
    (_, footer_stop), (start, stop) = asked
    assert footer_stop == stored.num_bytes
    assert stop - start == size


def test_row_groups_read_a_footer_larger_than_expected(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "FOOTER_BYTES", 100)
    monkeypatch.setattr(parquet, "FOOTER_BYTES_PER_ROW_GROUP", 0)
    assert opened(write(root)).read(3, ["n"])["n"].to_pylist() == list(range(90, 100))


def test_row_groups_damage_never_changes_what_is_read(tmp_path: Path) -> None:
    stored = write(str(tmp_path))
    path = Path(stored.uri)
    whole = path.read_bytes()
    end_of_data = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    noticed = 0
    for place in [*range(4, end_of_data, 5), *range(len(whole) - 8, len(whole))]:
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        try:
            assert opened(stored).read(1, TABLE.column_names).equals(TABLE.slice(30, 30))
        except DataError as error:
            assert "x.parquet: " in str(error)  # noqa: PT017
            noticed += 1
    # The other row groups are not read, and some bytes of page headers say nothing about the data.
    assert noticed > 0.5 * 30 / ROWS * end_of_data / 5


def test_row_groups_name_a_file_that_is_missing_cut_or_another(root: str) -> None:
    stored = write(root)
    with pytest.raises(DataError, match=r"x\.parquet: 100 rows in 4 row groups, the manifest says 90 in 3"):
        RowGroups(stored.uri, stored.num_bytes, GROUPS[:3]).read(0, ["n"])
    with pytest.raises(DataError, match=r"x\.parquet: cannot be read as Parquet"):
        RowGroups(stored.uri, stored.num_bytes - 50, GROUPS).read(0, ["n"])
    with pytest.raises(DataError, match=r"x\.parquet: .* bytes came where"):
        RowGroups(stored.uri, stored.num_bytes + 50, GROUPS).read(0, ["n"])
    known = opened(stored)
    known.read(0, ["n"])
    storage.write_bytes(stored.uri, storage.read_bytes(stored.uri)[:200])
    with pytest.raises(DataError, match=r"x\.parquet: "):
        known.read(3, ["n"])
    storage.remove(stored.uri)
    with pytest.raises(DataError, match=r"x\.parquet: no such file"):
        known.read(0, ["n"])


@pytest.mark.parametrize("fault", [INTERNAL_ERROR, SLOW_DOWN, drop, cut, wait(0.8)])
def test_row_groups_outlive_a_passing_failure(bucket: str, impatient: FaultyS3, fault: Fault) -> None:
    file = opened(write(bucket))
    rule = impatient.fail(r"GET .*x\.parquet", fault, times=1)
    assert file.read(0, ["n"])["n"].to_pylist() == list(range(30))
    assert rule.done == 1


@pytest.mark.parametrize("fault", [INTERNAL_ERROR, SLOW_DOWN, cut, wait(0.8), short])
def test_row_groups_give_up_with_the_name_of_the_file(bucket: str, impatient: FaultyS3, fault: Fault) -> None:
    file = opened(write(bucket))
    file.read(0, ["n"])
    impatient.fail(r"GET .*x\.parquet", fault)
    with pytest.raises(DataError, match=rf"{bucket}/x\.parquet: "):
        file.read(1, ["n"])
