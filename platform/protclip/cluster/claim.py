"""One job at a time writes to a place: the claim it lays there, keeps alive, and takes away."""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Self

import psutil

from protclip import storage
from protclip.errors import DataError

log = logging.getLogger(__name__)

CLAIM_NAME = ".claim.json"
BEAT_S = 15.0
SILENT_S = 60.0
"""A claim from another machine that has not moved for so long is that of a job that is gone."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a claim.

    Attributes:
        job: Random name of the attempt.
        host: Machine of the driver.
        pid: Its process there.
        started: When the process began, seconds since 1970; tells it from a later one of the same number.
        beat: Counts up while it lives.
    """

    job: str
    host: str
    pid: int
    started: float
    beat: int = 0

    @classmethod
    def here(cls) -> Self:
        """This process."""
        pid = os.getpid()
        return cls(uuid.uuid4().hex, socket.gethostname(), pid, psutil.Process(pid).create_time())

    @classmethod
    def read(cls, uri: str) -> Self | None:
        """Who holds the claim stored at `uri`; None when nobody does, or nobody can tell."""
        try:
            return cls(**json.loads(storage.read_bytes(uri)))
        except (DataError, ValueError, TypeError):
            return None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def encoded(self) -> bytes:
        """What is stored."""
        return json.dumps(asdict(self)).encode()


class ClaimedError(DataError):
    """A place is another job's at the moment."""


class Claim:
    """A place this process alone may write to, as long as `check` is silent."""

    def __init__(self, uri: str) -> None:
        self._place = uri
        self._uri = storage.join(uri, CLAIM_NAME)
        self._owner = Owner.here()
        self._taken_by: Owner | None = None
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, name="claim", daemon=True)

    @property
    def job(self) -> str:
        """Random name of this attempt."""
        return self._owner.job

    def acquire(self) -> None:
        """Lays the claim, over that of a job that is gone if need be.

        Raises:
            ClaimedError: Another job lives that holds it.
            DataError: Nothing can be written there.
        """
        while not storage.create(self._uri, self._owner.encoded()):
            other = Owner.read(self._uri)
            if other is None and storage.exists(self._uri):
                raise DataError(f"{self._uri}: not a claim of a job; remove this file and run again")
            if other is None:
                continue
            if _lives(other, self._uri):
                raise ClaimedError(
                    f"{self._place}: another job is writing here ({other}); wait until it ends, or use "
                    "another output"
                )
            log.warning("%s: taken over from %s, which is gone", self._place, other)
            storage.remove(self._uri)
        self._thread.start()

    def check(self) -> None:
        """Does nothing as long as the claim is held.

        Raises:
            DataError: Another job has taken it.
        """
        if self._taken_by is not None:
            raise DataError(
                f"{self._place}: another job has taken this output over ({self._taken_by}); this one stops. "
                "Run one of them at a time"
            )

    def release(self) -> None:
        """Takes the claim away, unless it is another's by now."""
        self._released.set()
        self._thread.join()
        owner = Owner.read(self._uri)
        if owner is not None and owner.job == self._owner.job:
            storage.remove(self._uri)

    def _keep_alive(self) -> None:
        """Renews the claim until it is released or lost."""
        while not self._released.wait(BEAT_S):
            found = Owner.read(self._uri)
            if found is not None and found.job != self._owner.job:
                self._taken_by = found
                return
            self._owner = replace(self._owner, beat=self._owner.beat + 1)
            try:
                storage.write_bytes(self._uri, self._owner.encoded())
            except DataError as error:
                log.warning("the claim could not be renewed: %s", error)


def _lives(owner: Owner, uri: str) -> bool:
    """Whether a claim's owner still runs: its process here, elsewhere its heartbeat."""
    if owner.host == socket.gethostname():
        try:
            return psutil.Process(owner.pid).create_time() == owner.started
        except psutil.NoSuchProcess:
            return False
    log.info("waiting up to %.0f s to see whether %s still writes here", SILENT_S, owner)
    end = time.monotonic() + SILENT_S
    while time.monotonic() < end:
        time.sleep(min(1.0, SILENT_S / 10))
        now = Owner.read(uri)
        if now is None:
            return False
        if now != owner:
            return True
    return False


@contextmanager
def claimed(uri: str) -> Iterator[Claim]:
    """Holds the claim on a place while the block runs.

    Raises:
        ClaimedError: Another job holds it.
        DataError: Nothing can be written there.
    """
    claim = Claim(uri)
    claim.acquire()
    try:
        yield claim
    finally:
        claim.release()
