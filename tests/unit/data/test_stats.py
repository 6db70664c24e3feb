"""Everything `protclip stats` says of a small made data set, on disk and on S3."""

import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from protclip import storage
from protclip.cli import run_job
from protclip.config.data import StatsConfig
from protclip.data.manifest import Excluded, PairsManifest, StrataManifest
from protclip.data.stats import stats
from protclip.data.strata import Origin, tables, totals, write_parts
from protclip.data.summary import add, count_entries, quantile, summarise
from protclip.errors import DataError
from protclip.records import ProteinRecord

REJECTED = {"duplicate accession": 1200, "no sequence <&>": 3}


def made(count: int = 400) -> list[ProteinRecord]:
    rng = np.random.default_rng(5)
    return [
        ProteinRecord(
            accession=f"P{i:05d}",
            entry_name="X_Y",
            reviewed=bool(i % 4 == 0),
            sequence="M" * int(rng.lognormal(5.5, 0.7) + 1),
            protein_name="Name " * int(rng.integers(1, 9)),
            function="Binds. " * int(rng.integers(1, 90)) if i % 3 else None,
            subcellular_location="Cytoplasm." if i % 2 else None,
            similarity="Belongs to it." if i % 5 else None,
            confidence=1 + i % 5,
            taxon_id=(9606, 562, 12345678, None)[i % 4 if i % 7 else 0],
            annotation_date=date(1990 + i % 30, 1 + i % 12, 1) if i % 10 else None,
        )
        for i in range(count)
    ]


def write_strata(root: str, records: list[ProteinRecord], *, with_summary: bool = True) -> StrataManifest:
    parts, counts = [], []
    for part, start in enumerate(range(0, len(records), 150)):
        slice_ = list(enumerate(records[start : start + 150]))
        table = tables(slice_, Origin(0, "made.dat"), "2026_01", None)[0]
        parts += write_parts(table, np.arange(len(table)), root, part)
        counts.append(count_entries(table, np.arange(len(table))))
    manifest = StrataManifest(
        release="2026_01",
        inputs=tuple(f"in-{i}.dat.gz" for i in range(5)),
        strata=totals(count for _, count in parts),
        files=tuple(file for file, _ in parts),
        rejected=REJECTED,
        missing_confidence=7,
        summary=summarise(add(counts)) if with_summary else None,
    )
    manifest.save(root)
    return manifest


class Tags(HTMLParser):
    """Tags that are opened and not closed, and every attribute that names something outside."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []
        self.pictures = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "img"}:
            self.open.append(tag)
        for name, value in attrs:
            if name in {"src", "href"} and not str(value).startswith("data:"):
                self.outside.append(str(value))
        self.pictures += tag == "img"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_stats_of_strata_equal_a_scan_of_the_records(tmp_path: Path) -> None:
    records = made()
    write_strata(str(tmp_path / "strata"), records)
    found = stats(StatsConfig(source=str(tmp_path / "strata"), output=str(tmp_path / "out")))
    assert json.loads(json.dumps(found))["kind"] == "strata"
    lengths = [len(r.sequence) for r in records]
    assert found["rows"] == 400
    assert found["reviewed"] == 100
    assert found["residues"] == sum(lengths)
    assert found["length_range"] == [min(lengths), max(lengths)]
    days = sorted(r.annotation_date for r in records if r.annotation_date)
    assert found["annotation_dates"] == [str(days[0]), str(days[-1])]
    assert found["years"] == dict(sorted(Counter(day.year for day in days).items()))
    taxa = Counter(r.taxon_id for r in records if r.taxon_id)
    assert found["organisms"] == 3
    assert found["top_organisms"] == {str(t): n for t, n in taxa.most_common()}
    assert found["releases"] == {"2026_01": 400}
    assert found["rejected"] == REJECTED
    assert found["with_property"] == {
        "protein_name": 400,
        "function": sum(r.function is not None for r in records),
        "subcellular_location": 200,
        "similarity": 320,
    }
    strata = Counter((r.confidence, r.coverage, r.reviewed) for r in records)
    for stratum in found["strata"]:  # pyright: ignore[reportGeneralTypeIssues]
        key = stratum["confidence"], stratum["coverage"]
        assert (stratum["reviewed"], stratum["unreviewed"]) == (strata[*key, True], strata[*key, False])
    median = float(np.median(lengths))
    assert abs(found["lengths"]["p50"] - median) <= 0.04 * median  # pyright: ignore[reportIndexIssue]
    assert found["complete"] is True


def test_stats_writes_a_page_that_stands_alone_and_pictures(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    write_strata(str(tmp_path / "strata"), made())
    found = stats(StatsConfig(source=str(tmp_path / "strata"), output=str(tmp_path / "out")))
    pictures = ["lengths.png", "rejected.png", "strata.png", "taxa.png", "texts.png", "years.png"]
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == sorted([*pictures, "report.html", "report.md"])
    for name in pictures:
        assert matplotlib.image.imread(tmp_path / "out" / name)[..., :3].std() > 0.02
    assert found["report"] == str(tmp_path / "out" / "report.html")
    page = (tmp_path / "out" / "report.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert (tags.open, tags.outside, tags.pictures) == ([], [], len(pictures))
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert all(f"({name})" in markdown for name in pictures)
    for text in (page, markdown, caplog.text):
        for content in (
            "Homo sapiens",
            "12345678",
            "2026_01",
            "1,203 of 1,603 entries read",
            "subcellular location",
        ):
            assert content in text
    assert "no sequence &lt;&amp;&gt;" in page
    assert "in-2.dat.gz and 2 more" in page


def test_stats_of_an_older_data_set_says_what_to_run_again(tmp_path: Path, caplog) -> None:
    manifest = write_strata(str(tmp_path / "strata"), made(), with_summary=False)
    raw = manifest.model_dump(mode="json")
    del raw["summary"]
    storage.write_json(str(tmp_path / "strata" / "manifest.json"), raw)
    found = stats(StatsConfig(source=str(tmp_path / "strata"), output=str(tmp_path / "out")))
    assert "run `protclip prepare` again" in caplog.text
    assert found["complete"] is False
    assert found["with_property"]["similarity"] == 320  # pyright: ignore[reportIndexIssue]
    assert "lengths" not in found
    assert "length from" in (tmp_path / "out" / "report.md").read_text()


def test_stats_reads_from_and_writes_to_s3(bucket: str, tmp_path: Path) -> None:
    records = made(200)
    write_strata(f"{bucket}/strata", records)
    write_strata(str(tmp_path / "strata"), records)
    remote = stats(StatsConfig(source=f"{bucket}/strata", output=f"{bucket}/report"))
    local = stats(StatsConfig(source=str(tmp_path / "strata"), output=str(tmp_path / "out")))
    places = {"source", "report"}
    assert {k: v for k, v in remote.items() if k not in places} == {
        k: v for k, v in local.items() if k not in places
    }
    assert storage.read_bytes(f"{bucket}/report/lengths.png").startswith(b"\x89PNG")
    storage.remove(f"{bucket}/strata/{StrataManifest.load(f'{bucket}/strata').files[3].path}")
    with pytest.raises(DataError, match=r"confidence=.*: there is no such file"):
        stats(StatsConfig(source=f"{bucket}/strata", output=f"{bucket}/report"))


def test_stats_of_pairs_counts_splits_and_tokens(tiny_pairs: Path, tmp_path: Path) -> None:
    manifest = PairsManifest.load(str(tiny_pairs))
    found = stats(StatsConfig(source=str(tiny_pairs), output=str(tmp_path / "out")))
    assert found["kind"] == "pairs"
    assert found["rows"] == 84
    assert found["splits"] == {"train": 48, "valid": 12, "test": 24}
    assert found["files"]["count"] == 4  # pyright: ignore[reportIndexIssue]
    assert found["complete"] is False
    tokens = Counter[str]()
    for split in manifest.splits.values():
        for file in split.files:
            with storage.parquet_file(str(tiny_pairs / file.path)) as opened:
                for row in opened.read().to_pylist():
                    tokens.update({name: len(row[name]) for name in found["tokens"]})  # pyright: ignore
    assert found["tokens"] == dict(tokens)
    assert (tmp_path / "out" / "sampling.png").is_file()


def test_stats_of_pairs_names_what_benchmarks_left_out(tiny_pairs: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs"
    manifest = PairsManifest.load(str(tiny_pairs))
    for file in (f for split in manifest.splits.values() for f in split.files):
        storage.copy_to(tiny_pairs / file.path, str(pairs / file.path))
    excluded = Excluded(total=4321, benchmarks={"deeploc": 4000, "go": 400})
    manifest.model_copy(update={"excluded": excluded}).save(str(pairs))
    found = stats(StatsConfig(source=str(pairs), output=str(tmp_path / "out")))
    assert found["excluded"] == excluded.model_dump()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "4,321 entries in all" in page
    assert "<td>deeploc</td><td>4,000</td>" in page


def _other_count(manifest: StrataManifest) -> StrataManifest:
    first = next(s for s in manifest.strata if s.total)
    strata = [replace_count(s) if s == first else s for s in manifest.strata]
    return manifest.model_copy(update={"strata": tuple(strata)})


def replace_count(stratum):
    return stratum.model_copy(update={"unreviewed": stratum.unreviewed + 1})


@pytest.mark.parametrize(
    "change", [_other_count, lambda m: m.model_copy(update={"files": m.files[1:]})], ids=["counts", "files"]
)
def test_stats_notices_a_manifest_that_contradicts_itself(
    tmp_path: Path, change: Callable[[StrataManifest], StrataManifest]
) -> None:
    change(write_strata(str(tmp_path), made(50))).save(str(tmp_path))
    with pytest.raises(
        DataError, match=r"manifest\.json: its counts are not those of the files it lists, in \("
    ):
        stats(StatsConfig(source=str(tmp_path), output=str(tmp_path / "out")))


def test_stats_of_nothing_but_rejected_entries(tmp_path: Path) -> None:
    write_strata(str(tmp_path / "strata"), [])
    found = stats(StatsConfig(source=str(tmp_path / "strata"), output=str(tmp_path / "out")))
    assert (found["rows"], found["organisms"], found["lengths"]) == (0, 0, {})
    assert (tmp_path / "out" / "report.html").is_file()


def test_stats_of_one_entry_draws_every_picture(tmp_path: Path) -> None:
    record = replace(made(12)[11], sequence="M")
    write_strata(str(tmp_path / "strata"), [record])
    found = stats(StatsConfig(source=str(tmp_path / "strata"), output=str(tmp_path / "out")))
    assert found["lengths"] == {"p5": 1, "p50": 1, "p95": 1}
    assert (tmp_path / "out" / "lengths.png").is_file()


def test_stats_command_takes_the_data_set_without_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = write_strata("data/strata", made(60))
    assert run_job("stats", ["data/strata"]) == 0
    made_ = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert made_["rows"] == 60
    assert made_["report"] == str(tmp_path / "outputs" / "stats" / "strata" / "report.html")
    assert Path(made_["report"]).is_file()

    (tmp_path / "data" / "strata" / manifest.files[0].path).unlink()
    assert run_job("stats", ["data/strata", "output=elsewhere"]) == 3
    out, err = capfd.readouterr()
    assert out == ""
    assert manifest.files[0].path in err
    assert "Traceback" not in err
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("content", [{"kind": "embeddings"}, {}, [], "text"])
def test_stats_refuses_other_data_sets(tmp_path: Path, content: object) -> None:
    storage.write_json(str(tmp_path / "manifest.json"), content)
    with pytest.raises(DataError, match=r"manifest\.json: not of strata or pairs"):
        stats(StatsConfig(source=str(tmp_path)))
    with pytest.raises(DataError, match=r"nothing: no manifest\.json here"):
        stats(StatsConfig(source=str(tmp_path / "nothing")))


def test_summary_survives_the_manifest_file(tmp_path: Path) -> None:
    manifest = write_strata(str(tmp_path), made(80))
    loaded = StrataManifest.load(str(tmp_path))
    assert loaded == manifest
    assert loaded.summary is not None
    assert quantile(loaded.summary.groups[0].lengths, 0.5) > 0
