import math
from collections import Counter
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from made_strata import accessions, config, made_records, pairs, serially, shards, write_strata
from protclip.cluster import draw as drawing
from protclip.cluster import join, resume, survey
from protclip.cluster import sample as job
from protclip.cluster.draw import Draw, DrawnPart, draw_part
from protclip.cluster.sample import sample
from protclip.cluster.survey import Part
from protclip.data import sampling
from protclip.data.manifest import PairsManifest, StrataManifest
from protclip.errors import ConfigError, DataError
from protclip.evaluation.prepared import PreparedManifest, save
from protclip.records import ProteinRecord, sampling_keys

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

RECORDS = made_records(6000)
EVERY_FACTOR = {
    "exponents": {
        "confidence": -2,
        "coverage": 0.5,
        "date": 0.7,
        "family": -0.5,
        "length": 0.4,
        "consistency": 2,
    },
    "max_confidence": 4,
    "min_coverage": 2,
    "corrupt_confidence": 0.1,
    "epochs": 2,
}
SCORED = [r for i, r in enumerate(RECORDS) if i % 7]
SCORES = np.cos(np.arange(len(SCORED))).astype(np.float32)


@pytest.fixture(scope="module")
def strata(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_strata(tmp_path_factory.mktemp("strata"), 2, RECORDS)


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("scores")
    names = [record.accession for record in SCORED]
    columns = {"accession": names, "sampling_key": sampling_keys(names), "consistency": SCORES}
    pq.write_table(pa.table(columns), folder / "part-00000.parquet", row_group_size=1000)
    (folder / "manifest.json").write_text("{}")
    return str(folder)


@pytest.fixture
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (resume, join, survey):
        monkeypatch.setattr(module, "run_stages", serially)


in_this_process = pytest.mark.usefixtures("_in_this_process")


def drawn_by_stratum(folder: Path, splits: list[str]) -> Counter[tuple[int, int]]:
    found = Counter()
    for split in splits:
        rows = pairs(folder, split).select(["confidence", "coverage"]).to_pylist()
        found.update((row["confidence"], row["coverage"]) for row in rows)
    return found


@pytest.fixture(scope="module")
def drawn(strata: str, scores: str, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """Every factor on, on Ray, in one part."""
    output = tmp_path_factory.mktemp("pairs") / "all"
    sample(every_factor(strata, scores, output))
    return output


def every_factor(source: str, scores: str, output: Path) -> object:
    return config(
        source,
        output,
        sampling=EVERY_FACTOR,
        consistency=scores,
        target_pairs=1500,
        splits={"by": "family"},
        rows_per_shard=128,
        row_group_rows=32,
    )


def lower_median(values: list[float]) -> float:
    return sorted(values)[(len(values) - 1) // 2]


def naive_rates(records: list[ProteinRecord], seed: int, target: int) -> tuple[dict[str, float], float]:
    """Rate of each entry, one at a time, and the scale, solved with weights in the survey's bins."""
    level, weight = {}, {}
    for record in records:
        key, c = sampling_keys([record.accession]), np.array([record.confidence])
        level[record.accession] = (
            record.confidence if record.reviewed else int(sampling.corrupted(key, c, seed, 0.1)[0])
        )
    eligible = [r for r in records if r.reviewed or (level[r.accession] <= 4 and r.coverage >= 2)]
    family = {r.accession: r.similarity.split()[3] for r in records if r.similarity}
    sizes = Counter(family[r.accession] for r in eligible if r.accession in family)
    score = {r.accession: float(s) for r, s in zip(SCORED, SCORES, strict=True)}
    size = lower_median([sizes[family[r.accession]] for r in eligible if r.accession in family])
    cosine = lower_median([round(score[r.accession] * 1000) for r in eligible if r.accession in score]) / 1000
    dates = [r.annotation_date for r in eligible if r.annotation_date]
    newest, typical_date = max(dates), lower_median(dates)
    for record in eligible:
        name = record.accession
        years = max(0, (newest - (record.annotation_date or typical_date)).days) / 365.25
        w = (
            level[name] ** -2.0 * (record.coverage / 4) ** 0.5
            if level[name] <= 4 and record.coverage >= 2
            else 0
        )
        w *= (1 / (1 + years)) ** 0.7
        w *= float(sizes[family[name]] if name in family else size) ** -0.5
        w *= (len(record.sequence) / 350) ** 0.4
        w *= ((1 + score.get(name, cosine)) / 2) ** 2
        weight[name] = w
    always = sum(r.reviewed for r in records)
    sampled = [
        2.0 ** (round(math.log2(w) * 1024) / 1024)
        for r in eligible
        if (w := weight[r.accession]) and not r.reviewed
    ]
    low, high = 0.0, 1e9
    for _ in range(200):
        scale = (low + high) / 2
        low, high = (
            (scale, high) if always + sum(min(1.0, scale * w) for w in sampled) < target else (low, scale)
        )
    rates = {r.accession: 1.0 if r.reviewed else min(1.0, scale * weight[r.accession]) for r in eligible}
    return rates, scale


def test_sample_with_every_factor_is_what_one_entry_at_a_time_gives(drawn: Path) -> None:
    rates, scale = naive_rates(RECORDS, seed=0, target=1500)
    manifest = PairsManifest.load(str(drawn))
    assert manifest.drawing.scale == pytest.approx(scale, rel=1e-6)
    expected = {
        sample: {
            name
            for name, rate in rates.items()
            if sampling.keep(
                sampling_keys([name]), min(1.0, rate / scale * manifest.drawing.scale), 0, sample
            )[0]
        }
        for sample in (0, 1)
    }
    assert accessions(drawn) == expected[0]
    further = set(pairs(drawn, "train-epoch-001")["accession"].to_pylist())
    held_out = accessions(drawn) - set(pairs(drawn, "train")["accession"].to_pylist())
    assert further <= expected[1]
    assert not further & held_out
    assert sum(s.expected for s in manifest.strata) == pytest.approx(1500, rel=1e-6)
    assert manifest.rows == pytest.approx(1500, abs=4.5 * 1500**0.5)


def test_sample_with_every_factor_says_how_it_was_drawn(drawn: Path) -> None:
    manifest = PairsManifest.load(str(drawn))
    drawn_by = manifest.drawing
    assert drawn_by.sampling.dated == max(r.annotation_date for r in RECORDS if r.annotation_date)
    assert drawn_by.missing["date"] > 100 < drawn_by.missing["family"]
    assert drawn_by.tables["consistency"].rows == len(SCORED)
    sampled = [r for r in RECORDS if not r.reviewed and r.coverage >= 2]
    true = np.array([r.confidence for r in sampled])
    levels = sampling.corrupted(sampling_keys([r.accession for r in sampled]), true, 0, 0.1)
    assert drawn_by.corrupted == (levels != true).sum() > 300
    text = (drawn / "sampling.md").read_text()
    assert "C^-2 · R^0.5 · date^0.7 · family^-0.5 · length^0.4 · consistency^2" in text
    assert "entries state nothing for date and count as the median" in text
    by_family = {r.accession: r.similarity.split()[3] for r in RECORDS if r.similarity}
    placed: dict[str, set[str]] = {}
    for split in ("train", "valid", "test", "train-epoch-001"):
        for name in pairs(drawn, split)["accession"].to_pylist():
            if name in by_family:
                placed.setdefault(by_family[name], set()).add(split.split("-")[0])
    assert len(placed) > 20
    assert {len(splits) for splits in placed.values()} == {1}


@in_this_process
def test_sample_with_every_factor_gives_the_same_bytes_whatever_parts_and_tasks(
    drawn: Path, scores: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split_up = write_strata(tmp_path / "strata", 5, RECORDS)
    monkeypatch.setattr(job, "PAIRS_PER_TASK", 90)
    monkeypatch.setattr(survey, "ROWS_PER_TASK", 700)
    monkeypatch.setattr(survey, "FAMILIES_PER_RANGE", 20)
    monkeypatch.setattr(join, "ROWS_PER_FILE", 900)
    monkeypatch.setattr(job, "CELLS_PER_SHARD", 3)
    sample(every_factor(split_up, scores, tmp_path / "out"))
    assert shards(tmp_path / "out") == shards(drawn)
    found, other = (PairsManifest.load(str(folder)) for folder in (tmp_path / "out", drawn))
    assert found.drawing == other.drawing
    assert found.strata == other.strata
    assert found.summary == other.summary


def test_sample_shards_are_equal_but_the_last(drawn: Path) -> None:
    manifest = PairsManifest.load(str(drawn))
    for split in (*manifest.splits.values(), *manifest.resamples):
        *full, last = [file.rows for file in split.files]
        assert set(full) <= {128}
        assert 0 < last <= 128
        groups = [rows for file in split.files for rows in file.row_groups]
        assert set(groups[:-1]) <= {32}
    assert len(manifest.splits["train"].files) > 5
    order = [
        (int(sampling.order_keys(np.array([row["sampling_key"]], np.uint64), 0)[0]), row["accession"])
        for row in pairs(drawn, "train").select(["sampling_key", "accession"]).to_pylist()
    ]
    assert order == sorted(order)


@in_this_process
def test_sample_epochs_are_further_samples_of_the_same_law(strata: str, tmp_path: Path) -> None:
    sampling_ = {"epochs": 3, "keep_reviewed": False, "max_confidence": 5, "min_coverage": 1}
    whole = {"by": "accession", "valid_share": 0, "test_share": 0}
    for name in ("one", "two"):
        sample(config(strata, tmp_path / name, sampling=sampling_, splits=whole))
    assert shards(tmp_path / "one") == shards(tmp_path / "two")
    folders = ["train", "train-epoch-001", "train-epoch-002"]
    contents = [set(pairs(tmp_path / "one", folder)["accession"].to_pylist()) for folder in folders]
    assert len({frozenset(content) for content in contents}) == 3
    manifest = PairsManifest.load(str(tmp_path / "one"))
    for folder in folders:
        found = drawn_by_stratum(tmp_path / "one", [folder])
        for stratum in manifest.strata:
            n, p = stratum.before.total, stratum.rate
            deviation = (n * p * (1 - p)) ** 0.5
            assert abs(found[stratum.confidence, stratum.coverage] - n * p) <= 4.5 * deviation + 1e-9
    sample(config(strata, tmp_path / "once", sampling=sampling_ | {"epochs": 1}, splits=whole))
    assert accessions(tmp_path / "once") == contents[0]
    assert manifest.all_splits["train-epoch-001"] == manifest.resamples[0]
    # A data set of fewer samples replaces one of more, and leaves nothing of it.
    one = config(strata, tmp_path / "one", sampling=sampling_ | {"epochs": 1}, overwrite=True)
    sample(one)
    assert not (tmp_path / "one" / "train-epoch-001").exists()


@in_this_process
def test_sample_of_corrupted_confidence_lets_discarded_strata_in(strata: str, tmp_path: Path) -> None:
    sampling_ = {"corrupt_confidence": 0.5}
    sample(config(strata, tmp_path / "out", sampling=sampling_, target_pairs=1400))
    manifest = PairsManifest.load(str(tmp_path / "out"))
    assert manifest.drawing.corrupted > 0
    poor = [s for s in manifest.strata if s.confidence > 3 and s.coverage >= 3]
    assert sum(s.after.unreviewed for s in poor) > 50
    for s in manifest.strata:
        n, p = s.before.unreviewed, s.rate
        assert abs(s.after.unreviewed - n * p) <= 4.5 * (n * p * (1 - p)) ** 0.5
        assert s.after.reviewed == s.before.reviewed
    assert sum(s.expected for s in manifest.strata) == pytest.approx(1400, rel=1e-9)
    levels = {record.accession: record.confidence for record in RECORDS}
    rows = pairs(tmp_path / "out", "train").select(["accession", "confidence"]).to_pylist()
    assert all(levels[row["accession"]] == row["confidence"] for row in rows)


@in_this_process
@pytest.mark.parametrize("by", ["sequence", "cluster"])
def test_sample_splits_never_part_what_belongs_together(strata: str, tmp_path: Path, by: str) -> None:
    group = {r.accession: r.sequence for r in RECORDS}
    if by == "cluster":
        group |= {r.accession: f"UniRef50_{i // 4}" for i, r in enumerate(RECORDS) if i % 5}
        rows = [f"{r.accession}\t{group[r.accession]}\n" for i, r in enumerate(RECORDS) if i % 5]
        (tmp_path / "clusters.tsv").write_text("".join(rows))
    clusters = str(tmp_path / "clusters.tsv") if by == "cluster" else None
    settings = {"splits": {"by": by, "valid_share": 0.2, "test_share": 0.3}, "clusters": clusters}
    everything = {"max_confidence": 5, "min_coverage": 1, "exponents": {"confidence": 0}, "epochs": 2}
    sample(config(strata, tmp_path / "out", sampling=everything, **settings))
    sides: dict[str, set[str]] = {}
    for split in ("train", "valid", "test", "train-epoch-001"):
        for name in pairs(tmp_path / "out", split)["accession"].to_pylist():
            sides.setdefault(group[name], set()).add(split.split("-")[0])
    assert {len(splits) for splits in sides.values()} == {1}
    manifest = PairsManifest.load(str(tmp_path / "out"))
    assert manifest.splits["test"].rows == pytest.approx(0.3 * manifest.rows, rel=0.15)
    assert (manifest.drawing.ungrouped > 0) == (by == "cluster")


@in_this_process
def test_sample_leaves_out_what_benchmarks_test(strata: str, tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "benchmarks"
    folder.mkdir(parents=True)
    tested = [r for r in RECORDS if r.reviewed][:60]
    for name, chosen in {"one": tested[:40], "two": tested[20:]}.items():
        (folder / f"{name}.yaml").write_text(
            f"name: {name}\nkind: regression\ntitle: t\ngroup: g\nmetric: spearman\ncitation: c\n"
            "licence: l\ndata: {format: lmdb, target: y, files: {archive: {path: a.tar.gz}}}\n"
        )
        sequences = [*(r.sequence for r in chosen), "MAAAAAAAAK"]
        splits = ["test"] * len(chosen) + ["train"]
        ids = [str(i) for i in range(len(splits))]
        values = [float(i) for i in range(len(splits))]
        examples = pa.table({"id": ids, "split": splits, "sequence": sequences, "value": values})
        manifest = PreparedManifest(benchmark=name, task="regression", settings={}, sources=(), counts={})
        save(str(tmp_path / name), manifest, {"examples": examples}, [])
    exclude = {"benchmarks": ["one", "two"], "data_root": str(tmp_path)}
    settings = {"sampling": {"epochs": 2}, "exclude": exclude}
    result = sample(config(strata, tmp_path / "out", **settings), conf_dir=tmp_path / "conf")
    manifest = PairsManifest.load(str(tmp_path / "out"))
    sequences = {r.sequence for r in tested}
    for split in ("train", "valid", "test", "train-epoch-001"):
        assert not sequences & set(pairs(tmp_path / "out", split)["sequence"].to_pylist())
    sample(
        config(strata, tmp_path / "kept", **settings | {"exclude": exclude | {"enabled": False}}),
        conf_dir=tmp_path / "conf",
    )
    gone = accessions(tmp_path / "kept") - accessions(tmp_path / "out")
    assert {r.accession for r in tested} <= gone
    assert {r.accession for r in RECORDS if r.sequence in sequences} >= gone
    assert len(gone) <= manifest.excluded.total == result["excluded"]
    counts = manifest.excluded.benchmarks
    assert counts["one"] >= 40 <= counts["two"]
    assert counts["one"] + counts["two"] >= manifest.excluded.total + 20
    notes = (tmp_path / "out" / "sampling.md").read_text()
    assert "left out because their sequence is tested on: one" in notes
    assert PairsManifest.load(str(tmp_path / "kept")).excluded.total == 0


@in_this_process
def test_sample_goes_on_after_an_interruption(
    strata: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "PAIRS_PER_TASK", 120)
    settings = {"sampling": {"epochs": 2}, "rows_per_shard": 64, "row_group_rows": 64}
    sample(config(strata, tmp_path / "whole", **settings))
    done: list[Part] = []
    for limit in (2, 4):

        def until(part: Part, *, draw: Draw, limit: int = limit) -> DrawnPart:
            if len(done) == limit:
                raise DataError("the disk is full")
            done.append(part)
            return draw_part(part, draw=draw)

        with monkeypatch.context() as patch:
            patch.setattr(drawing, "draw_part", until)
            with pytest.raises(DataError, match="the disk is full"):
                sample(config(strata, tmp_path / "cut", **settings))
        assert not (tmp_path / "cut" / "manifest.json").exists()
    sample(config(strata, tmp_path / "cut", **settings))
    assert len({part.index for part in done}) == len(done) == 4
    assert shards(tmp_path / "cut") == shards(tmp_path / "whole")
    assert not (tmp_path / "cut" / ".staging").exists()


def test_sample_refuses_tables_that_are_missing(strata: str, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(ConfigError, match=r"clusters=.*nowhere\.tsv: nothing is there"):
        sample(config(strata, output, splits={"by": "cluster"}, clusters=str(tmp_path / "nowhere.tsv")))
    with pytest.raises(ValueError, match=r"splits\.by=cluster needs a table of clusters"):
        config(strata, output, splits={"by": "cluster"})
    with pytest.raises(ValueError, match=r"exponents\.consistency needs scores"):
        config(strata, output, sampling={"exponents": {"consistency": 1}})
    with pytest.raises(ValueError, match="not a multiple of row_group_rows"):
        config(strata, output, rows_per_shard=100, row_group_rows=64)
    assert not output.exists()


@in_this_process
def test_sample_of_undated_entries_and_a_day_given(tmp_path: Path) -> None:
    undated = [r for r in RECORDS[:800] if r.annotation_date is None]
    source = write_strata(tmp_path / "strata", 1, undated)
    everything = {"max_confidence": 5, "min_coverage": 1, "keep_reviewed": False}
    plain = {"exponents": {"confidence": 0, "coverage": 0}, **everything}
    dated = {"exponents": {"confidence": 0, "coverage": 0, "date": 3}, **everything}
    sample(config(source, tmp_path / "dated", sampling=dated))
    assert accessions(tmp_path / "dated") == {r.accession for r in undated}
    manifest = PairsManifest.load(str(tmp_path / "dated"))
    assert manifest.drawing.missing == {"date": StrataManifest.load(source).rows}
    sample(config(source, tmp_path / "plain", sampling=plain))
    assert shards(tmp_path / "plain") == shards(tmp_path / "dated")
    later = dated | {"dated": date(2030, 1, 1)}
    sample(config(source, tmp_path / "later", sampling=later))
    assert PairsManifest.load(str(tmp_path / "later")).drawing.sampling.dated == date(2030, 1, 1)
