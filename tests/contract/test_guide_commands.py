"""Whoever copies a command from the guides for Kubernetes gives one that exists, on files that exist."""

import itertools
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import pytest
import yaml
from ray.dashboard.modules.job.cli import job_cli_group

import kubectl_lines
from api_rules import RULES as API_RULES
from kuberay_rules import RULES as KUBERAY_RULES
from manifests import K8S, OVERLAYS, PLATFORM, REPO, kubectl, objects, schema_faults
from policy_rules import OPERATORS_SECRETS, OWN_IMAGES, REGISTRY, known_secrets
from protclip.cli import main, run_job
from protclip.commands import COMMANDS
from protclip.config.places import IN_JOB
from shell_blocks import Block, blocks, commands

PAGES = {name: (REPO / "docs" / f"{name}.md").read_text() for name in ("kubernetes", "operations")}
SCRIPT_OF = {command.script: name for name, command in COMMANDS.items() if command.script}


def shell(page: str) -> list[Block]:
    return [block for block in blocks(PAGES[page]) if block.language in {"sh", "bash", "console"}]


def prose(text: str) -> str:
    """A page without its blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[str]]]:
    """What each page starts, its blocks run one after the other; a name in capitals stands for itself."""
    found = {}
    for page in PAGES:
        script = "\n".join(block.text for block in shell(page))
        found[page] = commands(script, tmp_path_factory.mktemp(page))
    return found


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)


def made() -> set[str]:
    """Directories whose whole kustomization a page shows, and names of objects that it creates."""
    folders = {str(Path(file).parent) for page in PAGES for file, _ in shown_files(page)}
    return folders | set(
        re.findall(r"kubectl .*\bcreate (?!secret)\w+ ([a-z][\w-]*)", "".join(PAGES.values()))
    )


def shown_files(page: str) -> list[tuple[str, str]]:
    """Files whose whole content a page shows, each named just before."""
    found = []
    for block in blocks(PAGES[page]):
        name = re.search(r"`(k8s/[\w./-]+\.yaml)`[^`\n]*:\s*\Z", block.before)
        if block.language == "yaml" and name:
            found.append((name[1], block.text))
    return found


def check_kubectl(arguments: Sequence[str]) -> None:
    kubectl_lines.check(arguments, made())


def check_helm(arguments: Sequence[str]) -> None:
    """Versions and namespaces are those of k8s/operators.yaml."""
    if arguments[0] in {"repo", "search", "list", "uninstall", "rollback", "get", "show", "history"}:
        return
    assert arguments[0] in {"install", "upgrade"}, arguments[0]
    options = dict(itertools.pairwise(arguments))
    assert options.keys() >= {"--version", "--namespace"}, "no version or no namespace"
    charts = {word.rpartition("/")[2] for word in arguments}
    for operator in PLATFORM.operators:
        if operator.name in charts:
            found = (options["--version"], options["--namespace"])
            assert found == (operator.version, operator.namespace), f"{operator} in k8s/operators.yaml"


def check_protclip(arguments: Sequence[str]) -> None:
    """Our own parser takes it, and in a job too what was submitted."""
    if arguments[0] == "submit":
        assert main(["submit", "--print-id", *arguments[1:]]) == 0
        (name,) = [word for word in arguments[1:] if word in COMMANDS][:1]
        check_job(name, arguments[list(arguments).index(name) + 1 :])
    elif "--help" not in arguments and "--version" not in arguments:
        assert main([*arguments, "--dry-run"]) == 0


def check_job(name: str, arguments: Sequence[str]) -> None:
    """As the job itself sees it on a cluster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(IN_JOB, "01000000")
        assert run_job(name, [*(a for a in arguments if a != "--dry-run"), "--dry-run"]) == 0


def check_python(arguments: Sequence[str]) -> None:
    if arguments[0].startswith("jobs/"):
        check_job(SCRIPT_OF[Path(arguments[0]).stem], arguments[1:])
    elif arguments[0] not in {"-c", "-m"}:
        assert (REPO / arguments[0]).is_file(), arguments[0]


def check_ray(arguments: Sequence[str]) -> None:
    """Ray's own parser takes it; what it submits is a job of ours."""
    group, *rest = arguments
    if group != "job":
        assert group in {"status", "list", "summary", "logs", "stack"}
        return
    job_cli_group.commands[rest.pop(0)].make_context("ray job", list(rest))
    if "--" in rest:
        program, *words = rest[rest.index("--") + 1 :]
        assert program == "python"
        check_python(words)
    if "--runtime-env" in rest:
        assert (REPO / rest[rest.index("--runtime-env") + 1]).is_file()


def check_docker(arguments: Sequence[str]) -> None:
    for flag, word in itertools.pairwise(arguments):
        if flag in {"--file", "-f"}:
            assert (REPO / word).is_file(), word
        if flag == "--target":
            assert f" AS {word}\n" in (K8S / "image" / "Dockerfile").read_text(), word
    check_images(arguments)


def check_images(arguments: Sequence[str]) -> None:
    tags = [word for word in arguments if re.search(r"/protclip:", word)]
    for tag in tags:
        assert tag.partition("/protclip:")[2] in {image.partition(":")[2] for image in OWN_IMAGES}, tag


def check_make(arguments: Sequence[str]) -> None:
    targets = re.findall(r"^([\w-]+):", (REPO / "Makefile").read_text(), re.MULTILINE)
    assert {word for word in arguments if "=" not in word} <= set(targets)


CHECKS: dict[str, Callable[[Sequence[str]], None]] = {
    "kubectl": check_kubectl,
    "helm": check_helm,
    "protclip": check_protclip,
    "python": check_python,
    "ray": check_ray,
    "docker": check_docker,
    "kind": check_images,
    "make": check_make,
}


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_block_is_one_that_exists(page, recorded, capsys):
    assert len(recorded[page]) > 10
    for program, *arguments in recorded[page]:
        if program in CHECKS:
            try:
                CHECKS[program](arguments)
            except (AssertionError, click.ClickException, KeyError, SystemExit) as error:
                pytest.fail(f"{program} {shlex.join(arguments)}: {error} {capsys.readouterr().err}")


def test_the_guide_makes_every_secret_with_every_key(recorded):
    made = {
        line.words[0]: {value.partition("=")[0] for name, value in line.flags if name.startswith("--from-")}
        for program, *arguments in recorded["kubernetes"]
        if program == "kubectl"
        for line in [kubectl_lines.read(arguments)]
        if line.command == "create secret generic"
    }
    assert made | OPERATORS_SECRETS == known_secrets()


@pytest.mark.parametrize("page", PAGES)
def test_every_command_in_a_sentence_is_one_that_exists(page):
    for line in re.findall(r"`((?:kubectl|helm|make) [^`]+)`", prose(PAGES[page])):
        words = shlex.split(line.partition("|")[0].replace("…", ""), comments=True)
        if words[0] == "make" or (len(words) > 2 and not words[-1].startswith("-")):
            CHECKS[words[0]](words[1:])


@pytest.mark.parametrize("page", PAGES)
def test_every_place_that_a_page_names_exists(page):
    made = {file for file, _ in shown_files(page)} | {"k8s/overlays/mine", "k8s/overlays/mine/jobs"}
    named = set(re.findall(r"(?<![\w/.:-])((?:k8s|conf|jobs|docs|tests)/[\w/.*-]*\w)", PAGES[page]))
    missing = {n for n in named - made if "OVERLAY" not in n and not list(REPO.glob(n))}
    assert missing == set()


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([\w./-]*)(?:#([\w-]+))?\)", PAGES[page]):
        file = REPO / "docs" / target if target else REPO / "docs" / f"{page}.md"
        assert file.exists(), target
        if anchor:
            titles = re.findall(
                r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", file.read_text(), flags=re.M | re.S), re.M
            )
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in slugs, f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES)
def test_versions_of_a_page_are_those_of_the_manifests(page):
    text = PAGES[page]
    for tag in re.findall(r"protclip:([\w.]+-(?:cpu|cuda))", text):
        assert f"{REGISTRY}:{tag}" in OWN_IMAGES, tag
    for oldest, newest in re.findall(r"Kubernetes (1\.\d+) to (1\.\d+)", text):
        assert (oldest, newest) == (PLATFORM.oldest, PLATFORM.newest)
    images = {
        (name.rpartition("/")[2], tag)
        for overlay in OVERLAYS
        for thing in objects(f"overlays/{overlay}")
        for name, tag in re.findall(r'"image": "([\w./-]+):([\w.-]+)"', yaml.dump(thing, default_style='"'))
    }
    versions: dict[str, set[str]] = {}
    for name, tag in images:
        versions.setdefault(name, set()).add(tag)
    for name, tag in re.findall(r"\b([a-z][\w-]+):(\d+\.\d[\w.-]*\w)", text):
        assert tag in versions.get(name, {tag}), f"{name}:{tag}, k8s/ has {versions[name]}"


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_shows_render_to_objects_without_fault(page, tmp_path, monkeypatch):
    shown = shown_files(page)
    shutil.copytree(K8S, tmp_path / "k8s")
    for file, text in shown:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    for file, _ in shown:
        if file.endswith("kustomization.yaml"):
            things = list(yaml.safe_load_all(kubectl("kustomize", str((tmp_path / file).parent))))
            for rules in (API_RULES, KUBERAY_RULES):
                assert [fault for rule in rules.values() for fault in rule(things)] == []
            for thing in things:
                assert schema_faults(thing) == []
                if thing["kind"] == "RayJob":
                    check_python(shlex.split(thing["spec"]["entrypoint"])[1:])


@pytest.mark.parametrize(
    "line",
    [
        "kubectl aply -k k8s/overlays/dev",
        "kubectl apply --kustomise k8s/overlays/dev",
        "kubectl apply -k k8s/overlays/development",
        "kubectl apply -k k8s/overlays/gpu/jobs -l app.kubernetes.io/component=pretraining",
        "kubectl apply -k github.com/ray-project/kuberay/ray-operator/config/crd?ref=v1.6.0",
        "kubectl --namespace protklip get pods",
        "kubectl --namespace protclip rollout status deployment/mlfow",
        "kubectl --namespace protclip rolout status deployment/mlflow",
        "kubectl --namespace protclip create secret generic postgres --from-literal=pasword=a",
        "kubectl --namespace protclip get secret mlflow-servr",
        "kubectl apply -f k8s/base/namespaces.yaml",
        "helm install kuberay-operator kuberay/kuberay-operator --version 1.6.0 --namespace ray-system",
        "helm install kuberay-operator kuberay/kuberay-operator --version 1.7.0 --namespace ray",
        "protclip submit pretrain --config conf/pretrain/quickstart.yaml data=s3://a/b run.nam=first",
        "protclip submit pretrain --config conf/pretrain/quickstart.yaml data=b run.name=a run.storage=s3://a",
        "protclip submit --no-wail doctor",
        "protclip pretrains data=a",
        "python jobs/pretrain.py --config conf/pretrain/quickstarts.yaml data=s3://a/b run.name=first",
        "ray job submit --working-dirr . -- python jobs/doctor.py",
        "ray job logz pretrain-first",
        "docker build --file k8s/image/Dockerfile --target gpu .",
        "docker push registry.example.com/protclip:0.0.9-cpu",
        "make k8s-schema",
    ],
)
def test_a_planted_fault_in_a_command_is_found(line):
    program, *arguments = shlex.split(line)
    with pytest.raises((AssertionError, click.ClickException, KeyError, pytest.fail.Exception)):
        CHECKS[program](arguments)


@pytest.mark.parametrize(
    "script",
    ["kubectl get pods |", 'kubectl get "pods', "kubectl --namespace $UNSET get pods", "kubeclt get pods"],
)
def test_a_planted_fault_in_a_script_is_found(script, tmp_path):
    with pytest.raises(AssertionError):
        commands(script, tmp_path)
