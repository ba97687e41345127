"""The package without its extras: what works, and how what is missing is named."""

import re
from pathlib import Path

import pytest

from machpay_gateway.extras import LIBRARIES
from tests import installed

_MODULES = {"argon2-cffi": "argon2", "opentelemetry-api": "opentelemetry", "prometheus-client": "prometheus_client"}
_CONSOLE = {"url": "https://console.example"}
_OAUTH = {"issuer": "https://id.example"}
_APP = """
import asyncio
from machpay_gateway import MachPayAuth, Route, Tier

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})

async def call(guarded, headers):
    sent = []
    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message):
        sent.append(message)
    scope = {"type": "http", "method": "GET", "path": "/x", "raw_path": b"/x", "query_string": b"", "scheme": "http",
             "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "http_version": "1.1"}
    await guarded(scope, receive, send)
    return sent[0]["status"]
"""
_TOKEN = """
import base64, json, time
def part(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")
def token(issuer):
    claims = {"iss": issuer, "sub": "key_1", "exp": time.time() + 60}
    return b".".join([part({"alg": "RS256", "typ": "JWT", "kid": "1"}), part(claims), part("signature")])
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed.install(tmp_path_factory.mktemp("base") / "packages")


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def test_a_guarded_application_needs_no_extra(base: Path, tmp_path: Path) -> None:
    code = f"""{_APP}
async def main():
    guarded = MachPayAuth(app, database="memory://", routes=[Route("GET /x")])
    print(await call(guarded, []), await call(guarded, [(b"authorization", b"Bearer x")]))
    await guarded.gateway.lifecycle.close()

asyncio.run(main())
"""
    result = installed.run(base, "-c", code, cwd=tmp_path)
    assert (result.stdout, result.stderr) == ("401 401\n", "")


def test_the_basic_commands_need_no_extra(base: Path, tmp_path: Path) -> None:
    code = f"""{_APP}
from click.testing import CliRunner
from machpay_gateway.cli.main import cli

def command(line):
    result = CliRunner().invoke(cli, line.split())
    assert result.exit_code == 0, (line, result.output, result.exception)
    return result.stdout

async def main(secret):
    guarded = MachPayAuth(app, routes=[Route("GET /x", scopes="keys:manage")], tiers={{"test": Tier("1/hour", 1)}})
    print([await call(guarded, [(b"authorization", b"Bearer " + secret.encode())]) for _ in range(2)])
    await guarded.gateway.lifecycle.close()

command("init")
secret = command("keys create --name first --environment test --scope keys:manage").strip()
print(command("keys list"), command("policy check"), command("doctor"))
asyncio.run(main(secret))
"""
    result = installed.run(base, "-c", code, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert re.search(r"key_\w+ +first +- +test +test +active", result.stdout)
    assert "machpay.toml is valid" in result.stdout
    assert "takes writes" in result.stdout
    assert result.stdout.endswith("[200, 429]\n")


def test_a_token_is_refused_and_the_session_of_a_key_is_said_to_need_the_extra(base: Path, tmp_path: Path) -> None:
    code = f"""{_APP}{_TOKEN}
from machpay_gateway.core.jose.session import ISSUER
async def main():
    guarded = MachPayAuth(app, database="memory://", routes=[Route("GET /x")])
    for issuer in ("https://id.example", ISSUER):
        print(await call(guarded, [(b"authorization", b"Bearer " + token(issuer))]))
    await guarded.gateway.lifecycle.close()

asyncio.run(main())
"""
    result = installed.run(base, "-c", code, cwd=tmp_path)
    assert result.stdout.split() == ["401", "503"]
    assert "pip install 'machpay-gateway[tokens]'" in result.stderr


_PARTS = [
    ("api", "The key API", "from machpay_gateway.server import create_app"),
    ("api", "The key API", "import machpay_gateway.admin"),
    ("console", "The Console", "import machpay_gateway.console.app"),
    ("oauth", "The authorization server", "import machpay_gateway.oauth.app"),
    ("proxy", "The proxy", "import machpay_gateway.proxy.framing"),
    ("proxy", "`machpay-gateway serve`", "import machpay_gateway.serving.worker"),
    ("fastapi", "machpay_gateway.fastapi", "import machpay_gateway.fastapi"),
    ("tokens", "[oauth]", f"Gateway(oauth={_OAUTH}, scopes=['a:b'])"),  # to verify its tokens
    ("tokens", "[[issuers]]", "Gateway(issuers=[Issuer('https://a.example', audience='a', jwks='https://a.example')])"),
    ("postgresql", "postgresql://", "Gateway(database='postgresql://a/b')"),
    ("otel", "traces = true", "Gateway(traces=True)"),
    ("console", "A user with a password", "Gateway(database='memory://').users"),
    ("tokens", "A signing key", "Gateway(database='memory://').signing"),
]
_COMMANDS = [
    ("proxy", "serve"),
    ("server", "demo"),
    ("cli", "top --once --management 127.0.0.1:1"),
    ("console", "users list"),
    ("tokens", "signing-keys list"),
]


def test_a_missing_extra_names_itself_and_its_command(base: Path, tmp_path: Path) -> None:
    code = f"""
from machpay_gateway import Gateway, Issuer
from machpay_gateway.extras import MissingExtra
for line in {[code for _, _, code in _PARTS]}:
    try:
        exec(line)
    except MissingExtra as exc:
        print(exc)
    else:
        print("nothing is missing:", line)
"""
    result = installed.run(base, "-c", code, cwd=tmp_path)
    errors = result.stdout.splitlines()
    assert len(errors) == len(_PARTS), result.stderr
    for (extra, part, _), error in zip(_PARTS, errors, strict=True):
        assert error.startswith(f"{part} needs ")
        assert f"of the extra {extra}: pip install 'machpay-gateway[{extra}]'" in error
        assert ("pip install 'machpay-gateway[server]'" in error) is (extra != "fastapi")


def test_a_command_names_its_missing_extra_in_one_line(base: Path, tmp_path: Path) -> None:
    code = f"""
from click.testing import CliRunner
from machpay_gateway.cli.main import cli
CliRunner().invoke(cli, ["accounts", "create", "acme"])
for line in {[command for _, command in _COMMANDS]}:
    result = CliRunner().invoke(cli, line.split())
    print(result.exit_code, result.output.strip())
"""
    lines = installed.run(base, "-c", code, cwd=tmp_path).stdout.splitlines()
    assert len(lines) == len(_COMMANDS)
    for (extra, _), line in zip(_COMMANDS, lines, strict=True):
        assert line.startswith("1 Error: ")
        assert f"pip install 'machpay-gateway[{extra}]'" in line
        assert "pip install 'machpay-gateway[server]'" in line


def test_settings_name_every_extra_that_they_miss(base: Path, tmp_path: Path) -> None:
    (tmp_path / "machpay.toml").write_text('traces = true\n[console]\nurl = "https://console.example"\n')
    result = installed.run(base, "-m", "machpay_gateway", "policy", "check", cwd=tmp_path)
    named = set(re.findall(r"machpay-gateway\[(\w+)\]", result.stdout + result.stderr))
    assert named == {"console", "otel", "server"}


def test_each_setting_that_misses_an_extra_is_named_once(base: Path, tmp_path: Path) -> None:
    issuer = '[[issuers]]\nissuer = "https://a.example"\naudience = "a"\n'
    assertion = '[assertion]\nkey = "key.pem"\nissuer = "a"\naudience = "a"\n'
    (tmp_path / "machpay.toml").write_text(f'database = "postgresql://a/b"\n[leaks]\n{assertion}{issuer}')
    result = installed.run(base, "-m", "machpay_gateway", "policy", "check", cwd=tmp_path)
    text = result.stdout + result.stderr
    for name in ("[[issuers]]", "[leaks]", "[assertion]", "postgresql://"):
        assert text.count(f"{name} needs ") == 1, text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    "extra, code",
    [
        ("cli", "from machpay_gateway.cli.top_view import print_view; print_view({'mistake': 'x'})"),
        ("tokens", "Gateway(database='memory://').signing"),
        ("api", "create_app(database='memory://')"),
        ("console", f"create_app(database='memory://', console={_CONSOLE}).gateway.users"),
        ("oauth", f"create_app(database='memory://', scopes=['a:b'], oauth={_OAUTH})"),
        ("proxy", "import machpay_gateway.serving.supervisor, machpay_gateway.serving.worker"),
        ("postgresql", "Gateway(database='postgresql://a/b')"),
        ("otel", "Gateway(database='memory://', traces=True)"),
        ("fastapi", "import machpay_gateway.fastapi"),
    ],
)
def test_an_extra_has_all_that_its_part_needs(tmp_path: Path, extra: str, code: str) -> None:
    packages = installed.install(tmp_path / "packages", extra)
    check = "from machpay_gateway import Gateway; from machpay_gateway.extras import require_extra; "
    check += f"require_extra({extra!r}, 'This'); "
    check += "from machpay_gateway.server import create_app; " if "create_app" in code else ""
    result = installed.run(packages, "-W", "ignore::ResourceWarning", "-c", check + code, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("extra", LIBRARIES)
def test_the_table_of_libraries_is_that_of_the_package(extra: str) -> None:
    direct = installed.direct(extra)
    assert {_MODULES.get(name, name) for name in direct} == set(LIBRARIES[extra])


def test_the_extra_server_has_all_that_serves() -> None:
    whole = installed.distributions(["server"])
    assert {name for extra in LIBRARIES if extra != "fastapi" for name in installed.distributions([extra])} <= {*whole}
    assert "fastapi" not in whole


def test_the_test_runs_without_the_packages_of_this_environment(base: Path, tmp_path: Path) -> None:
    result = installed.run(base, "-c", "import pytest", cwd=tmp_path)
    assert last_line(result.stderr) == "ModuleNotFoundError: No module named 'pytest'"
