import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from protclip import parallel

SCRIPT = Path(__file__).with_name("ranks.py")
PLATFORM = Path(__file__).parents[2] / "platform"

Results = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Results]:
    """What each of two gloo ranks computed."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {"PYTHONPATH": str(PLATFORM), "OMP_NUM_THREADS": "1"}
    targets = [folder / f"{rank}.pt" for rank in range(2)]
    ranks = [
        subprocess.Popen(
            [sys.executable, SCRIPT, folder / "store", str(rank), "2", target],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, target in enumerate(targets)
    ]
    try:
        for rank in ranks:
            _, errors = rank.communicate(timeout=90)
            assert rank.returncode == 0, errors
    finally:
        for rank in ranks:
            rank.kill()
    return [torch.load(target, weights_only=True) for target in targets]


@pytest.fixture(scope="module")
def one_rank() -> Results:
    return runpy.run_path(str(SCRIPT))["training_gradients"]()


def test_one_process_is_a_group_of_one() -> None:
    rows = torch.arange(4.0)
    assert (parallel.rank(), parallel.world_size()) == (0, 1)
    assert parallel.gather_rows(rows) is rows
    assert parallel.mean_over_ranks(rows).tolist() == [0, 1, 2, 3]


def test_gather_rows_orders_by_rank_and_sums_gradients(two_ranks: list[Results]) -> None:
    rows = torch.arange(6.0).view(2, 3)
    weights = torch.arange(12.0).view(4, 3)
    for rank, results in enumerate(two_ranks):
        assert torch.equal(results["gathered"], torch.cat((rows, rows + 10)))
        assert torch.equal(results["rows_grad"], (weights + 2 * weights)[2 * rank : 2 * rank + 2])


def test_mean_over_ranks_averages(two_ranks: list[Results]) -> None:
    for results in two_ranks:
        assert results["mean"].item() == 1.5
        assert not results["mean"].requires_grad


@pytest.mark.parametrize("term", ["gc", "bsr", "mlm", "pda", "total"])
def test_two_ranks_have_the_loss_of_one(term: str, two_ranks: list[Results], one_rank: Results) -> None:
    for results in two_ranks:
        torch.testing.assert_close(results[f"loss/{term}"], one_rank[f"loss/{term}"])


def test_two_ranks_have_the_gradient_of_one(two_ranks: list[Results], one_rank: Results) -> None:
    gradients = [name for name in one_rank if name.startswith("grad/")]
    assert len(gradients) > 100
    for name in gradients:
        for results in two_ranks:
            torch.testing.assert_close(
                results[name], one_rank[name], rtol=1e-3, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
            )
