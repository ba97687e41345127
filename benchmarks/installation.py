"""What each extra of the package takes: megabytes in a new virtual environment, and seconds of a CPU to install.

Run it in a checkout: `python -m benchmarks.installation`. It needs a package index, and takes some minutes.
pip and setuptools, which a new environment may have, are not counted; the bytecode that pip compiles is.
"""

import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from machpay_gateway.extras import LIBRARIES

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Print a row for the package alone, for each extra, and for `server`, which has nearly all."""
    with TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        install(Path(folder, "warm"), f"{wheel}[server,fastapi]")  # so that no row pays for a download
        print(f"{'extra':12} {'MB':>4} {'CPU s':>6} {'packages':>9}")
        for extra in ("", *LIBRARIES, "server"):
            environment = Path(folder, extra or "base")
            seconds = install(environment, f"{wheel}[{extra}]" if extra else str(wheel))
            empty = create(Path(folder, f"{extra}-empty"))
            kibibytes = size(environment) - size(empty)
            print(f"{extra or '-':12} {kibibytes / 1024:4.0f} {seconds:6.0f} {packages(environment):9}", flush=True)


def build_wheel(folder: Path) -> Path:
    """Return the wheel of the checkout."""
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    return next(folder.glob("*.whl"))


def create(environment: Path) -> Path:
    """Create an empty virtual *environment* and return it."""
    run(sys.executable, "-m", "venv", str(environment))
    return environment


def install(environment: Path, requirement: str) -> float:
    """Install *requirement* into a new *environment*, and return the seconds of a CPU that pip took."""
    create(environment)
    before = _cpu_seconds()
    run(f"{environment}/bin/python", "-m", "pip", "install", "-qq", "--disable-pip-version-check", requirement)
    return _cpu_seconds() - before


def size(environment: Path) -> int:
    """Return how many KiB the files of *environment* take on the disk."""
    return sum(path.lstat().st_blocks for path in environment.rglob("*")) // 2


def packages(environment: Path) -> int:
    """Return how many packages *environment* has besides pip and setuptools."""
    names = {path.name.partition("-")[0] for path in environment.rglob("*.dist-info")}
    return len(names - {"pip", "setuptools"})


def run(*command: str, cwd: Path | None = None) -> None:
    """Run *command*. Raises CalledProcessError."""
    subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
