"""Tests with other versions of the dependencies: the lowest that are allowed, those of 2024, and the latest.

`python -m tests.matrix lowest` in a checkout. Each set of versions gets an environment of its own in `build/matrix`,
which is made again when `pyproject.toml` changes. It needs a package index.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "matrix"
UV = ROOT / ".venv" / "bin" / "uv"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# With all versions of a Python. The rest of the tests needs more than the dependency group `test`.
MIDDLEWARE = ("tests/middleware", "tests/test_fastapi.py", "tests/test_examples.py", "tests/test_gate.py")
# With the lowest and the latest.
ALL = (*MIDDLEWARE, "tests/stores", "tests/limiters", "tests/cli")


class Versions(NamedTuple):
    """How a set of versions is resolved: with which strategy of uv, and with more requirements."""

    name: str
    resolution: str
    requirements: tuple[str, ...] = ()


SETS = {
    versions.name: versions
    for versions in (
        # Of a package without a wheel for the Python: the lowest that has one.
        Versions("lowest", "lowest-direct"),
        Versions(
            "fastapi-0.115", "highest", ("fastapi==0.115.*", "sqlalchemy==2.0.*", "pydantic==2.11.*", "redis==5.*")
        ),
        Versions("latest", "highest"),
    )
}


# Old versions of redis and Starlette's TestClient leave sockets and streams to the garbage collector. Old versions of
# libraries use what others have deprecated since.
_TOLERATED = (
    *("-W", "default::ResourceWarning", "-W", "default::pytest.PytestUnraisableExceptionWarning"),
    *("-W", "default::DeprecationWarning"),
)


class Result(NamedTuple):
    """The outcome of the tests in one environment."""

    python: str
    versions: str
    summary: str
    seconds: float
    is_passed: bool


def main() -> None:
    """Run the tests that the command line selects, print a table, and exit with 1 if some failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"One of {', '.join(SETS)}; default: all.")
    parser.add_argument(
        "--every-python", action="store_true", help="Test the middleware with every Python that is here."
    )
    ours, theirs = _split(sys.argv[1:])
    options = parser.parse_args(ours)
    if unknown := set(options.sets) - SETS.keys():
        parser.error(f"{min(unknown)} is no set of versions: choose from {', '.join(SETS)}")
    pythons = _pythons() if options.every_python else [sys.executable]
    results = [
        test(python, SETS[name], theirs or (MIDDLEWARE if options.every_python else ALL))
        for name in options.sets or SETS
        for python in pythons
    ]
    for result in results:
        print(f"Python {result.python:6} {result.versions:14} {result.seconds:5.0f} s  {result.summary}")
    sys.exit(not all(result.is_passed for result in results))


def test(python: str, versions: Versions, arguments: Sequence[str]) -> Result:
    """Return the result of pytest with *arguments* under *python*, a path, with *versions* of the dependencies."""
    version = _output(python, "-c", "import platform; print(platform.python_version())")
    interpreter = environment(python, version, versions)
    if any(Path(ROOT, argument.partition("::")[0]).exists() for argument in arguments):
        selected = arguments
    else:
        selected = [*arguments, *ALL]
    command = [str(interpreter), "-m", "pytest", "-q", "-n", str((os.cpu_count() or 1) + 1), "--dist", "loadgroup"]
    began_at = time.monotonic()
    with subprocess.Popen(
        [*command, *(() if versions.name == "latest" else _TOLERATED), *selected],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        lines = [_echoed(line) for line in run.stdout]
    return Result(version, versions.name, lines[-1] if lines else "", time.monotonic() - began_at, run.returncode == 0)


def environment(python: str, version: str, versions: Versions) -> Path:
    """Return the Python of an environment with *versions* of the dependencies, made unless it is there."""
    key = sha256((ROOT / "pyproject.toml").read_bytes() + repr(versions).encode()).hexdigest()[:12]
    folder = FOLDER / f"{version}-{versions.name}-{key}"
    interpreter = folder / "bin" / "python"
    if (folder / ".installed").exists():
        return interpreter
    for old in FOLDER.glob(f"{version}-{versions.name}-*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    FOLDER.mkdir(parents=True, exist_ok=True)
    extra, lock = FOLDER / f"{folder.name}.in", FOLDER / f"{folder.name}.txt"
    extra.write_text("\n".join(versions.requirements) + "\n")
    selected = ["--extra", "server", "--extra", "fastapi", "--group", "test"]
    resolution = ["--resolution", versions.resolution, "--only-binary", ":all:", "--python", python]
    _uv("pip", "compile", "pyproject.toml", str(extra), *selected, *resolution, "-o", str(lock))
    _uv("venv", "--no-project", "--clear", "--python", python, str(folder))
    _uv("pip", "sync", "--python", str(interpreter), str(lock))
    _uv("pip", "install", "--python", str(interpreter), "--no-deps", "--editable", ".")
    (folder / ".installed").touch()
    return interpreter


def _pythons() -> list[str]:
    """Return the paths of the interpreters of `PYTHONS` that are here."""
    found = []
    # Those of pyenv are not on the path.
    folders = map(str, sorted(Path.home().glob(".pyenv/versions/*/bin")))
    search = {**os.environ, "PATH": os.pathsep.join([*folders, os.environ.get("PATH", "")])}
    for version in PYTHONS:
        find = [str(UV), "python", "find", "--no-project", "--no-python-downloads", version]
        run = subprocess.run(find, env=search, capture_output=True, text=True, check=False)
        if run.returncode == 0:
            found.append(run.stdout.strip())
        else:
            print(f"Python {version} is not here: it is left out.")
    return found


def _split(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the *arguments* before and after `--`: ours, and pytest's."""
    if "--" not in arguments:
        return arguments, ()
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _echoed(line: str) -> str:
    print(line, end="", flush=True)
    return re.sub(r"^=+ | =+$", "", line.strip())


def _uv(*arguments: str) -> None:
    subprocess.run([UV, "--quiet", *arguments], cwd=ROOT, check=True)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
