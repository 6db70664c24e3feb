"""Pre-training whose workers, driver and storage fail: the run that comes out is the one without faults."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import ray

import tiny_runs
from protclip.cluster import pretrain as pretrain_module
from protclip.cluster.pretrain import pretrain
from protclip.config.schema import PretrainConfig
from protclip.errors import StoppedError, TrainingError
from tiny_runs import Batches, assert_same_pairs, assert_same_weights, config, kill, recording_worker, wait

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture(autouse=True)
def _ray_train_looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")


@pytest.fixture(scope="module")
def whole(tiny_pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Batches, Path]:
    """What the bare loop sees in six steps, and its run."""
    place = tmp_path_factory.mktemp("whole")
    return tiny_runs.alone(tiny_pairs, place), place / "job"


DRIVER = """
import sys
from pathlib import Path
import tiny_runs
from protclip.cli import main
from protclip.cluster import pretrain
seen, *values = sys.argv[1:]
faults = {3: tiny_runs.freeze, 5: tiny_runs.wait}
pretrain.run_rank = tiny_runs.recording_worker(Path(seen), faults)
sys.exit(main(["pretrain", *values]))
"""


def driver(place: Path, given: PretrainConfig) -> subprocess.Popen[bytes]:
    """The command line in another process, on the same cluster; what it says is in the file `said`."""
    path = os.pathsep.join(p for p in sys.path if p)
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(place / "seen"), *tiny_runs.as_arguments(given)],
        env={**os.environ, "PYTHONPATH": path, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
        stdout=subprocess.DEVNULL,
        stderr=(place / "said").open("wb"),
    )


def test_pretrain_stops_when_asked_and_goes_on_to_the_same_weights(
    tiny_pairs: Path, tmp_path: Path, whole: tuple[Batches, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = config(tiny_pairs, tmp_path, scaling={"num_workers": 1, "max_failures": 0})
    seen = tmp_path / "seen"
    monkeypatch.setattr(pretrain_module, "run_rank", recording_worker(seen, {3: wait, 5: kill}))

    def interrupt() -> None:
        while not (seen / "fault-3").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt, daemon=True).start()
    uri = tmp_path / "job" / "step-00000003"
    with pytest.raises(StoppedError, match=f"^stopped at step 3 of 6, checkpoint {uri}; submit the same"):
        pretrain(given)
    with pytest.raises(TrainingError, match=r"more often than scaling\.max_failures=0; the last: rank 0: "):
        pretrain(given)
    assert pretrain(given)["checkpoint"] == str(tmp_path / "job" / "step-00000006")
    assert_same_weights(tmp_path / "job", whole[1])
    assert_same_pairs(seen, whole[0])


def test_pretrain_goes_on_with_more_workers_after_a_hanging_worker_a_killed_driver_and_a_damaged_checkpoint(
    tiny_pairs: Path,
    tmp_path: Path,
    whole: tuple[Batches, Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen, said = tmp_path / "seen", tmp_path / "said"
    wanted = [tmp_path / "job" / f"step-{step:08}" / "meta.json" for step in (2, 4)]
    with driver(tmp_path, config(tiny_pairs, tmp_path, scaling={"timeout_s": 8})) as process:
        while not all(path.exists() for path in [*wanted, seen / "fault-5"]):
            assert process.poll() is None, said.read_text()
            time.sleep(0.05)
        process.kill()
    hung = r"killing what hangs: rank 1 \(process \d+ on .*\): step 2, waiting for data, at .*no sign of life"
    assert re.search(hung, said.read_text())

    damaged = next((tmp_path / "job" / "step-00000004").rglob("model-*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    monkeypatch.setattr(pretrain_module, "run_rank", recording_worker(seen, {}))
    pretrain(config(tiny_pairs, tmp_path, scaling={"num_workers": 3}))
    assert f"{damaged}: missing or damaged" in caplog.text
    assert_same_weights(tmp_path / "job", whole[1], tolerance=1e-5)
    assert_same_pairs(seen, whole[0])
    assert (0, 3) in map(min, tiny_runs.seen(seen))
