import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flaky_http import Fault, FlakyServer
from protclip import storage
from protclip.cli import run_job
from protclip.cluster.claim import claimed
from protclip.config.data import DownloadConfig
from protclip.config.load import load_config
from protclip.data import download as module
from protclip.data.download import download
from protclip.data.releases import NOTE_NAME, release_of
from protclip.errors import ConfigError, DataError
from protclip.storage import http, resumable
from protclip.storage.resumable import kept_bytes

REPO = Path(__file__).resolve().parents[3]
CURRENT = "/current_release/knowledgebase"
SPROT = f"{CURRENT}/complete/uniprot_sprot.dat.gz"
TREMBL = f"{CURRENT}/complete/uniprot_trembl.dat.gz"
FUNGI = f"{CURRENT}/taxonomic_divisions/uniprot_trembl_fungi.dat.gz"
OLD = "/previous_releases/release-2025_01/knowledgebase"
CONTENT = {path: os.urandom(size) for path, size in ((SPROT, 900_000), (TREMBL, 700_000), (FUNGI, 50_000))}


def publish(server: FlakyServer, folder: str, release: str, files: dict[str, bytes]) -> None:
    """Puts files into a folder, with their metalink."""
    rows = "".join(
        f'<file name="{name}"><size>{len(data)}</size><verification><hash type="md5">'
        f"{hashlib.md5(data).hexdigest()}</hash></verification></file>"
        for name, data in files.items()
    )
    xml = f'<metalink xmlns="http://www.metalinker.org/"><version>{release}</version><files>{rows}</files></metalink>'
    server.files |= {f"{folder}/{name}": data for name, data in files.items()}
    server.files[f"{folder}/RELEASE.metalink"] = xml.encode()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with FlakyServer().running() as server:
        complete = {storage.basename(path): CONTENT[path] for path in (SPROT, TREMBL)}
        publish(server, f"{CURRENT}/complete", "2026_03", complete)
        publish(
            server, f"{CURRENT}/taxonomic_divisions", "2026_03", {storage.basename(FUNGI): CONTENT[FUNGI]}
        )
        yield server


def config(server: FlakyServer, output: object, **more: Any) -> DownloadConfig:
    given = {
        "mirrors": [server.url],
        "service": server.url,
        "retries": 2,
        "backoff_s": 0.001,
        "timeout_s": 5.0,
    }
    if "query" not in more:
        given["sections"] = ["sprot"]
    return DownloadConfig.model_validate({"output": str(output), **given, **more})


def everything_in(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_download_writes_verified_files_and_a_note(server: FlakyServer, tmp_path: Path):
    made = download(config(server, tmp_path, sections=["sprot", "trembl_fungi"], connections=2))
    names = ["uniprot_sprot.dat.gz", "uniprot_trembl_fungi.dat.gz"]
    assert [made["release"], made["bytes"], made["kept"]] == ["2026_03", 950_000, 0]
    assert made["files"] == [str(tmp_path / name) for name in names]
    assert [(tmp_path / name).read_bytes() for name in names] == [CONTENT[SPROT], CONTENT[FUNGI]]
    assert everything_in(tmp_path) == {*names, NOTE_NAME}
    (sprot, _) = json.loads((tmp_path / NOTE_NAME).read_text())["files"]
    assert sprot.pop("downloaded") == time.strftime("%Y-%m-%d", time.gmtime())
    assert sprot == {
        "name": names[0],
        "source": server.url + SPROT,
        "num_bytes": 900_000,
        "md5": hashlib.md5(CONTENT[SPROT]).hexdigest(),
        "sha256": hashlib.sha256(CONTENT[SPROT]).hexdigest(),
    }
    assert release_of(str(tmp_path / names[0])) == "2026_03"


def test_download_survives_faults(server: FlakyServer, tmp_path: Path):
    server.fail(f"{CURRENT}/complete/RELEASE.metalink", Fault(status=503), Fault(cut=30))
    faults = [Fault(cut=300_000), Fault(status=500), Fault(cut=100), Fault(ignore_range=True, cut=500_000)]
    server.fail(SPROT, *faults)
    download(config(server, tmp_path))
    assert (tmp_path / "uniprot_sprot.dat.gz").read_bytes() == CONTENT[SPROT]
    assert server.sent[SPROT] < 2_000_000


def test_download_again_fetches_nothing(server: FlakyServer, tmp_path: Path):
    download(config(server, tmp_path))
    before = server.sent[SPROT]
    assert download(config(server, tmp_path))["kept"] == 1
    made = download(config(server, tmp_path, sections=["sprot", "trembl"]))
    assert (made["kept"], server.sent[SPROT]) == (1, before)
    assert len(made["files"]) == 2  # type: ignore[arg-type]


def test_download_checks_a_file_without_note(server: FlakyServer, tmp_path: Path):
    file = tmp_path / "uniprot_sprot.dat.gz"
    file.write_bytes(CONTENT[SPROT])
    download(config(server, tmp_path))
    assert server.sent[SPROT] == 0
    (tmp_path / NOTE_NAME).unlink()
    file.write_bytes(CONTENT[SPROT][::-1])
    download(config(server, tmp_path))
    assert file.read_bytes() == CONTENT[SPROT]


@pytest.mark.parametrize(
    "fault",
    [Fault(content=CONTENT[SPROT][::-1]), Fault(short=1000), Fault(content=CONTENT[SPROT] + b"more")],
    ids=["other bytes", "short body", "longer"],
)
class TestWrongContent:
    def test_once_is_fetched_again(self, server: FlakyServer, tmp_path: Path, fault: Fault):
        server.fail(SPROT, fault)
        download(config(server, tmp_path))
        assert (tmp_path / "uniprot_sprot.dat.gz").read_bytes() == CONTENT[SPROT]

    def test_always_is_an_error_and_leaves_nothing(self, server: FlakyServer, tmp_path: Path, fault: Fault):
        server.always[SPROT] = fault
        with pytest.raises(DataError, match=r"uniprot_sprot\.dat\.gz: 900,000 bytes.*expected.*2 times"):
            download(config(server, tmp_path))
        assert storage.list_files(str(tmp_path)) == []
        assert kept_bytes(str(tmp_path / "uniprot_sprot.dat.gz")) == 0

    def test_of_one_mirror_is_fetched_from_the_next(self, server: FlakyServer, tmp_path: Path, fault: Fault):
        server.files |= {f"/mirror{path}": data for path, data in server.files.items()}
        server.always[SPROT] = fault
        download(config(server, tmp_path, mirrors=[server.url, f"{server.url}/mirror"]))
        assert (tmp_path / "uniprot_sprot.dat.gz").read_bytes() == CONTENT[SPROT]


def test_download_goes_on_with_the_next_mirror(server: FlakyServer, tmp_path: Path):
    server.files |= {f"/mirror{path}": data for path, data in server.files.items()}
    server.fail(SPROT, Fault(cut=400_000))
    server.always[SPROT] = Fault(status=503)
    dead = "http://127.0.0.1:9"
    download(config(server, tmp_path, mirrors=[dead, server.url, f"{server.url}/mirror"]))
    assert (tmp_path / "uniprot_sprot.dat.gz").read_bytes() == CONTENT[SPROT]
    assert server.sent[SPROT] == 400_000
    assert server.sent[f"/mirror{SPROT}"] == 500_000


def test_download_leaves_what_it_has_when_the_server_fails(server: FlakyServer, tmp_path: Path):
    server.fail(SPROT, Fault(cut=400_000))
    server.always[SPROT] = Fault(status=500)
    with pytest.raises(DataError, match=r"uniprot_sprot.*status 500"):
        download(config(server, tmp_path))
    assert not (tmp_path / "uniprot_sprot.dat.gz").exists()
    assert storage.list_files(str(tmp_path)) == []
    del server.always[SPROT]
    download(config(server, tmp_path))
    assert server.sent[SPROT] == 900_000
    assert (tmp_path / "uniprot_sprot.dat.gz").read_bytes() == CONTENT[SPROT]


def test_download_begins_again_when_the_release_changed(server: FlakyServer, tmp_path: Path):
    server.fail(SPROT, Fault(cut=400_000))
    server.always[SPROT] = Fault(status=500)
    with pytest.raises(DataError):
        download(config(server, tmp_path))
    del server.always[SPROT]
    publish(server, f"{CURRENT}/complete", "2026_04", {"uniprot_sprot.dat.gz": CONTENT[TREMBL]})
    assert download(config(server, tmp_path))["release"] == "2026_04"
    assert (tmp_path / "uniprot_sprot.dat.gz").read_bytes() == CONTENT[TREMBL]


def test_download_mixes_no_releases(server: FlakyServer, tmp_path: Path):
    download(config(server, tmp_path))
    publish(server, f"{CURRENT}/complete", "2026_04", {"uniprot_sprot.dat.gz": CONTENT[TREMBL]})
    with pytest.raises(
        DataError, match=r"holds release 2026_03; this is release 2026_04\. Use another output"
    ):
        download(config(server, tmp_path))
    with pytest.raises(DataError, match="parts of the releases 2026_04 and 2026_03"):
        download(config(server, tmp_path / "b", sections=["sprot", "trembl_fungi"]))


def test_download_names_a_missing_section(server: FlakyServer, tmp_path: Path):
    with pytest.raises(
        DataError, match=r"holds no uniprot_sprot_human\.dat\.gz; there are: uniprot_trembl_fungi"
    ):
        download(config(server, tmp_path, sections=["sprot_human"]))


def test_download_keeps_what_it_has_when_a_mirror_offers_another_file(server: FlakyServer, tmp_path: Path):
    server.fail(SPROT, Fault(cut=400_000), *[Fault(status=500)] * 3)
    with pytest.raises(DataError, match="status 500"):
        download(config(server, tmp_path))
    server.fail(SPROT, *[Fault(content=b"another release", ignore_range=True)] * 2)
    with pytest.raises(DataError, match=r"900,000 bytes were expected, 15 offered, 2 times"):
        download(config(server, tmp_path))
    assert kept_bytes(str(tmp_path / "uniprot_sprot.dat.gz")) == 400_000


def test_download_stops_other_files_when_one_fails(server: FlakyServer, tmp_path: Path):
    server.piece_pause_s = 0.02
    server.always[SPROT] = Fault(status=404)
    with pytest.raises(DataError, match=r"uniprot_sprot.*no such file"):
        download(config(server, tmp_path, sections=["sprot", "trembl"], connections=2))
    assert server.sent[TREMBL] < 700_000
    assert storage.list_files(str(tmp_path)) == []


def test_download_refuses_a_disk_too_small(
    server: FlakyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usage = module.shutil._ntuple_diskusage(10**9, 10**9, 800_000)  # type: ignore[attr-defined]
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=r"900\.0 kB are needed and 800\.0 kB are free"):
        download(config(server, tmp_path / "new"))
    assert server.sent[SPROT] == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_download_names_a_full_disk(server: FlakyServer, tmp_path: Path):
    sink = tmp_path / ".uniprot_sprot.dat.gz.partial"
    sink.mkdir()
    (sink / "data").symlink_to("/dev/full")
    md5 = hashlib.md5(CONTENT[SPROT]).hexdigest()
    (sink / "source").write_text(f"900000 bytes, MD5 {md5}")
    with pytest.raises(DataError, match=r"uniprot_sprot\.dat\.gz: writing failed: .*full"):
        download(config(server, tmp_path))
    assert storage.list_files(str(tmp_path)) == []


def test_download_goes_on_after_being_killed(server: FlakyServer, tmp_path: Path):
    server.piece_pause_s = 0.04
    arguments = [f"output={tmp_path}", f"mirrors={server.url}", "sections=sprot"]
    command = [sys.executable, str(REPO / "jobs" / "download_data.py"), *arguments]
    env = {**os.environ, "PYTHONPATH": str(REPO / "platform"), "NO_PROXY": "127.0.0.1"}
    job = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    partial = tmp_path / ".uniprot_sprot.dat.gz.partial" / "data"
    while job.poll() is None and not (partial.exists() and partial.stat().st_size >= 2 * http.READ_BYTES):
        time.sleep(0.01)
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert not (tmp_path / "uniprot_sprot.dat.gz").exists()
    kept = partial.stat().st_size
    assert 2 * http.READ_BYTES <= kept < 900_000
    server.piece_pause_s = 0
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["bytes"] == 900_000
    assert f"goes on after {kept:,} bytes" in done.stderr
    assert (tmp_path / "uniprot_sprot.dat.gz").read_bytes() == CONTENT[SPROT]
    assert server.ranges[SPROT] == [0, kept]
    assert everything_in(tmp_path) == {"uniprot_sprot.dat.gz", NOTE_NAME}


def test_download_leaves_an_output_alone_that_another_job_writes(
    server: FlakyServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = [f"output={tmp_path}", f"mirrors={server.url}", "sections=sprot"]
    with claimed(str(tmp_path)):
        assert run_job("download", arguments) == DataError.exit_code
    assert "another job is writing here" in capsys.readouterr().err
    assert server.ranges[SPROT] == []


def test_download_to_s3_goes_on_after_a_failure(
    server: FlakyServer, bucket: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(resumable, "PIECE_BYTES", resumable.MIN_PIECE_BYTES)
    content = os.urandom(12 * 2**20)
    publish(server, f"{CURRENT}/complete", "2026_03", {"uniprot_sprot.dat.gz": content})
    server.fail(SPROT, Fault(cut=8 * 2**20))
    server.always[SPROT] = Fault(status=500)
    with pytest.raises(DataError, match="status 500"):
        download(config(server, bucket))
    assert storage.list_files(bucket) == []
    del server.always[SPROT]
    made = download(config(server, bucket))
    assert storage.read_bytes(storage.join(bucket, "uniprot_sprot.dat.gz")) == content
    assert server.sent[SPROT] <= len(content) + 4 * 2**20
    assert release_of(made["files"][0]) == "2026_03"  # type: ignore[index]
    fs, path = storage.filesystem(bucket)
    assert len(fs.handler.fs.find(path)) == 2
    assert download(config(server, bucket))["kept"] == 1


def tarball(members: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return made.getvalue()


MEMBERS = {
    "README": b"read me",
    "complete/uniprot_sprot.dat.gz": CONTENT[SPROT],
    "uniprot_sprot.fasta.gz": b"",
    "uniprot_trembl.dat.gz": CONTENT[TREMBL],
}


@pytest.mark.parametrize("kind", ["local", "s3"])
@pytest.mark.parametrize(
    "names", [["knowledgebase2025_01"], ["uniprot_sprot-only2025_01", "knowledgebase2025_01"]]
)
def test_download_of_an_earlier_release_takes_the_files_out_of_its_tarballs(
    server: FlakyServer, tmp_path: Path, kind: str, names: list[str], request: pytest.FixtureRequest
):
    root = str(tmp_path) if kind == "local" else request.getfixturevalue("bucket")
    publish(server, OLD, "2025_01", {f"{name}.tar.gz": tarball(MEMBERS) for name in names})
    server.fail(f"{OLD}/{names[0]}.tar.gz", Fault(cut=500_000))
    given = config(server, root, release="2025_01", sections=["sprot", "trembl"])
    assert download(given)["release"] == "2025_01"
    for path in (SPROT, TREMBL):
        uri = storage.join(root, storage.basename(path))
        assert storage.read_bytes(uri) == CONTENT[path]
        assert release_of(uri) == "2025_01"
    assert {storage.basename(f.uri) for f in storage.list_files(root)} == {
        "uniprot_sprot.dat.gz",
        "uniprot_trembl.dat.gz",
        NOTE_NAME,
    }
    assert not storage.exists(storage.join(root, ".archives"))
    before = server.sent.total()
    assert download(given)["kept"] == len(names)
    assert server.sent.total() < before + 5_000


def test_download_of_a_named_current_release_takes_its_files(server: FlakyServer, tmp_path: Path):
    assert download(config(server, tmp_path, release="2026_03"))["release"] == "2026_03"
    assert server.ranges[SPROT] == [0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tarball({"README": b""}), r"holds no uniprot_sprot\.dat\.gz, but README"),
        (tarball(MEMBERS)[:500_000], "damaged tarball"),
        (b"no tarball", "damaged tarball"),
    ],
    ids=["without the file", "cut off", "something else"],
)
def test_download_names_a_tarball_that_is_of_no_use(
    server: FlakyServer, tmp_path: Path, content: bytes, message: str
):
    publish(server, OLD, "2025_01", {"uniprot_sprot-only2025_01.tar.gz": content})
    with pytest.raises(DataError, match=message):
        download(config(server, tmp_path, release="2025_01"))
    assert storage.list_files(str(tmp_path)) == []


def test_download_names_an_unknown_release_or_division(server: FlakyServer, tmp_path: Path):
    with pytest.raises(DataError, match=r"release-1999_01/knowledgebase/RELEASE\.metalink: no such file"):
        download(config(server, tmp_path, release="1999_01"))
    with pytest.raises(DataError, match=r"divisions \(trembl_fungi\) are kept of the current one only"):
        download(config(server, tmp_path, release="2025_01", sections=["trembl_fungi"]))
    publish(server, OLD, "2025_02", {})
    with pytest.raises(DataError, match="holds release 2025_02"):
        download(config(server, tmp_path, release="2025_01"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "give either sections=sprot,trembl,… or query=…"),
        (["sections=sprot", "query=x"], "give either"),
        (["sections=sprot", "limit=5"], "limit goes with query"),
        (["query=x", "release=2025_01"], "current release only"),
        (["sections=sprot,sprot"], "named twice"),
        (["sections=trembl,trembl_fungi"], "is a part of trembl"),
        (["sections=trembl_dogs"], "no section 'trembl_dogs'; there are sprot and trembl"),
        (["sections=swissprot"], "no section 'swissprot'"),
        (["sections=sprot", "release=2025-01"], "release"),
        (["sections=sprot", "mirrors=[]"], "mirrors"),
    ],
)
def test_config_names_what_does_not_go_together(overrides: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        load_config(DownloadConfig, None, ["output=o", *overrides])
