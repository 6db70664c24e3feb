"""Rules of the tree that nothing else would notice being broken."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PACKAGE = REPO / "platform" / "protclip"
SOURCES = sorted(PACKAGE.rglob("*.py"))
OURS = [
    path
    for folder in ("platform", "jobs", "conf", "k8s", "tests", "bench", "docs", ".ci")
    for path in (REPO / folder).rglob("*")
    if path.suffix in {".py", ".yaml", ".yml", ".md", ".toml", ".sh", ""} and path.is_file()
]


def test_platform_is_no_package() -> None:
    assert not (REPO / "platform" / "__init__.py").exists()


def test_standard_platform_module_is_not_shadowed() -> None:
    code = "import platform; print(platform.python_version())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_module_is_of_readable_size(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 450


def test_files_name_no_place_of_one_machine() -> None:
    places = re.compile(r"(?<![\w.])/(?:root|home/\w+|work/\w+|tmp/(?!ray/)\w+|Users/\w+)/")
    found = [str(p.relative_to(REPO)) for p in OURS if places.search(p.read_text(errors="ignore"))]
    assert found == []
