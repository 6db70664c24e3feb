"""Few-shot: one class per sequence, learnt from k examples of each class, drawn by seed.

ProtST's three protocols on one draw, all with a frozen encoder: a two-layer head on the features; without
training, Σ exp(-‖x-s‖²) over a class's examples s; and the head's logits plus alpha times the zero-shot
ones. Examples repeat where a class has fewer than k. Differs in that the head sees standardised features.

Shape suffixes: N test examples, S shots, C classes, F feature width, R resamplings.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count

import numpy as np
import torch
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import cross_entropy

from protclip.errors import BenchmarkError
from protclip.evaluation.composition import composition
from protclip.evaluation.heads import FeatureInputs, fit, make_head, outputs
from protclip.evaluation.kind import Encoder, Kind, Mode, Outcome, Units, Wanted
from protclip.evaluation.kinds import zero_shot
from protclip.evaluation.kinds.zero_shot import class_numbers, cut, test_sequences
from protclip.evaluation.metrics.classification import CLASSIFICATION, resampled_classification
from protclip.evaluation.metrics.resample import measure
from protclip.evaluation.prepared import Prepared
from protclip.evaluation.spec.few_shot import FewShotSpec
from protclip.evaluation.spec.sequences import HeadProtocol

HEAD, PROTOTYPE, ENSEMBLE = "predicted", "by_prototype", "by_ensemble"
"""Units with the class that each protocol predicts."""


def run(spec: FewShotSpec, data: Prepared, encoder: Encoder, mode: Mode, seed: int) -> Outcome:
    """Draws the examples, learns from them in every way, and predicts the test proteins.

    Raises:
        BenchmarkError: A class has no prompt or no training example, or the encoder has no text tower.
    """
    zero_shot_NC = encoder.embedder.scale * zero_shot.cosines(spec, data, encoder)
    sequences, class_S = _shots(spec, data, seed)
    shot_SF, test_NF = (encoder.vectors("features", s) for s in (sequences, cut(spec, data.split("test"))))
    logits_NC = _head(spec, shot_SF, class_S, test_NF, encoder.embedder.device, seed)
    predictions = {
        HEAD: logits_NC,
        PROTOTYPE: prototype_scores(test_NF, shot_SF, len(spec.prompts)),
        ENSEMBLE: logits_NC + spec.alpha * zero_shot_NC,
    }
    return _outcome(spec, data, {way: score_NC.argmax(1) for way, score_NC in predictions.items()})


def score(units: Units) -> dict[str, float]:
    """Metrics of `resample`."""
    return measure(partial(resample, units), len(units["truth"]))


def resample(units: Units, counts_RN: np.ndarray) -> dict[str, np.ndarray]:
    """Those of classification for the head; the accuracy of the other two, where they were measured."""
    others = {
        f"{way.removeprefix('by_')}_accuracy": counts_RN @ (units[way] == units["truth"]) / counts_RN.sum(1)
        for way in (PROTOTYPE, ENSEMBLE)
        if way in units
    }
    return resampled_classification(units["truth"], units[HEAD], counts_RN) | others


def draw(class_N: np.ndarray, shots: int, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """Rows (C, k) of each class's examples; with repetition where it has fewer than k.

    Every class occurs.
    """
    members = [np.flatnonzero(class_N == number) for number in range(num_classes)]
    return np.array([rng.choice(rows, shots, replace=len(rows) < shots) for rows in members])


def prototype_scores(test_NF: np.ndarray, shot_SF: np.ndarray, num_classes: int) -> np.ndarray:
    """Logarithm of Σ exp(-‖x-s‖²) over the shots of each class: float64 (N, C).

    The sum itself underflows in high dimension. Shots are in the order of classes, equally many of each.
    """
    distances_NS = cdist(test_NF, shot_SF, "sqeuclidean")
    return np.logaddexp.reduce(-distances_NS.reshape(len(test_NF), num_classes, -1), axis=2)


def _shots(spec: FewShotSpec, data: Prepared, seed: int) -> tuple[list[str], np.ndarray]:
    """Sequences of the drawn examples, and the class of each: int64 (S,)."""
    train_N, classes = class_numbers(spec, data, "train"), list(spec.prompts)
    if lacking := [label for number, label in enumerate(classes) if number not in train_N]:
        raise BenchmarkError(
            f"{spec.name}: no training example of {', '.join(lacking)}; nothing to draw from"
        )
    row_CK = draw(train_N, spec.shots, len(classes), np.random.default_rng(seed))
    sequences = cut(spec, data.split("train"))
    return [sequences[row] for row in row_CK.flat], np.repeat(np.arange(len(classes)), spec.shots)


def _head(
    spec: FewShotSpec,
    shot_SF: np.ndarray,
    class_S: np.ndarray,
    test_NF: np.ndarray,
    device: torch.device,
    seed: int,
) -> np.ndarray:
    """Logits (N, C) of a head after its last epoch."""
    rng = torch.Generator().manual_seed(seed)
    head = make_head(shot_SF.shape[1], None, len(spec.prompts), rng).to(device)
    # No example is spared for validation; a score that always rises keeps the last epoch.
    epoch = count()
    fit(
        head,
        [{"params": list(head.parameters()), "lr": spec.lr}],
        FeatureInputs(shot_SF, shot_SF, device),
        torch.from_numpy(class_S).to(device),
        cross_entropy,
        lambda _: (next(epoch), 0),
        HeadProtocol(lr=spec.lr, batch=spec.batch, epochs=spec.epochs),
        seed,
    )
    return outputs(head, FeatureInputs(test_NF, shot_SF, device))


def _outcome(spec: FewShotSpec, data: Prepared, predictions: Units) -> Outcome:
    """Predicted classes (N,) by way, beside the true ones."""
    truth_N = class_numbers(spec, data, "test")
    return Outcome(
        units={"truth": truth_N, **predictions},
        ids=data.split("test")["id"].to_pylist(),
        counts={"test": len(truth_N), "classes": len(spec.prompts), "shots": spec.shots},
    )


def _composition(spec: FewShotSpec, data: Prepared, seed: int) -> Outcome:
    """Logistic regression on amino-acid composition and length of the same examples."""
    sequences, class_S = _shots(spec, data, seed)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    classifier.fit(composition(sequences), class_S)
    predicted_N = classifier.predict(composition(cut(spec, data.split("test"))))
    return _outcome(spec, data, {HEAD: predicted_N})


def _needs(spec: FewShotSpec, data: Prepared) -> Mapping[Wanted, Sequence[str]]:
    return {"features": cut(spec, data.split("test")), **zero_shot.needs(spec, data)}


KIND = Kind(
    spec=FewShotSpec,
    metrics=(*CLASSIFICATION, "prototype_accuracy", "ensemble_accuracy"),
    run=run,
    score=score,
    resample=resample,
    needs=_needs,
    test_sequences=test_sequences,
    baselines={
        "chance": lambda spec, data, seed: _outcome(
            spec, data, {HEAD: zero_shot.chance(spec, data, seed).argmax(1)}
        ),
        "majority": lambda spec, data, seed: _outcome(
            spec, data, {HEAD: zero_shot.majority(spec, data).argmax(1)}
        ),
        "composition": _composition,
    },
)
