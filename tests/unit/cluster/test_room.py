import pytest
from ray.autoscaler.v2.schema import ClusterStatus, LaunchRequest, NodeInfo, NodeUsage, ResourceUsage
from ray.exceptions import RpcError

from protclip.cluster import room
from protclip.cluster.room import NODE_GROUP, Need, await_room, check_room, explain, places, shortage
from protclip.errors import ConfigError

WORKERS = Need(8, {"CPU": 8, "GPU": 1}, "lower scaling.num_workers")


def node(cpus: float, gpus: float = 0, *, used: float = 0, group: str = "") -> NodeInfo:
    amounts = {"CPU": cpus, "GPU": gpus}
    usage = [ResourceUsage(name, amount, used * amount) for name, amount in amounts.items() if amount]
    labels = {NODE_GROUP: group} if group else {}
    return NodeInfo("", group or "node_1f", "", "", resource_usage=NodeUsage(usage, 0), labels=labels)


def coming(group: str) -> NodeInfo:
    return NodeInfo("", group, "pod-7", "")


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> ClusterStatus:
    """The state of a cluster; a test says what it is."""
    status = ClusterStatus()
    monkeypatch.setattr(room, "_status", lambda: status)
    monkeypatch.setattr(room, "_held", dict)
    return status


def test_places_are_counted_by_node(given: ClusterStatus) -> None:
    given.active_nodes = [node(12, 8), node(16, 2, used=1)]
    given.idle_nodes = [node(64)]
    assert places({"CPU": 8, "GPU": 1}) == 3
    assert places({"CPU": 8, "GPU": 0}) == 11
    assert places({"CPU": 0.1}) == 920
    assert places({"CPU": 1, "GPU": 0.3}) == 12 + 6


def test_check_room_refuses_what_nodes_started_by_hand_never_have(given: ClusterStatus) -> None:
    given.active_nodes = [node(64, 7, used=1)]
    with pytest.raises(ConfigError) as caught:
        check_room(WORKERS)
    assert str(caught.value) == (
        "no room: wanted: 8 workers of 8 CPUs, 1 GPU; the cluster has 1 node of 64 CPUs, 7 GPUs, room for 0 "
        "now: free are 0 CPUs of 64 CPUs, 7 GPUs; no further node comes by itself: lower "
        "scaling.num_workers, or start more nodes first"
    )
    given.idle_nodes = [node(8, 1)]
    check_room(WORKERS)


def test_check_room_lets_a_cluster_grow_whose_nodes_are_kept_by_somebody(given: ClusterStatus) -> None:
    given.active_nodes = [node(0, group="headgroup")]
    check_room(WORKERS)


def test_shortage_says_what_comes_and_what_failed(given: ClusterStatus) -> None:
    given.active_nodes = [node(0, group="headgroup"), *[node(16, 2, used=0.5, group="gpu")] * 2]
    given.pending_nodes = [coming("gpu")]
    given.pending_launches = [LaunchRequest("", "gpu", 2, LaunchRequest.Status.PENDING, 0)]
    given.failed_launches = [
        LaunchRequest("", "spot", 1, LaunchRequest.Status.FAILED, 0, details="quota exceeded")
    ] * 2
    assert shortage(WORKERS) == (
        "wanted: 8 workers of 8 CPUs, 1 GPU; the cluster has 2 nodes 'gpu' of 16 CPUs, 2 GPUs; 1 node "
        "'headgroup' of 0 CPUs, room for 2 now: free are 16 CPUs, 2 GPUs of 32 CPUs, 4 GPUs; coming: 3 "
        "'gpu'; could not be started: 'spot' quota exceeded"
    )


def test_explain_names_who_holds_the_rest(given: ClusterStatus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_held", lambda: {"pretrain-base": {"CPU": 16.0, "GPU": 2.0}})
    given.active_nodes = [node(16, 2, used=1, group="gpu")]
    text = explain(WORKERS)
    assert "; pretrain-base holds 16 CPUs, 2 GPUs. See why nodes do not come (kubectl get pods" in text
    assert text.endswith("free some, or lower scaling.num_workers")


def test_shortage_is_told_also_while_the_head_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> ClusterStatus:
        raise RpcError("Timed out while waiting for GCS to become available.")

    monkeypatch.setattr(room, "_status", nobody)
    assert shortage(WORKERS) == "wanted: 8 workers of 8 CPUs, 1 GPU; the cluster's head does not answer"


def test_await_room_demands_it_until_it_is_there(
    given: ClusterStatus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    need = Need(2, {"CPU": 4}, "lower cpus_per_worker")
    given.idle_nodes = [node(1, group="headgroup")]
    asked: list[object] = []
    monkeypatch.setattr(room, "placement_group", lambda bundles: asked.append(bundles) or "demand")
    monkeypatch.setattr(room, "remove_placement_group", asked.append)
    monkeypatch.setattr(room, "POLL_S", 0.01)
    with pytest.raises(ConfigError, match=r"^no room within 0\.05 s: wanted: 2 workers of .* lower cpus"):
        await_room(need, limit_s=0.05)
    assert asked == [[{"CPU": 4}, {"CPU": 4}], "demand"]

    monkeypatch.setattr(room.time, "sleep", lambda _: given.idle_nodes.append(node(4, group="cpu")))
    with caplog.at_level("INFO"):
        await_room(need)
    assert len(given.idle_nodes) == 3
    assert asked[2:] == asked[:2]
    assert "waiting for nodes: wanted: 2 workers of 4 CPUs" in caplog.text
    await_room(need)
    assert len(asked) == 4
