"""The pre-flight on a Ray cluster: a store that lacks verbs, servers that refuse or never answer."""

import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from s3fs import S3FileSystem

import faulty_s3
from faulty_s3 import FaultyS3
from protclip import cli
from protclip.cluster.doctor import doctor
from protclip.cluster.doctor_network import Node, _meet, ask, judge_network, start_probe
from protclip.cluster.doctor_plan import Code, Finding, Place, Plan
from protclip.config.base import TrackingConfig
from protclip.config.doctor import CheckName, DoctorConfig
from protclip.errors import PreflightError

pytestmark = pytest.mark.ray

DENIED = faulty_s3.error("403 Forbidden", "AccessDenied")
PLAN = Plan("t", (), (), TrackingConfig(), None, None, Code("", {}, "", "", None), {})
QUICK: tuple[CheckName, ...] = ("storage", "data", "versions", "compute", "disk", "shm", "clock", "pretrain")


@pytest.fixture(scope="module")
def black_hole() -> Iterator[str]:
    """A port that accepts and never answers."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def findings(config: DoctorConfig) -> list[dict[str, Any]]:
    """What is found, whether it ends in an error or not."""
    try:
        result: Any = doctor(config)
    except PreflightError as error:
        result = error.result
    return result["checks"]


def left(bucket: str, s3: FaultyS3) -> list[str]:
    return S3FileSystem(endpoint_url=s3.endpoint, use_listings_cache=False).find(bucket)


def test_doctor_finds_a_cluster_ready_and_leaves_nothing(
    ray_cluster: None,
    bucket: str,
    faults: FaultyS3,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text("model: {protein: {source: esm2-tiny}, text: {source: bert-tiny}}\n")
    code = cli.run_job(
        "doctor",
        [
            f"storage={bucket}/runs,{tmp_path}/runs",
            "pretrain=p.yaml,scaling.num_workers=2,scaling.use_gpu=false",
            f"checks={','.join(QUICK)}",
        ],
    )
    out, err = capfd.readouterr()
    result = json.loads(out.splitlines()[-1])
    assert (code, result["fail"]) == (0, 0), err
    assert {c["check"] for c in result["checks"]} == {"cluster", *QUICK}
    stored = [c for c in result["checks"] if c["check"] == "storage"]
    assert len(stored) == 4
    for verb in (
        "ListBucket",
        "GetObject",
        "If-None-Match",
        "in parts",
        "Abort",
        "DeleteObject",
        "up ",
        "ms",
    ):
        assert all(verb in c["found"] for c in stored if "s3://" in c["found"]), verb
    assert sum("see the driver's files" in c["found"] for c in stored) == 1
    assert "room for" in err
    assert left(bucket, faults) == []
    uploads = S3FileSystem(endpoint_url=faults.endpoint).call_s3(
        "list_multipart_uploads", Bucket=bucket.removeprefix("s3://")
    )
    assert "Uploads" not in uploads
    assert [p.name for p in tmp_path.iterdir()] == ["p.yaml"]


@pytest.mark.parametrize(
    ("request_", "right"),
    [
        ("^GET [^/]*/?\\?.*list-type", "s3:ListBucket"),
        ("^PUT .*/file\\?", "s3:PutObject"),
        ("^GET .*/file\\?", "s3:GetObject"),
        ("^DELETE .*/abandoned\\?", "s3:AbortMultipartUpload"),
        ("^DELETE .*/file\\?", "s3:DeleteObject"),
    ],
)
def test_doctor_names_the_right_that_is_missing(
    bucket: str, faults: FaultyS3, request_: str, right: str
) -> None:
    rule = faults.fail(request_, DENIED)
    found = findings(DoctorConfig(checks=("storage",), storage=(f"{bucket}/runs",), nodes=False))
    assert rule.done
    failed = [c for c in found if c["verdict"] == "fail"]
    assert [right in c["remedy"] for c in failed] == [True], failed
    assert "AccessDenied" in failed[0]["found"]
    tidied = [c for c in found if c["verdict"] == "warn"]
    assert bool(tidied) == (right in {"s3:ListBucket", "s3:AbortMultipartUpload", "s3:DeleteObject"})


def test_doctor_finds_a_store_that_ignores_conditions(bucket: str, faults: FaultyS3) -> None:
    def unconditional(app: Any, environ: dict[str, Any], start_response: Any) -> Any:
        environ.pop("HTTP_IF_NONE_MATCH", None)
        return app(environ, start_response)

    faults.fail("^PUT .*/file\\?", unconditional)
    found = findings(DoctorConfig(checks=("storage",), storage=(bucket,), nodes=False))
    (failed,) = [c for c in found if c["verdict"] == "fail"]
    assert "two jobs could claim" in failed["found"]
    assert left(bucket, faults) == []


def test_doctor_ends_when_nothing_answers(
    ray_cluster: None, bucket: str, black_hole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", black_hole)
    monkeypatch.setattr("protclip.storage.probe.READ_S", 1.0)
    monkeypatch.setattr("protclip.cluster.doctor.SWEEP_S", 1.0)
    monkeypatch.setattr("protclip.tracking.probe.TIMEOUT_S", 1)
    begun = time.monotonic()
    found = findings(
        DoctorConfig(
            checks=("storage", "mlflow"),
            storage=(bucket,),
            tracking=TrackingConfig(uri=black_hole),
            nodes=False,
        )
    )
    assert time.monotonic() - begun < 20
    said = {c["check"]: c["found"].lower() for c in found if c["verdict"] == "fail"}
    assert said.keys() == {"storage", "mlflow"}
    assert "timeout" in said["storage"]
    assert "timed out" in said["mlflow"]


def test_checks_of_a_node_that_hang_or_raise_are_findings(ray_cluster: None) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    node_id = ray.nodes()[0]["NodeID"]
    node = Node(Place("n", "n", {"CPU": 4.0}), node_id, start_probe(node_id))
    ray.get(node.probe.hello.remote())
    checks = {"hangs": (hangs, 1.0), "raises": (raises, 20.0)}
    found = {name: finding for name, _, finding in ask([node], checks, PLAN, time.monotonic() + 20)}
    ray.kill(node.probe)
    assert found["hangs"].found == "no answer within 1 s"
    assert "ValueError" in found["raises"].found
    assert found["raises"].verdict == "fail"


def hangs(_: Plan, __: Place) -> list[Finding]:
    time.sleep(60)
    return []


def raises(_: Plan, __: Place) -> list[Finding]:
    raise ValueError("no")


def test_two_processes_meet_and_sum(ray_cluster: None) -> None:
    node_id = ray.nodes()[0]["NodeID"]
    ranks = [(name, start_probe(node_id)) for name in ("a", "b")]
    ((where, finding),) = judge_network(*_meet(ranks, "gloo"))
    for _, probe in ranks:
        ray.kill(probe)
    assert (where, finding.verdict in {"ok", "warn"}) == ("a, b", True), finding
    assert finding.found.startswith("gloo all-reduce over 2 processes: ")


def test_doctor_names_a_tracking_server_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    tracking = TrackingConfig(uri=f"http://user:secret@127.0.0.1:{port}")
    (found,) = findings(DoctorConfig(checks=("mlflow",), tracking=tracking, nodes=False))
    assert found["verdict"] == "fail"
    assert "refused" in found["found"]
    assert "secret" not in str(found)
    assert "start the server" in found["remedy"]
