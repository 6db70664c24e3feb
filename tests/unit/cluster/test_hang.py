"""Which worker holds up a group that has stopped moving."""

import pytest

from protclip.cluster.hang import Beat, Heard, behind


def heard(
    rank: int, *, moves: int = 10, waiting: bool = True, silent: float = 0.5, still: float = 40
) -> Heard:
    beat = Beat(1, rank, "node-7", "n", 100 + rank, 5, "step", moves, "training/loop.py:12", waiting)
    return Heard(beat, silent, still)


def ranks(*group: Heard) -> list[int]:
    return [heard.beat.rank for heard in behind(group, timeout_s=30)]


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        pytest.param([], [], id="no_group"),
        pytest.param([heard(0, still=2), heard(1)], [], id="one_moves"),
        pytest.param([heard(0), heard(1, silent=40)], [1], id="stopped_process"),
        pytest.param([heard(0, silent=40)], [0], id="only_one"),
        pytest.param([heard(0), heard(1, moves=9), heard(2)], [1], id="fewer_phases"),
        pytest.param([heard(0), heard(1), heard(2, waiting=False)], [2], id="busy_while_others_wait"),
        pytest.param([heard(0), heard(1)], [0, 1], id="dead_lock"),
        pytest.param([heard(0, silent=40), heard(1, silent=40, moves=9)], [1], id="all_silent"),
    ],
)
def test_behind_finds_who_is_waited_for(group: list[Heard], expected: list[int]) -> None:
    assert ranks(*group) == expected


def test_heard_says_where_a_rank_is() -> None:
    assert str(heard(3, silent=40)) == (
        "rank 3 (process 103 on node-7): step 5, step, at training/loop.py:12, no sign of life for 40 s"
    )
