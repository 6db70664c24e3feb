import os
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from protclip.cluster.tasks import RESULTS_PER_CPU, Stage, Workers, run_stages
from protclip.errors import DataError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def twice(number: int) -> Iterator[tuple[int, bytes]]:
    for copy in range(2):
        yield 10 * number + copy, b"x" * 2_000_000


def plus_length(pair: tuple[int, bytes]) -> Iterator[int]:
    yield pair[0] + len(pair[1])


def fail_at_once_or_leave_a_file(number: int, folder: Path) -> Iterator[int]:
    if number == 0:
        raise DataError("file zero is bad")
    time.sleep(0.5)
    (folder / str(number)).touch()
    yield number


def test_run_stages_gives_every_result() -> None:
    results = run_stages(range(5), Stage(twice, num_cpus=0), Stage(plus_length))
    assert sorted(results) == [2_000_000 + 10 * n + copy for n in range(5) for copy in range(2)]


def test_run_stages_of_nothing_is_nothing() -> None:
    assert list(run_stages([], Stage(twice))) == []


def test_run_stages_raises_the_error_of_a_task_and_ends_the_others(tmp_path: Path) -> None:
    task = partial(fail_at_once_or_leave_a_file, folder=tmp_path)
    with pytest.raises(DataError, match=r"^file zero is bad$"):
        list(run_stages(range(40), Stage(task)))
    # Those at work may finish, one on each of four CPUs; in this time all would leave three times as many.
    time.sleep(1.5)
    assert len(list(tmp_path.iterdir())) <= 4


def get_ready(folder: Path) -> Callable[[int], Iterator[str]]:
    (folder / str(os.getpid())).touch(exist_ok=False)
    return lambda number: iter([f"{number} by {os.getpid()}"])


def cannot_get_ready() -> Callable[[int], Iterator[str]]:
    raise DataError("no model here")


def test_run_stages_has_each_worker_get_ready_once(tmp_path: Path) -> None:
    results = list(run_stages(range(9), Workers(partial(get_ready, tmp_path), count=2)))
    assert sorted(int(r.split()[0]) for r in results) == list(range(9))
    assert {r.split()[-1] for r in results} <= {path.name for path in tmp_path.iterdir()}


def test_run_stages_raises_the_error_of_a_worker_that_cannot_get_ready() -> None:
    with pytest.raises(DataError, match=r"^no model here$"):
        list(run_stages([0], Workers(cannot_get_ready, count=1)))


def test_run_stages_passes_an_error_through_later_stages() -> None:
    fail = partial(fail_at_once_or_leave_a_file, folder=Path())
    with pytest.raises(DataError, match="file zero is bad"):
        list(run_stages([0], Stage(fail, num_cpus=0), Stage(plus_length)))


def test_run_stages_holds_readers_back_when_results_are_large(tmp_path: Path) -> None:
    size = 16_000_000

    def read(count: int) -> Iterator[bytes]:
        for number in range(count):
            time.sleep(0.01)
            (tmp_path / f"read-{number}").touch()
            yield bytes(size)

    def parse(_: bytes) -> Iterator[int]:
        time.sleep(0.15)
        ahead = len(list(tmp_path.glob("read-*"))) - len(list(tmp_path.glob("parsed-*")))
        (tmp_path / f"parsed-{uuid.uuid4().hex}").touch()
        yield ahead

    stages = Stage(read, num_cpus=0), Stage(parse)
    assert len(list(run_stages([4], *stages))) == 4
    ahead = list(run_stages([40], *stages, bytes_per_result=size))
    assert len(ahead) == 40
    assert max(ahead) <= 1.5 * RESULTS_PER_CPU * 4
