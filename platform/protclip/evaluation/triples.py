"""A knowledge graph as triples of head, relation and tail: read, split by heads, and negatives drawn.

Shape suffixes: V nodes, E triples, B triples of a batch, N negatives of a triple,
R triples that are drawn for again.
"""

# pyright: reportAttributeAccessIssue=false

from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from protclip.errors import BenchmarkError
from protclip.evaluation.prepared import Prepared
from protclip.evaluation.spec.transformation import Question


@dataclass(frozen=True, slots=True)
class Triples:
    """A graph by numbers.

    Attributes:
        ids: Name of each node.
        row_node: Node of each row of the prepared table, which may have several rows per node.
        types: Names of node types, in order of appearance.
        relations: Names of relations, in order of appearance.
        type_V: Type of each node.
        head_E: Head of each triple; no triple stands twice, the order is that of the data.
        relation_E: Its relation.
        tail_E: Its tail.
    """

    ids: list[str]
    row_node: np.ndarray
    types: tuple[str, ...]
    relations: tuple[str, ...]
    type_V: np.ndarray
    head_E: np.ndarray
    relation_E: np.ndarray
    tail_E: np.ndarray

    def of(self, question: Question) -> np.ndarray:
        """Which triples (E,) are those of a question.

        Raises:
            BenchmarkError: The data has no such type or relation, or no triple of one of the relations.
        """
        for wanted, known in ((question.head, self.types), (question.tail, self.types)):
            if wanted not in known:
                raise BenchmarkError(f"question: no nodes of type {wanted!r}; known: {', '.join(known)}")
        types = self.types.index(question.head), self.types.index(question.tail)
        is_pair_E = (self.type_V[self.head_E] == types[0]) & (self.type_V[self.tail_E] == types[1])
        is_own_E = np.zeros(len(self.head_E), bool)
        for relation in question.relations:
            known = [self.relations[i] for i in np.unique(self.relation_E[is_pair_E])]
            if relation not in known:
                raise BenchmarkError(
                    f"question: no triple {question.head} – {relation} – {question.tail}; relations between "
                    f"these types: {', '.join(known) or 'none'}"
                )
            is_own_E |= is_pair_E & (self.relation_E == self.relations.index(relation))
        return is_own_E


def read_triples(data: Prepared) -> Triples:
    """The graph of the tables `nodes` and `edges`.

    Raises:
        BenchmarkError: An edge has an end that is no node.
    """
    nodes, edges = data.tables["nodes"], data.tables["edges"]
    ids, row_node = _numbered(nodes["id"])
    types, type_of_row = _numbered(nodes["type"])
    relations, relation_E = _numbered(edges["relation"])
    type_V = np.empty(len(ids), np.int64)
    type_V[row_node] = type_of_row
    ends = []
    for column in ("head", "tail"):
        end = pc.index_in(edges[column], value_set=pa.array(ids, pa.string()))
        if end.null_count:
            absent = edges[column].filter(end.is_null())[0].as_py()
            raise BenchmarkError(
                f"edges: {column} {absent!r} is no node, nor are {end.null_count - 1} others; prepare again"
            )
        ends.append(end.to_numpy().astype(np.int64))
    head_E, tail_E = ends
    _, first = np.unique((head_E * len(relations) + relation_E) * len(ids) + tail_E, return_index=True)
    kept = np.sort(first)
    return Triples(
        ids, row_node, tuple(types), tuple(relations), type_V, head_E[kept], relation_E[kept], tail_E[kept]
    )


def _numbered(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """Distinct values in order of appearance, and the number of each row's value."""
    encoded = cast(pa.DictionaryArray, column.combine_chunks().dictionary_encode())
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)


def hold_out(triples: Triples, share: float, seed: int) -> np.ndarray:
    """Which nodes (V,) are heads that are held out: of each type the share, rounded down.

    As in BioBridge's `build_train_test_split.py`: types in the order in which heads of them first appear,
    heads of a type in that order, one stream of numpy's old generator.
    """
    _, first = np.unique(triples.head_E, return_index=True)
    heads = triples.head_E[np.sort(first)]
    type_of_head = triples.type_V[heads]
    rng = np.random.RandomState(seed)
    is_held_V = np.zeros(len(triples.ids), bool)
    for kind in dict.fromkeys(type_of_head.tolist()):
        members = heads[type_of_head == kind]
        is_held_V[rng.choice(members, size=int(share * len(members)), replace=False)] = True
    return is_held_V


class Negatives:
    """Draws wrong tails: of the right tail's type, not held out, not linked to the head in training.

    BioBridge stores 50 of them per triple and uses 5 of these in an epoch; here they are new in each.

    Args:
        triples: The graph.
        is_train_E: bool (E,), triples that are trained on.
        is_held_V: bool (V,), heads that are held out.
        count: Negatives per triple (N), distinct.

    Raises:
        BenchmarkError: A head is linked to so many nodes that there are not enough others.
    """

    def __init__(self, triples: Triples, is_train_E: np.ndarray, is_held_V: np.ndarray, count: int) -> None:
        self._type_V, self._count = triples.type_V, count
        self._num_nodes = len(triples.ids)
        in_a_triple = np.union1d(triples.head_E, triples.tail_E)
        pool = in_a_triple[~is_held_V[in_a_triple]]
        self._pool = pool[np.argsort(triples.type_V[pool], kind="stable")]
        self._size_T = np.bincount(triples.type_V[pool], minlength=len(triples.types))
        self._start_T = np.cumsum(self._size_T) - self._size_T
        head_E, tail_E = triples.head_E[is_train_E], triples.tail_E[is_train_E]
        self._linked = np.unique(head_E * self._num_nodes + tail_E)
        head, tail = np.divmod(self._linked, self._num_nodes)
        pair, which = np.unique(head * len(triples.types) + triples.type_V[tail], return_inverse=True)
        taken = np.bincount(which, weights=~is_held_V[tail])
        head, kind = np.divmod(pair, len(triples.types))
        is_short = self._size_T[kind] - taken < count
        if is_short.any():
            i = int(is_short.argmax())
            raise BenchmarkError(
                f"{triples.ids[head[i]]} is linked to {taken[i]:.0f} of {self._size_T[kind[i]]} nodes of "
                f"type {triples.types[kind[i]]}, which leaves fewer than {count} negatives; lower "
                "protocol.negatives"
            )

    def draw(self, head_B: np.ndarray, tail_B: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """int64 (B, N) nodes."""
        type_B = self._type_V[tail_B]
        drawn_BN = self._random(np.repeat(type_B[:, None], self._count, 1), rng)
        rows = np.arange(len(head_B))
        while rows.size:
            some_RN = drawn_BN[rows]
            is_repeated_RN = np.tril(some_RN[:, :, None] == some_RN[:, None, :], -1).any(2)
            place, column = np.nonzero(is_repeated_RN | self._is_linked(head_B[rows, None], some_RN))
            drawn_BN[rows[place], column] = self._random(type_B[rows[place]], rng)
            rows = np.unique(rows[place])
        return drawn_BN

    def _random(self, kind: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A node of the pool of each of these types."""
        return self._pool[self._start_T[kind] + rng.integers(self._size_T[kind])]

    def _is_linked(self, head: np.ndarray, tail: np.ndarray) -> np.ndarray:
        """Whether training has a triple of this head and tail."""
        key = head * self._num_nodes + tail
        place = np.searchsorted(self._linked, key)
        return self._linked[np.minimum(place, len(self._linked) - 1)] == key
