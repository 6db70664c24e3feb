from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from protclip.evaluation.metrics.classification import CLASSIFICATION, resampled_classification
from protclip.evaluation.metrics.resample import measure

ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


def metrics(truth, predicted) -> dict[str, float]:
    return measure(partial(resampled_classification, truth, predicted), len(truth))


@settings(max_examples=50, deadline=None)
@given(ROWS)
@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")
def test_classification_metrics_equal_scikit_learn(rows):
    truth, predicted = np.array(rows).T
    found = metrics(truth, predicted)
    assert tuple(found) == CLASSIFICATION
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert found["mcc"] == pytest.approx(matthews_corrcoef(truth, predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro", zero_division=0))


@settings(max_examples=50, deadline=None)
@given(ROWS, st.integers(0, 2**32 - 1))
def test_resampled_classification_equals_repeated_rows(rows, seed):
    truth, predicted = np.array(rows).T
    counts = np.random.default_rng(seed).multinomial(len(rows), np.full(len(rows), 1 / len(rows)), 4)
    found = resampled_classification(truth, predicted, counts)
    for r, count in enumerate(counts):
        expected = metrics(np.repeat(truth, count), np.repeat(predicted, count))
        assert {name: values[r] for name, values in found.items()} == pytest.approx(expected)
