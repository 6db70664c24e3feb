import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from protclip import storage
from protclip.cluster import claim
from protclip.cluster.claim import CLAIM_NAME, Owner, claimed
from protclip.errors import DataError


def lay(place: str, owner: Owner) -> None:
    storage.write_bytes(storage.join(place, CLAIM_NAME), owner.encoded())


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else request.getfixturevalue("bucket") + "/out"


@pytest.mark.parametrize("place", ["local", "s3"], indirect=True)
def test_a_place_is_claimed_by_one_job_at_a_time(place: str) -> None:
    with claimed(place) as held:
        held.check()
        with pytest.raises(DataError, match=r"another job is writing here \(process \d+ on .*wait until"):
            with claimed(place):
                pass
        held.check()
    assert not storage.exists(storage.join(place, CLAIM_NAME))
    with claimed(place):
        pass


def test_a_claim_is_released_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        with claimed(str(tmp_path)):
            raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_the_claim_of_a_dead_process_is_taken_over_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    gone = replace(Owner.here(), job="gone", pid=child.pid)
    child.wait()
    lay(str(tmp_path), gone)
    with claimed(str(tmp_path)):
        assert Owner.read(str(tmp_path / CLAIM_NAME)) != gone
    assert "which is gone" in caplog.text


def test_the_claim_of_an_earlier_process_of_the_same_number_is_taken_over(tmp_path: Path) -> None:
    here = Owner.here()
    lay(str(tmp_path), replace(here, job="earlier", started=here.started - 1000))
    with claimed(str(tmp_path)):
        pass


@pytest.mark.parametrize("beats", [True, False])
def test_a_claim_from_elsewhere_holds_as_long_as_its_heart_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beats: bool
) -> None:
    monkeypatch.setattr(claim, "SILENT_S", 0.5)
    elsewhere = replace(Owner.here(), job="other", host="elsewhere")
    lay(str(tmp_path), elsewhere)
    sleep = claim.time.sleep

    def beat(seconds: float) -> None:
        sleep(seconds)
        if beats:
            lay(str(tmp_path), replace(elsewhere, beat=elsewhere.beat + 1))

    monkeypatch.setattr(claim.time, "sleep", beat)
    if beats:
        with pytest.raises(DataError, match="on elsewhere"):
            with claimed(str(tmp_path)):
                pass
    else:
        with claimed(str(tmp_path)):
            pass


def test_a_job_whose_claim_was_taken_stops_and_leaves_the_other_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "BEAT_S", 0.01)
    other = replace(Owner.here(), job="other", host="elsewhere")
    with claimed(str(tmp_path)) as held:
        while not held._taken_by:
            lay(str(tmp_path), other)
        with pytest.raises(DataError, match="another job has taken this output over"):
            held.check()
    assert Owner.read(str(tmp_path / CLAIM_NAME)) == other


def test_a_claim_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "BEAT_S", 0.01)
    with claimed(str(tmp_path)) as held:
        while json.loads((tmp_path / CLAIM_NAME).read_text())["beat"] < 2:
            held.check()


def test_a_damaged_claim_is_named(tmp_path: Path) -> None:
    (tmp_path / CLAIM_NAME).write_bytes(b"{")
    with pytest.raises(DataError, match=r"\.claim\.json: not a claim of a job; remove this file"):
        with claimed(str(tmp_path)):
            pass
