import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from made_strata import accessions, config, made_records, pairs, serially, shards, write_strata
from protclip.cluster import resume
from protclip.cluster.sample import sample
from protclip.data.biotext import property_text
from protclip.data.dataset import PairsDataset
from protclip.data.law import Law, stratum_population, stratum_rates
from protclip.data.manifest import PairsManifest, StrataManifest
from protclip.data.strata import PARSED_SCHEMA
from protclip.data.tokenizer import TextTokenizer
from protclip.errors import ConfigError, DataError
from protclip.records import PAIRS_SCHEMA

NO_SPLITS = {"valid_share": 0, "test_share": 0}

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture(scope="module")
def strata(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_strata(tmp_path_factory.mktemp("strata"), 1, made_records(12_000))


@pytest.fixture(scope="module")
def drawn(strata: str, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    output = tmp_path_factory.mktemp("pairs") / "default"
    sample(config(strata, output, rows_per_shard=256, row_group_rows=64))
    return output


def test_sample_draws_each_stratum_at_its_rate(strata: str, drawn: Path) -> None:
    manifest = PairsManifest.load(str(drawn))
    source = StrataManifest.load(strata)
    law = Law.of(config(strata, drawn))
    population = stratum_population(source.strata, law)
    rates = stratum_rates(source.strata, population, 1.0, config(strata, drawn))
    assert [s.before for s in manifest.strata] == list(source.strata)
    for stratum, rate in zip(manifest.strata, rates, strict=True):
        trials, p = stratum.before.unreviewed, rate.unreviewed
        assert stratum.rate == p
        assert abs(stratum.after.unreviewed - trials * p) <= 4.5 * (trials * p * (1 - p)) ** 0.5
        assert stratum.after.reviewed == stratum.before.reviewed
    counted = np.zeros((6, 5), int)
    for split in manifest.splits:
        for row in pairs(drawn, split).select(["confidence", "coverage"]).to_pylist():
            counted[row["confidence"], row["coverage"]] += 1
    assert all(counted[s.confidence, s.coverage] == s.after.total for s in manifest.strata)
    assert manifest.rows == counted.sum()


def test_sample_splits_are_disjoint_shuffled_and_listed(drawn: Path) -> None:
    manifest = PairsManifest.load(str(drawn))
    assert list(manifest.splits) == ["train", "valid", "test"]
    assert len(accessions(drawn)) == manifest.rows
    assert manifest.splits["valid"].rows == pytest.approx(0.05 * manifest.rows, abs=30)
    for split in manifest.splits.values():
        for file in split.files:
            opened = pq.ParquetFile(drawn / file.path)
            groups = [opened.metadata.row_group(i).num_rows for i in range(opened.num_row_groups)]
            assert tuple(groups) == file.row_groups
            assert file.rows == sum(groups)
    assert len(manifest.splits["train"].files) > 2
    train = pairs(drawn, "train")
    assert train.schema == PAIRS_SCHEMA
    numbers = [int(a[1:]) for a in train["accession"].to_pylist()]
    assert abs(np.corrcoef(numbers, range(len(numbers)))[0, 1]) < 4.5 / len(numbers) ** 0.5
    assert len(PairsDataset(str(drawn), "train", 0)) == len(train)


def test_sample_tokenises_each_property(strata: str, drawn: Path) -> None:
    tokenizer = TextTokenizer.from_json((drawn / "tokenizer.json").read_text())
    assert tokenizer.fingerprint == PairsManifest.load(str(drawn)).tokenizer.fingerprint
    records = {r.accession: r for r in made_records(12_000)}
    for row in pairs(drawn, "test").to_pylist():
        record = records[row["accession"]]
        assert row["sequence"] == record.sequence
        assert row["length"] == len(record.sequence)
        for prop, text in record.properties():
            expected = [] if text is None else tokenizer.encode([property_text(prop, text, "strip")])[0]
            assert row[prop] == expected


def test_sample_keeps_evidence_and_cuts_on_request(strata: str, drawn: Path, tmp_path: Path) -> None:
    sample(config(strata, tmp_path / "kept", evidence="keep", max_text_tokens=9))
    tokenizer = TextTokenizer.load("builtin")
    records = {r.accession: r for r in made_records(12_000)}
    rows = pairs(tmp_path / "kept", "valid").to_pylist()
    assert accessions(tmp_path / "kept") == accessions(drawn)
    assert any(len(row["function"]) == 9 for row in rows)
    for row in rows:
        for prop, text in records[row["accession"]].properties():
            if text is not None:
                assert row[prop] == tokenizer.encode([property_text(prop, text, "keep")])[0][:9]


def test_sample_gives_the_same_bytes_whatever_the_files_and_workers(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split_up = write_strata(tmp_path / "strata", 3, made_records(12_000))
    settings = {"rows_per_shard": 256, "row_group_rows": 64}
    sample(config(split_up, tmp_path / "many files", **settings))
    assert shards(tmp_path / "many files") == shards(drawn)
    monkeypatch.setattr(resume, "run_stages", serially)
    sample(config(split_up, tmp_path / "one worker", **settings))
    assert shards(tmp_path / "one worker") == shards(drawn)


def test_sample_of_a_larger_target_is_a_superset(strata: str, tmp_path: Path) -> None:
    sizes = {}
    for target in (1000, 2500):
        result = sample(config(strata, tmp_path / str(target), target_pairs=target))
        sizes[target] = sum(result["rows"].values())
        assert result["expected"] == target
        assert sizes[target] == pytest.approx(target, abs=4.5 * target**0.5)
    few, many = tmp_path / "1000", tmp_path / "2500"
    assert accessions(few) < accessions(many)
    for split in ("train", "valid", "test"):
        assert set(pairs(few, split)["accession"].to_pylist()) <= set(
            pairs(many, split)["accession"].to_pylist()
        )


def test_sample_of_another_seed_is_another(strata: str, drawn: Path, tmp_path: Path) -> None:
    sample(config(strata, tmp_path / "other", seed=1))
    other, default = accessions(tmp_path / "other"), accessions(drawn)
    assert other - default
    assert pairs(tmp_path / "other", "train")["accession"].to_pylist() != sorted(other)


def test_sample_lists_empty_splits_and_replaces_on_request(strata: str, tmp_path: Path) -> None:
    output = tmp_path / "out"
    sample(config(strata, output))
    with pytest.raises(DataError, match="a data set is there already"):
        sample(config(strata, output, splits=NO_SPLITS))
    sample(config(strata, output, splits=NO_SPLITS, overwrite=True))
    manifest = PairsManifest.load(str(output))
    assert manifest.splits["valid"].rows == 0
    assert manifest.splits["test"].files == ()
    assert {p.name for p in output.iterdir()} == {
        *("manifest.json", "tokenizer.json", "sampling.md", "sampling.png", "train")
    }


def test_sample_names_a_damaged_part(tmp_path: Path) -> None:
    source = Path(write_strata(tmp_path / "strata", 2, made_records(500)))
    damaged = source / "confidence=2" / "coverage=4" / "part-00001.parquet"
    raw = bytearray(damaged.read_bytes())
    sequences = pq.read_metadata(damaged).row_group(0).column(PARSED_SCHEMA.get_field_index("sequence"))
    raw[(sequences.dictionary_page_offset + sequences.data_page_offset) // 2] ^= 0x10
    damaged.write_bytes(raw)
    with pytest.raises(DataError, match=r"confidence=2/coverage=4/part-00001\.parquet: cannot be read"):
        sample(config(str(source), tmp_path / "out"))
    assert list((tmp_path / "out").iterdir()) == []


def test_sample_without_training_pairs_is_one_message(tmp_path: Path) -> None:
    poor = [r for r in made_records(300) if r.coverage == 1 and not r.reviewed]
    source = write_strata(tmp_path / "strata", 1, poor)
    with pytest.raises(DataError, match="no training pairs are left of"):
        sample(config(source, tmp_path / "out"))
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_sample_refuses_what_it_can_know_before_any_work(strata: str, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(ConfigError, match="target_pairs=1000000 cannot be met"):
        sample(config(strata, output, target_pairs=1_000_000))
    with pytest.raises(ConfigError, match="tokenizer"):
        sample(config(strata, output, tokenizer=str(tmp_path / "none")))
    with pytest.raises(DataError, match=r"no manifest\.json here"):
        sample(config(str(tmp_path), output))
    assert not output.exists()


def test_sample_is_remembered(strata: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    result = sample(config(strata, tmp_path / "out", tracking={"uri": uri}))
    json.dumps(result)
    client = MlflowClient(uri)
    run = client.get_run(result["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["sampling.exponents.confidence"] == "-3.0"
    assert run.data.metrics["data/train"] == result["rows"]["train"]
    assert run.data.tags["data_manifest"] == PairsManifest.digest(str(tmp_path / "out"))
    assert {a.path for a in client.list_artifacts(result["run_id"], "data")} == {
        "data/manifest.json",
        "data/sampling.md",
        "data/sampling.png",
    }
