"""A mistake found in a Ray worker reaches the user as if it had been found on the driver."""

import pytest
import ray
import ray.train
from ray.train.torch import TorchTrainer

from protclip.cluster.errors import user_error
from protclip.errors import CheckpointError, DataError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def test_user_error_of_a_task() -> None:
    @ray.remote
    def task() -> None:
        raise DataError("x.dat: truncated; fetch it again")

    with pytest.raises(DataError) as caught:
        ray.get(task.remote())
    found = user_error(caught.value)
    assert type(found) is DataError
    assert str(found) == "x.dat: truncated; fetch it again"


def test_user_error_of_a_chain_of_tasks() -> None:
    @ray.remote
    def inner() -> None:
        raise DataError("inner")

    @ray.remote
    def outer() -> None:
        try:
            ray.get(inner.remote())
        except DataError as error:
            raise CheckpointError("outer") from error

    with pytest.raises(CheckpointError) as caught:
        ray.get(outer.remote())
    assert str(user_error(caught.value)) == "outer"


def test_user_error_of_a_training_worker(tmp_path_factory: pytest.TempPathFactory) -> None:
    def worker() -> None:
        raise CheckpointError("z: damaged; use another checkpoint")

    storage = str(tmp_path_factory.mktemp("runs"))
    trainer = TorchTrainer(
        worker,
        scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(storage_path=storage),
    )
    with pytest.raises(Exception) as caught:  # noqa: PT011  whatever Ray makes of it
        trainer.fit()
    assert str(user_error(caught.value)) == "z: damaged; use another checkpoint"
