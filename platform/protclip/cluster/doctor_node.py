"""Checks of one node, done in a process on it: versions, GPUs, memory, disks, limits, weights."""

import os
import resource
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from ray._private import worker

from protclip import storage
from protclip.cluster.doctor_plan import Code, Finding, Place, Plan, Verdict, size, some
from protclip.errors import DataError
from protclip.storage.probe import parted

SAME_EVERYWHERE = ("ray", "torch", "pyarrow", "cloudpickle", "numpy")
"""Packages whose objects go from process to process."""
FULL_SHARE = 0.95
"""Of a disk; then Ray spills no more objects to it."""
FREE_BYTES = 20e9
FREE_MEMORY_SHARE = 0.1
"""Ray ends tasks where less than 5 % of the memory is left."""
GPU_FREE_SHARE = 0.9
OPEN_FILES, OPEN_FILES_LEAST = 8192, 1024
CGROUP = Path("/sys/fs/cgroup")
SMI = (
    "nvidia-smi",
    "--query-gpu=name,memory.total,memory.free,driver_version",
    "--format=csv,noheader,nounits",
)


def check_versions(plan: Plan, place: Place) -> list[Finding]:
    """What is installed here, against the driver and constraints.txt."""
    return judge_versions(plan.code if place.is_driver else Code.here(), plan)


def judge_versions(here: Code, plan: Plan) -> list[Finding]:
    """Differences from the driver's, and from the pins."""
    driver = plan.code
    found: list[Finding] = []
    image = "use one image for head and workers, and one runtime environment"
    if here.digest != driver.digest:
        found.append(
            Finding(
                "fail",
                f"protclip here is {here.shown} in {here.place}, the driver's is {driver.shown}",
                f"{image}; submit with --working-dir . --runtime-env k8s/runtime_env.yaml",
            )
        )
    if here.python != driver.python:
        found.append(Finding("fail", f"Python here is {here.python}, the driver's {driver.python}", image))
    other = _differing(here.packages, driver.packages)
    verdicts: tuple[Verdict, Verdict] = ("warn", "fail")
    for fatal, verdict in enumerate(verdicts):
        names = [name for name in other if (name in SAME_EVERYWHERE) == fatal]
        if names:
            said = [f"{n} {here.packages[n]} (driver {driver.packages[n]})" for n in names]
            found.append(Finding(verdict, some(said), image))
    if unpinned := _differing(here.packages, plan.pins):
        said = [f"{n} {here.packages[n]} (pinned {plan.pins[n]})" for n in unpinned]
        found.append(
            Finding(
                "warn",
                f"{len(unpinned)} packages differ from constraints.txt: {some(said)}",
                "install with -c constraints.txt, or rebuild the image",
            )
        )
    if not found:
        shown = ", ".join(f"{name} {here.packages[name]}" for name in ("ray", "torch", "mlflow"))
        pins = f"; {len(plan.pins)} pins hold" if plan.pins else "; no constraints.txt to compare with"
        found.append(Finding("ok", f"protclip {here.shown}, Python {here.python}, {shown}{pins}"))
    return found


def _differing(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """Packages that both have in other versions; builds of a version (+cu128) count as that version."""
    return sorted(
        name
        for name in here.keys() & there.keys()
        if here[name].partition("+")[0] != there[name].partition("+")[0]
    )


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as its driver sees it; memory in bytes."""

    name: str
    total: float
    free: float
    driver: str


@dataclass(frozen=True, slots=True)
class Torch:
    """GPUs as torch sees them.

    Attributes:
        count: How many can be used.
        cuda: Version of CUDA it is built with; None for a CPU build.
        error: Why none can be used, if torch says so.
    """

    count: int
    cuda: str | None
    error: str = ""


def check_gpus(_: Plan, place: Place) -> list[Finding]:
    """What the driver, torch and Ray know of GPUs."""
    gpus, believed = _smi(), int(place.resources.get("GPU", 0))
    # Importing torch takes long.
    return judge_gpus(gpus, _torch() if gpus or believed else Torch(0, None), believed)


def judge_gpus(gpus: list[Gpu], torch: Torch, believed: int) -> list[Finding]:
    """Whether torch can use what Ray offers, and its memory is free.

    Args:
        gpus: The driver's.
        torch: Torch's.
        believed: How many Ray offers.
    """
    facts = f"driver: {_named(gpus)}; torch: {torch.count} (CUDA {torch.cuda or 'none'}); Ray: {believed}"
    if not gpus and not torch.count and not believed:
        return [Finding("ok", "none, and Ray offers none")]
    if torch.count < max(believed, 1):
        if torch.cuda is None:
            remedy = "torch is the CPU build: use the -cuda image on GPU nodes"
        elif gpus:
            remedy = "update the node's NVIDIA driver, or use an image with an older CUDA"
        else:
            remedy = "request nvidia.com/gpu in the pod's limits; see that the device plugin runs"
        error = f"; {torch.error}" * bool(torch.error)
        return [Finding("fail" if believed else "warn", facts + error, remedy)]
    found = []
    if believed < torch.count:
        found.append(
            Finding(
                "warn",
                f"{facts}: Ray leaves {torch.count - believed} unused",
                "give num-gpus in rayStartParams, or the nvidia.com/gpu limit, its true number",
            )
        )
    if used := [gpu for gpu in gpus if gpu.free < GPU_FREE_SHARE * gpu.total]:
        said = [f"{size(gpu.total - gpu.free)} of {size(gpu.total)}" for gpu in used]
        found.append(
            Finding(
                "warn",
                f"memory in use already on {len(used)} of {len(gpus)} GPUs: {some(said)}",
                "end other processes there (nvidia-smi), or expect less room",
            )
        )
    return found or [Finding("ok", facts)]


def _named(gpus: Iterable[Gpu]) -> str:
    """Number, names, memory and driver in words."""
    names = [f"{gpu.name} {size(gpu.total)} ({size(gpu.free)} free), driver {gpu.driver}" for gpu in gpus]
    kinds = {name: names.count(name) for name in names}
    return "; ".join(f"{count} × {name}" for name, count in kinds.items()) or "none"


def _smi() -> list[Gpu]:
    """What nvidia-smi lists; nothing where there is none."""
    try:
        done = subprocess.run(SMI, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    return [
        Gpu(name, float(total) * 2**20, float(free) * 2**20, driver) for name, total, free, driver in rows
    ]


def _torch() -> Torch:
    """What torch can use; no memory of the GPU is taken."""
    import torch

    count, error = torch.cuda.device_count() if torch.cuda.is_available() else 0, ""
    if not count and torch.version.cuda is not None:
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as failure:
            error = str(failure).partition("\n")[0][:200]
    return Torch(count, torch.version.cuda, error)


def check_compute(_: Plan, place: Place) -> list[Finding]:
    """CPUs and memory, as this process may use them, against what Ray offers."""
    memory = psutil.virtual_memory()
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    total = min(memory.total, limit or memory.total)
    free = total - used if limit and used else memory.available
    return judge_compute(_cpus(), place.resources.get("CPU", 0), total, free)


def judge_compute(cpus: float, believed: float, total: float, free: float) -> list[Finding]:
    """Whether Ray offers more CPUs than there are, or memory is short; memory in bytes."""
    facts = f"{cpus:g} CPUs (Ray: {believed:g}), {size(total)} memory, {size(free)} free"
    found = []
    if believed > cpus:
        found.append(
            Finding(
                "warn",
                f"{facts}: Ray offers more CPUs",
                "give num-cpus in rayStartParams the pod's CPU limit",
            )
        )
    if free < FREE_MEMORY_SHARE * total:
        found.append(
            Finding(
                "warn",
                f"{facts}: Ray ends tasks soon",
                "end other processes there, or give the pod more memory",
            )
        )
    return found or [Finding("ok", facts)]


def _cpus() -> float:
    """Those this process may run on, or the share its container has."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return count
    return count if quota == "max" else min(count, int(quota) / int(period))


def _cgroup(name: str) -> int | None:
    """A number of this container's; None where there is none, or no limit."""
    try:
        text = (CGROUP / name).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def check_disk(_: Plan, __: Place) -> list[Finding]:
    """Room for temporary files, spilled objects and the cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    places = {
        "temporary": Path(tempfile.gettempdir()),
        "Ray": Path(_session_dir()),
        "cache": next(p for p in (cache, *cache.parents) if p.is_dir()),
    }
    return [f for name, path in places.items() for f in judge_disk(name, path, *shutil.disk_usage(path)[::2])]


def _session_dir() -> str:
    """Where this node's Ray keeps its files and spills objects."""
    assert worker._global_node is not None
    return worker._global_node.get_session_dir_path()


def judge_disk(name: str, path: Path, total: float, free: float) -> list[Finding]:
    """Whether there is room, in bytes, and this user may write there."""
    facts = f"{name} {path}: {size(free)} of {size(total)} free"
    remedy = "make room, or mount a larger volume there (emptyDir with a sizeLimit, or a node disk)"
    if not os.access(path, os.W_OK):
        return [
            Finding("fail", f"{facts}, not writable", "give it to this user (fsGroup), or set another place")
        ]
    if free < (1 - FULL_SHARE) * total:
        return [Finding("fail", f"{facts}: Ray spills no objects there", remedy)]
    return [Finding("warn", facts, remedy)] if free < FREE_BYTES else [Finding("ok", facts)]


def check_shm(_: Plan, place: Place) -> list[Finding]:
    """Shared memory against Ray's object store."""
    path = Path("/dev/shm")  # noqa: S108  the device, not a place for files
    if not path.is_dir():
        return [Finding("skipped", "this system has no /dev/shm")]
    return judge_shm(shutil.disk_usage(path).total, place.resources.get("object_store_memory", 0))


def judge_shm(total: float, wanted: float) -> list[Finding]:
    """Whether the object store, in bytes, finds room; Ray else puts it on a disk."""
    facts = f"{size(total)}, Ray's object store {size(wanted)}"
    if total >= wanted:
        return [Finding("ok", facts)]
    return [
        Finding(
            "warn",
            f"{facts}: some of it will be on disk, and slow",
            f"mount an emptyDir with medium: Memory and sizeLimit {size(1.1 * wanted)} there (it counts as "
            "the pod's memory), or lower object-store-memory",
        )
    ]


def check_open_files(_: Plan, __: Place) -> list[Finding]:
    """The limit on open files and connections."""
    return judge_open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def judge_open_files(limit: int) -> list[Finding]:
    """Whether Ray's many connections find room."""
    if limit == resource.RLIM_INFINITY or limit >= OPEN_FILES:
        return [Finding("ok", "no limit" if limit == resource.RLIM_INFINITY else f"{limit:,}")]
    verdict = "warn" if limit >= OPEN_FILES_LEAST else "fail"
    return [Finding(verdict, f"{limit:,}", "raise it to 65,536 (ulimit -n, the container runtime's limit)")]


def check_weights(plan: Plan, _: Place) -> list[Finding]:
    """Whether the planned training's encoders are here, or can be fetched."""
    if plan.pretrain is None:
        return [Finding("skipped", "no pretrain=FILE is given")]
    model = plan.pretrain.model
    sources = [model.init] if model.init else [model.protein.source, model.text.source]
    return [_weights(source) for source in sources]


def _weights(source: str) -> Finding:
    """Whether one source is here: a preset, a file or directory, or a model of the hub."""
    from protclip.model.esm2 import PRESETS as PROTEIN_PRESETS
    from protclip.model.text import PRESETS as TEXT_PRESETS
    from protclip.model.weights.encoders import HUB_NAME

    if source in PROTEIN_PRESETS or source in TEXT_PRESETS:
        return Finding("ok", f"{source}: random weights, nothing to fetch")
    there = not storage.is_local(source) or Path(source.removeprefix("file://")).expanduser().exists()
    if there or source.endswith(".pt") or not HUB_NAME.fullmatch(source):
        try:
            files = storage.list_files(source)
        except DataError as error:
            what, remedy = parted(str(error))
            return Finding("fail", what, f"{remedy}; weights must be where every node sees them (s3://…)")
        place = "here" if storage.is_local(source) else "can be fetched"
        return Finding("ok", f"{source}: {place}, {size(sum(f.num_bytes for f in files))}")
    return _hub_weights(source)


def _hub_weights(name: str) -> Finding:
    """Whether a model of the hub is in this node's cache, or the hub answers for it."""
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Finding("ok", f"{name}: in the cache ({snapshot_download(name, local_files_only=True)})")
    except LocalEntryNotFoundError:
        reason = "HF_HUB_OFFLINE is set"
    if not constants.HF_HUB_OFFLINE:
        try:
            HfApi().model_info(name, timeout=5)
        except Exception as error:  # noqa: BLE001  its HTTP client has errors of its own
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        else:
            return Finding("ok", f"{name}: can be fetched from the hub by {socket.gethostname()}")
    return Finding(
        "fail",
        f"{name}: not in this node's cache, and not to be had from the hub ({reason})",
        "allow egress to the hub (HF_ENDPOINT, HF_TOKEN), fill HF_HOME before, or give an s3:// directory",
    )
