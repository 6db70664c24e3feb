import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from protclip.cluster.shards import plan
from protclip.cluster.shuffle import key_ranges


@settings(max_examples=200, deadline=None)
@given(cells=st.lists(st.integers(0, 7), min_size=1, max_size=20), size=st.integers(1, 12))
def test_plan_takes_every_row_once_in_order_and_in_equal_shards(cells: list[int], size: int) -> None:
    bounds = key_ranges(len(cells))
    rows = [(cell, row) for cell, count in enumerate(cells) for row in range(count)]
    shards = plan("train", np.array(cells), size)
    assert [shard.index for shard in shards] == list(range(len(shards)))
    assert all(shard.rows == size for shard in shards[:-1])
    found = []
    for shard in shards:
        inside = [
            (cell, row)
            for cell, row in rows
            if shard.keys.start <= bounds[cell].start and bounds[cell].stop <= shard.keys.stop
        ]
        found += inside[shard.skip : shard.skip + shard.rows]
        # Nothing is read that could be left out.
        assert shard.skip < cells[inside[0][0]]
        assert shard.skip + shard.rows > len(inside) - cells[inside[-1][0]]
    assert found == rows
