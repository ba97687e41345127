"""`machpay-gateway demo`: a gateway in front of a sample API, with keys to try; it leaves nothing behind."""

import asyncio
import importlib.util
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import click
from starlette.types import ASGIApp

from machpay_gateway.assembly import ConfiguredGateway
from machpay_gateway.cli.demo_page import ROUTE as LANDING
from machpay_gateway.cli.demo_page import DemoPage
from machpay_gateway.cli.output import json_option, print_json
from machpay_gateway.core.accounts.user import ADMIN
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.keys.document import issued_key_document
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.limits.rate import TIERS
from machpay_gateway.core.scopes import KNOWN_SCOPES
from machpay_gateway.gateway import Gateway

_PACKAGE = Path(__file__).parents[1]
# A wheel contains the sample; in a checkout it is beside the package.
_SAMPLES = (_PACKAGE / "_examples" / "skills_api.py", _PACKAGE.parent / "examples" / "skills_api.py")
_DRAIN_SECONDS = 2  # longer than the sample's stream, so that a stop does not cut it off
_KEYS = (
    ("admin", "live", KNOWN_SCOPES),
    ("test", "test", ("skills:execute", "skills:list", "account:read", "webhooks:manage")),
    ("read-only", "live", ("skills:list", "account:read")),
)
_EMAIL = "demo@example.com"
# Addresses that browsers reach as `localhost`, the Console's host; the API is at the address itself.
_ADDRESSES = ("127.0.0.1", "::1")
# Each call is one self-contained line, so that it can be pasted.
_TEXT = """\
MachPay Gateway guards a sample API at {url}, with separate live and sandbox upstreams.
Open it in a browser to begin. Stop it with Ctrl-C; nothing is kept.

admin key, live: {admin_scopes}
  {admin}
test key, test: {test_scopes}
  {test}
read-only key, live: {reader_scopes}
  {reader}

The Console is at {pages_url}/console: sign in as {email} with the password {password}

# Execute a skill with the test key: the sandbox answers.
curl {url}/v1/skills/execute -H "Authorization: Bearer {test}" -H "Content-Type: application/json" \
-d '{{"skill_id": "text-summarizer", "input": {{}}}}'

# See the remaining quota of the read-only key in the RateLimit header.
curl -i {url}/v1/skills -H "Authorization: Bearer {reader}"

# The read-only key may not execute skills.
curl -i -X POST {url}/v1/skills/execute -H "Authorization: Bearer {reader}"

# A request without a key is refused.
curl -i {url}/v1/account

# Change the account with the admin key.
curl -X PATCH {url}/v1/account -H "Authorization: Bearer {admin}" -H "Content-Type: application/json" \
-d '{{"currency": "EUR"}}'

# Create a key with the admin key; its secret is shown only once.
curl {url}/v1/keys -H "Authorization: Bearer {admin}" -H "Content-Type: application/json" \
-d '{{"name": "production-api", "scopes": ["skills:execute", "account:read"]}}'

# Watch a stream of events.
curl -N {url}/v1/skills/stream -H "Authorization: Bearer {reader}"

# Exceed the test key's limit of 100 requests per minute.
for i in $(seq 105); do curl -s -o /dev/null -w '%{{http_code}}\\n' {url}/v1/skills \
-H "Authorization: Bearer {test}"; done | sort | uniq -c

# Revoke the read-only key from another terminal; within a second it is refused here.
MACHPAY_DATABASE={database} {program} keys revoke {reader_id}"""


@dataclass(frozen=True, slots=True)
class DemoKey:
    """A key of the demo and its secret."""

    key: KeyRecord
    secret: str


@dataclass(frozen=True, slots=True)
class DemoRecords:
    """The demo's keys, and its Console user."""

    keys: Sequence[DemoKey]
    email: str
    password: str


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 picks a free one.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="A loopback address, as the demo is not for others."
)
@json_option
def demo(*, port: int, host: str, as_json: bool) -> None:
    """Serve a sample API, and print keys and calls to try. Stop with Ctrl-C."""
    listen = _listen(_loopback(host), port)
    sample = load_sample()
    try:
        from machpay_gateway.cli.samples import serving_sample
        from machpay_gateway.serving.supervisor import Supervisor
    except ImportError as exc:
        raise click.ClickException("The demo needs a server: pip install 'machpay-gateway[server]'") from exc
    with (
        _until_stopped(),
        _without_variables(),
        TemporaryDirectory(prefix="machpay-demo-") as folder,
        serving_sample(_with_page(sample.create_app("live"), listen)) as live,
        serving_sample(_with_page(sample.create_app("sandbox"), listen)) as sandbox,
    ):
        settings = _write_settings(Path(folder), sample, listen, live=live, sandbox=sandbox)
        gateway = ConfiguredGateway(config=settings)
        records = asyncio.run(_create_records(gateway))

        async def run() -> None:
            supervisor = Supervisor(
                {"config": settings},
                changes={"listen": listen, "management": "", "log_level": "warning"},
                on_ready=lambda serving: _print_demo(serving.url, gateway.settings.database, records, as_json=as_json),
            )
            await supervisor.run()

        try:
            asyncio.run(run())
        except ConfigurationError as exc:
            raise click.ClickException(f"{exc}; choose another one with --port, or 0 for a free one.") from exc


def _with_page(app: ASGIApp, listen: str) -> ASGIApp:
    return DemoPage(app, url=f"http://{listen}", console=f"{_pages_url(listen)}/console")


def load_sample() -> ModuleType:
    """Return the sample API's module."""
    for path in _SAMPLES:
        if path.is_file() and (spec := importlib.util.spec_from_file_location("skills_api", path)) and spec.loader:
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise click.ClickException(f"The sample API is missing: {_SAMPLES[0]} should exist. Reinstall the package.")


@contextmanager
def _until_stopped() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the block without an error: that is how a demo ends."""
    handlers = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _loopback(host: str) -> str:
    address = "127.0.0.1" if host == "localhost" else host
    if address not in _ADDRESSES:
        raise click.BadParameter(
            f"{host!r} is not a loopback address by the name localhost: use 127.0.0.1 or ::1.", param_hint="--host"
        )
    return address


def _listen(address: str, port: int) -> str:
    """Return where to listen. A free port is picked here, because the Console's URL is a setting."""
    host = f"[{address}]" if ":" in address else address
    if port:
        return f"{host}:{port}"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listener:
        return f"{host}:{listener.getsockname()[1]}"


def _pages_url(listen: str) -> str:
    """Return the origin of the Console of a demo that listens at *listen*: on a host of its own."""
    return f"http://localhost:{listen.rpartition(':')[2]}"


def _write_settings(folder: Path, sample: ModuleType, listen: str, *, live: str, sandbox: str) -> Path:
    """Write the settings of a gateway at *listen* in front of two upstreams, and return their file."""
    routes = "".join(
        f'[[routes]]\nmatch = "{route.match}"\nscopes = "{route.requires}"\npublic = {str(route.public).lower()}\n'
        for route in (LANDING, *sample.ROUTES)
    )
    file = folder / "machpay.toml"
    file.write_text(
        f'database = "sqlite:///{folder / "demo.db"}"\nunlisted_routes = "deny"\n'
        f'[upstreams]\nlive = "{live}"\nsandbox = "{sandbox}"\n'
        f'[console]\nurl = "{_pages_url(listen)}"\napi_url = "http://{listen}"\n'
        f'[server]\naccess_log = "off"\ndrain_seconds = {_DRAIN_SECONDS}\n{routes}'
    )
    return file


@contextmanager
def _without_variables() -> Iterator[None]:
    variables: Mapping[str, str] = {name: value for name, value in os.environ.items() if name.startswith("MACHPAY_")}
    for name in variables:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(variables)


async def _create_records(gateway: Gateway) -> DemoRecords:
    from machpay_gateway.services.users import random_password

    async with gateway:
        account = await gateway.accounts.create("demo", "standard")
        keys = [
            DemoKey(*await gateway.keys.create(account.id, name=name, scopes=scopes, environment=environment))
            for name, environment, scopes in _KEYS
        ]
        password = random_password()
        user = await gateway.users.create(account.id, _EMAIL, password, role=ADMIN)
        return DemoRecords(keys, user.email, password)


def _print_demo(url: str, database: str, records: DemoRecords, *, as_json: bool) -> None:
    pages_url = _pages_url(url)
    if as_json:
        keys = [issued_key_document(each.key, each.secret, time.time(), TIERS) for each in records.keys]
        console = {"url": f"{pages_url}/console", "email": records.email, "password": records.password}
        print_json({"object": "demo", "url": url, "database": database, "keys": keys, "console": console})
        return
    admin, test, reader = records.keys
    click.echo(
        _TEXT.format(
            url=url,
            pages_url=pages_url,
            database=database,
            program=_program(),
            admin=admin.secret,
            test=test.secret,
            reader=reader.secret,
            reader_id=reader.key.id,
            admin_scopes=admin.key.scopes,
            test_scopes=test.key.scopes,
            reader_scopes=reader.key.scopes,
            email=records.email,
            password=records.password,
        )
    )


def _program() -> str:
    # A checkout's program is not on the PATH of another terminal.
    started_as = Path(sys.argv[0])
    return shlex.quote(str(started_as.absolute())) if started_as.stem == "machpay-gateway" else "machpay-gateway"
