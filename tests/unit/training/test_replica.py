from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import replica_ranks as script
from forked import ranks
from protclip.errors import CheckpointError, ConfigError
from protclip.model.build import build
from protclip.training.freezing import trained_since
from protclip.training.replica import Replica, state_bytes
from protclip.training.sharding import full_parameters, load_moments, load_parameters

Results = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Results]:
    """What each of two gloo ranks computed."""
    with ranks(script.compute, 2, tmp_path_factory.mktemp("ranks")) as results:
        pass
    return results


@pytest.fixture(scope="module")
def one_rank() -> dict[bool, Results]:
    """One process with the whole batch, by whether the text tower is frozen at first."""
    return {frozen: script.train(script.Case(unfreeze=frozen)) for frozen in (False, True)}


def of(results: Results, prefix: str) -> Results:
    """The results under a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in results.items() if key.startswith(prefix)}


def assert_same(found: Results, expected: Results, rtol: float = 1e-7, atol: float = 1e-9) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("way", ["_micro", "_unfreeze"])
def test_two_ranks_train_as_one_process(
    strategy: str, way: str, two_ranks: list[Results], one_rank: dict[bool, Results]
) -> None:
    expected = one_rank[way == "_unfreeze"]
    assert len(of(expected, "after_3/")) > 300
    for results in two_ranks:
        assert_same(of(results, f"{strategy}{way}/"), expected)


def test_bf16_is_the_same_sharded_or_not_and_close_to_fp32(
    two_ranks: list[Results], one_rank: dict[bool, Results]
) -> None:
    results = two_ranks[0]
    whole, sharded = of(results, "ddp_bf16/"), of(results, "fsdp_bf16/")
    assert_same(sharded, whole, rtol=1e-3, atol=1e-5)
    assert {value.dtype for value in whole.values()} == {torch.float32}
    norm, exact = whole["first/norm"], one_rank[True]["first/norm"]
    assert norm.item() == pytest.approx(exact.item(), rel=0.02)
    assert norm.item() != pytest.approx(exact.item(), rel=1e-6)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_embedding_and_evaluating_change_nothing(
    strategy: str, two_ranks: list[Results], one_rank: dict[bool, Results]
) -> None:
    first, second = (of(results, f"look_{strategy}/") for results in two_ranks)
    assert first["changed"] == 0
    torch.testing.assert_close(first["embedded"], first["output"])
    assert first["blind"].shape == first["with_text"].shape
    assert not torch.allclose(first["blind"], first["with_text"])
    assert_same(second, first | {"own_bytes": second["own_bytes"]})
    share = first["own_bytes"] / first["whole_bytes"]
    assert share == (1 if strategy == "ddp" else pytest.approx(0.5, abs=0.01))


def test_clipping_gives_the_norm_before_and_leaves_the_limit(two_ranks: list[Results]) -> None:
    seen = of(two_ranks[0], "look_fsdp/")
    assert seen["norm"] > 1
    assert seen["norm_clipped"].item() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("way", ["to_whole", "to_sharded"])
def test_whole_tensors_carry_a_run_into_another_strategy(
    way: str, two_ranks: list[Results], one_rank: dict[bool, Results]
) -> None:
    for results in two_ranks:
        assert_same(of(results, f"{way}/"), of(one_rank[False], "after_2/"))


@pytest.mark.parametrize("way", ["to_whole", "to_sharded"])
def test_an_update_marked_as_not_finite_changes_nothing(way: str, two_ranks: list[Results]) -> None:
    before, after = of(two_ranks[0], f"{way}/"), of(two_ranks[0], f"{way}_skipped/")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_part_norms_are_those_of_the_gradient(one_rank: dict[bool, Results]) -> None:
    results = one_rank[False]
    norms, gradients = of(results, "first/norm/"), of(results, "grad/")
    assert {"protein_encoder", "text_encoder", "fusion", "log_scale"} <= norms.keys()
    for part, norm in norms.items():
        # What is left in `grad` is clipped.
        found = torch.stack([g.norm() for name, g in gradients.items() if name.split(".")[0] == part]).norm()
        assert (found / norm).item() == pytest.approx((0.05 / results["first/norm"]).item(), rel=1e-4)
    total = torch.stack(list(norms.values())).norm()
    torch.testing.assert_close(total, results["first/norm"])


def test_load_parameters_refuses_another_model() -> None:
    run = script.Run(script.Case())
    tensors = dict(full_parameters(run.replica.bare))
    for wrong, message in (
        ({name: t for name, t in tensors.items() if name != "log_scale"}, "log_scale is missing"),
        (tensors | {"further": torch.zeros(1)}, "further is too many"),
        (tensors | {"log_scale": torch.zeros(2)}, r"log_scale is \(2,\) in the checkpoint and \(1,\)"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_parameters(run.replica.bare, wrong)
    with pytest.raises(CheckpointError, match="exp_avg/further has no parameter"):
        load_moments(run.optimizer, run.replica.bare, {"exp_avg/further": torch.zeros(1)})


def test_state_bytes_are_those_of_weights_gradients_and_moments() -> None:
    run = script.Run(script.Case(precision="bf16"))
    run.step(0)
    model = run.replica.bare
    tensors = [*model.parameters(), *(p.grad for p in model.parameters() if p.grad is not None)]
    for moments in run.optimizer.state.values():
        tensors += [moments["exp_avg"], moments["exp_avg_sq"]]
    whole = state_bytes(model, trained_since(model, run.model_config), 1)
    assert whole == sum(t.nbytes for t in tensors)
    weights = sum(p.nbytes for p in model.parameters())
    assert whole / 4 < state_bytes(model, trained_since(model, run.model_config), 4) < whole / 4 + weights


def test_a_model_too_large_for_the_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=2e6))
    config = script.settings_of(script.Case())
    model = build(config.model, config.loss, script.VOCAB, seed=0)
    with pytest.raises(
        ConfigError, match=r"GB of each device, but it has 0\.0 GB; set scaling\.strategy=fsdp"
    ):
        Replica(model, config, torch.device("cuda"))


@pytest.mark.slow
def test_compiled_layers_compute_the_same_for_batches_of_any_shape() -> None:
    plain, compiled = (script.Run(script.Case(checkpointing=True, compiled=on)) for on in (False, True))
    graphs = []
    for start, stop in ((0, 3), (2, 4), (0, 8), (1, 2)):
        batch = script.make_batch(start, stop)
        found, expected = compiled.replica.embed(batch), plain.replica.embed(batch)
        torch.testing.assert_close(found.protein_BD, expected.protein_BD)
        torch.testing.assert_close(found.text_BD, expected.text_BD)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert 0 < graphs[0] == graphs[-1], "compiled anew for another shape"
    for number in range(2):
        assert_same(compiled.step(number), plain.step(number))
    assert_same(dict(compiled.parameters()), dict(plain.parameters()), rtol=1e-6, atol=1e-8)


def test_compiling_without_a_compiler_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch._dynamo.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "no-such-compiler"))
    config = script.settings_of(script.Case(compiled=True))
    model = build(config.model, config.loss, script.VOCAB, seed=0)
    with pytest.raises(ConfigError, match=r"train\.compile=true finds no working compiler for cpu"):
        Replica(model, config, torch.device("cpu"))
