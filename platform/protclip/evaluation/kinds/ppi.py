"""Protein-protein interaction: the types of a pair's interaction, by a graph network on protein features.

GNN-PPI's protocol (Lv et al. 2021) with OntoProtein's node features, a linear map of frozen embeddings in
place of a sequence network. There is no validation part in it: the last epoch's network is measured.
Differs in that features are standardised over the proteins of the graph, that everything drawn comes from
the seed, and that with `messages: train` test interactions pass no message when testing either.

Shape suffixes: P interactions, V proteins, F feature width, M messages, B interactions of one update,
C types, N test interactions of all partitions.
"""

# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.lr_scheduler import ReduceLROnPlateau

from protclip.evaluation.arrays import standardised
from protclip.evaluation.composition import composition
from protclip.evaluation.interaction_splits import PARTITIONS, draw_test, ends_seen
from protclip.evaluation.kind import WANTED, Encoder, FixedEncoder, Kind, Mode, Outcome, Units
from protclip.evaluation.metrics.ppi import resampled_micro_f1
from protclip.evaluation.metrics.resample import measure
from protclip.evaluation.prepared import Prepared
from protclip.evaluation.spec.ppi import GraphProtocol, PpiSpec
from protclip.progress import progress

SEEN = "none", "one", "both"
"""By how many proteins of a test interaction have a training interaction."""

Predict = Callable[[np.ndarray, np.ndarray, np.ndarray, str], np.ndarray]
"""From interactions (P, 2), types (P, C), which ones are test (P,) and the partition: types (tests, C)."""


class InteractionNetwork(nn.Module):
    """GNN-PPI's network behind its sequence network: one GIN layer, a head, and the product of two proteins.

    Args:
        num_features: Width of the features (F).
        num_types: Types of interaction (C).
        protocol: Widths and dropout.
    """

    def __init__(self, num_features: int, num_types: int, protocol: GraphProtocol) -> None:
        # Imported here, because it takes seconds that every other command would wait for.
        from torch_geometric.nn import GINConv

        super().__init__()
        width, hidden = protocol.width, protocol.hidden
        self.narrow = nn.Linear(num_features, width)
        inner = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.BatchNorm1d(hidden)
        )
        self.graph = GINConv(inner, train_eps=True)
        self.head = nn.Sequential(
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(protocol.dropout), nn.Linear(hidden, hidden)
        )
        self.types = nn.Linear(hidden, num_types)

    def forward(self, features_VF: Tensor, messages_2M: Tensor, pairs_B2: Tensor) -> Tensor:
        """(B, C) logits of interactions, given what all proteins are and who hears from whom."""
        nodes_VH = self.head(self.graph(self.narrow(features_VF), messages_2M))
        return self.types(nodes_VH[pairs_B2[:, 0]] * nodes_VH[pairs_B2[:, 1]])


def run(spec: PpiSpec, data: Prepared, encoder: Encoder, mode: Mode, seed: int) -> Outcome:
    """Trains one network per partition and measures it on the test interactions.

    Raises:
        BenchmarkError: No test region can be grown from the graph.
    """
    features_VF = encoder.vectors(WANTED[spec.protocol.features], _sequences(spec, data))
    features_VF = standardised(features_VF, features_VF)

    def predict(pairs_P2: np.ndarray, types_PC: np.ndarray, test_P: np.ndarray, partition: str) -> np.ndarray:
        return _fit_predict(spec.protocol, features_VF, pairs_P2, types_PC, test_P, seed, partition)

    return _outcome(spec, data, seed, predict)


def resample(units: Units, counts_RN: np.ndarray) -> dict[str, np.ndarray]:
    """Micro F1: mean over the partitions, of each, and by seen proteins over all partitions together.

    What no test interaction belongs to is left out.
    """
    partitions = {name: units["partition"] == code for code, name in enumerate(PARTITIONS)}
    seen = {name: units["seen"] == ends for ends, name in enumerate(SEEN)}
    found = resampled_micro_f1(
        units["truth"],
        units["predicted"],
        {f"micro_f1_{n}": rows_N for n, rows_N in {**partitions, **seen}.items() if rows_N.any()},
        counts_RN,
    )
    of_partitions = [found[name] for p in PARTITIONS if (name := f"micro_f1_{p}") in found]
    return {"micro_f1": np.mean(of_partitions, axis=0), **found}


def score(units: Units) -> dict[str, float]:
    """All metrics when each test interaction counts once; see `resample`."""
    return measure(partial(resample, units), len(units["truth"]))


def _outcome(spec: PpiSpec, data: Prepared, seed: int, predict: Predict) -> Outcome:
    """Draws the test interactions of each partition and holds predictions against them."""
    pairs, names = data.tables["pairs"], data.tables["proteins"]["id"].combine_chunks()
    ends = [pc.index_in(pairs[end], value_set=names).to_numpy() for end in ("a", "b")]
    pairs_P2 = np.column_stack(ends).astype(np.int64)
    types_PC = _multi_hot(pairs["labels"], data.labels)
    counts = {"pairs": len(pairs), "proteins": len(names)}
    ids: list[str] = []
    units: list[dict[str, np.ndarray]] = []
    for partition in spec.partitions:
        code = PARTITIONS.index(partition)
        rng = np.random.default_rng([seed, code])
        test_P = draw_test(pairs_P2, partition, spec.test_share, spec.max_start_degree, rng)
        seen_N = ends_seen(pairs_P2, test_P)
        units.append(
            {
                "truth": types_PC[test_P],
                "predicted": predict(pairs_P2, types_PC, test_P, partition),
                "partition": np.full(len(seen_N), code, np.int8),
                "seen": seen_N,
            }
        )
        tested = pairs.filter(pa.array(test_P))
        ids += [f"{partition} {a} {b}" for a, b in zip(*(tested[e].to_pylist() for e in "ab"), strict=True)]
        counts[f"{partition}_train"], counts[f"{partition}_test"] = int((~test_P).sum()), len(seen_N)
        for name, count in zip(SEEN, np.bincount(seen_N, minlength=len(SEEN)), strict=True):
            counts[f"{partition}_{name}_seen"] = int(count)
    return Outcome(
        units={name: np.concatenate([part[name] for part in units]) for name in units[0]},
        ids=ids,
        counts=counts,
    )


def _fit_predict(
    protocol: GraphProtocol,
    features_VF: np.ndarray,
    pairs_P2: np.ndarray,
    types_PC: np.ndarray,
    test_P: np.ndarray,
    seed: int,
    partition: str,
) -> np.ndarray:
    """Types predicted for the test interactions by a network trained on the others."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    features = torch.from_numpy(features_VF).to(device)
    pairs, types = torch.from_numpy(pairs_P2).to(device), torch.from_numpy(types_PC).float().to(device)
    test = torch.from_numpy(test_P).to(device)
    heard_M2 = pairs if protocol.messages == "all" else pairs[~test]
    messages_2M = torch.cat([heard_M2, heard_M2.flip(1)]).T.contiguous()
    train = torch.nonzero(~test)[:, 0]
    # Dropout, like initialisation, draws from torch's own generator.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = InteractionNetwork(features.shape[1], types.shape[1], protocol).to(device)
        optimizer = torch.optim.Adam(network.parameters(), lr=protocol.lr, weight_decay=protocol.weight_decay)
        schedule = ReduceLROnPlateau(optimizer, factor=0.5, patience=protocol.plateau)
        epochs = range(protocol.epochs)
        for _ in progress(f"graph network, {partition}", " epochs", iterable=epochs, leave=False):
            losses: list[Tensor] = []
            for rows in train[torch.randperm(len(train)).to(device)].split(protocol.batch):
                logits = network(features, messages_2M, pairs[rows])
                loss = binary_cross_entropy_with_logits(logits, types[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
            schedule.step(torch.stack(losses).mean().item())
        network.eval()
        with torch.inference_mode():
            return (network(features, messages_2M, pairs[test]) > 0).cpu().numpy()


def _frequency(pairs_P2: np.ndarray, types_PC: np.ndarray, test_P: np.ndarray, partition: str) -> np.ndarray:
    """Each type that more than half of the training interactions have."""
    return np.tile(types_PC[~test_P].mean(0) > 0.5, (int(test_P.sum()), 1))


def _multi_hot(labels: pa.ChunkedArray, known: Sequence[str]) -> np.ndarray:
    """Bool (P, C)."""
    hot_PC = np.zeros((len(labels), len(known)), bool)
    columns = pc.index_in(pc.list_flatten(labels), value_set=pa.array(known, pa.string()))
    hot_PC[pc.list_parent_indices(labels).to_numpy(), columns.to_numpy()] = True
    return hot_PC


def _sequences(spec: PpiSpec, data: Prepared) -> list[str]:
    """Of all proteins of the graph, as the encoder sees them."""
    return [s[: spec.protocol.max_residues] for s in data.tables["proteins"]["sequence"].to_pylist()]


KIND = Kind(
    spec=PpiSpec,
    metrics=("micro_f1", *(f"micro_f1_{name}" for name in (*PARTITIONS, *reversed(SEEN)))),
    run=run,
    score=score,
    needs=lambda spec, data: {WANTED[spec.protocol.features]: _sequences(spec, data)},
    test_sequences=lambda spec, data: data.tables["proteins"]["sequence"].to_pylist(),
    baselines={
        "composition": lambda spec, data, seed: run(
            spec, data, FixedEncoder("composition", composition), "frozen", seed
        ),
        "frequency": lambda spec, data, seed: _outcome(spec, data, seed, _frequency),
    },
    resample=resample,
)
