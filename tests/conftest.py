"""Fixtures that several test modules share."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from faulty_s3 import FaultyS3
from ray_forks import forking_workers

REPO = Path(__file__).resolve().parents[1]

# A busy machine is no reason for a test to fail.
settings.register_profile("patient", deadline=None, max_examples=50)
settings.load_profile("patient")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no process is left with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def real_data() -> Path:
    path = REPO.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("real data files are not beside this checkout")
    return path


@pytest.fixture(scope="session")
def s3_server() -> Iterator[FaultyS3]:
    """An S3 server in this process, which the AWS variables of this process and its workers name."""
    server = FaultyS3()
    stop = server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield server
    stop()


@pytest.fixture(scope="session")
def moto_server(s3_server: FaultyS3) -> str:
    """The server's endpoint."""
    return s3_server.endpoint


@pytest.fixture
def faults(s3_server: FaultyS3) -> Iterator[FaultyS3]:
    """The server with no rule and no memory; afterwards again."""
    s3_server.reset()
    yield s3_server
    s3_server.reset()


@pytest.fixture
def bucket(moto_server: str) -> str:
    """The URI of a new, empty bucket."""
    import s3fs

    name = f"bucket-{uuid.uuid4().hex[:12]}"
    s3fs.S3FileSystem(endpoint_url=moto_server).mkdir(name)
    return f"s3://{name}"


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ray clusters that this process starts from now on fork their workers."""
    with forking_workers(tmp_path_factory.mktemp("ray")):
        yield


@pytest.fixture(scope="session")
def ray_cluster(moto_server: str, forks: None) -> Iterator[None]:
    """One local Ray cluster for the whole session; jobs that connect find it running."""
    import ray

    ray.init(
        address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def tiny_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pairs data set of six families whose texts name their motif: 48 train, 12 valid, 24 test rows.

    Train has two shards of two row groups each; every fourth pair lacks its location and similarity.
    """
    import numpy as np
    import pyarrow as pa

    from protclip import storage
    from protclip.data.manifest import (
        TOKENIZER_NAME,
        FileEntry,
        PairsManifest,
        SampledStratum,
        Split,
        StratumCount,
        TokenizerEntry,
    )
    from protclip.data.tokenizer import TextTokenizer
    from protclip.records import PAIRS_SCHEMA, PROPERTIES, sampling_key

    root = tmp_path_factory.mktemp("tiny_pairs")
    tokenizer = TextTokenizer.load("builtin")
    rng = np.random.default_rng(7)
    motifs = ["CHHC", "GKST", "DFGW", "RGDK", "NPAM", "YWYP"]
    splits = {}
    number = 0
    for split, shards in {"train": (24, 24), "valid": (12,), "test": (24,)}.items():
        files = []
        for shard, rows in enumerate(shards):
            table_rows = []
            for _ in range(rows):
                motif, number = motifs[number % len(motifs)], number + 1
                residues = rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), rng.integers(20, 60))
                texts = [
                    f"PROTEIN NAME: {motif} protein {number}.",
                    f"FUNCTION: Acts by its {motif} motif.",
                    "SUBCELLULAR LOCATION: Nucleus." if number % 4 else "",
                    f"SIMILARITY: Belongs to the {motif} family." if number % 4 else "",
                ]
                accession = f"P{number:05}"
                table_rows.append(
                    {
                        "accession": accession,
                        "sequence": "M" + motif + "".join(residues),
                        **dict(zip(map(str, PROPERTIES), tokenizer.encode(texts), strict=True)),
                        "length": 1 + len(motif) + len(residues),
                        "confidence": 1,
                        "coverage": 4 if number % 4 else 2,
                        "sampling_key": sampling_key(accession),
                    }
                )
            path = f"{split}/shard-{shard:05}.parquet"
            table = pa.Table.from_pylist(table_rows, schema=PAIRS_SCHEMA)
            stored = storage.write_parquet(str(root / path), table, row_group_size=12)
            groups = (12,) * (rows // 12)
            files.append(
                FileEntry(
                    path=path,
                    rows=rows,
                    row_groups=groups,
                    num_bytes=stored.num_bytes,
                    sha256=stored.sha256,
                )
            )
        splits[split] = Split(rows=sum(shards), files=tuple(files))
    strata = []
    for coverage, reviewed in ((2, number // 4), (4, number - number // 4)):
        count = StratumCount(confidence=1, coverage=coverage, reviewed=reviewed, unreviewed=0)
        strata.append(SampledStratum(confidence=1, coverage=coverage, rate=1, before=count, after=count))
    storage.write_bytes(str(root / TOKENIZER_NAME), tokenizer.to_json().encode())
    PairsManifest(
        source="made by a fixture",
        source_manifest_sha256="0" * 64,
        seed=0,
        evidence="strip",
        max_text_tokens=510,
        tokenizer=TokenizerEntry(
            source="builtin", fingerprint=tokenizer.fingerprint, vocab_size=tokenizer.vocab_size
        ),
        strata=tuple(strata),
        splits=splits,
    ).save(str(root))
    return root


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_pairs: Path) -> Path:
    """A complete checkpoint of an untrained model of the smallest size, made for `tiny_pairs`."""
    import torch

    from protclip.config.schema import (
        ModelConfig,
        PretrainConfig,
        ProteinEncoderConfig,
        RunConfig,
        TextEncoderConfig,
    )
    from protclip.data.dataset import Position
    from protclip.data.manifest import PairsManifest
    from protclip.data.tokenizer import TextTokenizer
    from protclip.model.build import build
    from protclip.training.replica import Replica
    from protclip.training.state import TrainState
    from protclip.training.store import CheckpointStore

    tokenizer = TextTokenizer.load("builtin")
    config = PretrainConfig(
        data=str(tiny_pairs),
        run=RunConfig(name="tiny"),
        model=ModelConfig(
            protein=ProteinEncoderConfig(source="esm2-tiny", max_tokens=128),
            text=TextEncoderConfig(source="bert-tiny", trainable=True, max_tokens=64),
            projection_dim=32,
            num_prototypes=16,
            fusion_heads=4,
        ),
    )
    model = build(config.model, config.loss, tokenizer.vocab_size, seed=0)
    state = TrainState.create(Replica(model, config, torch.device("cpu")), config)
    state.step, state.position = 3, Position(0, 3)
    run = tmp_path_factory.mktemp("tiny_run")
    with CheckpointStore(str(run), keep_last=1, keep_best=0, best_metric="") as store:
        store.save(state, config, tokenizer.to_json(), PairsManifest.digest(str(tiny_pairs)), None, {})
    return run / "step-00000003"
