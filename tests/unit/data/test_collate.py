import hashlib

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from protclip.config.schema import MaskingConfig
from protclip.data.collate import (
    Collator,
    MaskStreams,
    TextTokens,
    outside,
    random_positions,
    segment_positions,
)
from protclip.records import PAIRS_SCHEMA
from protclip.tensors import CLS, EOS, MASK, PAD, RESIDUE_TOKENS


def runs(hidden):
    """Lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], hidden.astype(int), [0]))))
    return [int(b - a) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def pair(
    accession="P1", sequence="MKVLAT", name=(5, 6), function=(7,), location=(), similarity=(8, 9), key=1
):
    return dict(
        accession=accession,
        sequence=sequence,
        protein_name=list(name),
        function=list(function),
        subcellular_location=list(location),
        similarity=list(similarity),
        length=len(sequence),
        confidence=1,
        coverage=3,
        sampling_key=key,
    )


def table(*pairs):
    return pa.Table.from_pylist(list(pairs), schema=PAIRS_SCHEMA)


def collator(seed=0, max_protein_tokens=64, max_text_tokens=32, **masking):
    config = MaskingConfig(**masking)
    return Collator(config, TextTokens(0, 2, 3), max_protein_tokens, max_text_tokens, seed)


def stream(key):
    return MaskStreams(0, 0).of(key)


def random_proteins(num, shortest, longest):
    rng = np.random.default_rng(0)
    return [
        pair(sequence="".join(rng.choice(list("ACDEFGHIKL"), rng.integers(shortest, longest + 1))), key=k)
        for k in range(1, num + 1)
    ]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5), st.integers(0, 2**31), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_mask_streams_are_those_of_generators_of_their_own(keys, seed, epoch):
    streams = MaskStreams(seed, epoch)
    for key in keys:
        alone = np.random.Generator(np.random.Philox(key=[np.uint64(key), np.uint64(seed << 32 ^ epoch)]))
        rng = streams.of(key)
        assert [rng.integers(7) for _ in range(3)] == [alone.integers(7) for _ in range(3)]
        assert rng.choice(100, 9, replace=False).tolist() == alone.choice(100, 9, replace=False).tolist()


@given(st.integers(1, 2000), st.floats(0.01, 0.5), st.integers(0, 2**63))
@settings(max_examples=80, deadline=None)
def test_random_positions_hide_the_stated_share(num_residues, rate, key):
    hidden = random_positions(num_residues, rate, stream(key))
    assert hidden.sum() == max(1, round(rate * num_residues))


@given(st.integers(1, 2000), st.integers(0, 2**63))
@settings(max_examples=150, deadline=None)
def test_segment_positions_have_lengths_in_bounds_and_the_stated_share(num_residues, key):
    hidden = segment_positions(num_residues, 0.15, 5, 10, stream(key))
    lengths = runs(hidden)
    if num_residues >= 20:
        assert lengths
        assert all(5 <= n <= 10 for n in lengths)
    assert hidden.sum() <= max(num_residues // 2, 1)
    if num_residues >= 70:
        assert abs(hidden.sum() - 0.15 * num_residues) <= 5


def test_segment_positions_are_spread_over_the_whole_protein():
    total = sum(segment_positions(100, 0.15, 5, 10, stream(k)).astype(int) for k in range(2000))
    assert total.min() > 0
    middle = total[10:90]
    assert middle.max() / middle.min() < 1.6
    assert abs(total.sum() / 2000 - 15) < 1


def test_masks_depend_on_protein_seed_and_epoch_only():
    pairs = [pair(sequence="MKVLATGHRE" * 5, key=k) for k in range(1, 5)]
    together = collator()(table(*pairs), epoch=3)
    alone = collator()(table(pairs[2]), epoch=3)
    assert torch.equal(together.mlm_tokens_BL[2], alone.mlm_tokens_BL[0])
    assert torch.equal(together.segment_tokens_BL[2], alone.segment_tokens_BL[0])
    assert not torch.equal(alone.mlm_tokens_BL, collator()(table(pairs[2]), epoch=4).mlm_tokens_BL)
    assert not torch.equal(alone.mlm_tokens_BL, collator(seed=1)(table(pairs[2]), epoch=3).mlm_tokens_BL)


def test_collator_masks_residues_only_and_says_where():
    batch = collator()(table(pair(sequence="M" * 60, key=7), pair(sequence="MK", key=8)), epoch=0)
    for tokens, mask in (
        (batch.mlm_tokens_BL, batch.mlm_mask_BL),
        (batch.segment_tokens_BL, batch.segment_mask_BL),
    ):
        assert torch.equal(tokens == MASK, mask)
        assert torch.equal(tokens[~mask], batch.tokens_BL[~mask])
        assert not mask[(batch.tokens_BL == PAD) | (batch.tokens_BL == CLS) | (batch.tokens_BL == EOS)].any()


def test_collator_joins_properties_into_the_biotext_and_keeps_them_apart():
    batch = collator()(table(pair(), pair(function=(), name=(4,))), epoch=0)
    assert batch.text_BT.tolist() == [[2, 5, 6, 7, 8, 9, 3], [2, 4, 8, 9, 3, 0, 0]]
    assert batch.text_mask_BT.tolist() == [[True] * 7, [True] * 5 + [False] * 2]
    assert batch.property_BKT[0].tolist() == [[2, 5, 6, 3], [2, 7, 3, 0], [0, 0, 0, 0], [2, 8, 9, 3]]
    assert batch.property_mask_BKT.any(-1).tolist() == [
        [True, True, False, True],
        [True, False, False, True],
    ]


def residues(batch, row=0):
    return "".join(RESIDUE_TOKENS[t] for t in batch.tokens_BL[row] if t not in (CLS, EOS, PAD))


def test_collator_cuts_texts_to_their_limit_and_counts_them():
    pairs = table(pair(), pair(name=(4, 5), function=(), similarity=()))
    batch = collator(max_text_tokens=4)(pairs, epoch=0)
    assert batch.text_BT.tolist() == [[2, 5, 6, 3], [2, 4, 5, 3]]
    assert batch.counts.cut_texts == 1
    assert batch.counts.cropped == 0


def test_collator_takes_a_window_of_a_long_protein_that_changes_with_the_epoch():
    sequence = "ACDEFGHIKLMNPQ"
    pairs = table(pair(sequence=sequence, key=9), pair(sequence=sequence[:4], key=10))
    collate = collator(max_protein_tokens=6)
    windows = [collate(pairs, epoch) for epoch in range(200)]
    starts = [sequence.index(residues(batch)) for batch in windows]
    assert set(starts) == set(range(11)), "from the first to the last residue"
    assert all(batch.tokens_BL[0, 0] == CLS and batch.tokens_BL[0, -1] == EOS for batch in windows)
    assert all(batch.counts.cropped == 1 and residues(batch, 1) == "ACDE" for batch in windows)
    again = collate(table(pair(sequence=sequence, key=9)), 5)
    assert residues(again) == residues(windows[5])
    assert torch.equal(again.mlm_mask_BL[0], windows[5].mlm_mask_BL[0])


def test_masks_stay_what_they_were_when_runs_began():
    batch = collator(max_protein_tokens=130)(table(*random_proteins(20, 1, 128)), epoch=3)
    masks = np.concatenate([batch.mlm_mask_BL.numpy().ravel(), batch.segment_mask_BL.numpy().ravel()])
    assert hashlib.sha256(masks.tobytes()).hexdigest()[:16] == "680ff8078c177c15"


@given(st.integers(1, 400), st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**63))
@settings(max_examples=80, deadline=None)
def test_residues_moved_outside_keep_their_number_while_there_is_room(num_residues, rate, share, key):
    rng = np.random.default_rng(key)
    hidden, taken = rng.random(num_residues) < rate, rng.random(num_residues) < share
    moved = outside(hidden, taken, rng)
    assert not (moved & taken).any()
    assert moved[hidden & ~taken].all()
    assert moved.sum() == min(hidden.sum(), (~taken).sum())


def test_shared_corruption_has_disjoint_masks_in_one_copy_and_the_segments_of_separate():
    pairs = table(*random_proteins(30, 1, 60))
    separate, shared = (collator(corruption=how)(pairs, epoch=2) for how in ("separate", "shared"))
    assert not separate.shared
    assert torch.equal(shared.segment_mask_BL, separate.segment_mask_BL)
    assert (separate.mlm_mask_BL & separate.segment_mask_BL).any()
    assert not (shared.mlm_mask_BL & shared.segment_mask_BL).any()
    assert torch.equal(shared.mlm_mask_BL.sum(1), separate.mlm_mask_BL.sum(1))
    kept = separate.mlm_mask_BL & ~separate.segment_mask_BL
    assert shared.mlm_mask_BL[kept].all()
    hidden = shared.mlm_mask_BL | shared.segment_mask_BL
    for tokens in (shared.mlm_tokens_BL, shared.segment_tokens_BL):
        assert torch.equal(tokens == MASK, hidden)
        assert torch.equal(tokens[~hidden], shared.tokens_BL[~hidden])


def test_counts_are_those_of_the_masks_and_survive_a_copy():
    single = pair(function=(), similarity=(), key=2)
    batch = collator(max_protein_tokens=30)(table(pair(sequence="MKV" * 20), single), epoch=0)
    counts = batch.to(torch.device("cpu")).counts
    assert counts == batch.counts
    assert counts.residues == 28 + 6
    assert (counts.mlm, counts.segment) == (batch.mlm_mask_BL.sum(), batch.segment_mask_BL.sum())
    assert counts.most_segment == batch.segment_mask_BL.sum(1).max()
    assert (counts.properties, counts.aligned) == (4, 3)
    assert (counts.cropped, counts.cut_texts) == (1, 0)


def test_collator_traces_every_row_to_its_record():
    keys = [3, 2**64 - 1, 2**63]
    batch = collator()(table(*(pair(key=k) for k in keys)), epoch=0)
    assert batch.keys_B.numpy().view(np.uint64).tolist() == keys


@pytest.mark.parametrize("rate", [0.0, 0.15])
def test_masks_of_a_single_residue_do_not_fail(rate):
    config = MaskingConfig(mlm_rate=rate, segment_rate=rate)
    batch = Collator(config, TextTokens(0, 2, 3), 64, 32, 0)(table(pair(sequence="M")), epoch=0)
    assert int(batch.mlm_mask_BL.sum()) == (1 if rate else 0)
    assert int(batch.segment_mask_BL.sum()) == 0
