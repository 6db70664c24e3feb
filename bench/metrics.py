"""Speed and memory of protein-centric Fmax and micro AUPR, exact, on one core.

    python bench/metrics.py [--proteins 10000] [--labels 1943] [--resamples 100]

Made logits, 1.2 % of the labels true. Peers: scikit-learn's micro average precision (AUPR alone, all
entries); Fmax by argsorts, as the published code goes about it (Fmax alone, all entries, order decides
ties); and a loop over every threshold (Fmax alone, on a corner of the entries, as it is quadratic). Last the
bootstrap of a test set as large as GO-BP's. Each runs in a process of its own, whose peak memory includes
the inputs and the imports. One JSON line each, and one with the ratios of processor time.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from sklearn.metrics import average_precision_score

from protclip.evaluation.metrics.multilabel import fmax_and_aupr

CORNER = (60, 100)
GO_BP = (3416, 1943)


def made(proteins: int, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth and scores that tell something of it."""
    rng = np.random.default_rng(0)
    truth_NC = rng.random((proteins, labels), dtype=np.float32) < 0.012
    return truth_NC, rng.standard_normal((proteins, labels), dtype=np.float32) + 2 * truth_NC


def ours(truth_NC: np.ndarray, score_NC: np.ndarray, resamples: int) -> dict[str, float]:
    """Both metrics, of all proteins once or of resamplings (their means)."""
    proteins = len(truth_NC)
    drawn_RN = np.random.default_rng(0).multinomial(proteins, np.full(proteins, 1 / proteins), resamples)
    counts_RN = drawn_RN if resamples else np.ones((1, proteins), np.int64)
    fmax_R, aupr_R = fmax_and_aupr(truth_NC, score_NC, counts_RN)
    return {"fmax": fmax_R.mean(), "aupr": aupr_R.mean()}


def scikit_learn(truth_NC: np.ndarray, score_NC: np.ndarray, _: int) -> dict[str, float]:
    """AUPR alone."""
    return {"aupr": average_precision_score(truth_NC, score_NC, average="micro")}


def argsorts(truth_NC: np.ndarray, score_NC: np.ndarray, _: int) -> dict[str, float]:
    """Fmax alone: sort each protein's labels, then all entries, and sum changes of precision and recall."""
    order_NC = np.argsort(-score_NC, axis=1)
    found_NC = np.cumsum(np.take_along_axis(truth_NC, order_NC, axis=1), axis=1)
    precision_NC = found_NC / np.arange(1, found_NC.shape[1] + 1)
    recall_NC = found_NC / np.maximum(found_NC[:, -1:], 1)
    order_E = np.argsort(-np.take_along_axis(score_NC, order_NC, axis=1).ravel())
    covered_E = np.cumsum(order_E % score_NC.shape[1] == 0)
    precision_E = np.cumsum(np.diff(precision_NC, prepend=0, axis=1).ravel()[order_E]) / covered_E
    recall_E = np.cumsum(np.diff(recall_NC, prepend=0, axis=1).ravel()[order_E]) / len(truth_NC)
    return {"fmax": (2 * precision_E * recall_E / np.maximum(precision_E + recall_E, 1e-12)).max()}


def threshold_loop(truth_NC: np.ndarray, score_NC: np.ndarray, _: int) -> dict[str, float]:
    """Fmax alone, as its definition reads."""
    true_N, best = np.maximum(truth_NC.sum(1), 1), 0.0
    for threshold in np.unique(score_NC):
        predicted_NC = score_NC >= threshold
        found_N, predicted_N = (truth_NC & predicted_NC).sum(1), predicted_NC.sum(1)
        some_N = predicted_N > 0
        precision, recall = (found_N[some_N] / predicted_N[some_N]).mean(), (found_N / true_N).mean()
        best = max(best, 2 * precision * recall / max(precision + recall, 1e-12))
    return {"fmax": best}


def timed(
    run: Callable[[np.ndarray, np.ndarray, int], dict[str, float]], shape: tuple[int, int], resamples: int
) -> dict[str, float]:
    """What a function gives, its seconds and its process's peak memory."""
    inputs = made(*shape)
    begin, busy = time.perf_counter(), time.process_time()
    values = run(*inputs, resamples)
    seconds, busy = time.perf_counter() - begin, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rounded = {name: round(float(value), 6) for name, value in values.items()}
    return rounded | {"seconds": round(seconds, 3), "cpu_s": round(busy, 3), "peak_mb": round(peak)}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--proteins", type=int, default=10_000, help="proteins of the large case")
    parser.add_argument("--labels", type=int, default=1943, help="labels of the large case")
    parser.add_argument("--resamples", type=int, default=100, help="resamplings of the bootstrap")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    whole, resamples = (arguments.proteins, arguments.labels), arguments.resamples
    cases = {
        "ours": (ours, whole, 0),
        "scikit_learn": (scikit_learn, whole, 0),
        "argsorts": (argsorts, whole, 0),
        "ours_on_a_corner": (ours, CORNER, 0),
        "threshold_loop": (threshold_loop, CORNER, 0),
        "ours_go_bp": (ours, GO_BP, 0),
        "ours_go_bp_bootstrap": (ours, GO_BP, resamples),
    }
    busy: dict[str, float] = {}
    for name, (run, shape, drawn) in cases.items():
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found = pool.submit(timed, run, shape, drawn).result()
        busy[name] = found["cpu_s"]
        print(json.dumps({"what": name, "proteins": shape[0], "labels": shape[1], **found}), flush=True)
    ratios = {
        "scikit_learn_over_ours": busy["scikit_learn"] / busy["ours"],
        "argsorts_over_ours": busy["argsorts"] / busy["ours"],
        "threshold_loop_over_ours": busy["threshold_loop"] / busy["ours_on_a_corner"],
        "scores_one_by_one_over_bootstrap": resamples * busy["ours_go_bp"] / busy["ours_go_bp_bootstrap"],
    }
    print(json.dumps({"what": "ratio", **{name: round(value, 1) for name, value in ratios.items()}}))


if __name__ == "__main__":
    main()
