"""Compiles the request path with mypyc when a wheel is built with HATCH_BUILD_HOOK_ENABLE_CUSTOM=true.

The wheel contains the sources too: Python prefers the compiled modules, and shows tracebacks from the sources.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_PACKAGE = "machpay_gateway"
# Only what every request goes through: other modules gain little, and each one takes time to compile.
_REQUEST_PATH = (
    "core/decision/credential.py",
    "core/decision/decision.py",
    "core/limits/counters.py",
    "core/limits/window.py",
    "gate.py",
    "limiters/memory.py",
    "limiters/redis/batcher.py",
    "limiters/redis/limiter.py",
    "limiters/redis/local_share.py",
    "limiters/redis/resp.py",
    "limiters/redis/steps.py",
    "limiters/redis/subject.py",
    "proxy/[!_]*.py",
    "proxy/http2/upstreams.py",  # whose classes inherit from compiled ones
    "stores/cache.py",
    "stores/change_poller.py",
    "telemetry/access_log.py",
    "telemetry/steps.py",
    "telemetry/usage.py",
)


class CompiledRequestPath(BuildHookInterface):  # type: ignore[type-arg]  # of any builder's configuration
    """Builds a wheel for this platform, with one shared library for all compiled modules."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile a copy of the package: in a checkout, compiled modules would hide later changes of the sources."""
        if version == "editable":
            return
        self._folder = TemporaryDirectory(ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        shutil.copytree(Path(self.root, _PACKAGE), folder / _PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
        modules = [path for pattern in _REQUEST_PATH for path in _matching(folder / _PACKAGE, pattern)]
        _compile([str(path.relative_to(folder)) for path in modules], folder)
        for library in folder.rglob("*.so"):
            path = library.relative_to(folder)
            if path.parts[0] != "build":  # intermediate files of the compilers
                build_data["force_include"][str(library)] = str(path)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - hatch's
        """Remove the copy."""
        if version != "editable":
            self._folder.cleanup()


def _matching(folder: Path, pattern: str) -> list[Path]:
    """Return the modules of *pattern*. Raises FileNotFoundError for none: a renamed module must not go uncompiled."""
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise FileNotFoundError(f"No module of the package matches {pattern!r} in the list of compiled modules.")
    return paths


def _compile(files: list[str], folder: Path) -> None:
    """Compile *files* in *folder*. Raises RuntimeError with the output of the compilers when they fail."""
    command = [sys.executable, "-m", "mypyc", *files]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - our own files
    if run.returncode:
        raise RuntimeError(f"Compiling failed. It needs a C compiler and Python's headers.\n{run.stdout}{run.stderr}")
