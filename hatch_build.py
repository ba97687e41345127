"""Compiles the walk of a request with mypyc while a wheel is built, if HATCH_BUILD_HOOK_ENABLE_CUSTOM=true asks for it.

The sources stay beside what was compiled from them: Python prefers the latter, and shows tracebacks by the former.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_PACKAGE = "machpay_gateway"
# What every request goes through, and nothing else: the rest gains little, and each module takes time to compile.
_WALK = (
    "core/decision/credential.py",
    "core/decision/decision.py",
    "core/limits/rate.py",
    "gate.py",
    "limiters/memory.py",
    "limiters/redis/batcher.py",
    "limiters/redis/limiter.py",
    "limiters/redis/local_share.py",
    "limiters/redis/subject.py",
    "limiters/redis/wire.py",
    "proxy/[!_]*.py",
    "stores/cache.py",
    "stores/change_poller.py",
    "telemetry/access_log.py",
    "telemetry/steps.py",
    "telemetry/usage.py",
)


class CompiledWalk(BuildHookInterface):  # type: ignore[type-arg]  # of whatever configuration the builder has
    """A wheel of this machine's kind, with one shared library for all of the compiled modules."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile a copy, so that no checkout begins to run what was compiled and then is stale."""
        if version == "editable":
            return
        self._folder = TemporaryDirectory(ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        shutil.copytree(Path(self.root, _PACKAGE), folder / _PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
        modules = [path for pattern in _WALK for path in sorted(Path(folder, _PACKAGE).glob(pattern))]
        _compile([str(path.relative_to(folder)) for path in modules], folder)
        for library in folder.rglob("*.so"):
            path = library.relative_to(folder)
            if path.parts[0] != "build":  # where the compilers leave what is not installed
                build_data["force_include"][str(library)] = str(path)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - hatch's
        """Remove the copy, now that the wheel has what it needs of it."""
        if version != "editable":
            self._folder.cleanup()


def _compile(files: list[str], folder: Path) -> None:
    """Raise RuntimeError, with all that the compilers had to say, when they do not succeed."""
    command = [sys.executable, "-m", "mypyc", *files]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - our own files
    if run.returncode:
        said = f"{run.stdout}{run.stderr}"
        raise RuntimeError(f"This was not compiled; a C compiler and Python's headers are needed.\n{said}")
