from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protclip.data.charts import density_of, draw_bars, draw_lengths, draw_years
from protclip.data.summary import bin_floor

histograms = st.dictionaries(st.integers(0, 40_000), st.integers(1, 10**9), min_size=1, max_size=60).map(
    lambda h: {int(bin_floor(np.array([value]))[0]): count for value, count in sorted(h.items())}
)


@settings(max_examples=60)
@given(histograms)
def test_density_of_has_the_area_one_where_the_rows_are(histogram: dict[int, int]) -> None:
    edges, density = density_of(histogram)
    assert len(edges) == len(density) + 1
    assert (np.diff(edges) > 0).all()
    assert edges[0] <= max(1, min(histogram)) < edges[1]
    assert edges[-2] <= max(1, max(histogram)) < edges[-1]
    assert np.sum(density * np.diff(np.log2(edges))) == pytest.approx(1)
    for value in histogram:
        assert density[np.searchsorted(edges, max(1, value), side="right") - 1] > 0


def test_pictures_grow_with_what_they_show(tmp_path: Path) -> None:
    def size(path: Path) -> tuple[int, int]:
        image = matplotlib.image.imread(path)
        assert image[..., :3].std() > 0.02
        return image.shape[:2]

    lengths, path = {16: 3, 320: 9, 30_720: 1}, tmp_path / "x.png"
    draw_lengths("T", "residues", {"": {"a": lengths, "b": {1: 1}}}, path)
    one = size(path)
    draw_lengths("T", "residues", {key: {"a": lengths} for key in "wxyz"}, path)
    four = size(path)
    draw_lengths("T", "residues", {key: {"a": lengths} for key in "xyz"}, path)
    assert size(path) == four
    # The fourth place stays white.
    last = matplotlib.image.imread(path)[four[0] * 6 // 10 :, four[1] * 6 // 10 :, :3]
    assert (last == 1).all()
    assert four[0] > 1.4 * one[0]
    assert four[1] == one[1]
    draw_years("T", {"a": {1990: 5, 2020: 1}, "b": {2000: 10**8}, "c": {}}, path)
    years = size(path)
    draw_years("T", {"a": {2020: 1}}, path)
    assert years[0] > 1.5 * size(path)[0]
    draw_bars("T", [("a", {"x": 5, "y": 1}), ("b" * 40, {"x": 10**8})], 10**9, path)
    two = size(path)
    draw_bars("T", [(str(i), {"x": i + 1}) for i in range(20)], 10**9, path)
    assert size(path)[0] > 3 * two[0]
