"""A submitted job's log, followed to its end through lost connections."""

import asyncio
import contextlib
import json
import logging
import time
from typing import Any, TextIO

import aiohttp
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from protclip.errors import ProtclipError

log = logging.getLogger(__name__)

POLL_S = 2.0
"""How often the job's state is asked for while its log is silent."""
DRAIN_S = 15.0
"""How long the end of the log may take after the end of the job."""
PENDING_S = 30.0
"""How often is said what a job waits for that has not begun."""
AWAY_S = 600.0
"""How long the cluster may be away: a head that restarts has to be scheduled and to pull its image."""
LAST_CHARS = 2**20


class Follower:
    """Copies the log of a job.

    Args:
        client: Of the cluster.
        job_id: The submission id.
        out: Where the log goes.
    """

    def __init__(self, client: JobSubmissionClient, job_id: str, out: TextIO) -> None:
        self._client = client
        self._job_id = job_id
        self._out = out
        self._num_chars = 0
        self._last = ""
        self._failures = 0
        self._away_since: float | None = None
        self._said = self._begun = time.monotonic()

    def follow(self) -> JobDetails:
        """Copies the log until the job has ended, and returns its final state.

        Raises:
            ProtclipError: The cluster stayed away, or came back without the job.
        """
        return asyncio.run(self._follow())

    @property
    def result(self) -> dict[str, Any] | None:
        """The JSON object that every job prints at its end; lines of its workers may come after it."""
        for line in reversed(self._last.splitlines()):
            if line.startswith("{"):
                with contextlib.suppress(ValueError):
                    return json.loads(line)
        return None

    async def _follow(self) -> JobDetails:
        """Watches, and again whenever the connection is lost."""
        while True:
            try:
                return await self._watch()
            except (OSError, RuntimeError, aiohttp.ClientError) as error:
                self._lost(error)
            await asyncio.sleep(POLL_S)

    async def _watch(self) -> JobDetails:
        """Copies the log and asks for the state, over one connection."""
        tail = asyncio.create_task(self._copy())
        try:
            while True:
                done, _ = await asyncio.wait({tail}, timeout=POLL_S)
                details = self._client.get_job_info(self._job_id)
                self._found()
                if details.status.is_terminal():
                    await asyncio.wait({tail}, timeout=DRAIN_S)
                    self._failures += 1
                    # What a node took with it when it died will not come.
                    if not tail.done() or tail.exception() is None or self._failures > 2:
                        return details
                    done = {tail}
                if done:
                    tail.result()
                    raise ConnectionError("the log ended before the job")
                if details.status == JobStatus.PENDING:
                    self._say_pending(details)
        finally:
            tail.cancel()
            await asyncio.gather(tail, return_exceptions=True)

    async def _copy(self) -> None:
        """Copies what was not copied yet; Ray sends a log from its beginning."""
        known = self._num_chars
        async for text in self._client.tail_job_logs(self._job_id):
            fresh = text[known:]
            known -= min(known, len(text))
            self._num_chars += len(fresh)
            self._last = (self._last + fresh)[-LAST_CHARS:]
            self._out.write(fresh)
            self._out.flush()

    def _say_pending(self, details: JobDetails) -> None:
        """Tells every now and then what a job waits for."""
        now = time.monotonic()
        if now - self._said >= PENDING_S:
            self._said = now
            log.info("waiting for %s since %.0f s: %s", self._job_id, now - self._begun, details.message)

    def _found(self) -> None:
        """The cluster answers."""
        if self._away_since is not None:
            log.info("the cluster answers again")
            self._away_since = None

    def _lost(self, error: Exception) -> None:
        """Tells that the connection is lost, once; raises when that is for good."""
        if "status code 404" in str(error):
            raise ProtclipError(
                f"the cluster does not know {self._job_id} any more: its head was started anew without its "
                "memory; submit the same command again, a training then continues from its newest checkpoint"
            ) from error
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            log.warning(
                "lost the connection to the cluster (%s); trying again for %.0f min: the job may go on, and "
                "a head that restarts may come back",
                error,
                AWAY_S / 60,
            )
        if now - self._away_since > AWAY_S:
            raise ProtclipError(
                f"no answer from {self._client.get_address()} for {AWAY_S / 60:.0f} min; look after the "
                f"head, then follow {self._job_id} by the same command again"
            ) from error
