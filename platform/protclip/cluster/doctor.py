"""Whether everything is ready for a job, in less than a minute, whatever does not answer.

Checks are functions that return findings. Those of a node are done in a process on it, those of services
from the driver and from every node, those between nodes over all of them; side by side, each with a limit of
its own. None is waited for longer: what hangs is left behind in a daemon thread or an actor that is ended.
"""

import functools
import io
import logging
import os
import queue
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.exceptions import RayError
from rich import box
from rich.console import Console
from rich.table import Table

from protclip import storage
from protclip.cluster import doctor_node as node
from protclip.cluster import doctor_services as services
from protclip.cluster.doctor_network import (
    Check,
    Node,
    Row,
    ask,
    check_clock,
    check_network,
    silent,
    start_probe,
)
from protclip.cluster.doctor_plan import Code, Finding, Place, Plan, read_pins, some
from protclip.cluster.session import connect, is_named
from protclip.config.doctor import CheckName, DoctorConfig, PlannedConfig
from protclip.config.load import load_config
from protclip.errors import ConfigError, PreflightError
from protclip.storage.probe import sweep

log = logging.getLogger(__name__)

CONSTRAINTS = Path("constraints.txt")
CHECKS_S = 45.0
"""All checks end by then; what remains of a minute is for tidying up."""
JOIN_S, START_S, SWEEP_S = 25.0, 20.0, 5.0
"""Limits for the cluster to answer, for its nodes to start a process each, and for tidying up."""
WIDTH = 140


@dataclass(frozen=True, slots=True)
class CheckSpec:
    """Where a check is done.

    Attributes:
        limit_s: How long it may take in one place.
        here: What is done in this process.
        each: What is done in a process on every node.
        between: What is done with all nodes together.
    """

    limit_s: float
    here: Check | None = None
    each: Check | None = None
    between: Callable[[Plan, Sequence[Node]], list[Row]] | None = None


CHECKS: dict[CheckName, CheckSpec] = {
    "storage": CheckSpec(25, here=services.check_storage, each=services.check_storage),
    "data": CheckSpec(15, here=services.check_data, each=services.check_data),
    "mlflow": CheckSpec(40, here=services.check_mlflow, each=services.check_mlflow),
    "study": CheckSpec(15, here=services.check_study),
    "pretrain": CheckSpec(40, here=services.check_pretrain, between=services.check_fit),
    "versions": CheckSpec(15, here=node.check_versions, each=node.check_versions),
    "gpus": CheckSpec(40, each=node.check_gpus),
    "compute": CheckSpec(10, each=node.check_compute),
    "disk": CheckSpec(10, each=node.check_disk),
    "shm": CheckSpec(10, each=node.check_shm),
    "open_files": CheckSpec(10, each=node.check_open_files),
    "weights": CheckSpec(40, each=node.check_weights),
    "clock": CheckSpec(10, between=check_clock),
    "network": CheckSpec(40, between=check_network),
}


@dataclass(frozen=True, slots=True)
class Result:
    """A finding with its check and its place; a line of the table."""

    check: str
    where: str
    finding: Finding


class Watch:
    """Checks under way in threads, each until its limit, all until `end`."""

    def __init__(self, end: float) -> None:
        self._end = end
        self._done: queue.Queue[tuple[object, list[Result]]] = queue.Queue()
        self._begun: dict[object, tuple[str, str, float, float]] = {}

    def begin(self, check: str, where: str, limit_s: float, run: Callable[[], list[Row]]) -> None:
        """Starts one.

        Args:
            check: Its name.
            where: Its place, for what is not said by `run`.
            limit_s: How long it is waited for.
            run: Does it.
        """
        key, now = object(), time.monotonic()
        self._begun[key] = (check, where, now, min(now + limit_s, self._end))

        def target() -> None:
            try:
                rows = run()
            except Exception as error:
                log.debug("%s", check, exc_info=True)
                rows = [(where, _failed(error))]
            self._done.put((key, [Result(check, *row) for row in rows]))

        threading.Thread(target=target, name=f"doctor-{check}", daemon=True).start()

    def results(self) -> Iterator[Result]:
        """What they find, as they end; for those that do not, that they did not."""
        while self._begun:
            wait_s = min(until for *_, until in self._begun.values()) - time.monotonic()
            try:
                key, found = self._done.get(timeout=max(0.0, wait_s))
            except queue.Empty:
                now = time.monotonic()
                for key, (check, where, begun, until) in list(self._begun.items()):
                    if until <= now:
                        del self._begun[key]
                        yield Result(check, where, silent(now - begun))
                continue
            if self._begun.pop(key, None):
                yield from found


def doctor(config: DoctorConfig) -> dict[str, object]:
    """Does the checks, shows what they found in a table and what to do in a list.

    Returns:
        Number of checks by verdict, and every finding.

    Raises:
        ConfigError: The planned training's configuration is wrong.
        PreflightError: A check failed; it carries what would be returned.
    """
    end = time.monotonic() + CHECKS_S
    plan = _plan(config)
    names: list[CheckName] = [n for n in config.checks or CHECKS if n not in config.skip]
    driver = Place.driver()
    watch, results, nodes = Watch(end), [], []
    try:
        for name in names:
            if here := CHECKS[name].here:
                run = functools.partial(_rows, here, plan, driver)
                watch.begin(name, driver.name, CHECKS[name].limit_s, run)
        if config.nodes:
            if not is_named():
                # Ray's processes end with the thread that starts them, so it must be this one.
                connect()
            joining = Watch(end)
            joining.begin("cluster", driver.name, JOIN_S, lambda: _join(nodes))
            results += joining.results()
            lost = _without_process(nodes, min(START_S, end - time.monotonic()))
            results += [Result("cluster", name, finding) for name, finding in lost]
        if nodes:
            for name in names:
                if between := CHECKS[name].between:
                    run = functools.partial(between, plan, tuple(nodes))
                    watch.begin(name, some([n.place.name for n in nodes], 3), CHECKS[name].limit_s, run)
            each = {n: (c, CHECKS[n].limit_s) for n in names if (c := CHECKS[n].each)}
            asked = ask(nodes, each, plan, end)
            results += [Result(check, where, finding) for check, where, finding in asked]
        results += watch.results()
    finally:
        for found in nodes:
            ray.kill(found.probe)
    if "storage" in names:
        tidying = Watch(time.monotonic() + SWEEP_S)
        for uri in plan.storage:
            place = storage.join(uri, f".doctor-{plan.token}")
            tidying.begin("storage", place, SWEEP_S, functools.partial(_sweep, uri, plan.token))
        for left in tidying.results():
            found = f"{left.where} may be left: {left.finding.found}"
            results.append(Result("storage", driver.name, Finding("warn", found, "delete it by hand")))
    order = ["cluster", *CHECKS]
    return _answer(sorted(results, key=lambda r: (order.index(r.check), r.where)))


def _plan(config: DoctorConfig) -> Plan:
    """What is to be looked at; what is not given comes from the planned training."""
    planned = None
    if config.pretrain:
        file, *overrides = config.pretrain
        path, overrides = (None, [file, *overrides]) if "=" in file else (Path(file), overrides)
        planned = load_config(PlannedConfig, path, overrides)
    own = config.model_fields_set
    default = planned or PlannedConfig()
    tracking = config.tracking if "tracking" in own else default.tracking
    # What the driver means, whatever the nodes' variables say.
    uri = tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    return Plan(
        token=uuid.uuid4().hex[:12],
        storage=config.storage or (default.run.storage,),
        data=config.data or ((default.data,) if default.data else ()),
        tracking=tracking.model_copy(update={"uri": uri}),
        study=config.study,
        pretrain=planned,
        code=Code.here(),
        pins=read_pins(CONSTRAINTS),
    )


def _rows(check: Check, plan: Plan, place: Place) -> list[Row]:
    """Does a check in this process."""
    return [(place.name, finding) for finding in check(plan, place)]


def _join(nodes: list[Node]) -> list[Row]:
    """Joins the cluster, or starts one here, and lists its nodes with a process on each."""
    driver = Place.driver().name
    # It would say that a handler of signals is missing, which only the main thread could set.
    logging.getLogger("ray._private.worker").setLevel(logging.ERROR)
    try:
        connect()
    except ConfigError as error:
        return [(driver, services.failure(error))]
    listed = ray.nodes()
    alive = [n for n in listed if n["Alive"]]
    hosts = Counter(n["NodeManagerHostname"] for n in alive)
    for n in alive:
        host, node_id = n["NodeManagerHostname"], n["NodeID"]
        name = host if hosts[host] == 1 else f"{host} ({node_id[:6]})"
        nodes.append(Node(Place(name, node_id[:12], n["Resources"]), node_id, start_probe(node_id)))
    total = ray.cluster_resources()
    cpus, gpus = total.get("CPU", 0), total.get("GPU", 0)
    facts = f"{len(alive)} node(s), {cpus:g} CPUs, {gpus:g} GPUs, Ray {ray.__version__}"
    if dead := len(listed) - len(alive):
        return [(driver, Finding("warn", f"{facts}; {dead} more are dead", "see why (kubectl get pods)"))]
    return [(driver, Finding("ok", facts))]


def _without_process(nodes: list[Node], limit_s: float) -> list[Row]:
    """Takes nodes off the list on which no process starts, and says why."""
    calls = {n.probe.hello.remote(): n for n in nodes}
    done, waiting = ray.wait(list(calls), num_returns=len(calls), timeout=limit_s) if calls else ([], [])
    lost: list[tuple[Node, Finding]] = [(calls[call], silent(limit_s)) for call in waiting]
    for call in done:
        try:
            ray.get(call)
        except RayError as error:
            lost.append((calls[call], _failed(error)))
    for node_, _ in lost:
        nodes.remove(node_)
        ray.kill(node_.probe)
    return [(node_.place.name, finding) for node_, finding in lost]


def _sweep(uri: str, token: str) -> list[Row]:
    """Removes what was laid down at a place; there is nothing to say of it."""
    sweep(uri, token)
    return []


def _failed(error: BaseException) -> Finding:
    """What is said of an error that no check foresaw."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Ray's own text ends with the remote traceback's last line, which names the cause.
    said = next((line for line in reversed(lines) if "Error" in line), lines[0] if lines else "")
    remedy = "use the platform's image on every node, and submit with --runtime-env k8s/runtime_env.yaml"
    if "ModuleNotFoundError" in said:
        return Finding("fail", said[:300], remedy)
    return Finding("fail", f"{type(error).__name__}: {said}"[:300], "see the log (-v shows the traceback)")


def _answer(results: Sequence[Result]) -> dict[str, object]:
    """Shows the results and makes them plain values.

    Raises:
        PreflightError: One of them is a failure.
    """
    log.info("%s", render(results))
    verdicts = Counter(r.finding.verdict for r in results)
    answer: dict[str, object] = {
        **{verdict: verdicts[verdict] for verdict in ("ok", "warn", "fail", "skipped")},
        "checks": [
            {
                "check": r.check,
                "where": r.where,
                "verdict": r.finding.verdict,
                "found": r.finding.found,
                "remedy": r.finding.remedy,
            }
            for r in results
        ],
    }
    if verdicts["fail"]:
        failed = dict.fromkeys(r.check for r in results if r.finding.verdict == "fail")
        raise PreflightError(
            f"not ready: {', '.join(failed)} ({verdicts['fail']} failures); see the remedies below the table",
            answer,
        )
    return answer


def render(results: Sequence[Result]) -> str:
    """The table, and below it what to do; results that differ only in their place share a line."""
    places: dict[tuple[str, Finding], list[str]] = {}
    for r in results:
        places.setdefault((r.check, r.finding), []).append(r.where)
    table = Table(box=box.SIMPLE_HEAD, title="Pre-flight", title_justify="left")
    for column in ("check", "where", "verdict", "found"):
        table.add_column(column, no_wrap=column in {"check", "verdict"}, overflow="fold")
    remedies: dict[str, list[str]] = {}
    for (check, finding), where in places.items():
        verdict = finding.verdict if finding.verdict in {"ok", "skipped"} else finding.verdict.upper()
        table.add_row(check, some(list(dict.fromkeys(where)), 3), verdict, finding.found)
        if finding.remedy:
            remedies.setdefault(finding.remedy, []).append(check)
    sink = io.StringIO()
    Console(file=sink, width=WIDTH, markup=False, highlight=False).print(table)
    lines = [line.rstrip() for line in sink.getvalue().splitlines()]
    lines += [f"  {', '.join(dict.fromkeys(checks))}: {remedy}" for remedy, checks in remedies.items()]
    return "\n".join(lines)
