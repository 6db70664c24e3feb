import itertools
import threading

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protclip import storage
from protclip.config.schema import MaskingConfig
from protclip.data.collate import Collator, TextTokens
from protclip.data.dataset import BatchIterator, PairsDataset, Position
from protclip.data.manifest import FileEntry, PairsManifest, Split, TokenizerEntry
from protclip.errors import DataError
from protclip.records import PAIRS_SCHEMA

ROWS, GROUP_ROWS, SHARD_ROWS = 103, 8, 40


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("pairs"))
    files = []
    for start in range(0, ROWS, SHARD_ROWS):
        rows = [
            dict(
                accession=f"A{i}",
                sequence="MKV" * (1 + i % 9),
                protein_name=[5],
                function=[],
                subcellular_location=[],
                similarity=[],
                length=3 * (1 + i % 9),
                confidence=1,
                coverage=1,
                sampling_key=i,
            )
            for i in range(start, min(start + SHARD_ROWS, ROWS))
        ]
        path = f"train/shard-{start:05d}.parquet"
        stored = storage.write_parquet(
            storage.join(uri, path), pa.Table.from_pylist(rows, schema=PAIRS_SCHEMA), GROUP_ROWS
        )
        groups = tuple(min(GROUP_ROWS, len(rows) - g) for g in range(0, len(rows), GROUP_ROWS))
        files.append(
            FileEntry(
                path=path, rows=len(rows), row_groups=groups, num_bytes=stored.num_bytes, sha256=stored.sha256
            )
        )
    PairsManifest(
        source="strata",
        source_manifest_sha256="0",
        seed=0,
        evidence="strip",
        tokenizer=TokenizerEntry(source="builtin", fingerprint="f", vocab_size=10),
        strata=(),
        splits={"train": Split(rows=ROWS, files=tuple(files)), "valid": Split(rows=0, files=())},
    ).save(uri)
    return uri


def iterator(pairs, global_batch=10, rank=0, world_size=1, start=Position(), seed=0):  # noqa: B008
    collate = Collator(MaskingConfig(), TextTokens(0, 2, 3), 64, 32, seed)
    dataset = PairsDataset(pairs, "train", seed)
    return BatchIterator(dataset, collate, global_batch, rank, world_size, start)


def ids(pairs, num_batches, **kwargs):
    batches = itertools.islice(iter(iterator(pairs, **kwargs)), num_batches)
    return [loaded.batch.keys_B.tolist() for loaded in batches]


@given(st.integers(0, 50), st.data())
@settings(max_examples=30, deadline=None)
def test_rows_are_slices_of_one_permutation(pairs, epoch, data):
    dataset = PairsDataset(pairs, "train", 0)
    whole = dataset.rows(epoch, 0, ROWS).column("sampling_key").to_pylist()
    assert sorted(whole) == list(range(ROWS))
    start = data.draw(st.integers(0, ROWS - 1))
    stop = data.draw(st.integers(start + 1, ROWS))
    assert dataset.rows(epoch, start, stop).column("sampling_key").to_pylist() == whole[start:stop]


def test_epochs_and_seeds_have_orders_of_their_own(pairs):
    orders = {
        tuple(PairsDataset(pairs, "train", seed).rows(epoch, 0, ROWS).column("sampling_key").to_pylist())
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


def test_iterator_sees_every_pair_at_most_once_an_epoch_and_changes_order_between_epochs(pairs):
    batches = ids(pairs, 20)
    first, second = sum(batches[:10], []), sum(batches[10:], [])
    assert len(set(first)) == len(first) == 100
    assert len(set(second)) == 100
    assert first != second


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_ranks_together_read_the_global_batch_whatever_their_number(pairs, world_size):
    single = ids(pairs, 13)
    per_rank = [ids(pairs, 13, rank=r, world_size=world_size) for r in range(world_size)]
    assert [sum(parts, []) for parts in zip(*per_rank, strict=True)] == single


@given(st.integers(0, 24), st.sampled_from([1, 2, 5]))
@settings(max_examples=20, deadline=None)
def test_resumed_iterator_continues_to_the_sample_id(pairs, stop_after, world_size):
    whole = ids(pairs, 30)
    position = Position()
    for loaded in itertools.islice(iter(iterator(pairs)), stop_after):
        position = loaded.after
    rest = [ids(pairs, 5, rank=r, world_size=world_size, start=position) for r in range(world_size)]
    assert [sum(parts, []) for parts in zip(*rest, strict=True)] == whole[stop_after : stop_after + 5]


def test_iterator_refuses_a_batch_larger_than_the_data(pairs):
    with pytest.raises(DataError, match=r"103 train pairs are fewer than one global batch of 200"):
        iterator(pairs, global_batch=200)


def test_dataset_names_the_splits_it_has(pairs):
    with pytest.raises(DataError, match=r"no split 'dev'; it has train, valid"):
        PairsDataset(pairs, "dev", 0)


def test_iterator_hands_a_reading_failure_to_the_consumer_and_ends_its_thread(pairs, tmp_path):
    broken = iterator(pairs)
    broken._dataset._groups = [
        type(g)(str(tmp_path / "gone.parquet"), g.index, g.rows) for g in broken._dataset._groups
    ]
    with pytest.raises(DataError, match=r"gone\.parquet: no such file"):
        next(iter(broken))
    stream = iter(iterator(pairs))
    next(stream)
    stream.close()
    assert not [t for t in threading.enumerate() if t.name == "batches"]


def test_loaded_batch_reports_residues_and_padding(pairs):
    loaded = next(iter(iterator(pairs)))
    tokens = loaded.batch.tokens_BL
    lengths = [3 * (1 + k % 9) for k in loaded.batch.keys_B.tolist()]
    assert loaded.num_residues == sum(lengths)
    assert loaded.padding_share == pytest.approx(1 - (sum(lengths) + 20) / tokens.numel())
