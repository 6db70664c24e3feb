"""Regression: a number per sequence, scored by Spearman's correlation.

Mean squared error. The network learns targets standardised by the training part (ProtST: raw ones), since a
small learning rate takes long to reach temperatures of 50 °C; predictions are in the targets' own unit.

Shape suffixes: B examples of an update, N examples.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import mse_loss

from protclip.evaluation.composition import composition
from protclip.evaluation.kind import Units
from protclip.evaluation.kinds.sequences import Examples, Learning, Task, labelled_kind
from protclip.evaluation.metrics.regression import REGRESSION, resampled_regression
from protclip.evaluation.spec.sequences import RegressionSpec


def resample(units: Units, counts_RN: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of the units `truth` and `predicted`, float32 (N,)."""
    return resampled_regression(units["truth"], units["predicted"], counts_RN)


def _target(examples: pa.Table, _: Sequence[str]) -> np.ndarray:
    """float32 (N,)."""
    return examples["value"].to_numpy().astype(np.float32)


def _learning(train_N: np.ndarray, _: int) -> Learning:
    """One output, standardised."""
    mean, deviation = float(train_N.mean()), float(train_N.std()) or 1.0

    def loss(output_B1: Tensor, target_B: Tensor) -> Tensor:
        return mse_loss(output_B1[:, 0], (target_B - mean) / deviation)

    return Learning(1, loss, lambda output_N1: output_N1[:, 0] * deviation + mean)


def _mean(train: Examples, test: Examples) -> np.ndarray:
    """The mean of the training data, for everything."""
    return np.full(len(test.ids), train.target.mean())


def _composition(train: Examples, test: Examples) -> np.ndarray:
    """Ridge regression on amino-acid composition and length."""
    regression = make_pipeline(StandardScaler(), Ridge())
    regression.fit(composition(train.sequences), train.target)
    return regression.predict(composition(test.sequences))


KIND = labelled_kind(
    RegressionSpec,
    REGRESSION,
    Task(
        labels=lambda _: (),
        target=_target,
        learning=_learning,
        prediction="predicted",
        resample=resample,
        baselines={"mean": _mean, "composition": _composition},
    ),
)
