from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forked import ranks
from protclip import parallel
from step_ranks import CASES, Results, compute, training_step

WORLD_SIZES = (2, 4)
"""Of float64 computations; those of N ranks and k microbatches differ from one's by summation order."""
EXACT = {"rtol": 1e-8, "atol": 1e-11}


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Results]]:
    """What each rank of each process group computed."""
    folder = tmp_path_factory.mktemp("ranks")
    with ranks(compute, 2, folder) as two, ranks(compute, 4, folder) as four:
        pass
    return {2: two, 4: four}


@pytest.fixture(scope="module")
def one_rank() -> Callable[[str], Results]:
    """What one rank computes at once."""
    known: dict[object, Results] = {}

    def compute(name: str) -> Results:
        case = CASES[name].alone
        if case not in known:
            known[case] = training_step(case)
        return known[case]

    return compute


def test_one_process_is_a_group_of_one() -> None:
    rows = torch.arange(4.0)
    assert (parallel.rank(), parallel.world_size(), parallel.bounds(4)) == (0, 1, (0, 4))
    assert parallel.gather_rows(rows, 4) is rows
    assert parallel.mean_over_ranks(rows).tolist() == [0, 1, 2, 3]


@given(st.integers(0, 5000), st.integers(1, 100))
def test_parts_follow_each_other_and_differ_by_one_at_most(total: int, parts: int) -> None:
    bounds = [parallel.part(total, index, parts) for index in range(parts)]
    assert [start for start, _ in bounds] == [0, *(stop for _, stop in bounds[:-1])]
    assert bounds[-1][1] == total
    sizes = {stop - start for start, stop in bounds}
    assert sizes <= {total // parts, -(-total // parts)}


@pytest.mark.parametrize("size", WORLD_SIZES)
def test_gather_rows_orders_uneven_shares_by_rank_and_sums_gradients(
    size: int, groups: dict[int, list[Results]]
) -> None:
    rows = torch.arange(10.0).view(5, 2)
    for rank, results in enumerate(groups[size]):
        assert torch.equal(results["gathered"], rows)
        start, stop = parallel.part(5, rank, size)
        assert torch.equal(results["rows_grad"], rows[start:stop] * sum(range(1, size + 1)))


def test_reductions_over_ranks(groups: dict[int, list[Results]]) -> None:
    for results in groups[4]:
        assert results["sum"].item() == 10
        assert results["mean"].item() == 2.5
        assert not results["mean"].requires_grad


@pytest.mark.parametrize("size", WORLD_SIZES)
@pytest.mark.parametrize("name", CASES)
def test_ranks_and_microbatches_give_the_step_of_one_rank_at_once(
    name: str, size: int, groups: dict[int, list[Results]], one_rank: Callable[[str], Results]
) -> None:
    expected = one_rank(name)
    assert expected["grad_norm"] > 0
    assert len([key for key in expected if key.startswith("grad/")]) > 100
    for results in groups[size]:
        for key, value in expected.items():
            torch.testing.assert_close(
                results[f"{name}/{key}"], value, **EXACT, msg=lambda m, key=key: f"{key}: {m}"
            )


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.micro > 1])
def test_microbatches_give_the_step_of_one_batch(name: str, one_rank: Callable[[str], Results]) -> None:
    expected = one_rank(name)
    for key, value in training_step(CASES[name]).items():
        torch.testing.assert_close(value, expected[key], **EXACT, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("size", WORLD_SIZES)
@pytest.mark.parametrize("contrastive", ["infonce", "sigmoid"])
def test_contrastive_memory_grows_with_own_pairs_times_all(
    contrastive: str, size: int, groups: dict[int, list[Results]]
) -> None:
    for results in groups[size]:
        for pairs in (64, 128):
            assert results[f"largest/{contrastive}/{pairs}"].item() == pairs * pairs // size


@pytest.mark.parametrize("size", WORLD_SIZES)
def test_a_loss_that_is_no_number_on_one_rank_changes_nothing_on_any(
    size: int, groups: dict[int, list[Results]]
) -> None:
    for results in groups[size]:
        assert results["poisoned/skipped"].item() == 1
        assert results["poisoned/unchanged"]
