import contextlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protclip.errors import BenchmarkError
from protclip.evaluation.raw.archives import extract


def tar(path: Path, members: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


MEMBERS = {"set/train.csv": b"a,b\n" * 1000, "set/readme.txt": b"hello", "set/deep/test.csv": b""}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_extract_takes_what_is_wanted(tmp_path: Path, mode: str) -> None:
    # The archive is known by its bytes, not by its name.
    path = tmp_path / "archive.bin"
    if mode == "zip":
        zipped(path, MEMBERS)
    else:
        tar(path, MEMBERS, mode)
    into = tmp_path / "into"
    found = extract(path, lambda name: name.endswith(".csv"), into)
    assert found == [into / "set/train.csv", into / "set/deep/test.csv"]
    assert [f.read_bytes() for f in found] == [MEMBERS["set/train.csv"], b""]
    assert not (into / "set/readme.txt").exists()


@pytest.mark.parametrize("name", ["../out.csv", "a/../../out.csv", "/tmp/out.csv", "..\\out.csv", ".."])
@pytest.mark.parametrize("make", [tar, zipped])
def test_extract_refuses_to_leave_its_folder(tmp_path: Path, name: str, make: object) -> None:
    assert callable(make)
    path = make(tmp_path / "archive", {"good.csv": b"1", name: b"2"})
    into = tmp_path / "deep" / "into"
    with pytest.raises(BenchmarkError, match="leads out of the archive"):
        extract(path, lambda _: True, into)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] in ([path], [path, into / "good.csv"])


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_extract_refuses_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "archive.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("train.csv")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(BenchmarkError, match=r"'train\.csv' is a link"):
        extract(path, lambda _: True, tmp_path / "into")


def test_extract_refuses_links_in_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("train.csv")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(BenchmarkError, match="is a link"):
        extract(path, lambda _: True, tmp_path / "into")


def test_extract_says_what_an_archive_holds_instead(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar.gz", {f"{n}.txt": b"" for n in range(10)})
    with pytest.raises(BenchmarkError, match=r"it holds 0\.txt, .*7\.txt and 2 more"):
        extract(path, lambda name: name.endswith(".csv"), tmp_path / "into")


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2", "zip"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_extract_names_a_damaged_archive(tmp_path: Path, mode: str, data: st.DataObject) -> None:
    path = tmp_path / "archive"
    content = {"train.csv": bytes(range(256)) * 8}
    whole = (zipped(path, content) if mode == "zip" else tar(path, content, mode)).read_bytes()
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole) - 1))])
    if damaged and data.draw(st.booleans()):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 0xFF
    path.write_bytes(damaged)
    with contextlib.suppress(BenchmarkError):
        (found,) = extract(path, lambda name: name == "train.csv", tmp_path / "into")
        # What was cut off or changed is not part of it.
        assert found.read_bytes() == content["train.csv"]
