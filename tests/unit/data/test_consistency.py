import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protclip.data import consistency
from protclip.data.manifest import ConsistencyCount

ENTRY = st.tuples(st.integers(1, 5), st.integers(1, 4), st.floats(-1, 1, width=32))


def counts_of(entries: list[tuple[int, int, float]]) -> list[ConsistencyCount]:
    confidence, coverage, cosine = (np.array(column) for column in zip(*entries, strict=True))
    return list(consistency.count(confidence, coverage, cosine.astype(np.float32)))


@settings(max_examples=60, deadline=None)
@given(st.lists(ENTRY, min_size=1, max_size=40), st.integers(0, 39))
def test_counts_of_parts_add_up_to_those_of_the_whole(entries, cut):
    parts = [part for part in (entries[:cut], entries[cut:]) if part]
    added = consistency.by_stratum(count for part in parts for count in counts_of(part))
    assert [(c.confidence, c.coverage) for c in added] == sorted({(c, r) for c, r, _ in entries})
    for count in added:
        cosines = [x for c, r, x in entries if (c, r) == (count.confidence, count.coverage)]
        assert count.rows == len(cosines) == sum(count.histogram)
        assert count.mean == pytest.approx(np.mean(cosines), abs=1e-9)
        assert count.deviation == pytest.approx(np.std(cosines), abs=1e-6)
    assert sum(count.rows for count in consistency.by_confidence(added)) == len(entries)


@settings(max_examples=60, deadline=None)
@given(st.lists(ENTRY, min_size=2, max_size=40))
def test_correlation_is_pearsons_over_all_entries(entries):
    found = consistency.correlation(counts_of(entries))
    confidence, cosine = np.array([e[0] for e in entries]), np.array([e[2] for e in entries])
    if confidence.std() == 0 or cosine.std() < 1e-3:
        return
    assert found == pytest.approx(np.corrcoef(confidence, cosine)[0, 1], abs=1e-6)


def test_correlation_of_one_level_is_undefined():
    assert consistency.correlation(counts_of([(1, 2, 0.5), (1, 3, -0.5)])) is None


def test_table_rows_end_with_the_levels():
    rows = consistency.table_rows(counts_of([(4, 1, 0.25), (1, 3, 0.5), (1, 4, 1.0)]))
    assert [row[:4] for row in rows] == [
        ("1", "3/4", "1", "0.5000"),
        ("1", "4/4", "1", "1.0000"),
        ("4", "1/4", "1", "0.2500"),
        ("1", "all", "2", "0.7500"),
        ("4", "all", "1", "0.2500"),
    ]


def test_draw_writes_a_picture(tmp_path):
    path = tmp_path / "picture.png"
    consistency.draw("Cosines", counts_of([(1, 1, -1.0), (1, 4, 0.5), (5, 1, 1.0)]), path)
    assert path.read_bytes().startswith(b"\x89PNG")
