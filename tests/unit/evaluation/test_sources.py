import gzip
import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flaky_http import Fault, FlakyServer
from protclip import storage
from protclip.errors import BenchmarkError
from protclip.evaluation import sources
from protclip.evaluation.sources import missing, obtain, place
from protclip.evaluation.spec.base import Benchmark, DataSection
from protclip.storage.http import Patience

CONTENT = bytes(range(256)) * 2000
SUMS = {"size": len(CONTENT), "md5": hashlib.md5(CONTENT).hexdigest()}
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyServer]:
    monkeypatch.setattr(sources, "Patience", lambda: Patience(retries=1, backoff_s=0.01))
    with FlakyServer().running() as server:
        server.files["/set.zip"] = CONTENT
        yield server


def spec(**file: Any) -> Benchmark[DataSection]:
    files = {"archive": {"path": "set/set.zip", **file}}
    section = DataSection.model_validate({"format": "f", "files": files})
    return Benchmark[DataSection](
        **{"name": "some", "title": "t", "group": "g", "kind": "k", "metric": "m", "licence": "l"},
        data=section,
        citation="Someone 2020, example.org.",
        notes="Behind a form.",
    )


def get(spec: Benchmark[DataSection], raw: object, **options: bool) -> Any:
    return obtain(spec, str(raw), **{"download": True, "accept_other_versions": False, **options})


def test_obtain_fetches_and_verifies_what_is_missing(server: FlakyServer, tmp_path: Path) -> None:
    wanted = spec(url=f"{server.url}/set.zip", **SUMS)
    assert missing(wanted, str(tmp_path)) == [wanted.data.files["archive"]]
    (source,) = get(wanted, tmp_path)
    assert (tmp_path / "set/set.zip").read_bytes() == CONTENT
    assert (source.num_bytes, source.sha256, source.as_published) == (len(CONTENT), SHA256, True)
    assert missing(wanted, str(tmp_path)) == []
    assert get(wanted, tmp_path, download=False) == (source,)
    assert server.ranges["/set.zip"] == [0]
    assert [p.name for p in (tmp_path / "set").iterdir()] == ["set.zip"]


def test_obtain_goes_on_where_it_was_interrupted(server: FlakyServer, tmp_path: Path) -> None:
    server.fail("/set.zip", Fault(cut=300_000), Fault(status=503), Fault(status=503))
    with pytest.raises(ValueError, match="reading failed 2 times"):
        get(spec(url=f"{server.url}/set.zip"), tmp_path)
    assert missing(spec(), str(tmp_path))
    (source,) = get(spec(url=f"{server.url}/set.zip"), tmp_path)
    assert (source.sha256, source.as_published) == (SHA256, None)
    assert server.ranges["/set.zip"][-1] > 0


def test_obtain_puts_files_into_a_bucket(server: FlakyServer, bucket: str) -> None:
    (source,) = get(spec(url=f"{server.url}/set.zip", sha256=SHA256), bucket)
    assert storage.read_bytes(f"{bucket}/set/set.zip") == CONTENT
    assert source.as_published is True


@pytest.mark.parametrize(
    ("published", "message"),
    [
        ({"size": 5}, "bytes 512000 instead of 5"),
        ({"size": len(CONTENT), "md5": "0" * 32}, rf"MD5 {SUMS['md5']} instead of 0{{32}}"),
        ({"sha256": "f" * 64}, rf"SHA-256 {SHA256} instead of f{{64}}"),
    ],
)
def test_obtain_refuses_another_version_unless_told(
    tmp_path: Path, published: dict[str, Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/set.zip").write_bytes(CONTENT)
    with pytest.raises(BenchmarkError, match=rf"set\.zip: not the published file: {message}.*accept_other"):
        get(spec(**published), tmp_path)
    caplog.set_level(logging.WARNING)
    (source,) = get(spec(**published), tmp_path, accept_other_versions=True)
    assert source.as_published is False
    assert "not the published file" in caplog.text


def test_obtain_names_place_and_source_of_what_it_cannot_fetch(server: FlakyServer, tmp_path: Path) -> None:
    message = r"set/set\.zip: not there, and no program.*Someone 2020, example\.org\. Behind a form\. Put the"
    with pytest.raises(BenchmarkError, match=message):
        get(spec(), tmp_path)
    with pytest.raises(BenchmarkError, match=r"fetch it from http.*download=true"):
        get(spec(url=f"{server.url}/set.zip"), tmp_path, download=False)
    with pytest.raises(ValueError, match="no such file on the server"):
        get(spec(url=f"{server.url}/gone.zip"), tmp_path)


def test_obtain_looks_once_at_a_file_with_two_roles(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(CONTENT)
    data = {"format": "f", "files": {"train": {"path": "a.csv"}, "test": {"path": "a.csv"}}}
    both = spec().model_copy(update={"data": DataSection.model_validate(data)})
    assert [s.path for s in get(both, tmp_path)] == ["a.csv"]


def test_obtain_takes_a_file_that_lies_there_packed(tmp_path: Path) -> None:
    wanted = spec(**SUMS)
    packed = tmp_path / "set/set.zip.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(CONTENT))
    assert missing(wanted, str(tmp_path)) == []
    assert place(wanted.data.files["archive"], str(tmp_path)) == str(packed)
    (source,) = get(wanted, tmp_path)
    assert (source.path, source.sha256, source.as_published) == ("set/set.zip", SHA256, True)
    packed.write_bytes(gzip.compress(CONTENT)[:-20])
    with pytest.raises(BenchmarkError, match=r"set\.zip\.gz: damaged"):
        get(wanted, tmp_path)
