from collections import Counter
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protclip import storage
from protclip.data import strata, summary
from protclip.data.summary import (
    COUNTS_SCHEMA,
    REVIEWED,
    TAXA_SCHEMA,
    UNREVIEWED,
    UNSTATED,
    add,
    add_stored,
    bin_floor,
    bin_width,
    combined,
    count_entries,
    count_pairs,
    quantile,
    summarise,
    taxa,
)
from protclip.errors import DataError
from protclip.records import PAIRS_SCHEMA, PROPERTIES, ProteinRecord

ORIGIN = strata.Origin(0, "made.dat")

optional_text = st.none() | st.text("aαß 🧬", min_size=1, max_size=70)
records = st.builds(
    ProteinRecord,
    accession=st.uuids().map(str),
    entry_name=st.just("A_B"),
    reviewed=st.booleans(),
    sequence=st.integers(1, 3000).map("M".__mul__),
    protein_name=st.text("ab", min_size=1, max_size=40),
    function=optional_text,
    subcellular_location=optional_text,
    similarity=optional_text,
    confidence=st.integers(1, 5),
    taxon_id=st.none() | st.integers(1, 6),
    annotation_date=st.none() | st.dates(date(1986, 1, 1), date(2030, 12, 31)),
)


def table(parsed: list[ProteinRecord], release: str | None = "2026_01") -> pa.Table:
    return strata.tables(list(enumerate(parsed)), ORIGIN, release, None)[0]


def rows_of(counts: pa.Table) -> Counter[tuple[object, ...]]:
    return Counter({tuple(row.values())[:-1]: row["count"] for row in counts.to_pylist()})


def floors(lengths: list[int]) -> dict[int, int]:
    """Bins, counted one by one by their definition."""
    found: Counter[int] = Counter()
    for length in lengths:
        width = 1
        while length // width >= 32:
            width *= 2
        found[length // width * width] += 1
    return dict(found)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 2**40), max_size=50))
def test_bin_floor_is_the_lowest_value_of_a_bin_that_holds_it(values: list[int]) -> None:
    lowest = bin_floor(np.array(values, dtype=np.int64)).tolist()
    for value, low in zip(values, lowest, strict=True):
        assert low <= value < low + bin_width(low)
        assert bin_width(low) <= max(1, low / 16)
        assert bin_floor(np.array([low + bin_width(low)])).tolist() == [low + bin_width(low)]
    coarse = bin_floor(np.array(values, dtype=np.int64), bits=2)
    assert bin_floor(np.array(lowest, dtype=np.int64), bits=2).tolist() == coarse.tolist()


@settings(max_examples=30, deadline=None)
@given(st.lists(records, max_size=25), st.data())
def test_summarise_counts_what_a_loop_over_the_records_counts(
    parsed: list[ProteinRecord], data: st.DataObject
) -> None:
    kept = data.draw(st.lists(st.sampled_from(range(len(parsed))), unique=True)) if parsed else []
    found = summarise(count_entries(table(parsed), np.array(kept, dtype=np.int64)))
    by_group: dict[tuple[str, int | None, int], list[ProteinRecord]] = {}
    for record in (parsed[i] for i in kept):
        section = REVIEWED if record.reviewed else UNREVIEWED
        by_group.setdefault((section, record.confidence, record.coverage), []).append(record)
    assert {(g.section, g.confidence, g.coverage) for g in found.groups} == set(by_group)
    for group in found.groups:
        members = by_group[group.section, group.confidence, group.coverage]
        assert group.residues == sum(len(r.sequence) for r in members)
        assert group.lengths == floors([len(r.sequence) for r in members])
        for prop in PROPERTIES:
            texts = [text for r in members if (text := dict(r.properties())[prop]) is not None]
            assert group.texts.get(prop, {}) == floors([len(text) for text in texts])
        years = Counter(r.annotation_date.year for r in members if r.annotation_date)
        assert group.years == dict(years)
        assert group.releases == {"2026_01": len(members)}
    taxon_counts = Counter(parsed[i].taxon_id for i in kept if parsed[i].taxon_id is not None)
    assert found.num_taxa == len(taxon_counts)
    expected = sorted(taxon_counts.items(), key=lambda item: (-item[1], item[0]))
    assert [(t.taxon_id, t.total) for t in found.top_taxa] == expected


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(records, max_size=8), min_size=3, max_size=3))
def test_add_is_associative_and_independent_of_the_cut(parts: list[list[ProteinRecord]]) -> None:
    a, b, c = (count_entries(table(part), np.arange(len(part))) for part in parts)
    whole = [record for part in parts for record in part]
    at_once = count_entries(table(whole), np.arange(len(whole)))
    assert at_once.schema == COUNTS_SCHEMA
    for merged in (add([a, b, c]), add([add([c, b]), a]), add([c, add([a, b])])):
        assert rows_of(merged) == rows_of(at_once)
        assert summarise(merged) == summarise(at_once)
        assert taxa(merged) == taxa(at_once)


def test_add_stored_is_the_sum_of_more_files_than_are_read_at_once(tmp_path: Path) -> None:
    uris = []
    for index in range(2 * summary.READERS + 1):
        record = ProteinRecord(
            f"P{index}", "", index % 2 == 0, "M" * 9, "Name", confidence=1, taxon_id=index % 3
        )
        counts = count_entries(table([record], release=None), np.arange(1))
        uris.append(storage.write_parquet(str(tmp_path / f"{index}.parquet"), counts, 100).uri)
    found = summarise(add_stored(uris))
    assert {g.section: g.residues for g in found.groups} == {REVIEWED: 17 * 9, UNREVIEWED: 16 * 9}
    assert {g.section: g.releases for g in found.groups} == {
        REVIEWED: {UNSTATED: 17},
        UNREVIEWED: {UNSTATED: 16},
    }
    assert found.num_taxa == 3
    assert summarise(add_stored([])).groups == ()
    Path(uris[-1]).write_bytes(b"broken")
    with pytest.raises(DataError, match=r"32\.parquet"):
        add_stored(uris)


def test_taxa_are_sorted_by_frequency_and_count_those_without(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [9606, 9606, 9606, 562, 562, None, 10090, 10090]
    parsed = [
        ProteinRecord(f"P{i}", "", i in {0, 3, 4}, "M", "N", confidence=2, taxon_id=taxon)
        for i, taxon in enumerate(ids)
    ]
    counts = count_entries(table(parsed), np.arange(len(parsed)))
    assert taxa(counts).schema == TAXA_SCHEMA
    assert taxa(counts).to_pylist() == [
        {"taxon_id": 9606, "reviewed": 1, "unreviewed": 2},
        {"taxon_id": 562, "reviewed": 2, "unreviewed": 0},
        {"taxon_id": 10090, "reviewed": 0, "unreviewed": 2},
        {"taxon_id": None, "reviewed": 0, "unreviewed": 1},
    ]
    monkeypatch.setattr(summary, "TOP_TAXA", 2)
    assert [t.taxon_id for t in summarise(counts).top_taxa] == [9606, 562]
    assert summarise(counts).num_taxa == 3


def test_count_pairs_counts_tokens_and_leaves_absent_properties_out() -> None:
    tokens = {"protein_name": [5, 6], "function": [1] * 40, "subcellular_location": [], "similarity": []}
    row = {
        "accession": "P1",
        "sequence": "MKT",
        "length": 3,
        "confidence": 1,
        "coverage": 2,
        "sampling_key": 1,
    }
    pairs = pa.Table.from_pylist([row | tokens, row | tokens | {"similarity": [9]}], schema=PAIRS_SCHEMA)
    (group,) = summarise(add([count_pairs(pairs, "train"), count_pairs(pairs.slice(0, 0), "valid")])).groups
    assert (group.section, group.residues, group.lengths) == ("train", 6, {3: 2})
    assert group.texts == {"protein_name": {2: 2}, "function": {40: 2}, "similarity": {1: 1}}


@settings(max_examples=60)
@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=200), st.floats(0.01, 1))
def test_quantile_is_within_half_a_bin(values: list[int], share: float) -> None:
    histogram = combined([floors(values[::2]), floors(values[1::2])])
    assert histogram == floors(values)
    assert list(histogram) == sorted(histogram)
    exact = np.quantile(values, share, method="inverted_cdf")
    assert abs(quantile(histogram, share) - exact) <= max(0, exact / 32)


def test_quantile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no quantiles"):
        quantile({}, 0.5)
