"""What classification, multilabel and regression share: a head on the encoder, frozen or trained along.

ProtST's protocol: Linear, ReLU, Linear on mean residue states, Adam without decay; here the epoch is
selected after every epoch on the primary metric of the validation part, with early stopping.

Shape suffixes: N examples, O outputs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import xxhash
from torch import Tensor, nn

from protclip.errors import BenchmarkError
from protclip.evaluation.cnn import LR, OneHotCnn
from protclip.evaluation.heads import (
    EncoderWithHead,
    FeatureInputs,
    Inputs,
    ResidueInputs,
    fit,
    make_head,
    outputs,
)
from protclip.evaluation.kind import WANTED, Encoder, Kind, Mode, Outcome, Units, Wanted
from protclip.evaluation.metrics.resample import measure
from protclip.evaluation.prepared import Prepared
from protclip.evaluation.spec.base import Benchmark
from protclip.evaluation.spec.sequences import (
    ClassificationSpec,
    HeadProtocol,
    MultilabelSpec,
    RegressionSpec,
)
from protclip.tensors import tokenize_residues

LabelledSpec = ClassificationSpec[Any] | MultilabelSpec[Any] | RegressionSpec[Any]


@dataclass(frozen=True, slots=True)
class Examples:
    """A split.

    Attributes:
        ids: Name of each example.
        sequences: Whole sequences.
        target: What is to be predicted, a row per example, as `Task.target` gives it.
    """

    ids: Sequence[str]
    sequences: Sequence[str]
    target: np.ndarray


@dataclass(frozen=True, slots=True)
class Learning:
    """How a network learns targets.

    Attributes:
        outputs: Width of its output.
        loss: Mean loss of (outputs, targets).
        decode: Predictions of outputs (N, O).
    """

    outputs: int
    loss: Callable[[Tensor, Tensor], Tensor]
    decode: Callable[[np.ndarray], np.ndarray]


Baseline = Callable[[Examples, Examples], np.ndarray]
"""Predictions for the second split, learnt from the first."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is a kind's own.

    Attributes:
        labels: All labels that occur, sorted.
        target: Targets of a table, given all labels.
        learning: How a network learns the training targets, given the number of labels.
        prediction: The name of predictions among the units; that of targets is "truth".
        resample: Metrics of units that count several times.
        baselines: By name, besides the network on one-hot residues.
        measured: Which test examples results are measured on.
    """

    labels: Callable[[pa.Table], Sequence[str]]
    target: Callable[[pa.Table, Sequence[str]], np.ndarray]
    learning: Callable[[np.ndarray, int], Learning]
    prediction: str
    resample: Callable[[Units, np.ndarray], dict[str, np.ndarray]]
    baselines: Mapping[str, Baseline]
    measured: Callable[[Any, pa.Table], pa.Table] = lambda _, test: test


@dataclass(frozen=True, slots=True)
class _Setup:
    """A network ready to be trained, and its inputs by split."""

    network: nn.Module
    parameter_groups: list[dict[str, object]]
    inputs: Mapping[str, Inputs]
    protocol: HeadProtocol


def labelled_kind(spec: type[Benchmark[Any]], metrics: tuple[str, ...], task: Task) -> Kind:
    """The kind of a task."""
    learnt = {name: partial(_run_baseline, task, baseline) for name, baseline in task.baselines.items()}
    return Kind(
        spec=spec,
        metrics=metrics,
        run=partial(_run, task),
        score=partial(_score, task),
        needs=partial(_needs, task),
        test_sequences=partial(_test_sequences, task),
        baselines=learnt | {"cnn": partial(_run_cnn, task)},
        modes=("frozen", "finetune"),
        resample=task.resample,
    )


def cut(sequence: str, protocol: HeadProtocol) -> str:
    """At most `max_residues` of a sequence; a random window is decided by a hash of it."""
    surplus = len(sequence) - protocol.max_residues
    if surplus <= 0:
        return sequence
    drawn = protocol.window == "random"
    start = xxhash.xxh3_64_intdigest(sequence.encode()) % (surplus + 1) if drawn else 0
    return sequence[start : start + protocol.max_residues]


def _splits(
    task: Task, spec: LabelledSpec, data: Prepared, seed: int
) -> tuple[dict[str, Examples], Sequence[str]]:
    """The three parts and all labels; where there is no validation part it is cut from train."""
    tables = {name: data.split(name) for name in ("train", "valid", "test")}
    tables["test"] = task.measured(spec, tables["test"])
    if not len(tables["valid"]):
        train = tables["train"]
        is_valid_N = _held_out(spec, train["sequence"].to_pylist(), seed)
        tables["train"], tables["valid"] = (train.filter(pa.array(m)) for m in (~is_valid_N, is_valid_N))
    labels = data.labels or task.labels(data.tables["examples"])
    splits = {
        name: Examples(table["id"].to_pylist(), table["sequence"].to_pylist(), task.target(table, labels))
        for name, table in tables.items()
    }
    return splits, labels


def _held_out(spec: LabelledSpec, sequences: Sequence[str], seed: int) -> np.ndarray:
    """Which examples are cut off, bool (N,): a share of the distinct sequences, by their hash with a seed."""
    key_N = np.array([xxhash.xxh3_64_intdigest(s.encode(), seed=seed) for s in sequences], np.uint64)
    distinct = np.unique(key_N)
    if len(distinct) < 2:
        raise BenchmarkError(
            f"{spec.name}: train has a single sequence, nothing can be validated on; add some"
        )
    count = min(max(1, round(spec.valid_share * len(distinct))), len(distinct) - 1)
    return key_N < distinct[count]


def _needs(task: Task, spec: LabelledSpec, data: Prepared) -> Mapping[Wanted, Sequence[str]]:
    """Every sequence, cut as `_run` does."""
    rest = [s for name in ("train", "valid") for s in data.split(name)["sequence"].to_pylist()]
    sequences = dict.fromkeys(cut(s, spec.frozen) for s in (*rest, *_test_sequences(task, spec, data)))
    return {WANTED[spec.frozen.features]: list(sequences)}


def _test_sequences(task: Task, spec: LabelledSpec, data: Prepared) -> Sequence[str]:
    """Sequences of the test examples that are measured on, whole."""
    return task.measured(spec, data.split("test"))["sequence"].to_pylist()


def _score(task: Task, units: Units) -> dict[str, float]:
    """Metrics of units that count once."""
    return measure(partial(task.resample, units), len(units["truth"]))


def _run(task: Task, spec: LabelledSpec, data: Prepared, encoder: Encoder, mode: Mode, seed: int) -> Outcome:
    """Trains a head on train, selects its epoch on valid, predicts test.

    Raises:
        BenchmarkError: The data cannot be learnt from, or training left the numbers.
    """
    setup = {"frozen": _frozen, "finetune": _finetuned}[mode]
    return _trained(task, spec, data, seed, partial(setup, spec, encoder, seed))


def _run_cnn(task: Task, spec: LabelledSpec, data: Prepared, seed: int) -> Outcome:
    """The network on one-hot residues."""
    return _trained(task, spec, data, seed, partial(_one_hot_cnn, spec, seed))


def _run_baseline(task: Task, baseline: Baseline, spec: LabelledSpec, data: Prepared, seed: int) -> Outcome:
    """A baseline, learnt from the same part of train as the heads."""
    splits, labels = _splits(task, spec, data, seed)
    return _outcome(task, splits, labels, baseline(splits["train"], splits["test"]), notes=())


def _frozen(
    spec: LabelledSpec, encoder: Encoder, seed: int, splits: Mapping[str, Examples], outputs: int
) -> _Setup:
    """A head on standardised vectors."""
    protocol, device = spec.frozen, _device()
    wanted = WANTED[protocol.features]
    vectors = {
        name: encoder.vectors(wanted, [cut(s, protocol) for s in split.sequences])
        for name, split in splits.items()
    }
    head = _head(vectors["train"].shape[1], protocol, outputs, seed).to(device)
    return _Setup(
        head,
        [{"params": list(head.parameters()), "lr": protocol.lr}],
        {name: FeatureInputs(split_NF, vectors["train"], device) for name, split_NF in vectors.items()},
        protocol,
    )


def _finetuned(
    spec: LabelledSpec, encoder: Encoder, seed: int, splits: Mapping[str, Examples], outputs: int
) -> _Setup:
    """A copy of the encoder with a head."""
    protocol, embedder = spec.finetune, encoder.embedder
    pooled = protocol.features == "pooled"
    width = embedder.model.architecture.protein.width if pooled else embedder.dim
    head = _head(width, protocol, outputs, seed)
    network = EncoderWithHead(embedder.model, protocol.features, head).to(embedder.device)
    return _Setup(
        network,
        [
            {"params": list(network.head.parameters()), "lr": protocol.lr},
            {"params": list(network.model.parameters()), "lr": protocol.lr * protocol.encoder_lr_factor},
        ],
        {
            name: ResidueInputs(
                embedder.residue_tokens([cut(s, protocol) for s in split.sequences]), embedder.device
            )
            for name, split in splits.items()
        },
        protocol,
    )


def _one_hot_cnn(spec: LabelledSpec, seed: int, splits: Mapping[str, Examples], outputs: int) -> _Setup:
    """The network on one-hot residues; lengths, batches and stopping as with a frozen encoder."""
    protocol, device = spec.frozen, _device()
    most = protocol.max_residues + 2
    network = OneHotCnn(outputs, seed).to(device)
    return _Setup(
        network,
        [{"params": list(network.parameters()), "lr": LR}],
        {
            name: ResidueInputs([tokenize_residues(cut(s, protocol), most) for s in split.sequences], device)
            for name, split in splits.items()
        },
        protocol,
    )


def _head(width: int, protocol: HeadProtocol, outputs: int, seed: int) -> nn.Sequential:
    """The protocol's head."""
    return make_head(width, protocol.hidden, outputs, torch.Generator().manual_seed(seed))


def _device() -> torch.device:
    """Where networks without an encoder are trained."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _trained(
    task: Task,
    spec: LabelledSpec,
    data: Prepared,
    seed: int,
    prepare: Callable[[Mapping[str, Examples], int], _Setup],
) -> Outcome:
    """Trains a network and predicts test."""
    splits, labels = _splits(task, spec, data, seed)
    train, valid = splits["train"].target, splits["valid"].target
    learning = task.learning(train, len(labels))
    setup = prepare(splits, learning.outputs)
    sign = 1 if spec.higher_is_better else -1

    def score(network: nn.Module) -> tuple[float, float]:
        output_NO = outputs(network, setup.inputs["valid"])
        metrics = _score(task, {"truth": valid, task.prediction: learning.decode(output_NO)})
        loss = learning.loss(torch.from_numpy(output_NO), torch.from_numpy(valid))
        return sign * metrics[spec.metric], -loss.item()

    device = next(setup.network.parameters()).device
    best_epoch = fit(
        setup.network,
        setup.parameter_groups,
        setup.inputs["train"],
        torch.from_numpy(train).to(device),
        learning.loss,
        score,
        setup.protocol,
        seed,
    )
    prediction = learning.decode(outputs(setup.network, setup.inputs["test"]))
    note = f"seed {seed}: best epoch {best_epoch} of at most {setup.protocol.epochs}"
    return _outcome(task, splits, labels, prediction, [note])


def _outcome(
    task: Task,
    splits: Mapping[str, Examples],
    labels: Sequence[str],
    prediction: np.ndarray,
    notes: Sequence[str],
) -> Outcome:
    """Units of the test part."""
    counts = {name: len(split.ids) for name, split in splits.items()}
    return Outcome(
        units={"truth": splits["test"].target, task.prediction: prediction},
        ids=splits["test"].ids,
        counts=counts | ({"labels": len(labels)} if labels else {}),
        notes=notes,
    )
