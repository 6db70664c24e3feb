"""The bridge between modalities of BioBridge (Wang et al. 2024), and its training.

Shape suffixes: V nodes, M nodes of one type, W width of their vectors, B triples of a batch, N negatives,
D width of the bridge, E triples.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from protclip.evaluation.spec.transformation import BridgeProtocol
from protclip.evaluation.triples import Negatives, Triples
from protclip.progress import progress

AT_ONCE = 4096


class Bridge(nn.Module):
    """Maps a head, by a relation, to where its tails of a type lie.

    A linear map without bias takes the vectors of each type to D. Query: the first output of a transformer
    encoder over [head, type of the head, relation, type of the tail], plus the mapped head. Key: the mapped
    tail. They are compared by cosine.

    Args:
        vectors: (M, W) float32 of each type, its nodes in ascending order; part of the module, not trained.
        type_V: Type of each node.
        num_relations: Number of relations.
        protocol: Sizes.
    """

    def __init__(
        self,
        vectors: Sequence[np.ndarray],
        type_V: np.ndarray,
        num_relations: int,
        protocol: BridgeProtocol,
    ) -> None:
        super().__init__()
        width = protocol.width
        row_V = np.zeros(len(type_V), np.int64)
        for kind, vectors_MW in enumerate(vectors):
            row_V[type_V == kind] = np.arange(len(vectors_MW))
            self.register_buffer(f"vectors_{kind}", torch.from_numpy(vectors_MW), persistent=False)
        self.register_buffer("type_V", torch.from_numpy(type_V), persistent=False)
        self.register_buffer("row_V", torch.from_numpy(row_V), persistent=False)
        self.width = width
        self.maps = nn.ModuleList(nn.Linear(v.shape[1], width, bias=False) for v in vectors)
        self.node_types = nn.Sequential(nn.Embedding(len(vectors), width), nn.LayerNorm(width))
        self.relations = nn.Sequential(nn.Embedding(num_relations, width), nn.LayerNorm(width))
        layer = nn.TransformerEncoderLayer(
            width,
            protocol.heads,
            protocol.feedforward,
            protocol.dropout,
            activation="gelu",
            batch_first=True,
        )
        self.encoder = nn.TransformerEncoder(layer, protocol.layers, enable_nested_tensor=False)

    def keys(self, nodes_B: Tensor) -> Tensor:
        """(B, D) mapped vectors of nodes."""
        type_B, row_B = self.get_buffer("type_V")[nodes_B], self.get_buffer("row_V")[nodes_B]
        mapped_BD = torch.zeros(len(nodes_B), self.width, device=nodes_B.device)
        for kind in type_B.unique().tolist():
            is_kind_B = type_B == kind
            vectors_MW = self.get_buffer(f"vectors_{kind}")
            mapped_BD[is_kind_B] = self.maps[kind](vectors_MW[row_B[is_kind_B]])
        return mapped_BD

    def queries(self, head_B: Tensor, relation_B: Tensor, tail_type_B: Tensor) -> Tensor:
        """(B, D) where tails of that type are expected."""
        mapped_BD = self.keys(head_B)
        head_type_BD = self.node_types(self.get_buffer("type_V")[head_B])
        tokens = [mapped_BD, head_type_BD, self.relations(relation_B), self.node_types(tail_type_B)]
        return self.encoder(torch.stack(tokens, 1))[:, 0] + mapped_BD

    def loss(self, head_B: Tensor, relation_B: Tensor, tail_B1N: Tensor, temperature: float) -> Tensor:
        """Mean InfoNCE; the first tail of each triple is the right one, the N others are wrong."""
        tail_type_B = self.get_buffer("type_V")[tail_B1N[:, 0]]
        query_BD = normalize(self.queries(head_B, relation_B, tail_type_B), dim=-1)
        key_B1ND = normalize(self.keys(tail_B1N.flatten()), dim=-1).view(*tail_B1N.shape, -1)
        logits_B1N = torch.einsum("bd,bnd->bn", query_BD, key_B1ND) / temperature
        return cross_entropy(logits_B1N, torch.zeros_like(head_B))


def train_bridge(
    vectors: Sequence[np.ndarray],
    triples: Triples,
    is_train_E: np.ndarray,
    is_held_V: np.ndarray,
    protocol: BridgeProtocol,
    seed: int,
    device: torch.device,
) -> Bridge:
    """Trains with AdamW, warm-up, then a linear decline to 0; the last epoch's bridge, ready to be used.

    Args:
        vectors: (M, W) of each type, as `Bridge` takes them.
        triples: The graph.
        is_train_E: bool (E,), triples that are trained on.
        is_held_V: bool (V,), heads that are held out.
        protocol: Sizes, rates, batch, epochs.
        seed: Of initial weights, dropout, order and negatives.
        device: Where to compute.

    Raises:
        BenchmarkError: A head is linked to too many nodes for negatives.
    """
    negatives = Negatives(triples, is_train_E, is_held_V, protocol.negatives)
    rows = np.flatnonzero(is_train_E)
    updates = protocol.epochs * -(-len(rows) // protocol.batch)
    rising = max(1, round(protocol.warmup * updates))
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        bridge = Bridge(vectors, triples.type_V, len(triples.relations), protocol).to(device)
        matrices = [p for p in bridge.parameters() if p.ndim > 1]
        others = [p for p in bridge.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": matrices}, {"params": others, "weight_decay": 0.0}],
            lr=protocol.lr,
            weight_decay=protocol.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / rising, (updates - step) / max(1, updates - rising))
        )
        with progress("bridge", " updates", updates) as bar:
            for _ in range(protocol.epochs):
                order = rng.permutation(rows)
                for start in range(0, len(order), protocol.batch):
                    batch = order[start : start + protocol.batch]
                    head_B, tail_B = triples.head_E[batch], triples.tail_E[batch]
                    tail_B1N = np.column_stack([tail_B, negatives.draw(head_B, tail_B, rng)])
                    head, relation, tails = (
                        torch.from_numpy(a).to(device) for a in (head_B, triples.relation_E[batch], tail_B1N)
                    )
                    optimizer.zero_grad()
                    bridge.loss(head, relation, tails, protocol.temperature).backward()
                    nn.utils.clip_grad_norm_(bridge.parameters(), protocol.clip_norm)
                    optimizer.step()
                    schedule.step()
                    bar.update()
    return bridge.eval()


@torch.inference_mode()
def similarities(
    bridge: Bridge, head_Q: np.ndarray, relation: int, candidate_C: np.ndarray, device: torch.device
) -> np.ndarray:
    """float32 (Q, C) cosines between where each head's tails are expected and the candidates, of one type."""
    candidate = torch.from_numpy(candidate_C).to(device)
    tail_type = bridge.get_buffer("type_V")[candidate[:1]]
    key_CD = torch.cat([normalize(bridge.keys(piece), dim=-1) for piece in candidate.split(AT_ONCE)])
    rows = []
    for head_B in torch.from_numpy(head_Q).to(device).split(AT_ONCE):
        relation_B = torch.full_like(head_B, relation)
        query_BD = bridge.queries(head_B, relation_B, tail_type.expand(len(head_B)))
        rows.append((normalize(query_BD, dim=-1) @ key_CD.T).cpu())
    return torch.cat(rows).numpy()
