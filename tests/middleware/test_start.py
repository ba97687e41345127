"""How a guarded application starts, or does not."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from machpay_gateway import ConfigurationError, MachPayAuth
from machpay_gateway.core.keys.key import mint_secret
from machpay_gateway.server import create_app
from tests.applications import ok
from tests.servers import exchange, serving

REQUEST = b"GET /v1/skills HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def test_without_settings_the_embedded_store_is_created_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = Starlette()
    app.add_middleware(MachPayAuth)
    with serving(app) as address:
        assert exchange(address, REQUEST).startswith(b"HTTP/1.1 401")
    assert (tmp_path / "machpay.db").exists()


def test_the_file_in_the_working_directory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "machpay.toml").write_text(
        'database = "memory://"\nunlisted_routes = "deny"\n[[routes]]\nmatch = "GET /v1/skills"\npublic = true\n'
    )
    monkeypatch.chdir(tmp_path)
    client = TestClient(MachPayAuth(ok))
    assert client.get("/v1/skills").status_code == 200
    assert client.get("/v1/other").status_code == 404


def test_a_test_client_that_makes_a_loop_for_each_request_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    client = TestClient(MachPayAuth(ok))
    for _ in range(3):
        assert client.get("/v1/skills", headers={"Authorization": "Bearer a.b.c"}).status_code == 401


_SECTIONS = {
    "console": '[console]\nurl = "https://console.example.com"\napi_url = "https://api.example.com"\n',
    "oauth": '[oauth]\nissuer = "https://id.example.com"\naudience = "https://api.example.com"\n',
    "leaks": "[leaks]\n",
    "upstreams": '[upstreams]\nlive = "http://127.0.0.1:9000"\n',
}


@pytest.mark.parametrize(
    "names",
    [(), *((name,) for name in _SECTIONS), tuple(_SECTIONS)],
    ids=lambda names: " ".join(names) or "none",
)
def test_what_the_middleware_does_not_serve_is_a_warning_at_start(
    names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = "".join(_SECTIONS[name] for name in names)
    (tmp_path / "machpay.toml").write_text(f'database = "memory://"\nsecret_key = "{"s" * 32}"\n{settings}')
    app = Starlette()
    app.add_middleware(MachPayAuth)
    with TestClient(app):
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [warning.split(" ", 1)[0] for warning in warnings] == [f"[{name}]" for name in names]
    assert all("`machpay-gateway serve`" in warning for warning in warnings)
    assert all("`create_app`" in warning for warning in warnings if not warning.startswith("[upstreams]"))
    caplog.clear()
    with TestClient(create_app(ok)):  # serves them
        assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_an_invalid_setting_is_raised_by_the_constructor() -> None:
    with pytest.raises(ConfigurationError, match=r"trusted_proxies\[0\]: '10.0.0.0/33' is not a network"):
        MachPayAuth(ok, trusted_proxies=["10.0.0.0/33"])


def test_an_invalid_setting_stops_a_server_that_constructs_late(tmp_path: Path) -> None:
    # Starlette makes its middleware within the lifespan call; uvicorn takes an exception there for "no lifespan".
    module = tmp_path / "late.py"
    module.write_text(
        "from machpay_gateway import MachPayAuth\n"
        "from starlette.applications import Starlette\n"
        "app = Starlette()\n"
        "app.add_middleware(MachPayAuth, trusted_proxies=['10.0.0.0/33'])\n"
    )
    command = [sys.executable, "-m", "uvicorn", "late:app", "--port", "0", "--app-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, cwd=tmp_path)
    assert done.returncode != 0
    assert "'10.0.0.0/33' is not a network (prefix is 0–32)" in done.stderr


def test_without_a_lifespan_an_invalid_setting_fails_every_request() -> None:
    async def late() -> None:
        app = MachPayAuth(ok, trusted_proxies=["10.0.0.0/33"])
        with pytest.raises(ConfigurationError):
            await app({"type": "http", "path": "/", "headers": []}, None, None)  # type: ignore[arg-type]  # never used

    asyncio.run(late())


def test_a_database_that_cannot_be_opened_stops_the_start_and_is_a_503_where_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "other.db").write_text("something else entirely")
    app = MachPayAuth(ok, database=f"sqlite:///{tmp_path / 'other.db'}")
    secret = mint_secret("live", bytes(32))
    answer = TestClient(app).get("/v1/skills", headers={"Authorization": f"Bearer {secret}"})
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    with pytest.raises(ConfigurationError, match="not a SQLite database"), TestClient(app):
        pytest.fail("it started")


@pytest.mark.parametrize(
    "url, expected",
    [
        ("redis+sentinel://127.0.0.1:26379", "which service"),
        ("redis+cluster://127.0.0.1:7000/3", "database 0 only"),
        ("redis://127.0.0.1:notaport/0", "cannot be read"),
        ("redis://:pa/ss@127.0.0.1:6379/0", "write what is special in a password as %xx"),
        ("redis+cluster://,/0", "one of the URL.s hosts is empty"),
    ],
)
def test_an_invalid_redis_url_stops_the_startup(url: str, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=f"redis: .*{expected}"):
        MachPayAuth(ok, database="memory://", redis=url)


def test_a_second_process_on_one_database_is_refused_with_advice(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'machpay.db'}"
    code = (
        "import asyncio, sys; from machpay_gateway import Gateway\n"
        "async def main():\n"
        "    gateway = Gateway(database=sys.argv[1])\n"
        "    await gateway.lifecycle.serve()\n"
        "asyncio.run(main())"
    )
    with TestClient(MachPayAuth(ok, database=database)), TestClient(MachPayAuth(ok, database=database)):
        second = subprocess.run([sys.executable, "-c", code, database], capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "without Redis each would admit the whole limit: set redis" in second.stderr
    first_has_gone = subprocess.run([sys.executable, "-c", code, database], capture_output=True, text=True, check=False)
    assert (first_has_gone.returncode, first_has_gone.stderr) == (0, "")


def test_the_import_is_quick_and_loads_no_driver(tmp_path: Path) -> None:
    code = (
        "import sys, time; start = time.process_time(); from machpay_gateway import MachPayAuth;"
        "print(time.process_time() - start);"
        "drivers = {'sqlalchemy', 'alembic', 'filelock', 'redis', 'hiredis', 'joserfc', 'httpx2', 'click', 'limits'};"
        "print(sorted(drivers & sys.modules.keys()))"
    )
    # A tracer of coverage would be timed, too: it adds a fifth. The first run compiles, as an installation does.
    untraced = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    untraced |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    command = [sys.executable, "-c", code]
    runs = [
        subprocess.run(command, capture_output=True, text=True, check=True, env=untraced).stdout.splitlines()
        for _ in range(4)
    ]
    assert all(loaded == "[]" for _, loaded in runs)
    assert min(float(seconds) for seconds, _ in runs) < 0.3
