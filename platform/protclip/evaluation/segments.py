"""What PDA's dynamic segments look at, held against annotated sites.

For every residue of a protein and each of its properties the model states how much the residue is what
the property is about (paper, dynamic segments). UniProt's FT lines, which no training data holds, say
where motifs, signals and active sites lie. Shape suffixes: K properties, L residues, S kinds of site.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import rankdata

from protclip.checkpoint import LoadedCheckpoint
from protclip.data.biotext import Evidence, property_text
from protclip.data.manifest import PairsManifest
from protclip.data.sites import Site
from protclip.errors import DataError
from protclip.evaluation.embed import Embedder, pad_tokens
from protclip.losses.pda import normalised_similarity
from protclip.records import PROPERTIES, ProteinRecord
from protclip.tensors import PAD, residue_mask

BATCH_PROTEINS = 32


class SiteKind(NamedTuple):
    """Feature keys that mean the same to a property.

    Attributes:
        name: For people.
        keys: UniProtKB feature keys.
        motifs: Pattern that a MOTIF's note must match to belong here; None when no motif does.
    """

    name: str
    keys: frozenset[str]
    motifs: re.Pattern[str] | None = None


_TARGETING = r"locali[sz]ation|targeting|secretion|export|import|retention|retrieval|sorting"
SITE_KINDS: tuple[SiteKind, ...] = (
    SiteKind("motif", frozenset(), re.compile(rf"^(?!.*(?:{_TARGETING}))", re.IGNORECASE)),
    SiteKind(
        "active or binding site",
        frozenset({"ACT_SITE", "BINDING", "METAL", "NP_BIND", "CA_BIND", "DNA_BIND", "SITE"}),
    ),
    SiteKind("domain", frozenset({"DOMAIN", "ZN_FING", "REPEAT", "COILED"})),
    SiteKind("targeting signal", frozenset({"SIGNAL", "TRANSIT"}), re.compile(_TARGETING, re.IGNORECASE)),
    SiteKind("membrane segment", frozenset({"TRANSMEM", "INTRAMEM"})),
)


@dataclass(frozen=True, slots=True)
class Aligned:
    """One protein as the model sees it, and what is known about it.

    Attributes:
        record: The entry.
        similarity_KL: float32, how much each residue is what each property is about, 0 to 1; NaN for an
            absent property. Residues beyond the model's length are left out.
        sites_SL: bool, the residues of each kind of `SITE_KINDS`.
    """

    record: ProteinRecord
    similarity_KL: np.ndarray
    sites_SL: np.ndarray


class Cell(NamedTuple):
    """How well one property finds one kind of site, over proteins that have both.

    Attributes:
        auroc: Mean over proteins of the probability that a site's residue is above another one.
        error: Its standard error.
        enrichment: Mean over proteins of the segment weight on the sites over their share of residues.
        proteins: How many.
    """

    auroc: float
    error: float
    enrichment: float
    proteins: int


def site_masks(sites: Iterable[Site], length: int) -> np.ndarray:
    """Which residues belong to each kind of site, bool (S, L)."""
    masks_SL = np.zeros((len(SITE_KINDS), length), dtype=bool)
    for site in sites:
        for kind, mask_L in zip(SITE_KINDS, masks_SL, strict=True):
            is_motif = site.key == "MOTIF" and kind.motifs is not None and kind.motifs.search(site.note)
            if site.key in kind.keys or is_motif:
                mask_L[site.start : site.stop] = True
    return masks_SL


def evidence_of(loaded: LoadedCheckpoint, wanted: Evidence | None) -> Evidence:
    """What texts are made with: as asked for, else as in the checkpoint's training pairs.

    Raises:
        DataError: Nothing was asked for, and the pairs are not there.
    """
    if wanted:
        return wanted
    try:
        return PairsManifest.load(loaded.config.data).evidence
    except DataError as error:
        raise DataError(
            f"{error}; those are the pairs of {loaded.uri}, which tell how evidence tags are treated: give "
            "evidence=strip or evidence=keep"
        ) from error


@torch.inference_mode()
def align(
    embedder: Embedder, entries: Iterable[tuple[ProteinRecord, Sequence[Site]]], evidence: Evidence
) -> Iterator[Aligned]:
    """Similarities of residues and properties without noise, in the order of the entries.

    Args:
        embedder: The model.
        entries: Proteins with their sites.
        evidence: What the model's texts were made with.
    """
    model, device = embedder.model, embedder.device
    stream = iter(entries)
    while batch := list(islice(stream, BATCH_PROTEINS)):
        tokens_BL, _ = pad_tokens(embedder.residue_tokens([r.sequence for r, _ in batch]), PAD)
        residues_BLD = model.protein_projection(model.protein_encoder(tokens_BL.to(device))).float()
        texts = [property_text(p, getattr(r, p) or "", evidence) for r, _ in batch for p in PROPERTIES]
        text_NT, mask_NT = (t.to(device) for t in embedder.padded_texts(texts))
        mixtures_BKD = model.mix_prototypes(text_NT, mask_NT).unflatten(0, (-1, len(PROPERTIES)))
        mask_BL = residue_mask(tokens_BL)
        similarity_BKL = normalised_similarity(mixtures_BKD, residues_BLD, mask_BL.to(device)).cpu().numpy()
        present_BK = np.array([bool(text) for text in texts]).reshape(len(batch), -1)
        similarity_BKL[~present_BK] = np.nan
        for (record, sites), similarity_KL, mask_L in zip(batch, similarity_BKL, mask_BL, strict=True):
            seen_KL = similarity_KL[:, mask_L.numpy()]
            length = seen_KL.shape[1]
            yield Aligned(record, seen_KL, site_masks(sites, len(record.sequence))[:, :length])


def auroc(scores_KL: np.ndarray, positives_SL: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of every row of scores for every set of positives, ties counted half.

    Args:
        scores_KL: Scores.
        positives_SL: bool, the elements that should be high.

    Returns:
        float64 (K, S); NaN where a set is empty or everything, or scores are NaN.
    """
    length = scores_KL.shape[1]
    count_S = positives_SL.sum(1)
    ranks_KL = rankdata(scores_KL, axis=1, nan_policy="propagate")
    above_KS = ranks_KL @ positives_SL.T - count_S * (count_S + 1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return above_KS / (count_S * (length - count_S))


def enrichment(similarity_KL: np.ndarray, sites_SL: np.ndarray, thetas: Sequence[float]) -> np.ndarray:
    """Segment weight on the sites over their share of the residues: 1 is no better than chance.

    Args:
        similarity_KL: As in `Aligned`.
        sites_SL: bool, residues of each kind of site.
        thetas: Threshold of each property; smaller similarities weigh nothing.

    Returns:
        float64 (K, S); NaN where a kind has no residue or a property is absent.
    """
    weights_KL = np.where(similarity_KL >= np.array(thetas)[:, None], similarity_KL, 0.0)
    weights_KL[np.isnan(similarity_KL).any(1)] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weights_KL / weights_KL.sum(1, keepdims=True)) @ sites_SL.T / sites_SL.mean(1)


def table(aligned: Sequence[Aligned], thetas: Sequence[float]) -> list[list[Cell | None]]:
    """A cell for every property and kind of site; None where no protein has both.

    Args:
        aligned: Proteins, at least one.
        thetas: Threshold of each property.
    """
    areas_NKS = np.stack([auroc(a.similarity_KL, a.sites_SL) for a in aligned])
    gains_NKS = np.stack([enrichment(a.similarity_KL, a.sites_SL, thetas) for a in aligned])
    return [
        [_cell(areas_NKS[:, k, s], gains_NKS[:, k, s]) for s in range(len(SITE_KINDS))]
        for k in range(len(PROPERTIES))
    ]


def _cell(areas_N: np.ndarray, gains_N: np.ndarray) -> Cell | None:
    """Means over the proteins that have both."""
    known = ~np.isnan(areas_N)
    count = int(known.sum())
    if not count:
        return None
    spread = float(areas_N[known].std(ddof=1)) if count > 1 else float("nan")
    return Cell(float(areas_N[known].mean()), spread / count**0.5, float(gains_N[known].mean()), count)
