from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protclip.cluster import shuffle
from protclip.errors import DataError

SCHEMA = pa.schema([("key", pa.uint64()), ("text", pa.string())])
EXTREMES = [0, 1, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1]
KEYS = st.lists(st.one_of(st.sampled_from(EXTREMES), st.integers(0, 2**64 - 1)), max_size=30)


def run_of(keys: list[int]) -> pa.Table:
    return pa.table({"key": keys, "text": [f"row {key}" for key in keys]}, schema=SCHEMA)


@given(st.integers(1, 3000))
def test_key_ranges_cover_the_key_space(count: int) -> None:
    ranges = shuffle.key_ranges(count)
    assert len(ranges) == count
    assert ranges[0].start == 0
    assert ranges[-1].stop == 2**64
    assert all(a.stop == b.start for a, b in pairwise(ranges))
    assert max(r.stop - r.start for r in ranges) - min(r.stop - r.start for r in ranges) <= 1


@pytest.mark.parametrize(("rows", "count"), [(0, 1), (1, 1), (10, 1), (11, 2), (20, 2), (21, 3)])
def test_ranges_for_depends_on_the_rows(rows: int, count: int) -> None:
    assert len(shuffle.ranges_for(rows, 10)) == count


@settings(max_examples=60, deadline=None)
@given(runs=st.lists(KEYS, max_size=3), cells=st.integers(1, 20), count=st.integers(1, 7))
def test_ranges_give_back_every_row_once_whatever_the_cells(
    tmp_path_factory, runs: list[list[int]], cells: int, count: int
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    uris = [str(folder / f"{i}.arrow") for i in range(len(runs))]
    for uri, keys in zip(uris, runs, strict=True):
        shuffle.write_run(uri, run_of(keys), "key", cells)
    found: list[int] = []
    for keys in shuffle.key_ranges(count):
        table = shuffle.read_range(uris, keys, "key", SCHEMA)
        values = table["key"].to_pylist()
        assert all(keys.start <= value < keys.stop for value in values)
        assert table["text"].to_pylist() == [f"row {value}" for value in values]
        found += values
    assert sorted(found) == sorted(key for keys in runs for key in keys)


def test_read_range_reads_only_the_cells_it_needs(tmp_path: Path, monkeypatch) -> None:
    uri = str(tmp_path / "run.arrow")
    keys = np.random.default_rng(0).integers(0, 2**64, 1000, dtype=np.uint64)
    shuffle.write_run(uri, run_of(keys.tolist()), "key", 8)
    read: list[int] = []
    opened = pa.ipc.open_file

    class Spy:
        def __init__(self, file: object) -> None:
            self._reader = opened(file)
            self.schema, self.num_record_batches = self._reader.schema, self._reader.num_record_batches

        def get_batch(self, index: int) -> pa.RecordBatch:
            read.append(index)
            return self._reader.get_batch(index)

    monkeypatch.setattr(pa.ipc, "open_file", Spy)
    shuffle.read_range([uri], shuffle.key_ranges(4)[1], "key", SCHEMA)
    assert read == [2, 3]


def test_read_range_names_a_damaged_run(tmp_path: Path) -> None:
    uri = tmp_path / "run.arrow"
    shuffle.write_run(str(uri), run_of([1, 2, 3]), "key", 2)
    uri.write_bytes(uri.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"run\.arrow: this intermediate file cannot be read"):
        shuffle.read_range([str(uri)], shuffle.key_ranges(1)[0], "key", SCHEMA)
