"""What may enter the image: nothing of a checkout but what the wheel is built from."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "examples" / "deploy" / "Dockerfile"
IGNORED = ROOT / ".dockerignore"


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, each with its arguments."""
    text = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, arguments) for word, _, arguments in (line.partition(" ") for line in lines)]


def copied() -> list[str]:
    """Return what the Dockerfile copies of the build context."""
    sources: list[str] = []
    for word, arguments in instructions():
        assert word != "ADD"
        if word == "COPY" and not arguments.startswith("--from="):
            sources += arguments.split()[:-1]
    return sources


def patterns(lines: Sequence[str]) -> list[tuple[bool, re.Pattern[str]]]:
    """Return the patterns of a `.dockerignore`, each with whether it takes what it matches back in."""
    meant = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return [(line.startswith("!"), re.compile(_regex(line.removeprefix("!").strip("/")))) for line in meant]


def _regex(pattern: str) -> str:
    """Return what matches as *pattern* does: by `/`-separated parts, of which `**` is any number."""
    text = ""
    for token in re.findall(r"\*\*/|\*\*|\*|\?|.", pattern):
        text += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(token, re.escape(token))
    return text


def is_in_context(path: str, rules: Sequence[tuple[bool, re.Pattern[str]]]) -> bool:
    """Tell whether *path* is sent to the builder: the last pattern counts that matches it, or one of its folders."""
    names = [path, *(str(parent) for parent in PurePosixPath(path).parents if str(parent) != ".")]
    is_in = True
    for takes_back, pattern in rules:
        if any(pattern.fullmatch(name) for name in names):
            is_in = takes_back
    return is_in


RULES = patterns(IGNORED.read_text().splitlines())


@pytest.mark.parametrize(
    "lines, path, expected",
    [
        (["*"], "a", False),
        (["*"], "a/b", False),  # by its folder
        (["*", "!a"], "a/b", True),
        (["*", "!a/*.py"], "a/b.py", True),
        (["*", "!a/*.py"], "a/b/c.py", False),
        (["*", "!a/**/*.py"], "a/b/c.py", True),
        (["*", "!a/**/*.py"], "a/b.py", True),
        (["**/.*"], "a/.env", False),
        (["**/.*"], ".git/config", False),
        (["!a", "*"], "a", False),  # the last one counts
        (["a?c", "# b"], "abc", False),
        ([], "a", True),
    ],
)
def test_patterns_are_read_as_docker_reads_them(lines: list[str], path: str, expected: bool) -> None:  # noqa: FBT001 - a table's column
    assert is_in_context(path, patterns(lines)) is expected


@pytest.mark.parametrize(
    "path",
    [
        "machpay.db",
        "machpay.db-wal",
        "machpay.db-shm",
        "machpay.db-journal",
        "machpay.db.secret",
        "machpay.db.serving",
        "machpay.toml",
        ".env",
        ".env.production",
        ".git/config",
        ".git/objects/pack/pack-1.pack",
        ".venv/bin/python",
        ".ssh/id_ed25519",
        "key.pem",
        "tls.key",
        "backup.sql",
        "access.log",
        "tests/test_image.py",
        "build/a",
        "dist/a.whl",
        "clients/typescript/node_modules/a/index.js",
        "examples/deploy/machpay.toml",
        "examples/.env",
        "docs/keys.md",
        "requirements/dev.lock",
        "machpay_gateway/machpay.db",
        "machpay_gateway/.env",
        "machpay_gateway/core/key.pem",
        "machpay_gateway/machpay.db.secret",
        "machpay_gateway/core/.hidden.py",
        "machpay_gateway/.git/hooks/a.py",
        "machpay_gateway/core/__pycache__/key.cpython-313.pyc",
        "machpay_gateway/core/__pycache__/key.py",
        "machpay_gateway/gate.cpython-313-x86_64-linux-gnu.so",
        "machpay_gateway/notes.txt",
    ],
)
def test_no_secret_and_nothing_unneeded_is_sent_to_the_builder(path: str) -> None:
    assert not is_in_context(path, RULES)


def context() -> list[str]:
    """Return the files of this checkout that are sent to the builder."""
    found = []
    for folder, folders, files in os.walk(ROOT):
        here = Path(folder).relative_to(ROOT)
        if here == Path():
            folders[:] = [name for name in folders if any(source.split("/")[0] == name for source in copied())]
        found += [path for name in files if is_in_context(path := (here / name).as_posix(), RULES)]
    return found


def test_what_is_copied_is_in_the_context_and_the_context_is_copied() -> None:
    files, sources = context(), copied()
    assert sources
    for source in sources:
        assert [path for path in files if path == source or path.startswith(f"{source}/")], source
    assert [path for path in files if not any(path == s or path.startswith(f"{s}/") for s in sources)] == []


def test_the_wheel_of_the_context_is_the_one_of_the_checkout_and_imports(tmp_path: Path) -> None:
    for path in context():
        target = tmp_path / "src" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, target)
    (built,) = WheelBuilder(str(tmp_path / "src")).build(directory=str(tmp_path / "built"), versions=["standard"])
    (expected,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path / "expected"), versions=["standard"])
    names = [set(zipfile.ZipFile(wheel).namelist()) for wheel in (built, expected)]
    assert names[0] == names[1]
    zipfile.ZipFile(built).extractall(tmp_path / "installed")
    program = "import machpay_gateway; import machpay_gateway.serving.worker; print(machpay_gateway.__file__)"
    ran = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env={"PYTHONPATH": str(tmp_path / "installed"), "PATH": os.environ["PATH"]},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.startswith(str(tmp_path / "installed"))


def test_the_image_has_neither_sources_nor_build_tools_and_does_not_run_as_root() -> None:
    words = instructions()
    last = max(at for at, (word, _) in enumerate(words) if word == "FROM")
    assert [word for word, _ in words].count("FROM") == 2
    final = words[last + 1 :]
    assert [arguments for word, arguments in final if word == "COPY"] == ["--from=build /opt/machpay /opt/machpay"]
    assert "RUN" not in [word for word, _ in final]
    (user,) = [arguments for word, arguments in final if word == "USER"]
    assert int(user) > 0
    assert final[-2:] == [("ENTRYPOINT", '["machpay-gateway"]'), ("CMD", '["serve"]')]
    for word, arguments in words:
        if word == "RUN" and "install" in arguments and "--requirement" in arguments:
            assert "--require-hashes" in arguments
