"""Checks of what jobs talk to, and of the planned training's pairs and room."""

from collections.abc import Sequence

from protclip.cluster.doctor_network import Node, Row
from protclip.cluster.doctor_plan import Finding, Place, Plan, size, some
from protclip.cluster.room import Need, check_room, places, shortage
from protclip.cluster.session import has_gpu
from protclip.errors import ProtclipError
from protclip.storage.probe import Step, Trial, parted, try_read, try_write

SKEW_WARN_S, SKEW_FAIL_S = 30.0, 900.0
"""S3 refuses requests whose clock is off by more than 15 minutes."""

_MORE_NODES = (
    "with autoscaling nodes come once the job is submitted, which waits for them; else start more, or lower "
    "scaling.num_workers"
)
MLFLOW_REMEDIES = {
    "401": "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (secret protclip-mlflow) to an "
    "account of the server",
    "403": "give the account EDIT on the experiment, or let it create one",
    "ermission": "give the account EDIT on the experiment, or let it create one",
}
"""What to do, by a piece of what the server says."""


def check_storage(plan: Plan, place: Place) -> list[Finding]:
    """Every verb that jobs need, at every URI they write to."""
    found = []
    for uri in plan.storage:
        trial = try_write(uri, plan.token, place.key, first=place.is_driver)
        found += judge_trial(uri, trial)
    return found


def check_data(plan: Plan, _: Place) -> list[Finding]:
    """Listing and reading, at every URI that jobs read from."""
    if not plan.data:
        return [Finding("skipped", "no data=URI is given")]
    return [f for uri in plan.data for f in judge_trial(uri, try_read(uri))]


def judge_trial(uri: str, trial: Trial) -> list[Finding]:
    """One finding for all verbs that work, or one for each that does not; one for a clock that is off."""
    found = [
        Finding("fail", f"{uri}: {step.verb}: {step.error}", step.remedy or "see the store's log")
        for step in trial.failed
    ]
    if not found:
        facts = [", ".join(step.verb for step in trial.steps)]
        if trial.round_trip_s is not None:
            facts.append(f"round trip {1000 * trial.round_trip_s:.0f} ms")
        for way, speed in (("up", trial.up_bytes_per_s), ("down", trial.down_bytes_per_s)):
            if speed is not None:
                facts.append(f"{way} {size(speed)}/s")
        found.append(Finding("ok", f"{uri}: {'; '.join(facts)}"))
    skew_s = trial.skew_s or 0.0
    if abs(skew_s) > SKEW_WARN_S:
        found.append(
            Finding(
                "fail" if abs(skew_s) > SKEW_FAIL_S else "warn",
                f"{uri}: this machine's clock is {skew_s:+.0f} s off the store's",
                "set this machine's clock (NTP); S3 refuses what is 15 minutes off",
            )
        )
    return found


def check_mlflow(plan: Plan, place: Place) -> list[Finding]:
    """The server's version; for the driver also a run with a metric and an artifact, deleted again."""
    if not plan.tracking.enabled:
        return [Finding("skipped", "tracking.enabled=false")]
    from protclip.tracking.probe import Session

    try:
        session = Session(plan.tracking)
    except ProtclipError as error:
        return [failure(error)]
    if session.file and not place.is_driver:
        return [Finding("skipped", f"{session.uri} is a file of the driver's machine")]
    if session.reach() and place.is_driver:
        session.record()
    return judge_mlflow(session.uri, session.steps, session.version, plan.code.packages["mlflow"])


def judge_mlflow(uri: str, steps: list[Step], version: str, ours: str) -> list[Finding]:
    """One finding for each step that failed, one for another version, or one for all that is well."""
    found = [
        Finding("fail", f"{uri}: {step.verb}: {step.error}", _mlflow_remedy(step))
        for step in steps
        if step.error
    ]
    if version and version.split(".")[0] != ours.split(".")[0]:
        found.append(
            Finding(
                "fail",
                f"{uri}: the server is MLflow {version}, the client {ours}",
                "bring both to the same major version",
            )
        )
    elif version and version != ours:
        found.append(
            Finding(
                "warn",
                f"{uri}: the server is MLflow {version}, the client {ours}",
                "use the version of constraints.txt on the server too (then `mlflow db upgrade`)",
            )
        )
    if not found:
        done = ", ".join(step.verb for step in steps)
        found.append(Finding("ok", f"{uri}: {done}{f'; MLflow {version}' * bool(version)}"))
    return found


def _mlflow_remedy(step: Step) -> str:
    """What to do about a step that failed."""
    for piece, known in MLFLOW_REMEDIES.items():
        if piece in step.error:
            return known
    if step.verb == "reach":
        return "start the server, mend tracking.uri or MLFLOW_TRACKING_URI, or allow egress to it"
    if "artifact" in step.verb:
        return (
            "see the server's log: its artifact store (--artifacts-destination) or its proxy's upload limit"
        )
    return "see the server's log, and whether its database is up and migrated (`mlflow db upgrade`)"


def check_study(plan: Plan, _: Place) -> list[Finding]:
    """Whether the sweeps' store opens."""
    if plan.study is None:
        return [Finding("skipped", "no study=URL is given")]
    from protclip.tuning.store import Store

    try:
        store = Store(plan.study)
        with store:
            count = len(store.storage.get_all_studies())
    except ProtclipError as error:
        return [failure(error)]
    return [Finding("ok", f"{store}: {count} studies")]


def failure(error: ProtclipError) -> Finding:
    """One of our errors, whose message ends with what to do."""
    return Finding("fail", *parted(str(error)))


def check_pretrain(plan: Plan, _: Place) -> list[Finding]:
    """Whether the planned training would take its pairs."""
    if plan.pretrain is None or not plan.pretrain.data:
        return [Finding("skipped", "no pretrain=FILE with data=URI is given")]
    from protclip.cluster.pretrain import check_data as check_pairs

    try:
        manifest = check_pairs(plan.pretrain)
    except ProtclipError as error:
        return [failure(error)]
    return [Finding("ok", f"{plan.pretrain.data}: {manifest.splits['train'].rows:,} training pairs")]


def check_fit(plan: Plan, nodes: Sequence[Node]) -> list[Row]:
    """Whether the planned training's workers find room on the nodes."""
    if plan.pretrain is None:
        return []
    scaling = plan.pretrain.scaling
    use_gpu = has_gpu() if scaling.use_gpu is None else scaling.use_gpu
    each = {"CPU": scaling.cpus_per_worker, "GPU": float(use_gpu)}
    need = Need(scaling.min_workers or scaling.num_workers, each, "lower scaling.num_workers")
    where = some([node.place.name for node in nodes], 3)
    try:
        check_room(need)
    except ProtclipError as error:
        return [(where, failure(error))]
    room = places(each)
    if room >= scaling.num_workers:
        return [(where, Finding("ok", f"room for {room} workers of {scaling.num_workers} wanted"))]
    return [(where, Finding("warn", shortage(need), _MORE_NODES))]
