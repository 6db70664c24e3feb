"""Verdicts and remedies of the pre-flight checks, from facts that are made up."""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from protclip.cli import run_job
from protclip.cluster import doctor_network as network
from protclip.cluster import doctor_node as node
from protclip.cluster import doctor_services as services
from protclip.cluster.doctor import CHECKS, Result, Watch, _failed, render
from protclip.cluster.doctor_network import Met, judge_clock, judge_network
from protclip.cluster.doctor_node import Gpu, Torch, judge_gpus
from protclip.cluster.doctor_plan import Code, Finding, Place, Plan, read_pins, size
from protclip.config.base import TrackingConfig
from protclip.config.doctor import CheckName
from protclip.config.places import IN_JOB
from protclip.errors import PreflightError
from protclip.storage.probe import Step, Trial, sweep, try_read, try_write

GB = 1e9
CODE = Code("3.11.7", {"ray": "2.60.0", "torch": "2.13.0", "mlflow": "3.17.2"}, "abc", "/here", None)
PLAN = Plan("t", ("s",), (), TrackingConfig(), None, None, CODE, {})
H200 = Gpu("H200", 150 * GB, 149 * GB, "580.1")


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def test_checks_are_those_that_can_be_configured() -> None:
    assert tuple(CHECKS) == get_args(CheckName)


def test_gpus_that_torch_and_ray_agree_on_are_ok() -> None:
    finding = only(judge_gpus([H200] * 8, Torch(8, "13.0"), 8))
    assert (finding.verdict, finding.remedy) == ("ok", "")
    assert "8 × H200 150 GB" in finding.found
    assert only(judge_gpus([], Torch(0, None), 0)).verdict == "ok"


@pytest.mark.parametrize(
    ("gpus", "torch", "believed", "verdict", "remedy"),
    [
        ([H200], Torch(0, None), 1, "fail", "-cuda image"),
        ([H200], Torch(0, "13.0", "driver too old"), 1, "fail", "NVIDIA driver"),
        ([], Torch(0, "13.0"), 1, "fail", "nvidia.com/gpu"),
        ([H200], Torch(0, None), 0, "warn", "-cuda image"),
        ([H200] * 2, Torch(2, "13.0"), 1, "warn", "num-gpus"),
        ([replace(H200, free=GB)], Torch(1, "13.0"), 1, "warn", "nvidia-smi"),
    ],
)
def test_gpus_that_cannot_be_used_are_named_with_a_remedy(
    gpus: list[Gpu], torch: Torch, believed: int, verdict: str, remedy: str
) -> None:
    finding = only(judge_gpus(gpus, torch, believed))
    assert finding.verdict == verdict
    assert remedy in finding.remedy
    assert torch.error in finding.found


def test_gpus_are_read_from_nvidia_smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771, 143167, 580.95.05'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert node._smi() == [Gpu("NVIDIA H200", 143771 * 2**20, 143167 * 2**20, "580.95.05")]
    tool.unlink()
    assert node._smi() == []


def test_versions_that_differ_from_the_driver_fail_where_objects_travel() -> None:
    assert only(node.judge_versions(CODE, PLAN)).verdict == "ok"
    other = replace(CODE, digest="def", packages={**CODE.packages, "ray": "2.59.0", "mlflow": "3.17.1"})
    found = node.judge_versions(other, PLAN)
    assert [f.verdict for f in found] == ["fail", "warn", "fail"]
    assert "protclip here is def" in found[0].found
    assert found[1].found == "mlflow 3.17.1 (driver 3.17.2)"
    assert found[2].found == "ray 2.59.0 (driver 2.60.0)"
    assert all("one image" in f.remedy for f in found)


def test_versions_are_held_against_the_pins(tmp_path: Path) -> None:
    file = tmp_path / "constraints.txt"
    file.write_text("# exact\nRay==2.60.0\ntorch==2.13.0\nml_flow==1\nmlflow==3.17.0\n")
    pins = read_pins(file)
    assert pins == {"ray": "2.60.0", "torch": "2.13.0", "ml-flow": "1", "mlflow": "3.17.0"}
    built = replace(CODE, packages={**CODE.packages, "torch": "2.13.0+cu130"})
    finding = only(node.judge_versions(built, replace(PLAN, code=built, pins=pins)))
    assert (finding.verdict, finding.found) == (
        "warn",
        "1 packages differ from constraints.txt: mlflow 3.17.2 (pinned 3.17.0)",
    )
    assert read_pins(tmp_path / "none") == {}


def test_compute_disk_and_limits_are_judged(tmp_path: Path) -> None:
    assert only(node.judge_compute(4, 4, 10 * GB, 5 * GB)).verdict == "ok"
    busy = node.judge_compute(2, 4, 10 * GB, 0.5 * GB)
    assert [f.verdict for f in busy] == ["warn", "warn"]
    assert "num-cpus" in busy[0].remedy
    assert only(node.judge_disk("Ray", tmp_path, 1000 * GB, 100 * GB)).verdict == "ok"
    assert only(node.judge_disk("Ray", tmp_path, 100 * GB, 10 * GB)).verdict == "warn"
    assert "spills no objects" in only(node.judge_disk("Ray", tmp_path, 1000 * GB, 40 * GB)).found
    assert only(node.judge_shm(GB, GB)).verdict == "ok"
    small = only(node.judge_shm(64e6, 10 * GB))
    assert "medium: Memory and sizeLimit 11 GB" in small.remedy
    assert [only(node.judge_open_files(n)).verdict for n in (512, 2000, 1 << 20)] == ["fail", "warn", "ok"]


def test_cpus_are_those_of_the_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(node, "CGROUP", tmp_path)
    whole = node._cpus()
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert node._cpus() == 0.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert node._cpus() == whole
    (tmp_path / "memory.max").write_text("1000\n")
    assert (node._cgroup("memory.max"), node._cgroup("memory.current")) == (1000, None)


def test_clock_counts_only_what_a_round_trip_does_not_explain() -> None:
    assert judge_clock(0.001, 0.5).verdict == "ok"
    assert judge_clock(30.0, 12.0).verdict == "ok"
    late = judge_clock(0.001, -7.0)
    assert (late.verdict, late.found) == ("warn", "-7.000 s ± 0.001 s against the driver")
    assert "NTP" in late.remedy


def test_network_names_who_does_not_come_and_who_fails() -> None:
    names, address = ["head", "a", "a", "b"], "10.0.0.1:9"
    rows = judge_network(names, [Met((1, 3)), "x", Met((1, 3)), "x"], address, "gloo")
    assert [where for where, _ in rows] == ["a", "b"]
    assert rows[0][1].found == "does not reach head at 10.0.0.1:9"
    assert "GLOO_SOCKET_IFNAME" in rows[0][1].remedy
    rows = judge_network(names, [Met(), Met(), "timed out", Met()], address, "nccl")
    assert [(where, f.found) for where, f in rows] == [("a", "nccl all-reduce: timed out")]
    assert "NCCL_SOCKET_IFNAME" in rows[0][1].remedy
    rows = judge_network(names, [Met((), 8e9), Met((), 9e9), Met((), 9e9), Met((), 9e9)], address, "nccl")
    assert rows == [("head, a, b", Finding("ok", "nccl all-reduce over 4 processes: 8 GB/s"))]
    assert judge_network(names, [Met((), 1e6)] * 4, address, "gloo")[0][1].verdict == "warn"


def test_network_uses_gpus_that_are_free_one_process_each(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [network.Node(Place(n, n, {"GPU": 4.0}), n, None) for n in ("a", "b")]

    class Alive:
        def __init__(self, node_id: str, free: float) -> None:
            self.node_id, self._free = node_id, free

        def available_resources(self) -> dict[str, float]:
            return {"GPU": self._free}

    class Status:
        active_nodes, idle_nodes = [Alive("a", 1)], [Alive("b", 4)]

    met: list[Any] = []

    def meet(ranks: list[tuple[str, Any]], backend: str) -> tuple[list[str], list[Met | str], str, str]:
        met.append((ranks, backend))
        return [name for name, _ in ranks], [Met((), 9e9)] * len(ranks), "", backend

    monkeypatch.setattr(network, "get_cluster_status", lambda _: Status)
    monkeypatch.setattr(network.ray, "get_runtime_context", lambda: type("C", (), {"gcs_address": ""}))
    monkeypatch.setattr(network.ray, "kill", lambda _: None)
    monkeypatch.setattr(network, "start_probe", lambda node_id, num_gpus: (node_id, num_gpus))
    monkeypatch.setattr(network, "_meet", meet)
    rows = network.check_network(PLAN, nodes)
    assert met == [([("a", ("a", 1)), *[("b", ("b", 1))] * 4], "nccl")]
    assert [f.verdict for _, f in rows] == ["warn", "ok"]
    assert rows[0][1].found.startswith("3 of 8 GPUs")


@pytest.mark.parametrize(
    ("step", "remedy"),
    [
        (Step("reach", "HTTP 401 not signed in"), "MLFLOW_TRACKING_PASSWORD"),
        (Step("create run", "Permission denied"), "EDIT"),
        (Step("reach", "Connection refused"), "MLFLOW_TRACKING_URI"),
        (Step("log artifact", "HTTP 500"), "--artifacts-destination"),
        (Step("create run", "no such table"), "db upgrade"),
    ],
)
def test_mlflow_failures_have_remedies(step: Step, remedy: str) -> None:
    finding = only(services.judge_mlflow("u", [step], "", "3.1.0"))
    assert finding.verdict == "fail"
    assert remedy in finding.remedy


def test_mlflow_that_would_go_with_a_submitted_job_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv(IN_JOB, "{}")
    finding = only(services.check_mlflow(PLAN, Place.driver()))
    assert (finding.verdict, finding.found[:28]) == ("fail", "no tracking server is named:")
    assert finding.remedy.startswith("set MLFLOW_TRACKING_URI")


def test_mlflow_versions_are_compared() -> None:
    steps = [Step("reach")]
    assert [
        only(services.judge_mlflow("u", steps, version, "3.1.0")).verdict
        for version in ("3.1.0", "3.0.1", "2.9")
    ] == ["ok", "warn", "fail"]


def test_storage_clock_that_is_off_is_told() -> None:
    for skew_s, verdict in ((20.0, None), (-60.0, "warn"), (1000.0, "fail")):
        rest = services.judge_trial("s3://b", Trial([Step("ListBucket")], skew_s=skew_s))[1:]
        assert [f.verdict for f in rest] == ([verdict] if verdict else [])


def test_local_storage_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    uri = str(tmp_path / "runs" / "deep")
    trial = try_write(uri, "t", "driver", first=True)
    assert trial.failed == []
    assert trial.up_bytes_per_s
    assert try_write(uri, "t", "node", first=False).failed == []
    sweep(uri, "t")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_bytes(b"x" * 10)
    assert try_read(str(tmp_path)).failed == []
    assert "no files" in try_read(str(tmp_path / "none")).failed[0].error


def test_local_storage_that_is_another_disk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protclip.storage.probe.SEEN_WITHIN_S", 0.0)
    trial = try_write(str(tmp_path), "t", "node", first=False)
    assert [step.verb for step in trial.failed] == ["see the driver's files"]
    assert "s3://" in trial.failed[0].remedy


def test_watch_gives_up_what_hangs_and_keeps_what_ends() -> None:
    released = threading.Event()
    watch = Watch(time.monotonic() + 10)
    watch.begin("hangs", "here", 0.1, lambda: [("here", Finding("ok", str(released.wait(30))))])
    watch.begin("raises", "here", 5, lambda: [][0])
    watch.begin("ends", "here", 5, lambda: [("there", Finding("ok", "fine"))])
    found = {r.check: r for r in watch.results()}
    released.set()
    assert found["ends"] == Result("ends", "there", Finding("ok", "fine"))
    assert found["hangs"].finding.found == "no answer within 0 s"
    assert "IndexError" in found["raises"].finding.found
    assert all(found[name].finding.remedy for name in ("hangs", "raises"))


def test_table_folds_equal_lines_and_lists_remedies() -> None:
    fine, bad = Finding("ok", "2 CPUs"), Finding("fail", "[b]", "mend it")
    text = render([*(Result("compute", f"n{i}", fine) for i in range(5)), Result("gpus", "n1", bad)])
    assert "n0, n1, n2 and 2 more" in text
    assert "FAIL      [b]" in text
    assert text.endswith("\n  gpus: mend it")


def test_doctor_that_finds_a_failure_exits_8_with_all_findings_on_stdout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = run_job("doctor", ["checks=data,study", "data=none", "nodes=false"])
    out, err = capfd.readouterr()
    assert code == PreflightError.exit_code
    result = json.loads(out.splitlines()[-1])
    assert (result["ok"], result["fail"], result["skipped"]) == (0, 1, 1)
    assert result["checks"][0]["remedy"] == "mend the URI, or make the data set first"
    assert "error: not ready: data (1 failures)" in err
    assert run_job("doctor", ["checks=study", "nodes=false"]) == 0


def test_image_without_the_package_is_told() -> None:
    finding = _failed(RuntimeError("The actor failed.\nModuleNotFoundError: No module named 'protclip'\n"))
    assert finding.found == "ModuleNotFoundError: No module named 'protclip'"
    assert "image" in finding.remedy


def test_sizes_are_in_words() -> None:
    assert [size(n) for n in (0, 999, 5_242_880, 25.3e9)] == ["0 B", "999 B", "5.24 MB", "25.3 GB"]
