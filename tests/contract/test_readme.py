"""What the README promises is there."""

import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).resolve().parents[2]
PACKAGE = REPO / "platform" / "protclip"
README = (REPO / "README.md").read_text()
MAKEFILE = (REPO / "Makefile").read_text()
HOW_TO = README[README.index("## How do I add") : README.index("## More")]
REGISTRIES = re.findall(r"`([A-Z]+)` \(`([\w/]+\.py)`(?: or `([\w/]+\.py)`)?\)", HOW_TO)


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"make ([a-z][\w-]*)", README))
    assert targets >= {"quickstart", "test"}
    assert targets <= set(re.findall(r"^([a-z][\w-]*):", MAKEFILE, re.MULTILINE))


def test_every_file_of_the_readme_exists():
    named = re.findall(r"\b(?:conf|jobs|k8s|docs)/[\w/]+\.\w+", README)
    assert len(set(named)) > 12
    assert [path for path in named if not (REPO / path).is_file()] == []


def test_every_folder_of_the_file_tree_exists():
    tree = README[README.index("## File tree") : README.index("## How do I add")]
    named = re.findall(r"^( *)([\w/]+/|\w+\.py)(?= )", tree, re.MULTILINE)
    assert len(named) > 10
    for indent, path in named:
        assert ((PACKAGE if indent else REPO) / path).exists(), path


@pytest.mark.parametrize("row", REGISTRIES, ids=lambda row: row[0])
def test_every_registry_of_the_how_to_table_is_a_literal_dict_in_its_file(row):
    name, *files = row
    for file in filter(None, files):
        assert re.search(rf"^{name}\b.*= \{{", (PACKAGE / file).read_text(), re.MULTILINE), file
        module = import_module("protclip." + file.removesuffix(".py").replace("/", "."))
        assert isinstance(getattr(module, name), dict)


def test_the_how_to_table_names_all_registries():
    assert {row[0] for row in REGISTRIES} == {
        "SOURCES",
        "FACTORS",
        "TERMS",
        "PRESETS",
        "READERS",
        "KINDS",
        "FORMATS",
        "COMMANDS",
        "CHECKS",
    }


def test_runtime_environment_takes_what_jobs_need_along():
    environment = yaml.safe_load((REPO / "k8s" / "runtime_env.yaml").read_text())
    assert (REPO / environment["env_vars"]["PYTHONPATH"] / "protclip").is_dir()
    assert not {"platform", "jobs", "conf"} & set(environment["excludes"])


def test_every_dependency_is_pinned():
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    listed = project["dependencies"] + project["optional-dependencies"]["dev"]
    pins = re.findall(r"^([\w.-]+)==", (REPO / "constraints.txt").read_text(), re.MULTILINE)
    names = {re.sub(r"\[.*", "", name).lower().replace("_", "-") for name in listed}
    assert names - {pin.lower().replace("_", "-") for pin in pins} == set()
