"""The pytest plugin, in runs of pytest of its own."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_PROJECT = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from machpay_gateway import MachPayAuth


async def hello(request):
    return PlainTextResponse(request.user.display_name)


app = Starlette(routes=[Route("/hello", hello)])
app.add_middleware(MachPayAuth, database="memory://")
client = TestClient(app)


def test_it_lasts_as_long_as_the_test(as_principal):
    override = as_principal(app, name="ada")
    assert client.get("/hello").text == override.principal.name == "ada"
    as_principal(app, name="bob")
    assert client.get("/hello").text == "bob"


def test_it_has_ended_with_the_test():
    assert client.get("/hello").status_code == 401


def test_it_ends_earlier_in_a_block(as_principal):
    with as_principal(app, name="ada") as principal:
        assert client.get("/hello").text == principal.name == "ada"
    assert client.get("/hello").status_code == 401
"""


@pytest.fixture(scope="module")
def plugin() -> str:
    """The module that pytest loads where the package is installed."""
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    module: str = entries["pytest11"]["machpay"]
    return module


def test_the_fixture_begins_at_once_and_ends_with_its_test_and_the_example_passes(tmp_path: Path, plugin: str) -> None:
    (tmp_path / "test_app.py").write_text(_PROJECT)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    for example in ("fastapi_app.py", "test_fastapi_app.py"):
        (tmp_path / example).write_text((ROOT / "examples" / example).read_text())
    # Without plugins that are found by their packages, it is named.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--disable-plugin-autoload",
        "-p",
        plugin,
    ]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (finished.returncode, "7 passed" in finished.stdout) == (0, True), finished.stdout


def test_the_plugin_imports_nothing_else_at_the_start_of_pytest(plugin: str) -> None:
    code = f"import sys, pytest; before = set(sys.modules); import {plugin}; print(*sorted(set(sys.modules) - before))"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert imported == ["machpay_gateway", plugin]
