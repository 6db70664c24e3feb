import json
from pathlib import Path

import pytest

from protclip.data.inputs import find_inputs, release_of_all
from protclip.errors import DataError

ENTRY = b"ID   P1_MADE   Reviewed;   1 AA.\nAC   P1;\n//\n"


def folder(path: Path, release: str | None, *names: str) -> str:
    path.mkdir()
    for name in names:
        (path / name).write_bytes(ENTRY)
    if release:
        file = {
            "source": "https://uniprot.example/x",
            "num_bytes": len(ENTRY),
            "md5": "0" * 32,
            "sha256": "0" * 64,
            "downloaded": "2026-11-22",
        }
        note = {"release": release, "files": [{"name": name, **file} for name in names]}
        (path / "release.json").write_text(json.dumps(note))
    return str(path)


def test_inputs_have_the_release_of_their_download(tmp_path: Path) -> None:
    made = folder(tmp_path / "a", "2026_04", "a.dat", "b.dat")
    inputs = find_inputs([made], "auto")
    assert [Path(i.origin.uri).name for i in inputs] == ["a.dat", "b.dat"]
    assert {i.format for i in inputs} == {"flat"}
    assert release_of_all(inputs, None) == "2026_04"
    assert release_of_all(inputs, "2026_04") == "2026_04"


def test_inputs_without_a_note_have_the_release_that_is_given(tmp_path: Path) -> None:
    inputs = find_inputs([folder(tmp_path / "a", None, "a.dat")], "auto")
    assert release_of_all(inputs, None) is None
    assert release_of_all(inputs, "2026_01") == "2026_01"


def test_inputs_of_several_releases_are_refused(tmp_path: Path) -> None:
    old, new = folder(tmp_path / "a", "2025_01", "a.dat"), folder(tmp_path / "b", "2026_04", "b.dat")
    with pytest.raises(
        DataError, match=r"mix UniProt releases: .*a\.dat is of 2025_01; .*b\.dat is of 2026_04"
    ):
        release_of_all(find_inputs([old, new], "auto"), None)
    with pytest.raises(DataError, match="mix UniProt releases"):
        release_of_all(find_inputs([old], "auto"), "2026_04")


def test_inputs_that_state_no_release_take_the_others_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known, own = folder(tmp_path / "a", "2026_04", "a.dat"), folder(tmp_path / "b", None, "own.dat")
    assert release_of_all(find_inputs([known, own], "auto"), None) == "2026_04"
    assert "own.dat" in caplog.text
