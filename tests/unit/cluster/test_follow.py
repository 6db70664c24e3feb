"""The log of a job arrives once, in whole, whatever happens to the connection."""

import io
import logging
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
from ray.job_submission import JobDetails, JobStatus, JobType

from protclip.cluster import follow
from protclip.cluster.follow import Follower
from protclip.errors import ProtclipError

LOG = 'one\n{two}\n{"made": "x"}\n(worker pid=7) four\n'


class Cluster:
    """Stands for Ray's client: connections break where told, states come one after the other."""

    def __init__(self, breaks: list[int | None], states: list[JobStatus | Exception]) -> None:
        self.breaks: Iterator[int | None] = iter(breaks)
        self.states = iter(states)
        self.state: JobStatus | Exception = JobStatus.PENDING

    async def tail_job_logs(self, _: str) -> AsyncIterator[str]:
        end = next(self.breaks)
        text = LOG[:end]
        yield text[:5]
        yield text[5:]
        if end is not None:
            raise aiohttp.ClientConnectionError("broken")

    def get_job_info(self, _: str) -> JobDetails:
        self.state = next(self.states, self.state)
        if isinstance(self.state, Exception):
            raise self.state
        kind = JobType.SUBMISSION
        return JobDetails(type=kind, status=self.state, entrypoint="", message="waiting for CPUs")

    def get_address(self) -> str:
        return "http://head:8265"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(follow, "POLL_S", 0.01)
    monkeypatch.setattr(follow, "DRAIN_S", 0.5)
    caplog.set_level(logging.INFO)


RUNNING, SUCCEEDED = JobStatus.RUNNING, JobStatus.SUCCEEDED


@pytest.mark.parametrize("breaks", [[None], [3, 9, None], [0, 20, 4, 20, None]])
def test_follower_repeats_and_loses_nothing(
    breaks: list[int | None], caplog: pytest.LogCaptureFixture
) -> None:
    out = io.StringIO()
    follower = Follower(Cluster(breaks, [RUNNING] * (len(breaks) - 1) + [SUCCEEDED]), "job", out)  # pyright: ignore[reportArgumentType]
    assert follower.follow().status == SUCCEEDED
    assert out.getvalue() == LOG
    assert follower.result == {"made": "x"}
    assert ("lost the connection to the cluster (broken)" in caplog.text) == (len(breaks) > 1)


def test_follower_outlives_a_head_that_restarts(caplog: pytest.LogCaptureFixture) -> None:
    away = [ConnectionError("refused"), RuntimeError("Request failed with status code 503: .")]
    out = io.StringIO()
    cluster = Cluster([3, 3, 3, None], [RUNNING, *away, SUCCEEDED])
    Follower(cluster, "job", out).follow()  # pyright: ignore[reportArgumentType]
    assert out.getvalue() == LOG
    assert caplog.text.count("lost the connection") == 1
    assert "a head that restarts may come back" in caplog.text
    assert "the cluster answers again" in caplog.text


def test_follower_says_that_a_head_came_back_without_the_job() -> None:
    cluster = Cluster([3] * 9, [RUNNING, RuntimeError("Request failed with status code 404: no job")])
    with pytest.raises(ProtclipError, match=r"does not know job any more.*submit the same command again"):
        Follower(cluster, "job", io.StringIO()).follow()  # pyright: ignore[reportArgumentType]


def test_follower_gives_up_on_a_cluster_that_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "AWAY_S", 0.05)
    cluster = Cluster([3] * 99, [RUNNING, ConnectionError("refused")])
    with pytest.raises(ProtclipError, match=r"no answer from http://head:8265.*same command again"):
        Follower(cluster, "job", io.StringIO()).follow()  # pyright: ignore[reportArgumentType]


def test_follower_takes_the_end_of_a_job_whose_log_is_gone() -> None:
    cluster = Cluster([3] * 9, [JobStatus.FAILED])
    out = io.StringIO()
    follower = Follower(cluster, "job", out)  # pyright: ignore[reportArgumentType]
    assert follower.follow().status == JobStatus.FAILED
    assert out.getvalue() == LOG[:3]
    assert follower.result is None


def test_follower_says_what_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(follow, "PENDING_S", 0.0)

    class Slow(Cluster):
        async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
            while self.state == JobStatus.PENDING:
                await follow.asyncio.sleep(0.005)
            async for text in super().tail_job_logs(job_id):
                yield text

    cluster = Slow([None], [JobStatus.PENDING] * 3 + [SUCCEEDED])
    Follower(cluster, "job", io.StringIO()).follow()  # pyright: ignore[reportArgumentType]
    assert caplog.text.count("waiting for job since 0 s: waiting for CPUs") == 3
