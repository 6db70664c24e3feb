"""The data jobs under failing storage, killed workers or drivers, and rivals: equal bytes or a message."""

import asyncio
import errno
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import ray

import faulty_s3
from faulty_s3 import FaultyS3, Hold
from made_sets import MadeSets, content
from protclip import storage
from protclip.cluster import output as output_module
from protclip.cluster import sample as sample_module
from protclip.cluster import tasks
from protclip.cluster.prepare import prepare
from protclip.cluster.sample import sample
from protclip.config.data import PrepareConfig
from protclip.data.manifest import StrataManifest
from protclip.data.uniprot import read_records
from protclip.errors import DataError
from protclip.records import Rejection

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# Workers cannot import tests.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

JOBS: dict[str, tuple[str, Callable[..., Any]]] = {
    "prepare": ("strata", prepare),
    "sample": ("pairs", sample),
}
STAGES = {"prepare": ["_read", "_parse", "_merge"], "sample": ["draw_part", "_write"]}
Run = Callable[[Any], Any]


@pytest.fixture(autouse=True)
def _many_parts_of_one_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_module, "PAIRS_PER_TASK", 100)
    monkeypatch.setattr(output_module, "git_sha", lambda: "this")


def run(job: str, made: MadeSets, output: str) -> None:
    """Does the job that made one of the sets, to another output."""
    config = made.prepare_config(output) if job == "prepare" else made.sample_config(output)
    JOBS[job][1](config)


def assert_same(job: str, made: MadeSets, output: str) -> None:
    """What a job wrote is what the fault-free one wrote, and nothing else is left."""
    expected = getattr(made, JOBS[job][0])
    uri = storage.join(made.bucket, output)
    assert content(uri) == content(expected)
    assert not storage.exists(storage.join(uri, ".staging"))
    assert not storage.exists(storage.join(uri, ".claim.json"))
    storage.remove(uri)


def first_time(marker: Path) -> bool:
    """True for the first process that asks."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def in_stages(monkeypatch: pytest.MonkeyPatch, stages: list[str], change: Callable[[str, Run], Run]) -> None:
    """Tasks of some stages run what `change` makes of them, given their name."""
    make = tasks._task

    def changed(run: Run) -> Any:
        inner = getattr(run, "keywords", {}).get("run", run)
        while isinstance(inner, functools.partial):
            inner = inner.func
        return make(change(inner.__name__, run) if inner.__name__ in stages else run)

    monkeypatch.setattr(tasks, "_task", changed)


def test_every_accession_is_there_once(made_sets: MadeSets) -> None:
    manifest = StrataManifest.load(made_sets.strata)
    kept = [
        accession
        for file in manifest.files
        for accession in _column(storage.join(made_sets.strata, file.path), "accession")
    ]
    read = [item for uri in manifest.inputs for item in read_records(uri)]
    assert not any(isinstance(item, Rejection) for item in read)
    assert sorted(kept) == sorted({item.accession for item in read})
    rejected = _column(storage.join(made_sets.strata, "rejected.parquet"), "accession")
    assert sorted([*kept, *rejected]) == sorted(item.accession for item in read)
    assert len(rejected) == 300


def _column(uri: str, name: str) -> list[Any]:
    with storage.parquet_file(uri) as file:
        return file.read([name])[name].to_pylist()


@pytest.mark.parametrize("job", JOBS)
def test_job_gives_the_same_when_many_requests_fail(
    made_sets: MadeSets, faults: FaultyS3, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda seconds, *rest: sleep(min(seconds, 0.001), *rest))
    rules = [
        faults.fail("^(GET|HEAD) made", faulty_s3.INTERNAL_ERROR, share=0.02, seed=1),
        faults.fail("^GET made[^?]", faulty_s3.cut, share=0.04, seed=2),
        faults.fail("^(GET|HEAD|PUT) made", faulty_s3.drop, share=0.02, seed=3),
        faults.fail("^(PUT|POST) made", faulty_s3.SLOW_DOWN, share=0.05, seed=4),
        faults.fail("^PUT made", faulty_s3.lose_answer, share=0.04, seed=5),
    ]
    run(job, made_sets, "faulty")
    assert sum(rule.done for rule in rules) >= 10
    faults.reset()
    assert_same(job, made_sets, "faulty")


@pytest.mark.parametrize("job", JOBS)
def test_job_gives_the_same_when_workers_are_killed_in_every_stage(
    made_sets: MadeSets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, job: str
) -> None:
    def lethal(stage: str, run: Run) -> Run:
        def killed(item: Any) -> Iterator[Any]:
            for number, result in enumerate(run(item), start=1):
                yield result
                if stage == "_read" and number == 2:
                    die(stage)
            if stage != "_read":
                # All is written, but nobody knows.
                die(stage)

        return killed

    def die(stage: str) -> None:
        if first_time(tmp_path / stage):
            os.kill(os.getpid(), signal.SIGKILL)

    in_stages(monkeypatch, STAGES[job], lethal)
    run(job, made_sets, "killed")
    assert {path.name for path in tmp_path.iterdir()} == set(STAGES[job])
    assert_same(job, made_sets, "killed")


@pytest.mark.parametrize(
    ("job", "requests"),
    [
        ("prepare", ["done/parse/", "part-00002", "manifest.json"]),
        ("sample", ["runs/train/000002", "train/shard-00001", "tokenizer.json"]),
    ],
)
def test_job_goes_on_where_the_storage_failed_for_good(
    made_sets: MadeSets, faults: FaultyS3, job: str, requests: list[str]
) -> None:
    output = storage.join(made_sets.bucket, f"outage-{job}")
    for request in requests:
        rule = faults.fail(f"^PUT .*/outage-{job}/.*{request}", faulty_s3.MISSING)
        with pytest.raises(DataError, match=rf"^{output}/.*{request}.*: writing failed: "):
            run(job, made_sets, f"outage-{job}")
        assert rule.done
        assert not storage.exists(storage.join(output, "manifest.json"))
        faults.reset()
    run(job, made_sets, f"outage-{job}")
    assert_same(job, made_sets, f"outage-{job}")


@pytest.mark.parametrize("job", JOBS)
def test_job_goes_on_after_a_full_disk(
    made_sets: MadeSets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, job: str
) -> None:
    place = tmp_path / "out"
    config = made_sets.prepare_config("") if job == "prepare" else made_sets.sample_config("")
    config = config.model_copy(update={"output": str(place)})

    def without_room(stage: str, run: Run) -> Run:
        def written(item: Any) -> list[Any]:
            if not first_time(tmp_path / stage):
                return list(run(item))
            with mock.patch("os.fsync", side_effect=OSError(errno.ENOSPC, "No space left on device")):
                return list(run(item))

        return written

    # Reading writes nothing but its own result.
    for stage in STAGES[job][-2:]:
        with monkeypatch.context() as patch:
            in_stages(patch, [stage], without_room)
            with pytest.raises(DataError, match=rf"^{place}/.*: writing failed: the disk is full"):
                JOBS[job][1](config)
        assert not (place / "manifest.json").exists()
    JOBS[job][1](config)
    assert content(str(place)) == content(getattr(made_sets, JOBS[job][0]))


DRIVER = """
import sys
from protclip.cluster import output, sample
from protclip.cli import main
output.git_sha = lambda: "this"
sample.PAIRS_PER_TASK = 100
sys.exit(main(sys.argv[1:]))
"""


def driver(job: str, made: MadeSets, output: str) -> subprocess.Popen[bytes]:
    """The command line in another process, on the same cluster."""
    config = made.prepare_config(output) if job == "prepare" else made.sample_config(output)
    given = config.model_dump(mode="json", exclude_defaults=True, exclude={"tracking"})
    if isinstance(config, PrepareConfig):
        given["inputs"] = ",".join(config.inputs)
    values = [f"{key}={value}" for key, value in given.items()]
    path = os.pathsep.join(p for p in sys.path if p)
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, job, *values, "tracking.enabled=false"],
        env={**os.environ, "PYTHONPATH": path, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
        stdout=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(
    ("job", "last", "after"), [("prepare", "done/merge/", 1), ("sample", "done/shards/", 2)]
)
def test_job_goes_on_where_a_driver_was_killed_and_suffers_no_rival(
    made_sets: MadeSets, faults: FaultyS3, job: str, last: str, after: int
) -> None:
    output = storage.join(made_sets.bucket, f"driver-{job}")
    hold = Hold()
    faults.fail(f"^PUT .*/driver-{job}/.*{last}", hold, after=after)
    with driver(job, made_sets, f"driver-{job}") as first:
        try:
            assert hold.reached.wait(120)
            rival = rf"another job is writing here \(process {first.pid} on .*\); wait until it ends"
            with pytest.raises(DataError, match=f"^{output}: {rival}"):
                run(job, made_sets, f"driver-{job}")
        finally:
            first.kill()
            hold.release()
    assert not storage.exists(storage.join(output, "manifest.json"))
    kept = len(storage.list_files(storage.join(output, ".staging", "done")))
    faults.reset()
    run(job, made_sets, f"driver-{job}")
    assert faults.count("^PUT .*/done/") < kept
    assert_same(job, made_sets, f"driver-{job}")
