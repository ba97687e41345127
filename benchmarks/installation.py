"""What each extra of the package takes: megabytes in a new virtual environment, and seconds of a CPU to install.

Run it in a checkout: `python -m benchmarks.installation`. It needs a package index, and takes some minutes.
The environment has no pip and no setuptools. The bytecode that pip compiles is counted.
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
            print(
                f"{extra or '-':12} {size(environment) / 1024:4.0f} {seconds:6.0f} {packages(environment):9}",
                flush=True,
            )


def build_wheel(folder: Path) -> Path:
    """Return the wheel of the checkout."""
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    return next(folder.glob("*.whl"))


def install(environment: Path, requirement: str) -> float:
    """Install *requirement* into a new *environment*, and return the seconds of a CPU that pip took."""
    run(sys.executable, "-m", "venv", "--without-pip", str(environment))
    before = _cpu_seconds()
    pip = [sys.executable, "-m", "pip", "--python", f"{environment}/bin/python", "--disable-pip-version-check"]
    run(*pip, "install", "-qq", requirement)
    return _cpu_seconds() - before


def size(environment: Path) -> int:
    """Return how many KiB the files of *environment* take on the disk."""
    return sum(path.lstat().st_blocks for path in environment.rglob("*")) // 2


def packages(environment: Path) -> int:
    """Return how many packages *environment* has."""
    return sum(1 for _ in environment.rglob("*.dist-info"))


def run(*command: str, cwd: Path | None = None) -> None:
    """Run *command*. Raises CalledProcessError."""
    subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
