"""Classification: one class per sequence.

Cross-entropy without class weights, as ProtST and ProtCLIP have it; the imbalance shows in mcc and macro F1.

Shape suffixes: N examples, C classes.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import cross_entropy

from protclip.evaluation.composition import composition
from protclip.evaluation.kind import Units
from protclip.evaluation.kinds.sequences import Examples, Learning, Task, labelled_kind
from protclip.evaluation.metrics.classification import CLASSIFICATION, resampled_classification
from protclip.evaluation.spec.sequences import ClassificationSpec


def resample(units: Units, counts_RN: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of the units `truth` and `predicted`, class indices (N,)."""
    return resampled_classification(units["truth"], units["predicted"], counts_RN)


def _labels(examples: pa.Table) -> Sequence[str]:
    """Classes that occur."""
    return sorted(set(examples["label"].to_pylist()))


def _target(examples: pa.Table, labels: Sequence[str]) -> np.ndarray:
    """Class indices, int64 (N,)."""
    index = {label: i for i, label in enumerate(labels)}
    return np.array([index[label] for label in examples["label"].to_pylist()], np.int64)


def _learning(_: np.ndarray, num_labels: int) -> Learning:
    """Logits of every class."""
    return Learning(num_labels, cross_entropy, lambda output_NC: output_NC.argmax(1))


def _majority(train: Examples, test: Examples) -> np.ndarray:
    """The most frequent class of the training data, for everything."""
    return np.full(len(test.ids), np.bincount(train.target).argmax())


def _composition(train: Examples, test: Examples) -> np.ndarray:
    """Logistic regression on amino-acid composition and length."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    classifier.fit(composition(train.sequences), train.target)
    return classifier.predict(composition(test.sequences))


KIND = labelled_kind(
    ClassificationSpec,
    CLASSIFICATION,
    Task(
        labels=_labels,
        target=_target,
        learning=_learning,
        prediction="predicted",
        resample=resample,
        baselines={"majority": _majority, "composition": _composition},
    ),
)
