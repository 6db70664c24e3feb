"""Values read ahead of their use by a few threads, within bounds."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, NamedTuple, Self, TypeVar

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")


class _Held(NamedTuple, Generic[KeyT, ValueT]):
    """A value that is there or being read."""

    key: KeyT
    size: int
    value: Future[ValueT]


class LookAhead(Generic[KeyT, ValueT]):
    """Reads values in the order in which they will be asked for; a context manager that ends its threads.

    A value is held from the time it is being read until a later one is asked for. There are at most
    `max_items` of them, and of `max_size` in all but for the current one and the next.

    Args:
        keys: What will be asked for, in order, each once; it may be endless.
        read: Gives the value of a key; called by the threads.
        size: Size of a key's value, in the unit of `max_size`.
        max_items: Most values held or being read, at least 2.
        max_size: Their size in all.
    """

    def __init__(
        self,
        keys: Iterator[KeyT],
        read: Callable[[KeyT], ValueT],
        size: Callable[[KeyT], int],
        max_items: int,
        max_size: int,
    ) -> None:
        self._read = read
        self._max_items = max_items
        self._max_size = max_size
        self._coming = ((key, size(key)) for key in keys)
        self._next = next(self._coming, None)
        self._held: deque[_Held[KeyT, ValueT]] = deque()
        self._pool = ThreadPoolExecutor(max_items, thread_name_prefix="look-ahead")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def get(self, key: KeyT) -> ValueT:
        """The value of a key, which is the one asked for last or the one after it.

        Raises:
            Exception: What reading this value raised.
        """
        if self._held and self._held[0].key != key:
            self._held.popleft()
        self._read_on()
        assert self._held[0].key == key, "keys are asked for in the order given"
        return self._held[0].value.result()

    def _read_on(self) -> None:
        """Starts reading what the bounds allow."""
        size = sum(held.size for held in self._held)
        while self._next is not None and len(self._held) < self._max_items:
            key, more = self._next
            if len(self._held) >= 2 and size + more > self._max_size:
                break
            self._held.append(_Held(key, more, self._pool.submit(self._read, key)))
            size += more
            self._next = next(self._coming, None)
