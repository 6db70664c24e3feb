"""Each RayJob starts a script of jobs/ with a configuration that the script takes, on a cluster it fits."""

import importlib.util
import mmap
import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import yaml

from manifests import K8S, OVERLAYS, REPO, Manifest, objects
from policy_rules import GPU, OWN_IMAGES, all_containers
from protclip.cli import main, run_job
from protclip.commands import COMMANDS
from protclip.config.doctor import PlannedConfig
from protclip.config.load import load_config
from protclip.config.places import IN_JOB
from protclip.config.schema import PretrainConfig

SCRIPTS = sorted(path.stem for path in (REPO / "jobs").glob("*.py"))
COMMAND_OF = {command.script: name for name, command in COMMANDS.items() if command.script}
FOLDERS = {"data", "runs", "benchmarks"}
PACKAGES = ("ray", "mlflow", "botocore", "s3transfer", "huggingface_hub")
OTHERS = {"PGPASSWORD", "PGUSER", "PGHOST", "HOME", "TMPDIR", "PYTHONPATH", "PYTHONUNBUFFERED"}
"""Names that libpq, Python and the C library read."""


def jobs(overlay: str) -> dict[str, Manifest]:
    """The RayJobs by name."""
    return {t["metadata"]["name"]: t for t in objects(f"overlays/{overlay}/jobs") if t["kind"] == "RayJob"}


def arguments(job: Manifest) -> list[str]:
    python, script, *rest = shlex.split(job["spec"]["entrypoint"])
    assert python == "python"
    assert script == f"jobs/{job['metadata']['name'].replace('-', '_')}.py"
    return rest


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_there_is_one_rayjob_per_script_which_its_label_starts(overlay):
    found = jobs(overlay)
    assert sorted(name.replace("-", "_") for name in found) == SCRIPTS
    assert {n: job["metadata"]["labels"]["app.kubernetes.io/component"] for n, job in found.items()} == {
        name: name for name in found
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("script", SCRIPTS)
def test_entrypoint_is_taken_by_its_script_in_a_submitted_job(script, overlay, monkeypatch, capsys):
    job = jobs(overlay)[script.replace("_", "-")]
    monkeypatch.chdir(REPO)
    monkeypatch.setenv(IN_JOB, "01000000")
    code = run_job(COMMAND_OF[script], [*arguments(job), "--dry-run"])
    assert code == 0, capsys.readouterr().err


@pytest.mark.parametrize("script", SCRIPTS)
def test_files_that_an_entrypoint_names_exist_and_places_lie_in_the_bucket(script):
    for argument in arguments(jobs("gpu")[script.replace("_", "-")]):
        for path in re.findall(r"\bconf/[\w/.]+", argument):
            assert (REPO / path).is_file(), path
        for folder in re.findall(r"s3://protclip/(\w+)", argument):
            assert folder in FOLDERS
        assert "s3://" not in argument.replace("s3://protclip/", "")


def test_doctor_looks_at_the_training_that_the_pretrain_job_starts(monkeypatch):
    """What it is told of the training is what the training is told."""
    monkeypatch.chdir(REPO)
    found = jobs("gpu")
    doctor = load_config(COMMANDS["doctor"].schema, None, [a for a in arguments(found["doctor"]) if "=" in a])
    file, *told = doctor.model_dump()["pretrain"]
    training = arguments(found["pretrain"])
    assert file == training[training.index("--config") + 1]
    assert set(told) <= set(training)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_doctor_can_read_what_it_is_told_of_the_training(overlay, monkeypatch):
    monkeypatch.chdir(REPO)
    line = arguments(jobs(overlay)["doctor"])
    (pretrain,) = (a.removeprefix("pretrain=") for a in line if a.startswith("pretrain="))
    file, *overrides = pretrain.split(",")
    assert load_config(PlannedConfig, Path(file), overrides).run.storage == "s3://protclip/runs"


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("script", SCRIPTS)
def test_rayjob_ends_and_leaves_nothing(script, overlay):
    spec = jobs(overlay)[script.replace("_", "-")]["spec"]
    assert spec["shutdownAfterJobFinishes"]
    assert 0 < spec["ttlSecondsAfterFinished"] <= 86_400
    assert 0 < spec["preRunningDeadlineSeconds"] <= 86_400
    assert "backoffLimit" in spec


def test_rayjobs_have_the_ids_that_submit_derives(monkeypatch, capsys):
    """Up to the digest that `protclip submit` adds to an output's name."""
    monkeypatch.chdir(REPO)
    for name, job in jobs("gpu").items():
        assert main(["submit", "--print-id", COMMAND_OF[name.replace("-", "_")], *arguments(job)]) == 0
        assert re.fullmatch(job["spec"]["jobId"] + r"(-[0-9a-f]{6})?", capsys.readouterr().out.strip())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_cluster_has_room_for_the_workers_of_the_training(overlay, monkeypatch):
    """A worker takes one GPU where the cluster has any, if it may."""
    monkeypatch.chdir(REPO)
    job = jobs(overlay)["pretrain"]
    line = arguments(job)
    file = line[line.index("--config") + 1]
    config = load_config(PretrainConfig, Path(file), [a for a in line if "=" in a])
    room = list(places(job["spec"]["rayClusterSpec"]))
    if config.scaling.use_gpu is not False:
        room = [group for group in room if group[0] and group[1]] or room
    each = config.scaling.cpus_per_worker
    most = sum(high * int(min(cpus // each, gpus or cpus)) for high, gpus, cpus in room)
    assert most >= config.scaling.num_workers


def places(cluster: Manifest) -> Iterator[tuple[int, float, float]]:
    """The most pods of each group of workers, their GPUs and CPUs."""
    for group in cluster.get("workerGroupSpecs", []):
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        yield group["maxReplicas"], float(limits.get(GPU, 0)), float(limits["cpu"])


def test_runtime_environment_is_one_that_ray_takes():
    from ray.runtime_env import RuntimeEnv

    content = yaml.safe_load((K8S / "runtime_env.yaml").read_text())
    assert set(RuntimeEnv(**content)) == set(content) <= RuntimeEnv.known_fields


def test_environment_names_are_read_by_something():
    found = named()
    known = read_names(found)
    assert {name: where for name, where in found.items() if name not in known} == {}


def test_a_misspelt_environment_name_is_read_by_nothing():
    right = {"RAY_health_check_period_ms", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "HF_HOME", "PGPASSWORD"}
    wrong = {"RAY_health_check_period", "MLFLOW_TRACKING_URL", "AWS_ENDPOINTS", "HF_HOM", "PGPASWORD"}
    assert read_names(right | wrong) == right


def read_names(names: Iterable[str]) -> set[str]:
    """Those that the code of Ray, MLflow, the AWS clients, Hugging Face, or our own has in its text."""
    names = set(names)
    packages = [Path(importlib.util.find_spec(name).submodule_search_locations[0]) for name in PACKAGES]
    command = ["grep", "-rohwE", "--include=*.py", "|".join(sorted(names)), *packages, REPO / "platform", K8S]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True, timeout=60)
    known = names & (set(done.stdout.split()) | OTHERS)
    with (packages[0] / "_raylet.so").open("rb") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            flags = {name for name in names - known if name.startswith("RAY_")}
            return known | {n for n in flags if text.find(f"\0{n.removeprefix('RAY_')}\0".encode()) >= 0}


def named() -> dict[str, set[str]]:
    """Where each variable of a container of our image is set."""
    found: dict[str, set[str]] = {}
    for overlay in OVERLAYS:
        things = objects(f"overlays/{overlay}") + objects(f"overlays/{overlay}/jobs")
        maps = {t["metadata"]["name"]: t["data"] for t in things if t["kind"] == "ConfigMap"}
        for place, _, _, container in all_containers(things):
            if container.get("image") not in OWN_IMAGES:
                continue
            for entry in container.get("env", []):
                found.setdefault(entry["name"], set()).add(place)
            for source in container.get("envFrom", []):
                for name in maps.get(source.get("configMapRef", {}).get("name"), {}):
                    found.setdefault(name, set()).add(place)
    environment = yaml.safe_load((K8S / "runtime_env.yaml").read_text())["env_vars"]
    return found | {name: {"runtime_env.yaml"} for name in environment}
