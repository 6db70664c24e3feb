"""How good PDA's alignment is at every threshold θ, protein by protein, and which θ is best.

The paper's first open question: does the best θ differ per property or per family? A checkpoint was
trained at one θ; here its dynamic segments are made at every θ of a grid, from texts without noise.

Shape suffixes: N proteins, K properties, T thresholds, Q texts, S kinds of site, L residues, D width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from math import nan
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from protclip.data.biotext import Evidence, property_text
from protclip.data.families import family_names
from protclip.data.sites import Site, read_annotated
from protclip.errors import DataError
from protclip.evaluation.embed import Embedder, pad_tokens
from protclip.evaluation.segments import BATCH_PROTEINS, SITE_KINDS, enrichment, site_masks
from protclip.losses.pda import normalised_similarity
from protclip.progress import progress
from protclip.records import NUM_PROPERTIES, ProteinRecord, sampling_key
from protclip.tensors import PAD, residue_mask

FEW = 5
"""Residues of a segment that is called collapsed: the shortest stretch that BSR masks."""

SAME = 1e-5
"""Cosines that differ by less count as equal: texts that are the same to the model differ by rounding."""

ANY = "any site"
KINDS: tuple[str, ...] = (*(kind.name for kind in SITE_KINDS), ANY)
ALIGNMENT = ("cosine", "margin", "accuracy", "others", "above", "first", "share", "few", "single")
OVERLAP = ("precision", "recall", "enrichment")
OTHER = "others, or none named"


class Protein(NamedTuple):
    """An entry with its texts as the model reads them.

    Attributes:
        record: The entry.
        sites: What is annotated along its sequence.
        texts: One per property, empty when it is absent.
    """

    record: ProteinRecord
    sites: Sequence[Site]
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of every protein, float32, NaN where it has no such property, text or site.

    Attributes:
        thetas: The grid (T), ascending.
        alignment: By name of `ALIGNMENT` (N, K, T):
            cosine: of the segment and its property's text;
            margin: what it is above that of the most similar other property of the protein;
            accuracy: 1 if its own property is the most similar, PDA's task;
            others: mean cosine of other proteins' texts of the property, each with the segment it chooses;
            above: share of these that its own text is above, chance 0.5;
            first: 1 if it is above all of them, chance 1 over the pool;
            share: residues in the segment over all;
            few, single: 1 if it has at most `FEW` residues, or one.
        overlap: By name of `OVERLAP` (N, K, S, T): of the residues in the segment those on sites of a
            kind of `KINDS`; of these the ones in it; segment weight on them over their share.
        present_NK: bool.
        pools: Texts each protein's own one is held against, per property, itself included.
        alike: Mean cosine of two of these texts, per property: near 1 they stand for the same.
    """

    thetas: tuple[float, ...]
    alignment: dict[str, np.ndarray]
    overlap: dict[str, np.ndarray]
    present_NK: np.ndarray
    pools: tuple[int, ...]
    alike: tuple[float, ...]

    def of(self, criterion: str) -> np.ndarray:
        """A measure (N, K, T) by name; of overlap that with any site."""
        if criterion in self.alignment:
            return self.alignment[criterion]
        return self.overlap[criterion][:, :, KINDS.index(ANY)]

    def chance(self, criterion: str) -> np.ndarray:
        """What a criterion is without any knowledge (K,)."""
        if criterion == "accuracy":
            guess_N1 = 1 / self.present_NK.sum(1, keepdims=True)
            return (self.present_NK * guess_N1).sum(0) / np.maximum(1, self.present_NK.sum(0))
        by_name = {"above": [0.5] * NUM_PROPERTIES, "first": [1 / pool for pool in self.pools]}
        return np.array(by_name.get(criterion, [1.0] * NUM_PROPERTIES))


def draw(uri: str, evidence: Evidence, limit: int) -> list[Protein]:
    """Entries with two properties to tell apart, the same ones in whatever order the file is.

    Swiss-Prot goes by name, so its first entries would be a few families.

    Args:
        uri: UniProtKB flat file.
        evidence: What the model's texts were made with.
        limit: Most entries.

    Raises:
        DataError: It cannot be read or is no flat file, or has no such entry.
    """
    with progress("reading", " entries") as bar:
        drawn = nsmallest(
            limit, _usable(uri, evidence, bar.update), lambda protein: sampling_key(protein.record.accession)
        )
    if not drawn:
        raise DataError(f"{uri}: no entry has two properties to tell apart; give complete UniProtKB entries")
    return drawn


def _usable(uri: str, evidence: Evidence, seen: Callable[[], object]) -> Iterator[Protein]:
    """The entries with two properties, each one read reported to `seen`."""
    for record, sites in read_annotated(uri):
        seen()
        texts = tuple(property_text(prop, text or "", evidence) for prop, text in record.properties())
        if sum(map(bool, texts)) > 1:
            yield Protein(record, sites, texts)


def families(proteins: Sequence[Protein], fewest: int, most: int) -> tuple[np.ndarray, list[str]]:
    """The family of each protein by its similarity text, among the largest families.

    Args:
        proteins: The proteins.
        fewest: Smaller families are not told apart.
        most: Nor are more than so many.

    Returns:
        int64 (N,) place in the names, -1 for other families and none; names, largest family first.
    """
    named = family_names(pa.array([p.record.similarity for p in proteins], pa.string())).to_pylist()
    counts: dict[str, int] = {}
    for name in named:
        if name is not None:
            counts[name] = counts.get(name, 0) + 1
    names = sorted((n for n, count in counts.items() if count >= fewest), key=lambda n: (-counts[n], n))[
        :most
    ]
    places = {name: place for place, name in enumerate(names)}
    return np.array([places.get(name, -1) for name in named]), names


@torch.inference_mode()
def measure(
    embedder: Embedder,
    proteins: Sequence[Protein],
    thetas: Sequence[float],
    pool: int,
    rng: np.random.Generator,
) -> Measured:
    """Segments of every property at every θ, and how they agree with texts and sites.

    Holds one batch of residue states at a time; no result depends on what else is in it.

    Args:
        embedder: The model.
        proteins: As `draw` gives them.
        thetas: The grid, ascending.
        pool: Texts that a protein's own one is held against, itself included.
        rng: Draws them.
    """
    texts = list(dict.fromkeys(text for p in proteins for text in p.texts if text))
    place_of = {text: place for place, text in enumerate(texts)}
    at_NK = np.array([[place_of.get(text, -1) for text in p.texts] for p in proteins])
    pools = [_drawn(column_N[column_N >= 0], pool, rng) for column_N in at_NK.T]
    mixtures_UD = torch.from_numpy(embedder.mix_prototypes(texts)).to(embedder.device)
    thetas_T = torch.tensor(thetas, device=embedder.device)
    shape = (len(proteins), NUM_PROPERTIES)
    alignment = {name: np.full((*shape, len(thetas)), np.nan, np.float32) for name in ALIGNMENT}
    overlap = {name: np.full((*shape, len(KINDS), len(thetas)), np.nan, np.float32) for name in OVERLAP}
    with progress("segments", " proteins", len(proteins)) as bar:
        for index, residues_LD in _residues(embedder, proteins):
            protein, present = proteins[index], np.flatnonzero(at_NK[index] >= 0)
            sites_SL = _kinds(protein, len(residues_LD))
            own_KD = mixtures_UD[at_NK[index, present]]
            for row, k in enumerate(present):
                others_QD = mixtures_UD[_others(at_NK[index, k], pools[k])]
                found, similarity_L = agreement(row, own_KD, others_QD, residues_LD, thetas_T)
                for name, values_T in found.items():
                    alignment[name][index, k] = values_T
                for name, values_ST in sites_found(similarity_L, sites_SL, thetas).items():
                    overlap[name][index, k] = values_ST
            bar.update()
    alike = tuple(_alike(mixtures_UD[pool_Q]) for pool_Q in pools)
    return Measured(tuple(thetas), alignment, overlap, at_NK >= 0, tuple(map(len, pools)), alike)


def _alike(texts_QD: Tensor) -> float:
    """Mean cosine of two different ones; NaN for fewer."""
    unit_QD = normalize(texts_QD, dim=-1)
    upper_QQ = (unit_QD @ unit_QD.T).triu(1)
    return (upper_QQ.sum() / (len(texts_QD) * (len(texts_QD) - 1) / 2)).item() if len(texts_QD) > 1 else nan


def _drawn(places_N: np.ndarray, pool: int, rng: np.random.Generator) -> np.ndarray:
    """At most `pool` different texts."""
    return rng.permutation(np.unique(places_N))[:pool]


def _others(own: int, pool_Q: np.ndarray) -> np.ndarray:
    """The pool without a protein's own text, which replaces the last one where it is not among them."""
    others_Q = pool_Q[pool_Q != own]
    return others_Q[: len(pool_Q) - 1]


def _residues(embedder: Embedder, proteins: Sequence[Protein]) -> Iterator[tuple[int, Tensor]]:
    """Number and projected residues (L, D) of each protein, longest first."""
    order = sorted(range(len(proteins)), key=lambda n: -len(proteins[n].record.sequence))
    for start in range(0, len(order), BATCH_PROTEINS):
        batch = order[start : start + BATCH_PROTEINS]
        tokens_BL, _ = pad_tokens(embedder.residue_tokens([proteins[n].record.sequence for n in batch]), PAD)
        tokens_BL = tokens_BL.to(embedder.device)
        states_BLH = embedder.model.protein_encoder(tokens_BL)
        for index, states_LH, mask_L in zip(batch, states_BLH, residue_mask(tokens_BL), strict=True):
            yield index, embedder.model.protein_projection(states_LH[mask_L]).float()


def _kinds(protein: Protein, length: int) -> np.ndarray:
    """Residues of each of `KINDS`, bool (S, L)."""
    sites_SL = site_masks(protein.sites, len(protein.record.sequence))[:, :length]
    return np.concatenate((sites_SL, sites_SL.any(0, keepdims=True)))


def agreement(
    row: int, own_KD: Tensor, others_QD: Tensor, residues_LD: Tensor, thetas_T: Tensor
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """How the segments of one property of one protein agree with texts.

    A text chooses the residues that are like it, so it agrees with its segment more than another text
    does, even where neither says anything of the protein, and the more so the higher θ is. Other
    proteins' texts therefore choose segments of their own before they are compared; other properties
    do not, as that is PDA's task.

    Args:
        row: The property among those the protein has.
        own_KD: The protein's texts (prototype mixtures), those it has.
        others_QD: Other proteins' texts of the same property; may be none.
        residues_LD: Projected residues.
        thetas_T: The grid.

    Returns:
        Each of `ALIGNMENT` (T,), and the residues' similarity (L,) to the property's text.
    """
    texts_QD = torch.cat((own_KD[row, None], others_QD))
    everywhere_1L = torch.ones_like(residues_LD[None, :, 0], dtype=torch.bool)
    similarity_QL = normalised_similarity(texts_QD[None], residues_LD[None], everywhere_1L)[0]
    inside_TQL = similarity_QL >= thetas_T[:, None, None]
    weights_TQL = similarity_QL * inside_TQL
    segments_TQD = (weights_TQL / weights_TQL.sum(-1, keepdim=True)) @ residues_LD
    cosine_TQ = cosine_similarity(segments_TQD, texts_QD, dim=-1)
    own_T, others_TQ = cosine_TQ[:, :1], cosine_TQ[:, 1:]
    rivals_TK = cosine_similarity(segments_TQD[:, :1], own_KD, dim=-1)
    rivals_TK = rivals_TK[:, torch.arange(len(own_KD), device=own_KD.device) != row]
    size_T = inside_TQL[:, 0].sum(-1)
    found = {
        "cosine": own_T[:, 0],
        "margin": own_T[:, 0] - rivals_TK.amax(1),
        "accuracy": _first(own_T, rivals_TK),
        "others": others_TQ.mean(1),
        "above": (_over(own_T, others_TQ).float() + ~_over(others_TQ, own_T)).mean(1) / 2,
        "first": _first(own_T, others_TQ),
        "share": size_T / len(residues_LD),
        "few": size_T <= FEW,
        "single": size_T == 1,
    }
    stacked = torch.stack([values_T.float() for values_T in found.values()]).cpu().numpy()
    return dict(zip(found, stacked, strict=True)), similarity_QL[0].cpu().numpy()


def _first(own_T: Tensor, rivals_TQ: Tensor) -> Tensor:
    """1 where the first is above all, its share where several are equal, NaN without rivals (T,)."""
    better_TQ, worse_TQ = _over(rivals_TQ, own_T), _over(own_T, rivals_TQ)
    best_T = ~better_TQ.any(1) / (1 + (~better_TQ & ~worse_TQ).sum(1))
    return best_T if rivals_TQ.shape[1] else best_T * nan


def _over(cosine: Tensor, other: Tensor) -> Tensor:
    """Where one is above the other by more than rounding."""
    return cosine - other > SAME


def sites_found(
    similarity_L: np.ndarray, sites_SL: np.ndarray, thetas: Sequence[float]
) -> dict[str, np.ndarray]:
    """How much of a segment is on sites, and how much of the sites is in it.

    Args:
        similarity_L: Similarity of the residues to the property's text.
        sites_SL: bool, residues of each kind.
        thetas: The grid.

    Returns:
        Each of `OVERLAP` (S, T); NaN for a kind that covers nothing, or all there is.
    """
    # As the model compares them.
    thetas_T = np.array(thetas, np.float32)
    similarity_TL = np.broadcast_to(similarity_L, (len(thetas), len(similarity_L)))
    inside_TL = similarity_TL >= thetas_T[:, None]
    hits_ST = (inside_TL.astype(np.float32) @ sites_SL.T).T
    count_S1 = sites_SL.sum(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            "precision": hits_ST / inside_TL.sum(1),
            "recall": hits_ST / count_S1,
            "enrichment": enrichment(similarity_TL, sites_SL, thetas_T.tolist()).T,
        }
    telling_S1 = (count_S1 > 0) & (count_S1 < sites_SL.shape[1])
    return {name: np.where(telling_S1, values_ST, np.nan) for name, values_ST in found.items()}


def mean_and_error(values_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over proteins that have a value, and their standard errors: the bootstrap's, in closed form.

    Args:
        values_N: Proteins first, any further axes; NaN where there is no value.

    Returns:
        Two arrays of the further axes; the mean is NaN without a protein, the error with fewer than two.
    """
    known_N = ~np.isnan(values_N)
    count = known_N.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known_N, values_N, 0).sum(0, dtype=np.float64) / count
        squares = np.where(known_N, (values_N - mean) ** 2, 0).sum(0, dtype=np.float64)
        return mean, np.sqrt(np.where(count > 1, squares / (count - 1), np.nan) / count)
