from pathlib import Path

import pytest

from protclip.data.manifest import (
    FileEntry,
    PairsManifest,
    Split,
    StrataManifest,
    StratumCount,
    TokenizerEntry,
)
from protclip.errors import DataError
from protclip.storage import StoredFile


def strata_manifest() -> StrataManifest:
    return StrataManifest(
        release=None,
        inputs=("a.dat",),
        strata=(
            StratumCount(confidence=1, coverage=4, reviewed=3, unreviewed=4),
            StratumCount(confidence=2, coverage=4, reviewed=0, unreviewed=5),
        ),
        files=(FileEntry.of("confidence=1/coverage=4/part-00000.parquet", StoredFile("u", 9, "ab"), 12, 5),),
        rejected={"no sequence": 2},
        missing_confidence=1,
    )


def test_manifest_reads_back_what_was_saved(tmp_path: Path) -> None:
    manifest = strata_manifest()
    stored = manifest.save(str(tmp_path))
    assert StrataManifest.load(str(tmp_path)) == manifest
    assert StrataManifest.digest(str(tmp_path)) == stored.sha256
    assert manifest.rows == 12


@pytest.mark.parametrize(("rows", "groups"), [(0, ()), (4, (4,)), (5, (5,)), (12, (5, 5, 2))])
def test_file_entry_of_counts_row_groups(rows: int, groups: tuple[int, ...]) -> None:
    assert FileEntry.of("p", StoredFile("u", 1, "x"), rows, 5).row_groups == groups


def test_manifest_load_names_a_missing_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing: no manifest.json here"):
        StrataManifest.load(str(tmp_path / "nothing"))


def test_manifest_load_refuses_another_kind(tmp_path: Path) -> None:
    strata_manifest().save(str(tmp_path))
    with pytest.raises(DataError, match=r"manifest.json: not a PairsManifest"):
        PairsManifest.load(str(tmp_path))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"kind": "strata"}'])
def test_manifest_load_refuses_a_damaged_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=r"manifest.json: not "):
        StrataManifest.load(str(tmp_path))


def test_pairs_manifest_counts_all_splits() -> None:
    manifest = PairsManifest(
        source="s",
        source_manifest_sha256="0",
        seed=0,
        evidence="strip",
        max_text_tokens=510,
        tokenizer=TokenizerEntry(source="builtin", fingerprint="f", vocab_size=9),
        strata=(),
        splits={"train": Split(rows=5, files=()), "valid": Split(rows=2, files=())},
    )
    assert manifest.rows == 7
