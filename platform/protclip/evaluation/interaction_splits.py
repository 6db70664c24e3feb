"""Test interactions of a graph of proteins: drawn at random, or a region of the graph (GNN-PPI's schemes).

Shape suffixes: P interactions, V proteins.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from protclip.errors import BenchmarkError

PARTITIONS = "random", "bfs", "dfs"
Partition = Literal["random", "bfs", "dfs"]

Links = Sequence[Sequence[tuple[int, int]]]
"""Of each protein, its interactions as (index of the pair, the other protein), in the order of the pairs."""


def draw_test(
    pairs_P2: np.ndarray, partition: Partition, share: float, max_start_degree: int, rng: np.random.Generator
) -> np.ndarray:
    """Chooses the interactions that are test.

    "random" takes all behind the first floor((1 - share)·P) of a shuffle. "bfs" and "dfs" start at a random
    protein of few interactions and take all interactions of one protein after the other, breadth or depth
    first, until they have floor(share·P) or, with the last protein, some more. Where the source fails
    because the start's component is smaller than that, another start is tried.

    Args:
        pairs_P2: Two protein numbers per interaction.
        partition: The scheme.
        share: Share of the interactions wanted.
        max_start_degree: Most interactions of the start.
        rng: What chance there is.

    Returns:
        Bool (P,), True in test.

    Raises:
        BenchmarkError: No region of this size grows from an allowed start.
    """
    num_pairs = len(pairs_P2)
    test_P = np.zeros(num_pairs, bool)
    if partition == "random":
        # Rounded first, because 0.8 · 10 is not exactly what 1 - 0.2 gives.
        test_P[rng.permutation(num_pairs)[int(round((1 - share) * num_pairs, 6)) :]] = True
        return test_P
    size = int(round(share * num_pairs, 6))
    grow = {"bfs": _breadth_first, "dfs": _depth_first}[partition]
    degree_V = np.bincount(pairs_P2.ravel())
    links = _links(pairs_P2, len(degree_V))
    for start in rng.permutation(np.flatnonzero((degree_V > 0) & (degree_V <= max_start_degree))):
        taken = grow(int(start), links, size)
        if len(taken) >= size:
            test_P[list(taken)] = True
            return test_P
    raise BenchmarkError(
        f"{partition}: no connected region of {size} of the {num_pairs} interactions begins at a protein "
        f"with at most {max_start_degree} of them; raise max_start_degree or lower test_share"
    )


def ends_seen(pairs_P2: np.ndarray, test_P: np.ndarray) -> np.ndarray:
    """How many of the two proteins of each test interaction have a training interaction: int8 (tests,)."""
    return np.isin(pairs_P2[test_P], pairs_P2[~test_P]).sum(1, dtype=np.int8)


def _links(pairs_P2: np.ndarray, num_proteins: int) -> Links:
    """The graph by protein."""
    links: list[list[tuple[int, int]]] = [[] for _ in range(num_proteins)]
    for pair, (one, other) in enumerate(pairs_P2.tolist()):
        links[one].append((pair, other))
        links[other].append((pair, one))
    return links


def _breadth_first(start: int, links: Links, size: int) -> set[int]:
    """Interactions in the order of a queue of proteins."""
    taken, queued, queue = set[int](), {start}, deque([start])
    while queue and len(taken) < size:
        for pair, other in links[queue.popleft()]:
            taken.add(pair)
            if other not in queued:
                queued.add(other)
                queue.append(other)
    return taken


def _depth_first(start: int, links: Links, size: int) -> set[int]:
    """Interactions of a protein at its first visit, then on to its first neighbour not visited, or back."""
    taken, stack = set[int](), [start]
    ahead: dict[int, Iterator[int]] = {}
    while stack and len(taken) < size:
        protein = stack[-1]
        if protein not in ahead:
            taken.update(pair for pair, _ in links[protein])
            ahead[protein] = (other for _, other in links[protein] if other not in ahead)
        elif (onward := next(ahead[protein], None)) is not None:
            stack.append(onward)
        else:
            stack.pop()
    return taken
