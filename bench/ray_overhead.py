"""Step time under Ray Train against the bare loop: the same run, one worker, in turn.

    python bench/ray_overhead.py --pairs DIR --steps 120 --repeats 3 [key=value …]

`--pairs` is the output of `protclip sample`; further arguments override the quickstart's configuration.
Writes JSON lines to stdout: one per run, and a last one with the medians and their ratio. A run's figure is
the median of its logged `train/step_s`, the first half left out, in which threads and caches get warm.
"""

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
from pathlib import Path
from unittest import mock

import torch

from protclip.cluster import pretrain as job
from protclip.config.load import load_config
from protclip.config.schema import PretrainConfig
from protclip.tracking.base import NullTracker
from protclip.training.loop import train
from protclip.training.notice import Notice
from protclip.training.store import CheckpointStore

CONFIG = Path(__file__).parents[1] / "conf" / "pretrain" / "quickstart.yaml"


class Times(NullTracker):
    """A tracker and a reporter that keep the time of steps."""

    def __init__(self) -> None:
        self.step_s: list[float] = []

    def log_metrics(self, metrics, step=None):
        """Keeps `train/step_s`."""
        self.step_s += [value for name, value in metrics.items() if name == "train/step_s"]

    metrics = log_metrics

    def progress(self, step, text):
        """Does nothing."""

    def at(self, step, phase):
        """Does nothing."""

    def notice(self):
        """Asks for nothing."""
        return Notice.NONE

    def median_s(self) -> float:
        """Step time once warm."""
        return statistics.median(self.step_s[len(self.step_s) // 2 :])


def bare(config: PretrainConfig, times: Times) -> None:
    """The loop in this process."""
    torch.set_num_threads(int(config.scaling.cpus_per_worker))
    run_uri = f"{config.run.storage}/{config.run.name}"
    with CheckpointStore(run_uri, 1, 0, config.train.best_metric) as store:
        train(config, times, torch.device("cpu"), store=store)


def on_ray(config: PretrainConfig, times: Times) -> None:
    """The whole job."""
    with (
        mock.patch.object(job, "open_run", return_value=times),
        mock.patch.object(job, "log_checkpoint_model", return_value=None),
    ):
        job.pretrain(config)


WAYS = {"bare": bare, "ray": on_ray}


def main() -> None:
    """Runs the ways in turn and prints what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_intermixed_args()
    logging.basicConfig(level=logging.WARNING)
    # Ray's workers give way to every other process (nice 15), which a shared machine would show as overhead.
    os.environ.setdefault("RAY_worker_niceness", "0")
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="protclip-") as place:
        for repeat in range(args.repeats):
            for way, run in WAYS.items():
                values = {
                    "data": args.pairs,
                    "run.storage": place,
                    "run.name": f"{way}-{repeat}",
                    "scaling.num_workers": 1,
                    "tracking.enabled": "false",
                    "train.max_steps": args.steps,
                    "train.log_every": 5,
                    "train.valid_every": args.steps,
                    "train.checkpoint_every": args.steps,
                }
                overrides = [f"{key}={value}" for key, value in values.items()]
                times = Times()
                run(load_config(PretrainConfig, CONFIG, [*overrides, *args.overrides]), times)
                taken[way].append(times.median_s())
                sys.stdout.write(
                    json.dumps({"way": way, "repeat": repeat, "step_s": times.median_s()}) + "\n"
                )
                sys.stdout.flush()
    medians = {way: statistics.median(values) for way, values in taken.items()}
    sys.stdout.write(json.dumps({**medians, "ray_over_bare": medians["ray"] / medians["bare"]}) + "\n")


if __name__ == "__main__":
    main()
