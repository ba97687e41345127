"""Installations of parts of the package, offline: links to what the environment of the tests has already."""

import os
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGE = "machpay-gateway"


def distributions(extras: Iterable[str]) -> dict[str, Distribution]:
    """Return what pip installs for the package with *extras*, without the package itself."""
    needed: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(PACKAGE, extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        needed[name] = distribution(name)
        for line in needed[name].requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                wanted = canonicalize_name(requirement.name)
                waiting += [(wanted, each) for each in ("", *requirement.extras)]
    del needed[PACKAGE]
    return needed


def direct(extra: str) -> set[str]:
    """Return the distributions that the package itself names for *extra*, with those of the extras in it."""
    named: set[str] = set()
    for line in distribution(PACKAGE).requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
            continue
        if requirement.marker.evaluate({"extra": ""}):
            continue  # it is needed without the extra too
        if canonicalize_name(requirement.name) == PACKAGE:
            named = named.union(*map(direct, requirement.extras))
        else:
            named.add(canonicalize_name(requirement.name))
    return named


def install(folder: Path, *extras: str) -> Path:
    """Make *folder* what `pip install --target` makes of the package with *extras*. Return it."""
    folder.mkdir()
    (folder / "machpay_gateway").symlink_to(ROOT / "machpay_gateway")
    (folder / "examples").symlink_to(ROOT / "examples")  # a wheel has the demo's sample in the package
    (folder / "machpay_gateway.dist-info").symlink_to(distribution(PACKAGE)._path)  # type: ignore[attr-defined]  # noqa: SLF001
    for found in distributions(extras).values():
        for top in {file.parts[0] for file in found.files or () if not file.parts[0].startswith((".", "__pycache__"))}:
            link = folder / top
            if not link.exists():
                link.symlink_to(Path(str(found.locate_file(top))))
    return folder


def run(folder: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in *cwd* with nothing but what is installed in *folder*."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MACHPAY_", "COV_", "COVERAGE_"))
    }
    environment["PYTHONPATH"] = str(folder)
    command = [sys.executable, "-S", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=50)
