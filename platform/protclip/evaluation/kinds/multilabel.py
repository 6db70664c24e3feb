"""Multilabel: any number of labels per sequence, scored by protein-centric Fmax and micro AUPR.

Mean binary cross-entropy on logits without weights, as ProtST and ProtCLIP have it. Scores are logits: a
sigmoid would tie those near its ends.

Shape suffixes: N examples, C labels.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from protclip.errors import BenchmarkError
from protclip.evaluation.composition import composition
from protclip.evaluation.kind import Units
from protclip.evaluation.kinds.sequences import Examples, Learning, Task, labelled_kind
from protclip.evaluation.metrics.multilabel import MULTILABEL, fmax_and_aupr
from protclip.evaluation.spec.sequences import MultilabelSpec


def resample(units: Units, counts_RN: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of the units `truth`, bool (N, C), and `score`, float32 (N, C)."""
    values = fmax_and_aupr(units["truth"], units["score"], counts_RN)
    return dict(zip(MULTILABEL, values, strict=True))


def _labels(examples: pa.Table) -> Sequence[str]:
    """Labels that occur."""
    return sorted({label for labels in examples["labels"].to_pylist() for label in labels})


def _target(examples: pa.Table, labels: Sequence[str]) -> np.ndarray:
    """Whether each example has each label, bool (N, C)."""
    index = {label: i for i, label in enumerate(labels)}
    target_NC = np.zeros((len(examples), len(labels)), bool)
    for target_C, own in zip(target_NC, examples["labels"].to_pylist(), strict=True):
        target_C[[index[label] for label in own]] = True
    return target_NC


def _learning(_: np.ndarray, num_labels: int) -> Learning:
    """A logit per label."""
    return Learning(num_labels, _loss, lambda output_NC: output_NC)


def _loss(output_BC: Tensor, target_BC: Tensor) -> Tensor:
    """Mean over examples and labels."""
    return binary_cross_entropy_with_logits(output_BC, target_BC.float())


def _measured(spec: MultilabelSpec, test: pa.Table) -> pa.Table:
    """Test proteins under the identity asked for."""
    if spec.identity is None:
        return test
    under = test.filter(pa.array(test["identity"].to_numpy() <= spec.identity))
    if not len(under):
        raise BenchmarkError(
            f"{spec.name}: no test protein is under {spec.identity} % identity to training; use one of the "
            "published cut-offs, or identity: null for all"
        )
    return under


def _frequency(train: Examples, test: Examples) -> np.ndarray:
    """The frequency of each label among the training data, for everything."""
    return np.repeat(train.target.mean(0, dtype=np.float32)[None], len(test.ids), axis=0)


def _composition(train: Examples, test: Examples) -> np.ndarray:
    """Ridge regression from amino-acid composition and length to every label at once."""
    regression = make_pipeline(StandardScaler(), Ridge())
    regression.fit(composition(train.sequences), train.target)
    return regression.predict(composition(test.sequences)).astype(np.float32)


KIND = labelled_kind(
    MultilabelSpec,
    MULTILABEL,
    Task(
        labels=_labels,
        target=_target,
        learning=_learning,
        prediction="score",
        resample=resample,
        baselines={"frequency": _frequency, "composition": _composition},
        measured=_measured,
    ),
)
