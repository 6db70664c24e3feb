"""The spool keeps order, survives a killed process, and leaves nothing behind when all is delivered."""

import json
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protclip.tracking.spool import Record, Spool


def record(value: int) -> Record:
    return {"kind": "metric", "value": value}


def values(records: list[Record]) -> list[object]:
    return [r["value"] for r in records]


def test_spool_gives_records_in_order_and_removes_its_file(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "run")
    spool.append([record(1), record(2)])
    spool.append([record(3)])
    assert values(spool.peek(2)) == [1, 2]
    spool.delivered(1)
    assert values(spool.peek(9)) == [2, 3]
    assert len(list(tmp_path.iterdir())) == 1
    spool.delivered(2)
    assert list(tmp_path.iterdir()) == []
    spool.append([record(4)])
    assert values(spool.peek(9)) == [4]


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["append", "deliver", "reopen"]), st.integers(1, 5)), max_size=30
    )
)
def test_spool_loses_and_repeats_nothing_that_was_acknowledged(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    directory = tmp_path_factory.mktemp("spool")
    spool, waiting, next_value = Spool(directory, "run"), [], 0
    for step, count in steps:
        if step == "append":
            new = list(range(next_value, next_value + count))
            next_value += count
            waiting += new
            spool.append([record(v) for v in new])
        elif step == "deliver" and waiting:
            found = values(spool.peek(count))
            assert found == waiting[:count]
            spool.delivered(len(found))
            del waiting[: len(found)]
        elif step == "reopen":
            spool.close()
            spool = Spool(directory, "run")
            # What was delivered since the file was last empty comes again: deliveries repeat, never lack.
            if waiting:
                repeated = values(spool.peek(10**6))
                assert repeated[-len(waiting) :] == waiting
                if len(repeated) > len(waiting):
                    spool.delivered(len(repeated) - len(waiting))
    assert spool.drain(0) == len(waiting)
    spool.close()


def test_spool_takes_over_what_a_dead_process_left_in_order(tmp_path: Path) -> None:
    for start in (0, 2):
        left = Spool(tmp_path, "run" if start else "other")
        left.append([record(start), record(start + 1)])
        left.close()
    (tmp_path / "run.1.jsonl").write_bytes(json.dumps(record(7)).encode() + b'\n{"kind": "met')
    spool = Spool(tmp_path, "run")
    assert values(spool.peek(9)) == [7, 2, 3]
    assert sorted(p.name.split(".")[0] for p in tmp_path.iterdir()) == ["other", "run"]


def test_spool_leaves_the_file_of_a_living_process_alone(tmp_path: Path) -> None:
    living = Spool(tmp_path, "run")
    living.append([record(1)])
    second = Spool(tmp_path, "run")
    second.append([record(2)])
    assert values(living.peek(9)) == [1]
    assert values(second.peek(9)) == [2]


def test_spool_peek_waits_for_a_record_or_the_end(tmp_path: Path) -> None:
    spool, seen = Spool(tmp_path, "run"), []

    def read() -> None:
        while records := spool.peek(1):
            seen.extend(values(records))
            spool.delivered(1)

    thread = threading.Thread(target=read)
    thread.start()
    for value in range(50):
        spool.append([record(value)])
    assert spool.drain(10) == 0
    spool.close()
    thread.join(10)
    assert not thread.is_alive()
    assert seen == list(range(50))


def test_spool_drain_ends_with_a_failure(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "run")
    spool.append([record(1)])

    def fail() -> None:
        spool.failed(60)  # Waits until somebody drains,
        spool.failed(60)  # then tells it that the last try failed too.

    thread = threading.Thread(target=fail)
    thread.start()
    begun = time.monotonic()
    assert spool.drain(60) == 1
    thread.join(10)
    assert time.monotonic() - begun < 10
