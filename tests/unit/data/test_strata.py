import dataclasses
import json
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protclip.data import strata
from protclip.data.manifest import FileEntry, StratumCount
from protclip.errors import DataError
from protclip.records import CONFIDENCE_LEVELS, STRATA_SCHEMA, ProteinRecord, Rejection, sampling_key

ORIGIN = strata.Origin(3, "file.dat")
RECORD = ProteinRecord(
    accession="P12345",
    entry_name="A_B",
    reviewed=True,
    sequence="MKT",
    protein_name="Alpha",
    function="Does this.",
    similarity="Belongs there.",
    confidence=2,
    taxon_id=9606,
    annotation_date=date(2024, 5, 1),
)


def records(accessions: list[str], **values: object) -> pa.Table:
    parsed = [(10 * i, dataclasses.replace(RECORD, accession=a, **values)) for i, a in enumerate(accessions)]
    return strata.tables(parsed, ORIGIN, None, None)[0]


def test_tables_hold_every_field_of_a_record() -> None:
    table, refused = strata.tables([(7, RECORD)], ORIGIN, "2026_01", 5)
    assert len(refused) == 0
    assert table.schema == strata.PARSED_SCHEMA
    (row,) = table.to_pylist()
    assert row == {
        **dataclasses.asdict(RECORD),
        "subcellular_location": None,
        "length": 3,
        "coverage": 3,
        "release": "2026_01",
        "sampling_key": sampling_key("P12345"),
        "input": 3,
        "offset": 7,
        "level_assumed": False,
    }


def test_tables_assume_the_missing_level_and_say_so() -> None:
    unknown = dataclasses.replace(RECORD, confidence=None)
    table, _ = strata.tables([(0, unknown), (9, RECORD)], ORIGIN, None, 5)
    assert table["confidence"].to_pylist() == [5, 2]
    assert table["level_assumed"].to_pylist() == [True, False]


def test_tables_reject_the_missing_level_on_request_and_keep_the_order() -> None:
    unknown = dataclasses.replace(RECORD, confidence=None, accession="Q1")
    given_ = [(0, RECORD), (5, unknown), (9, Rejection("no sequence", None, b"\xff raw"))]
    table, refused = strata.tables(given_, ORIGIN, None, None)
    assert table["accession"].to_pylist() == ["P12345"]
    assert refused["reason"].to_pylist() == [strata.NO_CONFIDENCE, "no sequence"]
    assert refused["offset"].to_pylist() == [5, 9]
    assert json.loads(refused["raw"][0].as_py())["accession"] == "Q1"
    assert refused["raw"][1].as_py() == b"\xff raw"
    assert set(refused["source"].to_pylist()) == {"file.dat"}


def test_tables_of_nothing_have_their_schemas() -> None:
    table, refused = strata.tables([], ORIGIN, "r", 5)
    assert table.schema == strata.PARSED_SCHEMA
    assert refused.schema == strata.REFUSED_SCHEMA


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["A", "B", "C", "D", "E"]), max_size=12), st.randoms(use_true_random=False))
def test_without_duplicates_keeps_the_first_and_loses_nothing(accessions: list[str], random) -> None:
    table = records(accessions)
    shuffled = list(range(len(accessions)))
    random.shuffle(shuffled)
    table = table.take(pa.array(shuffled, pa.int64()))
    rows, refused = strata.without_duplicates(table, ["", "", "", "file.dat"])
    kept = table.take(pa.array(rows))
    firsts = {a: 10 * accessions.index(a) for a in accessions}
    assert dict(zip(kept["accession"].to_pylist(), kept["offset"].to_pylist(), strict=True)) == firsts
    assert len(kept) + len(refused) == len(accessions)
    assert sorted([*kept["offset"].to_pylist(), *refused["offset"].to_pylist()]) == [
        10 * i for i in range(len(accessions))
    ]
    assert kept["sampling_key"].to_pylist() == sorted(kept["sampling_key"].to_pylist())
    for row in refused.to_pylist():
        assert row["reason"] == strata.DUPLICATE
        assert row["source"] == "file.dat"
        assert json.loads(row["raw"])["sequence"] == "MKT"


def test_without_duplicates_prefers_the_earlier_file() -> None:
    later = records(["A"], sequence="LATER")
    earlier = records(["A"], sequence="EARLIER")
    index = later.schema.get_field_index("input")
    earlier = earlier.set_column(index, later.schema.field(index), pa.array([1], pa.int32()))
    rows, refused = strata.without_duplicates(pa.concat_tables([later, earlier]), ["a", "b", "c", "d"])
    assert rows.tolist() == [1]
    assert refused["source"].to_pylist() == ["d"]


def test_without_duplicates_keeps_two_accessions_with_one_hash() -> None:
    table = records(["A", "B"])
    index = table.schema.get_field_index("sampling_key")
    table = table.set_column(index, table.schema.field(index), pa.array([5, 5], pa.uint64()))
    rows, refused = strata.without_duplicates(table, ["f"] * 4)
    assert rows.tolist() == [0, 1]
    assert len(refused) == 0


def test_write_parts_partitions_and_puts_reviewed_first(tmp_path: Path) -> None:
    accessions = [f"A{i:03d}" for i in range(60)]
    table = pa.concat_tables(
        [
            records(accessions[:30], reviewed=False),
            records(accessions[30:40], confidence=4),
            records(accessions[40:], function=None),
        ]
    ).combine_chunks()
    rows = np.random.default_rng(0).permutation(60)
    written = list(strata.write_parts(table, rows, str(tmp_path), part=2))
    assert [(c.confidence, c.coverage, c.reviewed, c.unreviewed) for _, c in written] == [
        (2, 2, 20, 0),
        (2, 3, 0, 30),
        (4, 3, 10, 0),
    ]
    seen = []
    for file, count in written:
        read = pq.read_table(tmp_path / file.path, partitioning=None)
        assert file.path == f"confidence={count.confidence}/coverage={count.coverage}/part-00002.parquet"
        assert strata.stratum_of(file.path) == (count.confidence, count.coverage)
        assert read.schema == STRATA_SCHEMA
        assert read["reviewed"].to_pylist() == sorted(read["reviewed"].to_pylist(), reverse=True)
        seen += read["accession"].to_pylist()
    assert sorted(seen) == accessions


def test_read_entries_skips_row_groups_of_the_other_section(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(strata, "ROW_GROUP_ROWS", 10)
    table = pa.concat_tables(
        [records([f"A{i}" for i in range(20)]), records([f"B{i}" for i in range(20)], reviewed=False)]
    ).combine_chunks()
    ((file, _),) = strata.write_parts(table, np.arange(40), str(tmp_path), 0)

    def accessions(reviewed: bool, unreviewed: bool) -> list[str]:
        groups = strata.read_entries(
            str(tmp_path), file, ["accession"], reviewed=reviewed, unreviewed=unreviewed
        )
        return [a for group in groups for a in group["accession"].to_pylist()]

    assert accessions(True, False) == [f"A{i}" for i in range(20)]
    assert accessions(False, True) == [f"B{i}" for i in range(20)]
    assert len(accessions(True, True)) == 40


def _one_part(tmp_path: Path) -> tuple[Path, FileEntry]:
    table = records([f"A{i}" for i in range(500)])
    ((file, _),) = strata.write_parts(table, np.arange(500), str(tmp_path), 0)
    return tmp_path / file.path, file


@pytest.mark.parametrize("damage", ["flipped", "truncated", "other", "missing"])
def test_read_entries_names_a_damaged_file(tmp_path: Path, damage: str) -> None:
    path, file = _one_part(tmp_path)
    raw = bytearray(path.read_bytes())
    if damage == "flipped":
        raw[300] ^= 0x40
        path.write_bytes(raw)
    elif damage == "truncated":
        path.write_bytes(raw[:-20])
    elif damage == "other":
        file = file.model_copy(update={"rows": 499, "row_groups": (499,)})
    else:
        path.unlink()
    with pytest.raises(DataError, match=r"part-00000\.parquet"):
        for _ in strata.read_entries(
            str(tmp_path), file, STRATA_SCHEMA.names, reviewed=True, unreviewed=True
        ):
            pass


def test_totals_cover_all_strata() -> None:
    one = StratumCount(confidence=3, coverage=4, reviewed=1, unreviewed=2)
    summed = strata.totals([one, one])
    assert [(s.confidence, s.coverage) for s in summed] == [
        (c, r) for c in CONFIDENCE_LEVELS for r in range(1, 5)
    ]
    assert sum(s.total for s in summed) == 6
    assert next(s for s in summed if s.total).reviewed == 2
