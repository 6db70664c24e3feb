"""Zero-shot: one class per sequence, the one whose prompts lie nearest in the space shared with texts.

ProtST's protocol: projected, L2-normalised embeddings, the class of the largest cosine (the temperature
does not change which). Differs in that a class may have several prompts, whose embeddings are averaged,
and that texts are pooled as in pre-training, special tokens included.

Shape suffixes: N examples, C classes, P prompts of all classes, D embedding width, R resamplings.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from protclip.errors import BenchmarkError
from protclip.evaluation.arrays import unit
from protclip.evaluation.kind import Encoder, Kind, Mode, Outcome, Units, Wanted
from protclip.evaluation.metrics.classification import CLASSIFICATION, resampled_classification
from protclip.evaluation.metrics.resample import measure
from protclip.evaluation.prepared import Prepared
from protclip.evaluation.spec.zero_shot import Prompted, ZeroShotSpec

TOP = 5


def run(spec: ZeroShotSpec, data: Prepared, encoder: Encoder, mode: Mode, seed: int) -> Outcome:
    """Compares every test protein with every class; nothing is trained, nothing is drawn.

    Raises:
        BenchmarkError: Classes and prompts do not fit each other, or the encoder has no text tower.
    """
    return _outcome(spec, data, cosines(spec, data, encoder))


def score(units: Units) -> dict[str, float]:
    """Metrics of `resample`."""
    return measure(partial(resample, units), len(units["truth"]))


def resample(units: Units, counts_RN: np.ndarray) -> dict[str, np.ndarray]:
    """Those of classification, for the nearest class; the share with the true one among the nearest 5."""
    among_them_R = counts_RN @ (units["rank"] <= TOP) / counts_RN.sum(1)
    classified = resampled_classification(units["truth"], units["predicted"], counts_RN)
    return classified | {f"top{TOP}": among_them_R}


def cosines(spec: Prompted, data: Prepared, encoder: Encoder) -> np.ndarray:
    """Cosine of each test protein with each class's mean prompt embedding: float32 (N, C).

    Raises:
        BenchmarkError: The encoder has no text tower.
    """
    prompt_PD = encoder.vectors("texts", _texts(spec))
    counts_C = [len(texts) for texts in spec.prompts.values()]
    starts_C = np.cumsum([0, *counts_C[:-1]])
    class_CD = unit(np.add.reduceat(prompt_PD, starts_C))
    return unit(encoder.vectors("projected", cut(spec, data.split("test")))) @ class_CD.T


def class_numbers(spec: Prompted, data: Prepared, split: str) -> np.ndarray:
    """The class of each example of a split, as its place among the prompts: int64 (N,).

    Raises:
        BenchmarkError: A class of the data has no prompt.
    """
    labels = data.split(split)["label"].to_pylist()
    if without := {*data.labels, *labels} - spec.prompts.keys():
        raise BenchmarkError(
            f"{spec.name}: no prompt for class {', '.join(map(repr, sorted(without)))}; there are some for "
            f"{', '.join(map(repr, list(spec.prompts)[:12]))}"
        )
    index = {label: number for number, label in enumerate(spec.prompts)}
    return np.array([index[label] for label in labels], dtype=np.int64)


def cut(spec: Prompted, examples: pa.Table) -> list[str]:
    """Sequences as the encoder sees them."""
    return [sequence[: spec.max_residues] for sequence in examples["sequence"].to_pylist()]


def test_sequences(spec: Prompted, data: Prepared) -> Sequence[str]:
    """The proteins of the test split, whole."""
    return data.split("test")["sequence"].to_pylist()


def majority(spec: Prompted, data: Prepared) -> np.ndarray:
    """Scores (N, C) of the test proteins by which the most frequent class of train comes first.

    Raises:
        BenchmarkError: There are no training examples to count.
    """
    train_N = class_numbers(spec, data, "train")
    if not len(train_N):
        raise BenchmarkError(f"{spec.name}: baseline majority needs a train split; leave it out of baselines")
    return np.tile(np.bincount(train_N, minlength=len(spec.prompts)), (data.split("test").num_rows, 1))


def chance(spec: Prompted, data: Prepared, seed: int) -> np.ndarray:
    """Random scores (N, C) of the test proteins."""
    shape = data.split("test").num_rows, len(spec.prompts)
    return np.random.default_rng(seed).random(shape)


def _outcome(spec: ZeroShotSpec, data: Prepared, score_NC: np.ndarray) -> Outcome:
    """What some scores are worth; among equal ones the class named first comes first."""
    truth_N = class_numbers(spec, data, "test")
    order_NC = np.argsort(-score_NC, axis=1, kind="stable")
    return Outcome(
        units={
            "truth": truth_N,
            "predicted": order_NC[:, 0],
            "rank": np.argmax(order_NC == truth_N[:, None], axis=1) + 1,
        },
        ids=data.split("test")["id"].to_pylist(),
        counts={"test": len(truth_N), "classes": len(spec.prompts), "prompts": len(_texts(spec))},
    )


def _texts(spec: Prompted) -> list[str]:
    """All prompts, class by class."""
    return [text for texts in spec.prompts.values() for text in texts]


def needs(spec: Prompted, data: Prepared) -> Mapping[Wanted, Sequence[str]]:
    """What `cosines` asks for."""
    return {"projected": cut(spec, data.split("test")), "texts": _texts(spec)}


KIND = Kind(
    spec=ZeroShotSpec,
    metrics=(*CLASSIFICATION, f"top{TOP}"),
    run=run,
    score=score,
    resample=resample,
    needs=needs,
    test_sequences=test_sequences,
    baselines={
        "chance": lambda spec, data, seed: _outcome(spec, data, chance(spec, data, seed)),
        "majority": lambda spec, data, seed: _outcome(spec, data, majority(spec, data)),
    },
    seeded=False,
)
