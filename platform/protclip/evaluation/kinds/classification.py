"""Classification: one class per sequence, by a two-layer head on the protein encoder.

Shape suffixes: N examples, F feature width, A = 20 amino acids plus the length.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import xxhash
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn.functional import cross_entropy

from protclip.errors import BenchmarkError
from protclip.evaluation.composition import composition
from protclip.evaluation.embed import Embedder
from protclip.evaluation.formats import Examples, Splits
from protclip.evaluation.heads import (
    EncoderWithHead,
    FeatureInputs,
    Inputs,
    ResidueInputs,
    fit,
    frozen_features,
    make_head,
    outputs,
)
from protclip.evaluation.metrics import CLASSIFICATION, classification_metrics
from protclip.evaluation.results import Outcome
from protclip.evaluation.spec import ClassificationSpec, HeadProtocol


def run_classification(
    spec: ClassificationSpec, splits: Splits[str], embedder: Embedder, seed: int
) -> Outcome:
    """Trains a head on train, selects its epoch on valid, measures on test.

    Raises:
        BenchmarkError: Training or validation data is too small to learn from.
    """
    splits = with_validation(splits, spec.data.valid_share, seed)
    classes = sorted({label for split in splits.values() for label in split.targets})
    index = {label: i for i, label in enumerate(classes)}
    target_N = {name: np.array([index[label] for label in split.targets]) for name, split in splits.items()}
    if len(set(splits["train"].targets)) < 2:
        raise BenchmarkError(f"{spec.name}: training data has a single class; nothing can be learnt")
    predicted_N, best_epoch = _predict(spec, splits, target_N, len(classes), embedder, seed)
    baselines = {
        name: classification_metrics(target_N["test"], BASELINES[name](splits, target_N))
        for name in spec.baselines
    }
    left_out = [
        f"{name}: {count} left out ({reason})"
        for name, split in splits.items()
        for reason, count in split.left_out.items()
    ]
    shared = len(set(splits["test"].sequences) & set(splits["train"].sequences))
    return Outcome(
        metrics=classification_metrics(target_N["test"], predicted_N),
        baselines=baselines,
        counts={name: len(split) for name, split in splits.items()} | {"classes": len(classes)},
        notes=[
            *left_out,
            *([f"{shared} test sequences also stand in the training data"] if shared else []),
            f"seed {seed}: best epoch {best_epoch} of at most {spec.protocol.epochs}",
        ],
    )


def with_validation(splits: Splits[str], share: float, seed: int) -> Splits[str]:
    """The splits with a "valid" part; where there is none, `share` of each class is cut from "train".

    Which ones is decided by a hash of (seed, sequence); of a class with two or more examples at least
    one goes to each side.

    Raises:
        BenchmarkError: Nothing can be cut off.
    """
    if "valid" in splits:
        return splits
    train = splits["train"]
    by_label: dict[str, list[int]] = {}
    for i, label in enumerate(train.targets):
        by_label.setdefault(label, []).append(i)
    chosen: set[int] = set()
    for members in by_label.values():
        count = min(max(1, round(share * len(members))), len(members) - 1)
        chosen.update(sorted(members, key=lambda i: _key(train.sequences[i], seed))[:count])
    if not chosen:
        raise BenchmarkError("train has one example per class; give a validation file (data.files.valid)")

    def part(rows: Sequence[int], left_out: Mapping[str, int]) -> Examples[str]:
        return Examples([train.sequences[i] for i in rows], [train.targets[i] for i in rows], left_out)

    rest = [i for i in range(len(train)) if i not in chosen]
    return {
        "train": part(rest, train.left_out),
        "valid": part(sorted(chosen), {}),
        "test": splits["test"],
    }


def _key(sequence: str, seed: int) -> int:
    """The place of a sequence in the order of a seed."""
    return xxhash.xxh3_64_intdigest(sequence.encode(), seed=seed)


def _predict(
    spec: ClassificationSpec,
    splits: Splits[str],
    target_N: dict[str, np.ndarray],
    num_classes: int,
    embedder: Embedder,
    seed: int,
) -> tuple[np.ndarray, int]:
    """Predicted class index of each test example, and the epoch that was best on valid."""
    protocol, device = spec.protocol, embedder.device
    rng = torch.Generator().manual_seed(seed)
    inputs: dict[str, Inputs]
    if protocol.mode == "frozen":
        features = {n: frozen_features(embedder, s.sequences, protocol) for n, s in splits.items()}
        train_NF = features["train"]
        inputs = {n: FeatureInputs(f_NF, train_NF, device) for n, f_NF in features.items()}
        network: nn.Module = make_head(train_NF.shape[1], protocol.hidden, num_classes, rng).to(device)
        groups = [{"params": list(network.parameters()), "lr": protocol.lr}]
    else:
        inputs = {n: ResidueInputs(_tokens(embedder, s, protocol), device) for n, s in splits.items()}
        width = frozen_features(embedder, splits["train"].sequences[:1], protocol).shape[1]
        head = make_head(width, protocol.hidden, num_classes, rng)
        network = EncoderWithHead(embedder.model, protocol.features, head).to(device)
        groups = [
            {"params": list(network.head.parameters()), "lr": protocol.lr},
            {"params": list(network.model.parameters()), "lr": protocol.lr * protocol.encoder_lr_factor},
        ]
    metric = CLASSIFICATION[spec.metric]

    def score(net: nn.Module) -> tuple[float, float]:
        logits = outputs(net, inputs["valid"])
        loss = cross_entropy(torch.from_numpy(logits), torch.from_numpy(target_N["valid"]))
        return metric(target_N["valid"], logits.argmax(1)), -loss.item()

    best_epoch = fit(
        network,
        groups,
        inputs["train"],
        torch.from_numpy(target_N["train"]).to(device),
        cross_entropy,
        score,
        protocol,
        seed,
    )
    return outputs(network, inputs["test"]).argmax(1), best_epoch


def _tokens(embedder: Embedder, split: Examples[str], protocol: HeadProtocol) -> list[np.ndarray]:
    """Residue tokens of a split, cut as the protocol says."""
    return embedder.residue_tokens([s[: protocol.max_residues] for s in split.sequences])


def _majority(splits: Splits[str], target_N: dict[str, np.ndarray]) -> np.ndarray:
    """The most frequent class of the training data, for everything."""
    return np.full(len(splits["test"]), np.bincount(target_N["train"]).argmax())


def _composition(splits: Splits[str], target_N: dict[str, np.ndarray]) -> np.ndarray:
    """Logistic regression on amino-acid composition and length."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    classifier.fit(composition(splits["train"].sequences), target_N["train"])
    return classifier.predict(composition(splits["test"].sequences))


BASELINES: dict[str, Callable[[Splits[str], dict[str, np.ndarray]], np.ndarray]] = {
    "majority": _majority,
    "composition": _composition,
}
"""Predicted class of each test example by name."""
