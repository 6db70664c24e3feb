from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from protclip.data.families import content_ids, family_ids
from protclip.data.traits import Facts, columns, group_ids, read_trait
from protclip.records import sampling_keys

ACCESSIONS = [f"A{i}" for i in range(6)]
KEYS = sampling_keys(ACCESSIONS)
FAMILIES = [
    "Belongs to the X family.",
    "Belongs to the Y family.",
    None,
    "Contains 1 Z.",
    "Belongs to the X family.",
]
ENTRIES = pa.table(
    {
        "sampling_key": KEYS[:5],
        "sequence": ["MA", "MB", "MA", "MC", "MA"],
        "similarity": pa.array(FAMILIES, pa.large_string()),
        "annotation_date": pa.array(
            [date(2020, 1, 1), None, date(2021, 1, 1), date(2025, 1, 1), date(2019, 1, 1)], pa.date32()
        ),
        "length": pa.array([2, 3, 4, 5, 6], pa.int32()),
    }
)


class Table:
    def __init__(self, values: dict[int, object]) -> None:
        self._values = values

    def look_up(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = np.array([int(key) in self._values for key in keys])
        return np.array([self._values.get(int(key), 0) for key in keys]), found


def test_read_trait_of_each_factor() -> None:
    dates, dated = read_trait("date", ENTRIES, {})
    assert dated.tolist() == [True, False, True, True, True]
    assert dates[0] == (date(2020, 1, 1) - date(1970, 1, 1)).days
    lengths, found = read_trait("length", ENTRIES, {})
    assert lengths.tolist() == [2, 3, 4, 5, 6]
    assert found.all()
    ids, named = read_trait("family", ENTRIES, {})
    assert named.tolist() == [True, True, False, False, True]
    assert ids[0] == ids[4] != ids[1]
    tables = {"clusters": Table({int(KEYS[2]): 7}), "consistency": Table({int(KEYS[1]): 0.5})}
    assert read_trait("family", ENTRIES, tables)[0].tolist() == [0, 0, 7, 0, 0]
    assert read_trait("consistency", ENTRIES, tables)[1].tolist() == [False, True, False, False, False]


def test_columns_are_those_that_no_table_replaces() -> None:
    names = ["date", "family", "length", "consistency"]
    assert columns(names, {}) == ["annotation_date", "similarity", "length"]
    assert columns(names, {"clusters": Table({})}) == ["annotation_date", "length"]


def test_facts_give_missing_values_the_typical_one() -> None:
    ids, _ = family_ids(ENTRIES["similarity"])
    order = np.argsort(ids[:2])
    facts = Facts(
        dated=(date(2024, 1, 1) - date(1970, 1, 1)).days,
        typical={"date": (date(2022, 1, 1) - date(1970, 1, 1)).days, "family": 9.0, "consistency": 0.25},
        family_ids=ids[:2][order],
        family_sizes=np.array([30, 4])[order],
    )
    raw = {name: read_trait(name, ENTRIES, {}) for name in ("date", "family", "length")}
    raw["consistency"] = np.array([0.5, 0, 0, 0, -1.0]), np.array([True, False, False, False, True])
    traits = facts.traits(raw)
    assert traits["date"] == pytest.approx([4.0, 2.0, 3.0, 0.0, 5.0], abs=0.003)
    assert traits["family"].tolist() == [30, 4, 9, 9, 30]
    assert traits["length"].tolist() == [2, 3, 4, 5, 6]
    assert traits["consistency"].tolist() == [0.5, 0.25, 0.25, 0.25, -1.0]


def test_facts_take_a_family_that_was_not_counted_for_missing() -> None:
    raw = {"family": read_trait("family", ENTRIES, {})}
    assert Facts(typical={"family": 3.0}).traits(raw)["family"].tolist() == [3.0] * 5
    largest = Facts(typical={"family": 3.0}, family_ids=np.array([1], np.uint64), family_sizes=np.array([8]))
    assert largest.traits(raw)["family"].tolist() == [3.0] * 5


def test_group_ids_fall_back_to_the_sequence() -> None:
    sequences = content_ids(ENTRIES["sequence"])
    families, _ = family_ids(ENTRIES["similarity"])
    assert (group_ids("accession", ENTRIES, {})[0] == KEYS[:5]).all()
    assert (group_ids("sequence", ENTRIES, {})[0] == sequences).all()
    groups, found = group_ids("family", ENTRIES, {})
    assert groups.tolist() == [families[0], families[1], sequences[2], sequences[3], families[0]]
    assert found.tolist() == [True, True, False, False, True]
    groups, found = group_ids("cluster", ENTRIES, {"clusters": Table({int(KEYS[3]): 5})})
    assert groups.tolist() == [sequences[0], sequences[1], sequences[2], 5, sequences[4]]
    assert found.sum() == 1
