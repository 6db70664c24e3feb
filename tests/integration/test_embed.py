"""Strata and pairs to embeddings and consistency, on Ray."""

import shutil
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from protclip import storage
from protclip.cluster import embed as job
from protclip.cluster import embed_file
from protclip.cluster.embed import embed
from protclip.cluster.sample import sample
from protclip.cluster.tasks import Workers, run_stages
from protclip.config.data import SampleConfig
from protclip.config.schema import EmbedConfig
from protclip.data.biotext import biotext
from protclip.data.manifest import (
    TOKENIZER_NAME,
    EmbeddingsManifest,
    PairsManifest,
    Split,
    StrataManifest,
)
from protclip.data.pairs import pairs_table
from protclip.data.strata import Origin, read_entries, tables, totals, write_parts
from protclip.data.tokenizer import TextTokenizer
from protclip.errors import CheckpointError, ConfigError, DataError
from protclip.evaluation.embed import Embedder
from protclip.records import STRATA_SCHEMA, ProteinRecord, sampling_key

TOLERANCE = 1e-4


def made_records(count: int) -> list[ProteinRecord]:
    rng = np.random.default_rng(count)
    made = []
    for i in range(count):
        coverage = int(rng.integers(1, 5))
        # Some are longer than the model takes, sequences and texts.
        words = " ".join(rng.choice(["binds", "zinc", "kinase", "membrane", "DNA"], rng.integers(2, 80)))
        text = f"{words} {{ECO:0000269|PubMed:{i}}}."
        made.append(
            ProteinRecord(
                accession=f"A{i:06d}",
                entry_name="A_B",
                reviewed=bool(rng.random() < 0.3),
                sequence="".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWYX"), rng.integers(1, 200))),
                protein_name=f"Protein {i}",
                function=text if coverage > 1 else None,
                subcellular_location=text if coverage > 2 else None,
                similarity=text if coverage > 3 else None,
                confidence=int(rng.integers(1, 6)),
                annotation_date=date(2020, 1, 1),
            )
        )
    return made


RECORDS = {record.accession: record for record in made_records(240)}


def write_strata(output: Path, num_parts: int = 2) -> str:
    table, _ = tables(list(enumerate(RECORDS.values())), Origin(0, "made"), None, None)
    order = np.argsort(table["sampling_key"].to_numpy())
    written = [
        pair
        for part, rows in enumerate(np.array_split(order, num_parts))
        for pair in write_parts(table, rows, str(output), part)
    ]
    files, counts = [w[0] for w in written], [w[1] for w in written]
    StrataManifest(
        release=None,
        inputs=("made",),
        strata=totals(counts),
        files=tuple(sorted(files, key=lambda f: f.path)),
        rejected={},
        missing_confidence=0,
    ).save(str(output))
    return str(output)


@pytest.fixture(scope="module")
def strata(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_strata(tmp_path_factory.mktemp("strata"))


@pytest.fixture(scope="module")
def pairs(strata: str, tiny_pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """All entries of the strata as pairs."""
    root = tmp_path_factory.mktemp("pairs")
    manifest = PairsManifest.load(str(tiny_pairs))
    tokenizer = TextTokenizer.load("builtin")
    files = StrataManifest.load(strata).files
    entries = pa.concat_tables(
        t for f in files for t in read_entries(strata, f, STRATA_SCHEMA.names, reviewed=True, unreviewed=True)
    )
    table = pairs_table(entries, tokenizer.encode, "strip", 510)
    splits = {}
    for split, rows in zip(("train", "valid", "test"), np.array_split(np.arange(len(table)), 3), strict=True):
        path = f"{split}/shard-00000.parquet"
        stored = storage.write_parquet(str(root / path), table.take(pa.array(rows)), 32)
        entry = manifest.splits["test"].files[0].of(path, stored, len(rows), 32)
        splits[split] = Split(rows=len(rows), files=(entry,))
    storage.write_bytes(str(root / TOKENIZER_NAME), tokenizer.to_json().encode())
    manifest.model_copy(update={"splits": splits}).save(str(root))
    return str(root)


@pytest.fixture(scope="module")
def reference(tiny_checkpoint: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Protein and text embedding of every entry, each alone in its batch."""
    embedder = Embedder.from_checkpoint(str(tiny_checkpoint), batch_size=1)
    proteins = embedder.embed_proteins([r.sequence for r in RECORDS.values()])
    texts = embedder.embed_texts([biotext(dict(r.properties()), "strip") for r in RECORDS.values()])
    return dict(zip(RECORDS, zip(proteins, texts, strict=True), strict=True))


@pytest.fixture
def config(strata: str, tiny_checkpoint: Path, tmp_path: Path) -> EmbedConfig:
    return EmbedConfig.model_validate(
        {
            "source": strata,
            "checkpoint": str(tiny_checkpoint.parent),
            "output": str(tmp_path / "out"),
            "num_workers": 2,
            "tracking": {"enabled": False},
        }
    )


def with_(config: EmbedConfig, **values: object) -> EmbedConfig:
    return EmbedConfig.model_validate({**config.model_dump(), **values})


def rows(output: str) -> pa.Table:
    """All rows, and that the manifest tells the truth of its files."""
    tables_ = []
    for file in EmbeddingsManifest.load(output).files:
        uri = storage.join(output, file.path)
        assert storage.sha256(uri) == file.sha256
        with storage.parquet_file(uri) as opened:
            groups = [opened.metadata.row_group(i).num_rows for i in range(opened.num_row_groups)]
            assert (tuple(groups), opened.metadata.num_rows) == (file.row_groups, file.rows)
            tables_.append(opened.read())
    return pa.concat_tables(tables_)


def cosines(output: str) -> dict[str, float]:
    table = rows(output)
    found = dict(zip(table["accession"].to_pylist(), table["consistency"].to_pylist(), strict=True))
    assert len(found) == len(table)
    return found


def files(output: str) -> dict[str, bytes]:
    root = Path(output)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.parquet")}


def vectors(table: pa.Table, name: str) -> np.ndarray:
    flat = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(table), -1)


@pytest.fixture
def serial(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs the workers' code here, one after the other, without Ray."""

    import torch

    def run(items: Iterable, workers: Workers) -> Iterator:
        task = workers.prepare()
        return (result for item in items for result in task(item))

    monkeypatch.setattr(job, "run_stages", run)
    monkeypatch.setattr(job, "connect", lambda: None)
    monkeypatch.setattr(job, "_workers", lambda _, prepare, most: Workers(prepare, most))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run_and_kill_a_worker(items: Iterable, workers: Workers) -> Iterator:
    """Kills one of this cluster's workers once the first result is there."""
    done = 0
    for result in run_stages(items, workers):
        if not done:
            ours = psutil.Process().children(recursive=True)
            victims = [process for process in ours if process.name().startswith("ray::MapWorker")]
            victims[0].kill()
        done += result if isinstance(result, int) else 0
        yield result
    assert done == len(RECORDS), "what was done twice is reported once"


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_embed_gives_every_entry_what_it_gives_alone_though_a_worker_dies(
    config, reference, tmp_path, request, monkeypatch
):
    monkeypatch.setattr(job, "run_stages", run_and_kill_a_worker)
    result = embed(with_(config, what=("protein", "text", "consistency"), embedding_type="float32"))
    table = rows(config.output)
    assert result["rows"] == len(table) == len(RECORDS)
    assert set(table["accession"].to_pylist()) == set(RECORDS)
    expected = [reference[a] for a in table["accession"].to_pylist()]
    for name, vector in (("protein_embedding", 0), ("text_embedding", 1)):
        np.testing.assert_allclose(vectors(table, name), [e[vector] for e in expected], atol=TOLERANCE)
    np.testing.assert_allclose(
        table["consistency"].to_numpy(), [float(p @ t) for p, t in expected], atol=TOLERANCE
    )
    keys = [sampling_key(a) for a in table["accession"].to_pylist()]
    assert table["sampling_key"].to_pylist() == keys
    manifest = EmbeddingsManifest.load(config.output)
    assert manifest.columns == tuple(table.schema.names)
    assert (manifest.dim, manifest.step, manifest.evidence) == (32, 3, "strip")
    assert manifest.source_manifest_sha256 == StrataManifest.digest(config.source)
    # One file per file of the strata, rows side by side.
    for file in StrataManifest.load(config.source).files:
        ours = pq.read_table(Path(config.output) / file.path)["accession"]
        assert ours == pq.read_table(Path(config.source) / file.path)["accession"]

    request.getfixturevalue("serial")
    again = with_(config, what=("protein", "text", "consistency"), embedding_type="float32")
    embed(with_(again, output=str(tmp_path / "one worker")))
    assert files(str(tmp_path / "one worker")) == files(config.output)


@pytest.mark.usefixtures("serial")
def test_embed_takes_up_what_another_attempt_finished(config):
    damaged = Path(config.source).with_name("damaged")
    shutil.copytree(config.source, damaged)
    config = with_(config, source=str(damaged))
    # The smallest file comes last.
    last = min(StrataManifest.load(config.source).files, key=lambda f: f.rows).path
    intact = (damaged / last).read_bytes()
    (damaged / last).write_bytes(intact[:-100])
    with pytest.raises(DataError, match=rf"{last}: "):
        embed(config)
    assert not (Path(config.output) / "manifest.json").exists()
    (damaged / last).write_bytes(intact)
    finished = {name: (Path(config.output) / name).stat().st_mtime_ns for name in files(config.output)}
    assert len(finished) == len(StrataManifest.load(config.source).files) - 1

    embed(config)
    for name, written in finished.items():
        assert (Path(config.output) / name).stat().st_mtime_ns == written
    assert set(cosines(config.output)) == set(RECORDS)
    clean = with_(config, output=config.output + " clean")
    embed(clean)
    assert files(clean.output) == files(config.output)
    left = {path.name for path in Path(config.output).iterdir() if not path.name.startswith("confidence=")}
    assert left == {"manifest.json", "consistency.md", "consistency.png"}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster", "serial")
def test_sample_weighs_by_the_consistency_that_embed_wrote(config, tmp_path):
    embed(config)
    scores = cosines(config.output)
    drawn = {}
    for exponent in (0, 40):
        output = tmp_path / f"pairs-{exponent}"
        exponents = {"confidence": 0, "coverage": 0, "consistency": exponent}
        sampling = {"exponents": exponents, "max_confidence": 5, "min_coverage": 1, "keep_reviewed": False}
        settings = {"source": config.source, "output": str(output), "consistency": config.output}
        settings |= {"target_pairs": 80, "sampling": sampling, "tracking": {"enabled": False}}
        sample(SampleConfig.model_validate(settings))
        drawn[exponent] = [
            a for f in output.glob("*/*.parquet") for a in pq.read_table(f)["accession"].to_pylist()
        ]
    uniform, weighed = (np.mean([scores[a] for a in drawn[exponent]]) for exponent in (0, 40))
    spread = np.std(list(scores.values()))
    assert weighed > uniform + 0.5 * spread


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_embed_refuses_workers_the_cluster_has_no_room_for(config):
    with pytest.raises(ConfigError, match="wanted: 1 worker of 999 CPUs; the cluster has 1 node of 4 CPUs"):
        embed(with_(config, num_workers=None, cpus_per_worker=999))


@pytest.mark.usefixtures("serial")
def test_embed_does_not_depend_on_batches(config, monkeypatch, tmp_path):
    embed(config)
    monkeypatch.setattr(embed_file, "CHUNK_ROWS", 1)
    small = with_(config, output=str(tmp_path / "small"), batch_size=3, batch_tokens=200)
    embed(small)
    few, many = cosines(small.output), cosines(config.output)
    assert few.keys() == many.keys()
    np.testing.assert_allclose([few[a] for a in many], list(many.values()), atol=TOLERANCE)


@pytest.mark.usefixtures("serial")
def test_embed_of_pairs_equals_that_of_their_strata(config, pairs, tmp_path):
    embed(config)
    embed(with_(config, source=pairs, output=str(tmp_path / "of pairs")))
    of_pairs, of_strata = cosines(str(tmp_path / "of pairs")), cosines(config.output)
    assert of_pairs.keys() == of_strata.keys()
    np.testing.assert_allclose([of_pairs[a] for a in of_strata], list(of_strata.values()), atol=TOLERANCE)
    assert set(files(str(tmp_path / "of pairs"))) == {
        f"{split}/shard-00000.parquet" for split in ("train", "valid", "test")
    }


@pytest.mark.usefixtures("serial")
@pytest.mark.parametrize("source", ["strata", "pairs"])
def test_embed_takes_the_wanted_strata_alone(config, source, request, monkeypatch):
    monkeypatch.setattr(embed_file, "CHUNK_ROWS", 1)
    uri = request.getfixturevalue(source)
    embed(with_(config, source=uri, max_confidence=2, min_coverage=3))
    wanted = {a for a, r in RECORDS.items() if r.confidence <= 2 and r.coverage >= 3}
    assert set(cosines(config.output)) == wanted
    counts = EmbeddingsManifest.load(config.output).consistency
    assert {(c.confidence, c.coverage) for c in counts} == {(c, r) for c in (1, 2) for r in (3, 4)}


@pytest.mark.usefixtures("serial")
@pytest.mark.parametrize("what", [("protein",), ("text",)])
def test_embed_computes_no_more_than_asked_for(config, what, reference, monkeypatch):
    other = {"protein": "embed_text_tokens", "text": "embed_proteins"}[what[0]]
    monkeypatch.delattr(Embedder, other)
    result = embed(with_(config, what=what))
    table = rows(config.output)
    assert table.schema.names == ["accession", "sampling_key", f"{what[0]}_embedding"]
    assert table.schema.field(2).type == pa.list_(pa.float16(), 32)
    index = ("protein", "text").index(what[0])
    expected = [reference[a][index] for a in table["accession"].to_pylist()]
    np.testing.assert_allclose(vectors(table, table.schema.names[2]), expected, atol=1e-3)
    assert result["consistency"] == {}
    assert not (Path(config.output) / "consistency.png").exists()


@pytest.mark.usefixtures("serial")
def test_embed_keeps_evidence_as_the_training_pairs_did(config, tiny_checkpoint, tmp_path):
    embed(config)
    embed(with_(config, output=str(tmp_path / "kept"), evidence="keep"))
    embedder = Embedder.from_checkpoint(str(tiny_checkpoint))
    kept = cosines(str(tmp_path / "kept"))
    texts = embedder.embed_texts([biotext(dict(r.properties()), "keep") for r in RECORDS.values()])
    proteins = embedder.embed_proteins([r.sequence for r in RECORDS.values()])
    np.testing.assert_allclose([kept[a] for a in RECORDS], (proteins * texts).sum(1), atol=TOLERANCE)
    assert max(abs(kept[a] - value) for a, value in cosines(config.output).items()) > 10 * TOLERANCE


@pytest.mark.usefixtures("serial")
def test_embed_writes_to_an_object_store_and_is_remembered(config, bucket, tmp_path):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    output = f"{bucket}/scores"
    result = embed(with_(config, output=output, tracking={"uri": uri, "enabled": True}))
    found = cosines(output)
    assert set(found) == set(RECORDS)
    client = MlflowClient(uri)
    run = client.get_run(result["run_id"])
    for level in range(1, 6):
        mean = np.mean([found[a] for a, r in RECORDS.items() if r.confidence == level])
        assert run.data.metrics[f"consistency/C{level}"] == pytest.approx(mean, abs=1e-6)
        assert result["consistency"][f"C={level}"] == pytest.approx(mean, abs=1e-5)
    confidence = [r.confidence for r in RECORDS.values()]
    correlation = np.corrcoef(confidence, [found[a] for a in RECORDS])[0, 1]
    assert run.data.metrics["consistency/correlation_with_C"] == pytest.approx(correlation, abs=1e-6)
    assert run.data.tags["data_manifest"] == EmbeddingsManifest.digest(output)
    logged = {a.path for a in client.list_artifacts(result["run_id"], "data")}
    assert logged == {"data/manifest.json", "data/consistency.md", "data/consistency.png"}
    assert storage.read_bytes(f"{output}/consistency.png").startswith(b"\x89PNG")


@pytest.mark.usefixtures("serial")
def test_embed_replaces_only_on_request(config):
    embed(config)
    with pytest.raises(DataError, match="a data set is there already"):
        embed(config)
    embed(with_(config, overwrite=True, max_confidence=1))
    assert len(rows(config.output)) == sum(r.confidence == 1 for r in RECORDS.values())
    assert set(files(config.output)) == {f.path for f in EmbeddingsManifest.load(config.output).files}


@pytest.mark.usefixtures("serial")
def test_embed_names_a_damaged_checkpoint_and_leaves_nothing(config, tiny_checkpoint, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_checkpoint, damaged)
    weights = next(damaged.rglob("model-*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"damaged/\S+/model-\S+: missing or damaged"):
        embed(with_(config, checkpoint=str(damaged)))
    assert not storage.exists(config.output) or not storage.list_files(config.output)


def test_embed_checks_everything_before_any_work(config, pairs, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "connect", lambda: pytest.fail("work began before everything was checked"))
    with pytest.raises(CheckpointError, match="no complete checkpoint here"):
        embed(with_(config, checkpoint=str(tmp_path / "none")))
    with pytest.raises(DataError, match=r"none: no manifest\.json here"):
        embed(with_(config, source=str(tmp_path / "none")))
    foreign = tmp_path / "foreign"
    shutil.copytree(pairs, foreign)
    manifest = PairsManifest.load(str(foreign))
    tokenizer = manifest.tokenizer.model_copy(update={"fingerprint": "0" * 64})
    manifest.model_copy(update={"tokenizer": tokenizer}).save(str(foreign))
    with pytest.raises(DataError, match=r"foreign: tokenised with 'builtin'.*sample with the checkpoint's"):
        embed(with_(config, source=str(foreign)))
    orphan = tmp_path / "orphan"
    shutil.copytree(tiny_checkpoint, orphan)
    meta = storage.read_json(str(orphan / "meta.json"))
    (path,) = (path for path in meta["files"] if path.endswith("/config.json"))
    trained = storage.read_json(str(orphan / path))
    stored = storage.write_json(str(orphan / path), {**trained, "data": str(tmp_path / "gone")})
    meta["files"][path] = {"sha256": stored.sha256, "num_bytes": stored.num_bytes}
    storage.write_json(str(orphan / "meta.json"), meta)
    with pytest.raises(ConfigError, match=r"its pairs are gone.*give evidence=strip or evidence=keep"):
        embed(with_(config, checkpoint=str(orphan)))
    none = tmp_path / "empty"
    shutil.copytree(config.source, none)
    left = tuple(f for f in StrataManifest.load(str(none)).files if "confidence=5" in f.path)
    StrataManifest.load(str(none)).model_copy(update={"files": left}).save(str(none))
    with pytest.raises(DataError, match="no entries with C <= 3 and at least 1 properties"):
        embed(with_(config, source=str(none), max_confidence=3))
    assert not Path(config.output).exists()
