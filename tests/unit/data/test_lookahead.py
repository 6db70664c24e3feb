import itertools
import threading
import time

import pytest

from protclip.data.lookahead import LookAhead


def alive() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("look-ahead")]


def squares(
    started: list[int], max_items: int = 4, max_size: int = 100, size: int = 1
) -> LookAhead[int, int]:
    def read(key: int) -> int:
        started.append(key)
        return key * key

    return LookAhead(iter(range(1000)), read, lambda _: size, max_items, max_size)


def settled(started: list[int], num: int) -> list[int]:
    deadline = time.monotonic() + 5
    while len(started) < num and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    return sorted(started)


def test_values_come_in_order_each_read_once() -> None:
    started: list[int] = []
    with squares(started) as ahead:
        for key in range(20):
            assert ahead.get(key) == ahead.get(key) == key * key
        assert settled(started, 23) == list(range(23))


@pytest.mark.parametrize(("max_size", "held"), [(100, 5), (35, 3), (30, 3), (1, 2)])
def test_no_more_is_read_ahead_than_the_bounds_allow(max_size: int, held: int) -> None:
    started: list[int] = []
    with squares(started, max_items=5, max_size=max_size, size=10) as ahead:
        for key in range(9):
            ahead.get(key)
        assert settled(started, 8 + held) == list(range(8 + held))
        assert len(ahead._held) == held


def test_what_comes_is_read_while_the_current_value_is_awaited() -> None:
    together = threading.Barrier(3, timeout=10)

    def read(key: int) -> int:
        together.wait()
        return key

    with LookAhead(iter(range(3)), read, lambda _: 1, 3, 100) as ahead:
        assert [ahead.get(key) for key in range(3)] == [0, 1, 2]


def test_failure_is_raised_at_the_value_it_belongs_to() -> None:
    def read(key: int) -> int:
        if key == 2:
            raise OSError("damaged")
        return key

    with LookAhead(itertools.count(), read, lambda _: 1, 4, 100) as ahead:
        assert ahead.get(0) == 0
        assert ahead.get(1) == 1
        with pytest.raises(OSError, match="damaged"):
            ahead.get(2)
        assert ahead.get(3) == 3


def test_threads_end_with_the_block_and_nothing_more_is_read() -> None:
    started: list[int] = []
    with pytest.raises(KeyError):  # noqa: PT012
        with squares(started) as ahead:
            ahead.get(0)
            assert alive()
            raise KeyError
    assert not alive()
    assert len(started) <= 4
