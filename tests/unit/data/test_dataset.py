import hashlib
import itertools
import re
import threading
import time
from contextlib import closing

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faulty_s3 import wait
from protclip import storage
from protclip.config.schema import MaskingConfig
from protclip.data.collate import Collator, TextTokens
from protclip.data.dataset import (
    PREFETCHED_BATCHES,
    BatchIterator,
    PairsDataset,
    Position,
)
from protclip.data.manifest import FileEntry, PairsManifest, Split, TokenizerEntry, train_split
from protclip.errors import DataError
from protclip.records import PAIRS_SCHEMA
from protclip.tensors import PAD

ROWS, GROUP_ROWS, SHARD_ROWS = 103, 8, 40
SAMPLES = (ROWS, 64, 10)
"""Pairs of the samples of `resampled`: 10, 6 and 1 batches of 10."""


def write_split(uri, folder, num_rows, first_key):
    files = []
    for start in range(0, num_rows, SHARD_ROWS):
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
                sampling_key=first_key + i,
            )
            for i in range(start, min(start + SHARD_ROWS, num_rows))
        ]
        path = f"{folder}/shard-{start:05d}.parquet"
        table = pa.Table.from_pylist(rows, schema=PAIRS_SCHEMA)
        stored = storage.write_parquet(storage.join(uri, path), table, GROUP_ROWS)
        files.append(FileEntry.of(path, stored, len(rows), GROUP_ROWS))
    return Split(rows=num_rows, files=tuple(files))


def write_pairs(uri, samples=(ROWS,)):
    folders = [train_split(e) for e in range(len(samples))]
    train, *resamples = [
        write_split(uri, folder, rows, 1000 * e)
        for e, (folder, rows) in enumerate(zip(folders, samples, strict=True))
    ]
    PairsManifest(
        source="strata",
        source_manifest_sha256="0",
        seed=0,
        evidence="strip",
        max_text_tokens=510,
        tokenizer=TokenizerEntry(source="builtin", fingerprint="f", vocab_size=10),
        strata=(),
        splits={"train": train, "valid": Split(rows=0, files=())},
        resamples=tuple(resamples),
    ).save(uri)
    return uri


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(str(tmp_path_factory.mktemp("pairs")))


@pytest.fixture(scope="module")
def resampled(tmp_path_factory):
    return write_pairs(str(tmp_path_factory.mktemp("resampled")), SAMPLES)


def reading_threads():
    return [t.name for t in threading.enumerate() if t.name.startswith(("batches", "look-ahead"))]


def iterator(pairs, global_batch=10, rank=0, world_size=1, start=Position(), seed=0, **kwargs):  # noqa: B008
    collate = Collator(MaskingConfig(), TextTokens(0, 2, 3), 64, 32, seed)
    dataset = PairsDataset(pairs, "train", seed)
    return BatchIterator(dataset, collate, global_batch, rank, world_size, start, **kwargs)


def ids(pairs, num_batches, **kwargs):
    batches = itertools.islice(iter(iterator(pairs, **kwargs)), num_batches)
    return [loaded.keys.tolist() for loaded in batches]


@given(st.integers(0, 50), st.data())
@settings(max_examples=30, deadline=None)
def test_rows_are_slices_of_one_permutation(pairs, epoch, data):
    dataset = PairsDataset(pairs, "train", 0)
    whole = dataset.rows(epoch, 0, ROWS).column("sampling_key").to_pylist()
    assert sorted(whole) == list(range(ROWS))
    start = data.draw(st.integers(0, ROWS - 1))
    stop = data.draw(st.integers(start + 1, ROWS))
    assert dataset.rows(epoch, start, stop).column("sampling_key").to_pylist() == whole[start:stop]


@pytest.mark.parametrize(
    ("seed", "epoch", "first", "digest"),
    [
        (0, 0, [80, 85, 86, 82, 87, 81, 84, 83, 21, 23, 22, 17], "435f708ff48d4793"),
        (0, 1, [1, 3, 7, 6, 0, 4, 2, 5, 59, 57, 61, 60], "650481598312fa4c"),
        (7, 3, [57, 61, 62, 56, 60, 58, 59, 63, 47, 42, 44, 40], "2333654c872f42c2"),
    ],
)
def test_order_stays_what_it_was_when_runs_began(pairs, seed, epoch, first, digest):
    keys = PairsDataset(pairs, "train", seed).rows(epoch, 0, ROWS)["sampling_key"].to_pylist()
    assert keys[:12] == first
    assert hashlib.sha256(str(keys).encode()).hexdigest()[:16] == digest


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


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 7, 10])
def test_ranks_together_read_the_global_batch_whatever_their_number(pairs, world_size):
    single = ids(pairs, 13)
    per_rank = [ids(pairs, 13, rank=r, world_size=world_size) for r in range(world_size)]
    assert [sum(parts, []) for parts in zip(*per_rank, strict=True)] == single


@given(st.integers(0, 24), st.sampled_from([1, 2, 3, 5]))
@settings(max_examples=8, deadline=None)
def test_resumed_iterator_continues_to_the_sample_id(pairs, stop_after, world_size):
    whole = ids(pairs, 30)
    position = Position()
    for loaded in itertools.islice(iter(iterator(pairs)), stop_after):
        position = loaded.after
    rest = [ids(pairs, 5, rank=r, world_size=world_size, start=position) for r in range(world_size)]
    assert [sum(parts, []) for parts in zip(*rest, strict=True)] == whole[stop_after : stop_after + 5]


def test_epochs_take_turns_with_the_samples(resampled):
    dataset = PairsDataset(resampled, "train", 0)
    assert [dataset.num_pairs(epoch) for epoch in range(4)] == [*SAMPLES, ROWS]
    assert [iterator(resampled).batches_per_epoch(epoch) for epoch in range(4)] == [10, 6, 1, 10]
    keys = [set(dataset.rows(e, 0, dataset.num_pairs(e))["sampling_key"].to_pylist()) for e in range(4)]
    assert keys == [set(range(1000 * e % 3000, 1000 * e % 3000 + dataset.num_pairs(e))) for e in range(4)]
    assert len(PairsDataset(resampled, "valid", 0)) == 0


@given(st.integers(0, 40), st.integers(0, 10), st.sampled_from([1, 2, 5]))
@settings(max_examples=15, deadline=None)
def test_any_position_gives_the_same_pairs_to_any_number_of_ranks(resampled, epoch, batch_index, world_size):
    dataset = PairsDataset(resampled, "train", 0)
    whole = [
        dataset.rows(e, 10 * g, 10 * g + 10)["sampling_key"].to_pylist()
        for e in range(epoch, epoch + 4)
        for g in range(dataset.num_pairs(e) // 10)
    ]
    first = min(batch_index, dataset.num_pairs(epoch) // 10)
    start = Position(epoch, first)
    ranks = [ids(resampled, 13, rank=r, world_size=world_size, start=start) for r in range(world_size)]
    assert [sum(parts, []) for parts in zip(*ranks, strict=True)] == whole[first : first + 13]


def test_iterator_refuses_a_sample_smaller_than_a_batch(resampled):
    with pytest.raises(DataError, match=r"10 train pairs are fewer than one global batch of 20"):
        iterator(resampled, global_batch=20)


def test_iterator_refuses_a_batch_larger_than_the_data(pairs):
    with pytest.raises(DataError, match=r"103 train pairs are fewer than one global batch of 200"):
        iterator(pairs, global_batch=200)


def test_dataset_names_the_splits_it_has(pairs):
    with pytest.raises(DataError, match=r"no split 'dev'; it has train, valid"):
        PairsDataset(pairs, "dev", 0)


def test_iterator_hands_a_reading_failure_to_the_consumer_and_ends_its_threads(tmp_path):
    uri = write_pairs(str(tmp_path))
    broken = "train/shard-00040.parquet"
    storage.remove(storage.join(uri, broken))
    stream = iter(iterator(uri))
    with pytest.raises(DataError, match=rf"{broken}: no such file"):  # noqa: PT012
        for _ in range(10):
            next(stream)
    assert not reading_threads()


def test_iterator_ends_its_threads_when_closed(pairs):
    stream = iter(iterator(pairs))
    next(stream)
    assert reading_threads()
    stream.close()
    assert not reading_threads()


def test_loaded_batch_reports_residues_and_padding(pairs):
    loaded = next(iter(iterator(pairs)))
    tokens = loaded.batches[0].tokens_BL
    lengths = length_of(loaded.keys)
    assert loaded.num_residues == sum(lengths)
    assert loaded.padding_share == pytest.approx(1 - (sum(lengths) + 20) / tokens.numel())


def length_of(keys):
    """Residues of the proteins with these keys."""
    return [int(3 * (1 + key % 9)) for key in keys]


def loaded_by(pairs, world_size, **kwargs):
    """The second global batch as each rank gets it."""
    start = Position(0, 1)
    return [
        next(iter(iterator(pairs, rank=r, world_size=world_size, start=start, **kwargs)))
        for r in range(world_size)
    ]


@given(st.sampled_from([1, 3, 4, 10]), st.integers(1, 12), st.booleans())
@settings(max_examples=12, deadline=None)
def test_microbatches_are_equally_many_on_all_ranks_and_hold_their_pairs(pairs, world_size, micro_batch, gpu):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("protclip.tensors.Batch.pin_memory", lambda batch: batch)
        ranks = loaded_by(pairs, world_size, micro_batch=micro_batch, gpu=gpu)
    whole = loaded_by(pairs, world_size)
    assert len({len(loaded.batches) for loaded in ranks}) == 1
    most = -(-10 // world_size)
    assert len(ranks[0].batches) == min(-(-most // micro_batch), 10 // world_size)
    for loaded, plain in zip(ranks, whole, strict=True):
        sizes = [batch.num_pairs for batch in loaded.batches]
        assert max(sizes) <= max(micro_batch, 2 if 10 % world_size else 1)
        assert max(sizes) - min(sizes) <= 1
        assert sorted(loaded.keys) == sorted(plain.keys)
        assert loaded.keys.dtype == "uint64"
        assert loaded.keys.tolist() == [k for batch in loaded.batches for k in batch.keys_B.tolist()]
        assert loaded.num_residues == plain.num_residues
        assert loaded.after == plain.after == Position(0, 2)


def test_microbatches_have_pairs_of_like_length_or_weigh_alike_on_a_gpu(pairs, monkeypatch):
    monkeypatch.setattr("protclip.tensors.Batch.pin_memory", lambda batch: batch)
    (by_length,) = loaded_by(pairs, 1, micro_batch=5)
    lengths = length_of(by_length.keys)
    assert lengths == sorted(lengths, reverse=True)
    assert by_length.batches[1].tokens_BL.shape[1] == 2 + lengths[5]
    (dealt,) = loaded_by(pairs, 1, micro_batch=5, gpu=True)
    assert [length_of(batch.keys_B.numpy()) for batch in dealt.batches] == [lengths[::2], lengths[1::2]]
    assert by_length.padding_share < dealt.padding_share


def test_masks_do_not_change_with_microbatches(pairs):
    def masks(loaded):
        return {
            int(key): mask[tokens != PAD].tolist()
            for batch in loaded.batches
            for key, mask, tokens in zip(batch.keys_B, batch.mlm_mask_BL, batch.tokens_BL, strict=True)
        }

    (plain,), (micro,) = loaded_by(pairs, 1), loaded_by(pairs, 1, micro_batch=3)
    assert masks(plain) == masks(micro)


def test_iterator_makes_a_step_wait_for_no_request(bucket, faults):
    write_pairs(bucket)
    stream = iter(iterator(bucket, start=Position(0, 8)))
    faults.fail("GET .*parquet", wait(0.05))
    waits = []
    for _ in range(25):
        began = time.perf_counter()
        next(stream)
        waits.append(time.perf_counter() - began)
        time.sleep(0.02)
    stream.close()
    # Every batch of 10 needs a row group of 8 that was not read before; one after the other takes over 1.5 s.
    assert sum(waits[1:]) < 0.3


def test_iterator_reads_no_further_ahead_than_allowed(bucket, faults, monkeypatch):
    monkeypatch.setattr("protclip.data.dataset.AHEAD_ROW_GROUPS", 3)
    write_pairs(bucket)
    with closing(iter(iterator(bucket, global_batch=8))) as stream:
        next(stream)
        time.sleep(0.5)
        # Footers; one batch taken, PREFETCHED_BATCHES made, one in hand, each of a row group, or of two
        # after the one of 7 rows; and two row groups ahead.
        assert faults.count("GET .*parquet") <= 3 + (1 + PREFETCHED_BATCHES + 1 + 1) + 2


@pytest.mark.parametrize(("world_size", "row_groups"), [(1, 13), (10, 10)])
def test_rank_reads_no_row_group_it_has_no_rows_in(bucket, faults, monkeypatch, world_size, row_groups):
    monkeypatch.setattr("protclip.data.dataset.AHEAD_ROW_GROUPS", 2)
    write_pairs(bucket)
    batches = iterator(bucket, world_size=world_size)
    faults.seen.clear()
    for _ in itertools.islice(iter(batches), 10):
        pass
    # One request for each, one for the footer of each file, and what is read of the next epoch meanwhile.
    ahead = 2 + PREFETCHED_BATCHES + 1
    assert row_groups <= len(faults.seen) <= 3 + row_groups + ahead
    assert all(re.match(r"GET \S+/train/shard-\d+\.parquet", line) for line in faults.seen)
