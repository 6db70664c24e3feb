from datetime import date
from pathlib import Path

import pytest

from protclip import storage
from protclip.data.releases import NOTE_NAME, DownloadedFile, ReleaseNote, parse_metalink, release_of
from protclip.errors import DataError

MD5 = "0123456789abcdef0123456789abcdef"
METALINK = f"""<?xml version="1.0" encoding="UTF-8"?>
<metalink version="3.0" xmlns="http://www.metalinker.org/" type="static" pubdate="2026-06-10">
  <publisher><name>UniProt</name><url>https://www.uniprot.org</url></publisher>
  <license><name>CC BY 4.0</name></license>
  <version>2026_03</version>
  <files>
    <file name="uniprot_sprot.dat.gz">
      <size>701234567</size>
      <verification>
        <hash type="sha1">da39a3ee5e6b4b0d3255bfef95601890afd80709</hash>
        <hash type="MD5">{MD5.upper()}</hash>
      </verification>
      <resources><url protocol="https" location="us">https://example.org/x</url></resources>
    </file>
    <file name="README"><size>0</size><verification><hash type="md5">{MD5}</hash></verification></file>
  </files>
</metalink>
"""


def test_metalink_is_read():
    metalink = parse_metalink(METALINK.encode(), "u")
    assert metalink.release == "2026_03"
    assert metalink.files == {"uniprot_sprot.dat.gz": (701234567, MD5), "README": (0, MD5)}


def test_metalink_of_any_namespace_is_read():
    metalink = parse_metalink(METALINK.replace(' xmlns="http://www.metalinker.org/"', "").encode(), "u")
    assert len(metalink.files) == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</metalink>", "", "not a metalink"),
        (METALINK, "<html><body>Log in</body></html>", "'' is no release number"),
        (METALINK, "", "not a metalink"),
        ("2026_03", "June", "'June' is no release number"),
        ("701234567", "", r"lacks name, size or MD5 of a file \('uniprot_sprot"),
        ("701234567", "-1", "lacks name, size or MD5"),
        (MD5.upper(), "abc", "lacks name, size or MD5"),
        ('type="md5"', 'type="sha512"', r"lacks name, size or MD5 of a file \('README"),
        (' name="README"', "", "lacks name, size or MD5"),
    ],
)
def test_metalink_that_is_damaged_is_named(old: str, new: str, message: str):
    with pytest.raises(DataError, match=f"http://m/RELEASE.metalink: .*{message}"):
        parse_metalink(METALINK.replace(old, new).encode(), "http://m/RELEASE.metalink")


def note() -> ReleaseNote:
    file = DownloadedFile(
        name="a.dat.gz", source="u", num_bytes=1, md5=MD5, sha256="0", downloaded=date(2026, 6, 10)
    )
    return ReleaseNote(release="2026_03", files=(file,))


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_release_is_that_of_the_note_beside_a_file_it_lists(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
):
    root = str(tmp_path) if kind == "local" else request.getfixturevalue("bucket")
    assert release_of(storage.join(root, "a.dat.gz")) is None
    note().save(root)
    assert ReleaseNote.load(root) == note()
    assert release_of(storage.join(root, "a.dat.gz")) == "2026_03"
    assert release_of(storage.join(root, "b.dat.gz")) is None


def test_release_of_a_url_is_not_known():
    assert release_of("https://example.org/a.dat.gz") is None


def test_note_that_is_none_is_named(tmp_path: Path):
    storage.write_json(str(tmp_path / NOTE_NAME), {"release": 3})
    with pytest.raises(DataError, match=r"release\.json: not a note of `protclip download` \(release"):
        release_of(str(tmp_path / "a.dat.gz"))
