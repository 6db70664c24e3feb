"""A training on several Ray nodes: nodes die, others come or never do."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

import tiny_runs
from tiny_runs import assert_same_pairs, assert_same_weights, config

pytestmark = [pytest.mark.ray, pytest.mark.slow]

FAST = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "3",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "2",
    # As on nodes that KubeRay has made: others may come.
    "RAY_NODE_TYPE_NAME": "cpu",
}
DRIVER = """
import json, sys
from pathlib import Path
import tiny_runs
from protclip.cli import main
from protclip.cluster import board, pretrain
board.SAY_S = 0.5
for place, *values in json.loads(sys.argv[1]):
    pretrain.run_rank = tiny_runs.recording_worker(Path(place) / "seen", {4: tiny_runs.wait})
    (Path(place) / "code").write_text(str(main(["pretrain", *values])))
"""


@pytest.fixture(scope="module")
def nodes(moto_server: str, forks: None) -> Iterator[Cluster]:
    """A head without CPUs, and two nodes of one."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in FAST.items():
            patch.setenv(name, value)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        yield cluster
        cluster.shutdown()


def until(done: Callable[[], bool]) -> None:
    """Waits."""
    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_training_goes_on_when_a_node_dies_and_gives_up_when_none_comes(
    nodes: Cluster, tiny_pairs: Path, tmp_path: Path
) -> None:
    never = {"num_workers": 3, "start_timeout_s": 1}
    scaling = {"lost": {}, "never": never, "never-enough": never | {"num_workers": 4, "min_workers": 3}}
    places = [tmp_path / name for name in scaling]
    runs = [
        [str(place), *tiny_runs.as_arguments(config(tiny_pairs, place, scaling=scaling[place.name]))]
        for place in places
    ]
    for place in places:
        place.mkdir()
    lost, said = places[0], tmp_path / "said"
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, json.dumps(runs)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "RAY_ADDRESS": nodes.address,
        },
        stdout=subprocess.DEVNULL,
        stderr=said.open("wb"),
    ) as driver:
        expected = tiny_runs.alone(tiny_pairs, tmp_path)
        # One rank waits, there is a checkpoint, and each node has a rank.
        until((lost / "seen/fault-4").exists)
        until((lost / "job/step-00000002/meta.json").exists)
        nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
        until(lambda: "1 node 'cpu' of 1 CPU, room for 1 now" in said.read_text())
        nodes.add_node(num_cpus=1)
        driver.wait(120)
    text = said.read_text()
    assert [int((place / "code").read_text()) for place in places] == [0, 7, 7], text
    assert (
        "error: no room for the workers within scaling.start_timeout_s=1 s: wanted: 3 workers of 1 CPU; the "
        "cluster has 1 node 'cpu' of 0 CPUs; 2 nodes 'cpu' of 1 CPU, room for 2 now: free are 2 CPUs of 2"
    ) in text
    assert_same_pairs(lost / "seen", expected)
    assert_same_weights(lost / "job", tmp_path / "job", tolerance=1e-5)
