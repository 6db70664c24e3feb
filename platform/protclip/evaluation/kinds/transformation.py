"""Cross-modal transformation: from a protein to its GO terms or drugs, or from a disease to its proteins.

BioBridge's protocol (Wang et al. 2024): vectors of both modalities stay as they are, a bridge between them
is trained on the triples of a knowledge graph, and the tails of held-out heads are looked for among all
tails of the relation. What the source leaves open is said at `metrics.transformation.rank`.

Shape suffixes: V nodes, E triples, Q queries, C candidates, P right pairs, R rows of the node table,
H heads, M nodes of one type, W width of their vectors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from protclip.errors import BenchmarkError
from protclip.evaluation.arrays import standardised
from protclip.evaluation.bridge import similarities, train_bridge
from protclip.evaluation.composition import composition
from protclip.evaluation.kind import Encoder, FixedEncoder, Kind, Mode, Outcome, Wanted
from protclip.evaluation.metrics.transformation import (
    TRANSFORMATION,
    Measured,
    Queries,
    expect,
    rank,
    resample_transformation,
    transformation,
    zeros,
)
from protclip.evaluation.prepared import Prepared
from protclip.evaluation.spec.transformation import BridgeProtocol, TransformationSpec
from protclip.evaluation.triples import Triples, hold_out, read_triples

TEXT_COMPONENTS = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """What a benchmark asks of a graph.

    Attributes:
        triples: The graph.
        is_own_E: Triples of the question.
        is_used_V: Nodes that need a vector.
        is_held_V: Heads that are held out.
        is_train_E: Triples that are trained on.
        num_swapped: How many of these have a held-out head as their tail.
    """

    triples: Triples
    is_own_E: np.ndarray
    is_used_V: np.ndarray
    is_held_V: np.ndarray
    is_train_E: np.ndarray
    num_swapped: int


def run(spec: TransformationSpec[Any], data: Prepared, encoder: Encoder, mode: Mode, seed: int) -> Outcome:
    """Trains the bridge between the encoder's vectors, and ranks.

    Raises:
        BenchmarkError: The question does not fit the data, or nodes have no vector.
    """
    plan = _plan(spec, data)
    return _with_bridge(spec, plan, _vectors(spec.protocol, plan, data, encoder), seed)


def _with_bridge(spec: TransformationSpec[Any], plan: Plan, vectors: list[np.ndarray], seed: int) -> Outcome:
    """The outcome of given vectors (M, W) by type."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bridge = train_bridge(vectors, plan.triples, plan.is_train_E, plan.is_held_V, spec.protocol, seed, device)

    def ranked(queries: Queries) -> Measured:
        cosine_QC = similarities(bridge, queries.head_Q, queries.relation, queries.candidate_C, device)
        return rank(queries, cosine_QC)

    return _outcome(spec, plan, ranked)


def _plan(spec: TransformationSpec[Any], data: Prepared) -> Plan:
    """What is held out, trained on and needed."""
    triples, protocol = read_triples(data), spec.protocol
    is_own_E = triples.of(spec.question)
    is_held_V = hold_out(triples, protocol.test_share, protocol.split_seed)
    is_used_E = is_own_E if protocol.train_on == "own" else np.ones_like(is_own_E)
    is_train_E = is_used_E & ~is_held_V[triples.head_E]
    is_swapped_E = is_train_E & is_held_V[triples.tail_E]
    if protocol.drop_swapped:
        is_train_E &= ~is_swapped_E
    for is_some_E, what in ((is_train_E, "train on"), (is_own_E & is_held_V[triples.head_E], "test")):
        if not is_some_E.any():
            raise BenchmarkError(
                f"{spec.name}: no triples to {what} with protocol.test_share {protocol.test_share} of "
                f"{len(np.unique(triples.head_E[is_own_E]))} heads; is the data complete?"
            )
    is_used_V = np.zeros(len(triples.ids), bool)
    is_used_V[triples.head_E[is_used_E]] = is_used_V[triples.tail_E[is_used_E]] = True
    return Plan(triples, is_own_E, is_used_V, is_held_V, is_train_E, int((is_train_E & is_swapped_E).sum()))


def _queries(spec: TransformationSpec[Any], plan: Plan) -> list[Queries]:
    """The queries of each relation of the question that has held-out heads."""
    triples, found = plan.triples, []
    for relation in map(triples.relations.index, spec.question.relations):
        is_its_E = plan.is_own_E & (triples.relation_E == relation)
        head_E, tail_E = triples.head_E[is_its_E], triples.tail_E[is_its_E]
        candidate_C, candidate_E, links_C = np.unique(tail_E, return_inverse=True, return_counts=True)
        is_test_E = plan.is_held_V[head_E]
        head_Q, query_P = np.unique(head_E[is_test_E], return_inverse=True)
        order = np.argsort(query_P, kind="stable")
        train_links_C = np.bincount(candidate_E[~is_test_E], minlength=len(candidate_C))
        if len(head_Q):
            found.append(
                Queries(
                    relation,
                    head_Q,
                    candidate_C,
                    query_P[order],
                    candidate_E[is_test_E][order],
                    links_C >= spec.protocol.frequent,
                    train_links_C,
                )
            )
    return found


def needs(spec: TransformationSpec[Any], data: Prepared) -> dict[Wanted, list[str]]:
    """Sequences, and texts of nodes that come without a vector."""
    plan, wanted = _plan(spec, data), dict[Wanted, list[str]]()
    for kind in range(len(plan.triples.types)):
        what, items = _items(spec.protocol, data, _rows(plan, kind), plan.triples.types[kind])
        if what is not None:
            wanted.setdefault(what, []).extend(dict.fromkeys(items))
    return wanted


def _rows(plan: Plan, kind: int) -> np.ndarray:
    """Rows of the node table that hold the nodes of a type that are needed."""
    node_R = plan.triples.row_node
    return np.flatnonzero(plan.is_used_V[node_R] & (plan.triples.type_V[node_R] == kind))


def _items(
    protocol: BridgeProtocol, data: Prepared, rows: np.ndarray, kind: str
) -> tuple[Wanted | None, list[str]]:
    """What an encoder is asked for, with its items; None where the data has the vectors.

    Raises:
        BenchmarkError: A node has neither sequence nor vector nor text.
    """
    nodes = data.tables["nodes"].take(rows)
    sequences = nodes["sequence"].to_pylist()
    if rows.size and all(sequences):
        return protocol.proteins, [sequence[: protocol.max_residues] for sequence in sequences]
    if nodes["vector"].null_count == 0:
        return None, []
    texts = [_text(*row) for row in zip(nodes["name"].to_pylist(), nodes["text"].to_pylist(), strict=True)]
    if not all(texts) or any(sequences):
        at = nodes["id"].to_pylist()[0 if any(sequences) else texts.index("")]
        raise BenchmarkError(
            f"nodes of type {kind}: not all have a sequence, a vector or a text, see {at}; give their "
            "vectors in data.files"
        )
    return protocol.texts, texts


def _text(name: str | None, text: str | None) -> str:
    """What a text encoder reads of a node, in BioBridge's words."""
    parts = (f"Name: {name}." if name else "", f"Definition: {text}" if text else "")
    return " ".join(filter(None, parts))


def _vectors(
    protocol: BridgeProtocol, plan: Plan, data: Prepared, encoder: Encoder | None
) -> list[np.ndarray]:
    """Vectors (M, W) of each type, zero where none is needed; without an encoder those of the data.

    A node's vector is the mean over its rows, as BioBridge does with the texts of a disease.
    """
    triples, vectors = plan.triples, []
    for kind, name in enumerate(plan.triples.types):
        rows = _rows(plan, kind)
        what, items = _items(protocol, data, rows, name)
        given = data.tables["nodes"]["vector"].take(rows)
        if encoder is not None and what is not None:
            vectors_RW = encoder.vectors(what, items)
        elif given.null_count:
            raise BenchmarkError(f"nodes of type {name}: not all have a vector in the data")
        else:
            vectors_RW = given.combine_chunks().flatten().to_numpy().reshape(len(rows), -1)
        node_M = np.flatnonzero(triples.type_V == kind)
        place_R = np.searchsorted(node_M, triples.row_node[rows])
        count_M = np.bincount(place_R, minlength=len(node_M))
        sum_MW = np.zeros((len(node_M), max(1, vectors_RW.shape[1])), np.float32)
        np.add.at(sum_MW, place_R, vectors_RW)
        vectors_MW = sum_MW / np.maximum(count_M, 1)[:, None].astype(np.float32)
        if protocol.standardise and len(rows):
            seen_MW = vectors_MW[(count_M > 0) & ~plan.is_held_V[node_M]]
            vectors_MW = standardised(vectors_MW, seen_MW)
        vectors.append(vectors_MW)
    return vectors


def _outcome(spec: TransformationSpec[Any], plan: Plan, measure: Callable[[Queries], Measured]) -> Outcome:
    """Measures every relation and sums over those of a head, which is the unit."""
    by_relation = _queries(spec, plan)
    head_H = np.unique(np.concatenate([queries.head_Q for queries in by_relation]))
    units = zeros(len(head_H))
    notes = []
    for queries in by_relation:
        measured = measure(queries)
        for name, sums_Q in measured.items():
            units[name][np.searchsorted(head_H, queries.head_Q)] += sums_Q
        if len(spec.question.relations) > 1:
            notes.append(
                f"{plan.triples.relations[queries.relation]}: MRR {transformation(measured)['mrr']:.4f} over "
                f"{len(queries.query_P)} pairs of {len(queries.head_Q)} heads, "
                f"{len(queries.candidate_C)} candidates"
            )
    if plan.num_swapped:
        notes.append(
            f"{plan.num_swapped} of {plan.is_train_E.sum()} training triples have a held-out head as their "
            "tail, as in the source; protocol.drop_swapped leaves them out"
        )
    counts = {
        "nodes": int(plan.is_used_V.sum()),
        "train triples": int(plan.is_train_E.sum()),
        "test triples": sum(len(queries.query_P) for queries in by_relation),
        "test heads": len(head_H),
        "candidates": max(len(queries.candidate_C) for queries in by_relation),
    }
    return Outcome(units, [plan.triples.ids[head] for head in head_H], counts, notes)


def test_sequences(spec: TransformationSpec[Any], data: Prepared) -> list[str]:
    """Sequences of the held-out heads, or of their right tails, whichever are proteins."""
    plan = _plan(spec, data)
    triples, nodes = plan.triples, data.tables["nodes"]
    is_test_E = plan.is_own_E & plan.is_held_V[triples.head_E]
    is_test_V = np.zeros(len(triples.ids), bool)
    is_test_V[triples.head_E[is_test_E]] = is_test_V[triples.tail_E[is_test_E]] = True
    return [s for s in nodes["sequence"].filter(is_test_V[triples.row_node]).to_pylist() if s]


def _chance(spec: TransformationSpec[Any], data: Prepared, seed: int) -> Outcome:
    """A random order of the candidates, its expected value."""
    return _outcome(spec, _plan(spec, data), expect)


def _popularity(spec: TransformationSpec[Any], data: Prepared, seed: int) -> Outcome:
    """The same order for all: tails by their links in training, equal ones in random order."""
    rng = np.random.default_rng(seed)

    def ranked(queries: Queries) -> Measured:
        links_C = queries.train_links_C + rng.random(len(queries.candidate_C))
        return rank(queries, np.broadcast_to(links_C, (len(queries.head_Q), len(links_C))))

    return _outcome(spec, _plan(spec, data), ranked)


class _PlainEncoder(FixedEncoder):
    """Amino-acid composition, standardised; main components of the texts' TF-IDF."""

    def __init__(self, seed: int) -> None:
        super().__init__("composition", composition)
        self._seed = seed

    def vectors(self, what: Wanted, items: Sequence[str]) -> np.ndarray:
        """(N, F) of sequences or texts."""
        if what in {"features", "projected"}:
            features_NF = super().vectors(what, items)
            return standardised(features_NF, features_NF)
        tfidf_NV = TfidfVectorizer(sublinear_tf=True).fit_transform(items)
        components = min(TEXT_COMPONENTS, *(side - 1 for side in tfidf_NV.shape))
        return TruncatedSVD(components, random_state=self._seed).fit_transform(tfidf_NV).astype(np.float32)


def _composition(spec: TransformationSpec[Any], data: Prepared, seed: int) -> Outcome:
    """The bridge between amino-acid composition and the given vectors, or the words of the texts."""
    return run(spec, data, _PlainEncoder(seed), "frozen", seed)


def _given(spec: TransformationSpec[Any], data: Prepared, seed: int) -> Outcome:
    """The bridge between vectors that come with the data: BioBridge itself, with its own files."""
    plan = _plan(spec, data)
    return _with_bridge(spec, plan, _vectors(spec.protocol, plan, data, None), seed)


KIND = Kind(
    spec=TransformationSpec,
    metrics=TRANSFORMATION,
    run=run,
    score=transformation,
    resample=resample_transformation,
    needs=needs,
    test_sequences=test_sequences,
    baselines={
        "chance": _chance,
        "popularity": _popularity,
        "composition": _composition,
        "given_vectors": _given,
    },
)
