"""Programs of Node.js in tests: whether they can be run here, and what they print."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from filelock import FileLock

NODE, NPM = shutil.which("node") or "", shutil.which("npm") or ""
OLDEST_NODE = 20
_PACKAGES = Path(__file__).parents[1] / "build" / "node"  # which `make clean` removes


def hindrance(what: str) -> str:
    """Return why *what* cannot be done here, nothing when it can: as in "the client is tested"."""
    needed = f"{what} with Node.js {OLDEST_NODE} or later and npm"
    if missing := [name for name, path in (("node", NODE), ("npm", NPM)) if not path]:
        return f"{needed}: there is no {' and no '.join(missing)} on PATH"
    version = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return "" if int(version.removeprefix("v").split(".")[0]) >= OLDEST_NODE else f"{needed}: node is {version}"


def inherited() -> Mapping[str, str]:
    """Return the environment without what is meant for a gateway."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MACHPAY_")}


def done(command: Sequence[str], cwd: Path, **environment: str) -> str:
    """Return what *command* prints; that it fails is told with all that it said."""
    ran = subprocess.run(
        command, cwd=cwd, env={**inherited(), **environment}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, f"{' '.join(command)} ended with {ran.returncode}:\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def shared_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory for all processes of one run of the tests."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def installed(sources: Path, name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of *sources* with the packages of its lock, under the *name* that all processes of a run share."""
    shared = shared_directory(tmp_path_factory)
    root, ready = shared / name, shared / f"{name}.ready"
    with FileLock(shared / f"{name}.lock"):
        if not ready.exists():
            shutil.rmtree(root, ignore_errors=True)
            shutil.copytree(sources, root, ignore=shutil.ignore_patterns("node_modules"))
            (root / "node_modules").symlink_to(_packages(root))
            ready.touch()
    return root


def _packages(project: Path) -> Path:
    """Return a folder with the packages of the lock of *project*. All runs of a checkout use the same one."""
    manifests = [project / "package.json", project / "package-lock.json"]
    folder = _PACKAGES / hashlib.sha256(b"".join(each.read_bytes() for each in manifests)).hexdigest()[:16]
    ready = folder / "ready"
    _PACKAGES.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not ready.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for manifest in manifests:
                shutil.copy(manifest, folder)
            done([NPM, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], folder)
            ready.touch()
    return folder / "node_modules"
