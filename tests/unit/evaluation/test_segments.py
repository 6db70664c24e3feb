from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from protclip.config.report import SegmentsConfig
from protclip.data.sites import Site
from protclip.data.synthetic import write_sample
from protclip.errors import DataError
from protclip.evaluation.embed import Embedder
from protclip.evaluation.segments import SITE_KINDS, Aligned, align, auroc, enrichment, site_masks, table
from protclip.evaluation.segments_report import segments
from protclip.records import PROPERTIES, ProteinRecord

KINDS = [kind.name for kind in SITE_KINDS]


def record(accession: str, sequence: str, **texts: str) -> ProteinRecord:
    given_texts = {"function": None, "subcellular_location": None, "similarity": None} | texts
    return ProteinRecord(
        accession=accession,
        entry_name="",
        reviewed=True,
        sequence=sequence,
        protein_name=texts.get("protein_name", "Thing"),
        confidence=1,
        taxon_id=None,
        annotation_date=None,
        **{k: v for k, v in given_texts.items() if k != "protein_name"},
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 30), st.integers(0, 10_000))
def test_auroc_is_scikit_learns(length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores_KL = rng.integers(0, 5, (3, length)).astype(np.float32)
    positives_SL = rng.random((4, length)) < 0.4
    areas_KS = auroc(scores_KL, positives_SL)
    for k, s in np.ndindex(3, 4):
        if positives_SL[s].any() and not positives_SL[s].all():
            assert areas_KS[k, s] == pytest.approx(roc_auc_score(positives_SL[s], scores_KL[k]))
        else:
            assert np.isnan(areas_KS[k, s])


def test_enrichment_is_weight_over_share() -> None:
    similarity_KL = np.array([[1.0, 0.5, 0.2, 0.0], [np.nan] * 4], dtype=np.float32)
    sites_SL = np.array([[True, False, False, False], [False] * 4])
    gains_KS = enrichment(similarity_KL, sites_SL, [0.3, 0.3])
    assert gains_KS[0, 0] == pytest.approx((1 / 1.5) / 0.25)
    assert np.isnan(gains_KS[1]).all()
    assert np.isnan(gains_KS[:, 1]).all()


def test_site_masks_tells_targeting_motifs_from_others() -> None:
    sites = [
        Site("MOTIF", 0, 2, "Nuclear localization signal"),
        Site("MOTIF", 3, 5, "Zincoplin motif 1"),
        Site("BINDING", 6, 7, "ATP"),
        Site("CHAIN", 0, 10, ""),
    ]
    masks = dict(zip(KINDS, site_masks(sites, 10), strict=True))
    assert np.flatnonzero(masks["targeting signal"]).tolist() == [0, 1]
    assert np.flatnonzero(masks["motif"]).tolist() == [3, 4]
    assert np.flatnonzero(masks["active or binding site"]).tolist() == [6]
    assert not masks["membrane segment"].any()


def test_table_finds_the_property_that_sees_the_motif() -> None:
    rng = np.random.default_rng(0)
    aligned = []
    for number in range(20):
        sites_SL = site_masks([Site("MOTIF", 10, 15, "x")], 40)
        similarity_KL = rng.random((len(PROPERTIES), 40), dtype=np.float32)
        similarity_KL[1, 10:15] += 1
        similarity_KL[3] = np.nan
        aligned.append(Aligned(record(f"P{number}", "M" * 40), similarity_KL, sites_SL))
    cells = table(aligned, [0.3] * 4)
    motif = KINDS.index("motif")
    found, chance = cells[1][motif], cells[0][motif]
    assert found is not None
    assert chance is not None
    assert found.auroc == 1
    assert found.enrichment > 2
    assert found.proteins == 20
    assert abs(chance.auroc - 0.5) < 4 * chance.error
    assert cells[3][motif] is None
    assert cells[1][KINDS.index("domain")] is None


def test_align_does_not_depend_on_batch_neighbours_and_cuts_to_the_model(tiny_checkpoint: Path) -> None:
    embedder = Embedder.from_checkpoint(str(tiny_checkpoint))
    entries = [
        (record("A", "MKVLA" * 9, function="Binds zinc."), [Site("MOTIF", 1, 4, "x")]),
        (record("B", "MWYR" * 60, subcellular_location="Nucleus."), [Site("MOTIF", 200, 210, "x")]),
    ]
    together = list(align(embedder, entries, "strip"))
    for entry, other in zip(entries, together, strict=True):
        (alone,) = align(embedder, [entry], "strip")
        np.testing.assert_allclose(alone.similarity_KL, other.similarity_KL, atol=1e-4)
    longest = 126
    assert together[0].similarity_KL.shape == (4, 45)
    assert together[1].similarity_KL.shape == (4, longest)
    assert not together[1].sites_SL.any()
    assert np.isnan(together[0].similarity_KL).all(1).tolist() == [False, False, True, True]
    assert np.nanmax(together[0].similarity_KL) == 1
    assert np.nanmin(together[0].similarity_KL) == 0


def test_segments_writes_table_and_picture(tiny_checkpoint: Path, tmp_path: Path) -> None:
    written = write_sample(str(tmp_path / "raw"), 12, 3, seed=0)
    config = SegmentsConfig(
        checkpoint=str(tiny_checkpoint), entries=written["reviewed"], output=str(tmp_path / "out"), limit=8
    )
    result = segments(config)
    assert result["proteins"] == 8
    text = (tmp_path / "out" / "segments.md").read_text()
    assert all(name in text for name in KINDS)
    assert (tmp_path / "out" / "segments.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(DataError, match="accessions: Q0 not among the 8 proteins measured; raise limit"):
        segments(config.model_copy(update={"accessions": ("Q0",)}))
