import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from protclip.cluster import prepare as prepare_module
from protclip.cluster.claim import claimed
from protclip.cluster.prepare import prepare
from protclip.config.data import PrepareConfig
from protclip.data.manifest import StrataManifest
from protclip.data.strata import DUPLICATE, NO_CONFIDENCE
from protclip.data.uniprot import read_records
from protclip.errors import DataError
from protclip.records import REJECTED_SCHEMA, Rejection, sampling_key

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def entry(
    accession: str,
    *,
    reviewed: bool = True,
    level: int | None = 1,
    coverage: int = 4,
    sequence: str = "MKTAYIAKQR",
    name: str = "Made protein",
) -> str:
    topics = [
        ("FUNCTION", "Binds and releases."),
        ("SUBCELLULAR LOCATION", "Cytoplasm."),
        ("SIMILARITY", "Belongs to the made family."),
    ]
    lines = [
        f"ID   {accession}_MADE   {'Reviewed' if reviewed else 'Unreviewed'};   {len(sequence)} AA.",
        f"AC   {accession};",
        f"DE   RecName: Full={name};",
        "OX   NCBI_TaxID=562;",
        *(f"CC   -!- {topic}: {text}" for topic, text in topics[: coverage - 1]),
        *([f"PE   {level}: Stated;"] if level else []),
        f"SQ   SEQUENCE   {len(sequence)} AA;  1 MW;  0 CRC64;",
        *(f"     {sequence[i : i + 60]}" for i in range(0, len(sequence), 60)),
        "//",
    ]
    return "\n".join(lines) + "\n"


def many(count: int, length: int = 10) -> list[str]:
    rng = np.random.default_rng(count)
    return [
        entry(
            f"Q{i:05d}",
            reviewed=bool(rng.integers(2)),
            level=int(rng.integers(1, 6)),
            coverage=int(rng.integers(1, 5)),
            sequence="M" + "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), length)),
        )
        for i in range(count)
    ]


def write(path: Path, *parts: str) -> str:
    data = "".join(parts).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def config(inputs: list[str], output: Path, **values: object) -> PrepareConfig:
    settings = {"tracking": {"enabled": False}, **values}
    return PrepareConfig.model_validate({"inputs": inputs, "output": str(output), **settings})


def rows(output: Path) -> list[dict]:
    manifest = StrataManifest.load(str(output))
    tables = [pq.read_table(output / file.path, partitioning=None) for file in manifest.files]
    assert [len(table) for table in tables] == [file.rows for file in manifest.files]
    return [row for table in tables for row in table.to_pylist()]


def parts(output: Path) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in output.glob("confidence=*/*/*")}


def test_prepare_puts_every_entry_into_a_stratum_or_among_the_rejected(tmp_path: Path) -> None:
    good = [entry(f"P{i:05d}", reviewed=i % 3 == 0, level=1 + i % 5, coverage=1 + i % 4) for i in range(40)]
    placeholder = entry("P99999").replace("     MKTAYIAKQR\n", "")
    first = write(tmp_path / "a.dat", *good[:20], placeholder, *good[20:])
    second = write(tmp_path / "b.dat.gz", entry("P00007", name="Repeated"), entry("A00001", level=None))
    result = prepare(config([first, second], tmp_path / "out", release="2026_04"))

    output = tmp_path / "out"
    manifest = StrataManifest.load(str(output))
    assert json.loads(json.dumps(result)) == {
        "strata": str(output),
        "manifest": str(output / "manifest.json"),
        "rows": 41,
        "rejected": {DUPLICATE: 1, "no sequence": 1},
        "missing_confidence": 1,
        "run_id": None,
    }
    assert manifest.rows == 41
    assert manifest.inputs == (first, second)
    found = {row["accession"]: row for row in rows(output)}
    assert set(found) == {f"P{i:05d}" for i in range(40)} | {"A00001"}
    assert found["P00007"]["protein_name"] == "Made protein"
    assert found["A00001"]["confidence"] == 5
    assert {row["release"] for row in found.values()} == {"2026_04"}
    for accession, row in found.items():
        assert row["sampling_key"] == sampling_key(accession)
    for stratum in manifest.strata:
        inside = [
            r
            for r in found.values()
            if (r["confidence"], r["coverage"]) == (stratum.confidence, stratum.coverage)
        ]
        assert stratum.reviewed == sum(r["reviewed"] for r in inside)
        assert stratum.total == len(inside)

    rejected = pq.read_table(output / "rejected.parquet")
    assert rejected.schema == REJECTED_SCHEMA
    assert rejected.select(["reason", "accession", "source"]).to_pylist() == [
        {"reason": "no sequence", "accession": "P99999", "source": first},
        {"reason": DUPLICATE, "accession": "P00007", "source": second},
    ]
    assert rejected["raw"][0].as_py().strip() == placeholder.encode().strip()
    assert json.loads(rejected["raw"][1].as_py())["protein_name"] == "Repeated"
    assert sorted(p.name for p in output.iterdir() if not p.name.startswith("confidence=")) == [
        "manifest.json",
        "rejected.parquet",
        "strata.md",
        "strata.png",
        "taxa.parquet",
    ]


def test_prepare_gives_the_same_bytes_however_the_entries_lie_in_files(tmp_path: Path) -> None:
    entries = many(600, length=4000)
    repeated = entries[5].replace("Made protein", "Later version")
    one = write(tmp_path / "all.dat", *entries, repeated)
    three = [
        write(tmp_path / "1.dat.gz", *entries[:7]),
        write(tmp_path / "2.dat", *entries[7:400]),
        write(tmp_path / "3.dat.gz", *entries[400:], repeated),
    ]
    prepare(config([one], tmp_path / "one", block_mb=1, rows_per_file=150))
    prepare(config(three, tmp_path / "three", block_mb=50, rows_per_file=150))
    assert parts(tmp_path / "one") == parts(tmp_path / "three")
    assert len({name.rpartition("/")[2] for name in parts(tmp_path / "one")}) == 5
    manifests = [StrataManifest.load(str(tmp_path / name)) for name in ("one", "three")]
    assert manifests[0].files == manifests[1].files
    assert manifests[0].rows == 600

    prepare(config([one], tmp_path / "large", rows_per_file=10_000))
    assert {r["accession"] for r in rows(tmp_path / "large")} == {
        r["accession"] for r in rows(tmp_path / "one")
    }


def test_prepare_stops_when_too_many_entries_are_bad_and_keeps_them(tmp_path: Path) -> None:
    bad = [entry(f"B{i:05d}", sequence="M1KT") for i in range(3)]
    source = write(tmp_path / "a.dat", *many(7), *bad, entry("Q00000"))
    output = tmp_path / "out"
    with pytest.raises(DataError, match=r"3 of 11 entries \(27.3%\).*3 × letters outside.*rejected\.parquet"):
        prepare(config([source], output))
    assert {p.name for p in output.iterdir()} == {"rejected.parquet", ".staging"}
    kept = pq.read_table(output / "rejected.parquet")
    assert kept["accession"].to_pylist() == ["B00000", "B00001", "B00002"]
    assert kept["raw"][2].as_py().strip() == bad[2].encode().strip()

    assert prepare(config([source], output, max_rejected_share=0.3))["rows"] == 7
    assert not (output / ".staging").exists()


def test_prepare_rejects_entries_without_level_on_request(tmp_path: Path) -> None:
    source = write(tmp_path / "a.dat", entry("P1", level=None), *many(3))
    result = prepare(config([source], tmp_path / "out", missing_confidence=None, max_rejected_share=0.5))
    assert result["rejected"] == {NO_CONFIDENCE: 1}
    assert result["rows"] == 3
    assert result["missing_confidence"] == 0


def test_prepare_replaces_a_data_set_only_on_request(tmp_path: Path) -> None:
    output = tmp_path / "out"
    prepare(config([write(tmp_path / "a.dat", *many(5))], output))
    newer = write(tmp_path / "b.dat", entry("P1", level=4, coverage=1))
    with pytest.raises(DataError, match="a data set is there already; use overwrite=true"):
        prepare(config([newer], output))
    assert len(rows(output)) == 5
    prepare(config([newer], output, overwrite=True))
    assert list(parts(output)) == ["confidence=4/coverage=1/part-00000.parquet"]


def test_prepare_begins_anew_where_a_killed_job_left_files(tmp_path: Path) -> None:
    output = tmp_path / "out"
    for left in (".staging/000000.arrow", "confidence=1/coverage=1/part-00009.parquet", "rejected.parquet"):
        (output / left).parent.mkdir(parents=True, exist_ok=True)
        (output / left).write_bytes(b"half")
    prepare(config([write(tmp_path / "a.dat", entry("P1", level=4))], output))
    assert list(parts(output)) == ["confidence=4/coverage=4/part-00000.parquet"]
    assert not (output / ".staging").exists()


class InterruptedJobError(Exception):
    pass


def interrupt_after(monkeypatch: pytest.MonkeyPatch, results: int) -> list[int]:
    """Lets a job get so many results of its tasks; the list says how many it got per stream."""
    run_stages, got = prepare_module.run_stages, []

    def stages(items: Any, *stages: Any, **options: Any) -> Iterator[Any]:
        got.append(0)
        for result in run_stages(items, *stages, **options):
            yield result
            got[-1] += 1
            if sum(got) == results:
                raise InterruptedJobError

    monkeypatch.setattr(prepare_module, "run_stages", stages)
    return got


def test_prepare_goes_on_after_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = "ID   X_MADE   Reviewed;   3 AA.\n//\n"
    sources = [
        write(tmp_path / "a.dat", *many(1200, 2000), odd),
        write(tmp_path / "b.dat.gz", *many(900, 2000), odd),
    ]
    settings = {"block_mb": 1, "rows_per_file": 400}
    with monkeypatch.context() as patch:
        needed = interrupt_after(patch, -1)
        prepare(config(sources, tmp_path / "whole", **settings))
    files = {p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*") if p.is_file()}
    for results in (1, 6, 9):
        output = tmp_path / f"out-{results}"
        with monkeypatch.context() as patch:
            interrupt_after(patch, results)
            with pytest.raises(InterruptedJobError):
                prepare(config(sources, output, **settings))
        assert (output / ".staging").exists()
        assert not (output / "manifest.json").exists()
        with monkeypatch.context() as patch:
            got = interrupt_after(patch, -1)
            prepare(config(sources, output, **settings))
        assert sum(got) <= sum(needed) - results, "finished tasks are not run again"
        assert files == {p.relative_to(output) for p in output.rglob("*") if p.is_file()}
        for file in files:
            if file.suffix != ".png":
                assert (tmp_path / "whole" / file).read_bytes() == (output / file).read_bytes(), file


def test_prepare_begins_anew_when_an_input_changed_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = write(tmp_path / "a.dat", *many(20))
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        with pytest.raises(InterruptedJobError):
            prepare(config([source], tmp_path / "out"))
    write(tmp_path / "a.dat", *many(30))
    prepare(config([source], tmp_path / "out"))
    assert len(rows(tmp_path / "out")) == 30
    assert "an interrupted job here had another inputs" in caplog.text


def test_prepare_refuses_an_output_that_another_job_writes(tmp_path: Path) -> None:
    source = write(tmp_path / "a.dat", *many(5))
    with claimed(str(tmp_path / "out")):
        with pytest.raises(DataError, match="another job is writing here"):
            prepare(config([source], tmp_path / "out"))
    prepare(config([source], tmp_path / "out"))


def test_prepare_refuses_a_folder_with_other_files(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "thesis.tex").write_text("dear")
    source = write(tmp_path / "a.dat", *many(2))
    with pytest.raises(DataError, match=r"thesis\.tex: not a file of this job"):
        prepare(config([source], output, overwrite=True))
    assert [p.name for p in output.iterdir()] == ["thesis.tex"]


def test_prepare_names_the_file_that_lacks_a_column(tmp_path: Path) -> None:
    good = write(tmp_path / "a.dat", *many(5))
    table = write(tmp_path / "b.tsv", "Entry\tOrganism\nP1\tHuman\n")
    output = tmp_path / "out"
    with pytest.raises(DataError, match=r"b\.tsv: .*Sequence"):
        prepare(config([good, table], output))
    assert not output.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.dat", b"", r"empty\.dat: the file is empty"),
        ("notes.md", b"hello", "no known format"),
        ("table.tsv", b"Entry\tProtein names\tSequence\n", "no entries in"),
        ("garbage.dat", bytes(range(1, 250)) * 40, "1 of 1 entries .* cannot be used"),
    ],
)
def test_prepare_of_nothing_useful_is_one_message(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        prepare(config([str(tmp_path / name)], tmp_path / "out"))
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not (tmp_path / "out" / ".claim.json").exists()


def test_prepare_names_a_missing_input_before_any_work(tmp_path: Path) -> None:
    source = write(tmp_path / "a.dat", *many(2))
    with pytest.raises(DataError, match=r"missing\.dat: no such file"):
        prepare(config([source, str(tmp_path / "missing.dat")], tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_prepare_counts_a_truncated_file_and_keeps_what_it_held(tmp_path: Path) -> None:
    whole = gzip.compress("".join(many(600, length=4000)).encode())
    (tmp_path / "a.dat.gz").write_bytes(whole[: len(whole) * 3 // 4])
    result = prepare(config([str(tmp_path / "a.dat.gz")], tmp_path / "out"))
    assert 400 < result["rows"] < 600
    assert result["rejected"] == {"truncated gzip": 1}


def test_prepare_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    source = write(tmp_path / "a.dat", *many(30))
    result = prepare(config([source], tmp_path / "out", tracking={"uri": uri}))
    client = MlflowClient(uri)
    run = client.get_run(result["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["rows_per_file"] == "250000"
    assert run.data.metrics["data/entries"] == 30
    assert run.data.tags["data_manifest"] == StrataManifest.digest(str(tmp_path / "out"))
    assert {a.path for a in client.list_artifacts(result["run_id"], "data")} == {
        "data/manifest.json",
        "data/strata.md",
        "data/strata.png",
    }


@pytest.mark.slow
def test_prepare_loses_no_real_record(tmp_path: Path, real_data: Path) -> None:
    folders = [str(real_data / "uniprot" / name) for name in ("flat", "xml", "json")]
    inputs = [*folders, str(real_data / "uniprot" / "tsv" / "human_500_part1.tsv")]
    inputs.append(str(real_data / "protclip" / "aligned_data_sample.json"))
    result = prepare(config(inputs, tmp_path / "out", max_rejected_share=0.2))
    manifest = StrataManifest.load(str(tmp_path / "out"))
    read = [item for uri in manifest.inputs for item in read_records(uri)]
    assert result["rows"] + sum(result["rejected"].values()) == len(read)
    accessions = {item.accession for item in read if not isinstance(item, Rejection)}
    assert result["rows"] == len(accessions)
    assert {row["accession"] for row in rows(tmp_path / "out")} == accessions
    assert pq.read_metadata(tmp_path / "out" / "rejected.parquet").num_rows == sum(
        result["rejected"].values()
    )
