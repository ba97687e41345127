"""What a newcomer does, with pip alone: from an empty folder to a guarded FastAPI application and its test.

It installs the wheel of this checkout with dependencies from a package index, so it needs a network.
"""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError

import pytest

from tests.redises.ports import free_port

ROOT = Path(__file__).parents[2]
MINUTES, COMMANDS = 5, 12

pytestmark = [pytest.mark.drill, pytest.mark.timeout(900)]

APPLICATION = """
from typing import Annotated

from fastapi import FastAPI, Security

from machpay_gateway import MachPayAuth, Principal
from machpay_gateway.fastapi import current_principal

app = FastAPI()
app.add_middleware(MachPayAuth, unlisted_routes="authenticated")


@app.get("/orders")
async def orders(caller: Annotated[Principal, Security(current_principal, scopes=["orders:read"])]) -> list[str]:
    return [caller.display_name]
"""
SETTINGS = """
scopes = ["orders:read"]

[tiers.test]
rate = "5/hour"
concurrency = 2
"""
TEST = """
import asyncio

from fastapi.testclient import TestClient

from machpay_gateway import Gateway, MachPayAuth
import application


def test_orders_need_a_key():
    with TestClient(application.app) as client:
        assert client.get("/orders").status_code == 401
"""


class Newcomer:
    """Runs commands in an empty *folder*, and counts them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = f"{folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MACHPAY_", "PYTEST_", "PYTHON", "COV_", "VIRTUAL_ENV"))
        } | {"PATH": self._path}
        self.commands = 0

    def run(self, command: str) -> str:
        """Run *command* and return what it prints."""
        self.commands += 1
        began_at = time.monotonic()
        run = subprocess.run(  # noqa: S602 - a line as people type it
            command,
            shell=True,
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        print(f"{time.monotonic() - began_at:5.1f} s  $ {command}")
        assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
        return run.stdout.strip()

    @contextmanager
    def running(self, command: str, url: str) -> Iterator[None]:
        """Run *command* until it responds at *url*, and end it afterwards."""
        self.commands += 1
        print(f"         $ {command}")
        with subprocess.Popen(command.split(), cwd=self._folder, env=self._environment) as process:
            try:
                deadline = time.monotonic() + 60
                while not _answers(url):
                    assert process.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
                yield
            finally:
                process.terminate()


def status(url: str, secret: str | None = None) -> int:
    """Return the status of the response at *url*."""
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as response:  # noqa: S310 - http
            found: int = response.status
            return found
    except HTTPError as exc:
        return exc.code


def _answers(url: str) -> bool:
    try:
        return bool(status(url))
    except OSError:
        return False


def test_a_newcomer_guards_an_application_in_minutes(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "wheel"], cwd=ROOT, check=True
    )
    (wheel,) = (tmp_path / "wheel").iterdir()
    folder = tmp_path / "empty"
    folder.mkdir()
    newcomer = Newcomer(folder)
    url = f"http://127.0.0.1:{(port := free_port())}/orders"
    began_at = time.monotonic()

    newcomer.run(f"{sys.executable} -m venv .venv")
    newcomer.run(f"pip install {wheel} fastapi uvicorn pytest httpx httpx2")
    newcomer.run("machpay-gateway init")
    (folder / "machpay.toml").write_text(SETTINGS)
    (folder / "application.py").write_text(APPLICATION)
    newcomer.run("machpay-gateway policy check")
    secret = newcomer.run("machpay-gateway keys create --name first --environment test --scope orders:read")
    with newcomer.running(f"uvicorn application:app --port {port} --no-proxy-headers", url):
        assert status(url) == 401
        assert [status(url, secret) for _ in range(6)] == [200] * 5 + [429]
        newcomer.commands += 2  # with curl
    (folder / "test_application.py").write_text(TEST)
    assert "1 passed" in newcomer.run("pytest")

    minutes = (time.monotonic() - began_at) / 60
    print(f"{newcomer.commands} commands, {minutes:.1f} minutes")
    assert newcomer.commands <= COMMANDS
    assert minutes < MINUTES
