"""`machpay-gateway demo`: the gateway in front of a sample API, with keys to try; nothing of it is left afterwards."""

import asyncio
import importlib.util
import logging
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

from machpay_gateway.assembly import ConfiguredGateway
from machpay_gateway.cli.output import json_option, print_json
from machpay_gateway.core.accounts.user import ADMIN
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.keys.document import issued_key_document
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.scopes import KNOWN_SCOPES
from machpay_gateway.gateway import Gateway

_PACKAGE = Path(__file__).parents[1]
# A wheel brings the sample along; in a checkout it stands beside the package.
_SAMPLES = (_PACKAGE / "_examples" / "skills_api.py", _PACKAGE.parent / "examples" / "skills_api.py")
_DRAIN_SECONDS = 2  # longer than the sample's stream, so that a stop cuts nothing off
_KEYS = (
    ("admin", "live", KNOWN_SCOPES),
    ("test", "test", ("skills:execute", "skills:list", "account:read", "webhooks:manage")),
    ("read-only", "live", ("skills:list", "account:read")),
)
_EMAIL = "demo@example.com"
# Those that browsers reach by the name `localhost`, which is the Console's host: the API has the address itself.
_ADDRESSES = ("127.0.0.1", "::1")
# Each call stands on one line and needs nothing but itself, so that it can be pasted.
_TOLD = """\
MachPay Gateway guards a sample API at {url}, live and sandbox apart. Ctrl-C ends it, and nothing is kept.

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

# See what is left of the read-only key's limits: RateLimit.
curl -i {url}/v1/skills -H "Authorization: Bearer {reader}"

# It may not execute.
curl -i -X POST {url}/v1/skills/execute -H "Authorization: Bearer {reader}"

# Nobody may without a key.
curl -i {url}/v1/account

# Change the account with the admin key.
curl -X PATCH {url}/v1/account -H "Authorization: Bearer {admin}" -H "Content-Type: application/json" \
-d '{{"currency": "EUR"}}'

# Create a key with the admin key; its secret is shown this once.
curl {url}/v1/keys -H "Authorization: Bearer {admin}" -H "Content-Type: application/json" \
-d '{{"name": "production-api", "scopes": ["skills:execute", "account:read"]}}'

# Watch a stream of events.
curl -N {url}/v1/skills/stream -H "Authorization: Bearer {reader}"

# Run into the test key's limit of 100 requests a minute.
for i in $(seq 105); do curl -s -o /dev/null -w '%{{http_code}}\\n' {url}/v1/skills \
-H "Authorization: Bearer {test}"; done | sort | uniq -c

# Revoke the read-only key from another terminal; within a second it is refused here.
MACHPAY_DATABASE={database} {program} keys revoke {reader_id}"""


@dataclass(frozen=True, slots=True)
class Issued:
    """A key of the demo and its secret."""

    key: KeyRecord
    secret: str


@dataclass(frozen=True, slots=True)
class Made:
    """What the demo has made: keys, and a user of the Console."""

    keys: Sequence[Issued]
    email: str
    password: str


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address: the demo is for you alone.")
@json_option
def demo(*, port: int, host: str, as_json: bool) -> None:
    """Serve a sample API, and print keys and calls to try. Ctrl-C ends it."""
    address = _loopback(host)
    sample = load_sample()
    try:
        from machpay_gateway.cli.samples import serving_sample
        from machpay_gateway.serving.supervisor import Supervisor
    except ModuleNotFoundError as exc:
        raise click.ClickException("The demo needs a server: pip install 'machpay-gateway[server]'") from exc
    with (
        _until_stopped(),
        _without_variables(),
        TemporaryDirectory(prefix="machpay-demo-") as folder,
        serving_sample(sample.create_app("live")) as live,
        serving_sample(sample.create_app("sandbox")) as sandbox,
    ):
        listen = _listen(address, port)
        settings = _write_settings(Path(folder), sample, listen, live=live, sandbox=sandbox)
        gateway = ConfiguredGateway(config=settings)
        made = asyncio.run(_make(gateway))

        async def run() -> None:
            supervisor = Supervisor(
                {"config": settings},
                changes={"listen": listen, "management": ""},
                on_ready=lambda serving: _print_demo(serving.url, gateway.settings.database, made, as_json=as_json),
                log_level=logging.WARNING,
            )
            await supervisor.run()

        try:
            asyncio.run(run())
        except ConfigurationError as exc:
            raise click.ClickException(f"{exc}; --port takes another one, and 0 a free one.") from exc


def load_sample() -> ModuleType:
    """Return the sample API's module."""
    for path in _SAMPLES:
        if path.is_file() and (spec := importlib.util.spec_from_file_location("skills_api", path)) and spec.loader:
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise click.ClickException(f"The sample API is missing: {_SAMPLES[0]} should be there. Install the package anew.")


@contextmanager
def _until_stopped() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end what runs within, and nothing else: being stopped is how a demo succeeds."""
    kept = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _loopback(host: str) -> str:
    address = "127.0.0.1" if host == "localhost" else host
    if address not in _ADDRESSES:
        raise click.BadParameter(
            f"{host!r} is not a loopback address by the name localhost: use 127.0.0.1 or ::1.", param_hint="--host"
        )
    return address


def _listen(address: str, port: int) -> str:
    """Return where to listen. A free port is picked here: the Console is told where it is before anything listens."""
    host = f"[{address}]" if ":" in address else address
    if port:
        return f"{host}:{port}"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listener:
        return f"{host}:{listener.getsockname()[1]}"


def _pages_url(listen: str) -> str:
    """Return where the Console is of a demo that listens at *listen*: on a host of its own."""
    return f"http://localhost:{listen.rpartition(':')[2]}"


def _write_settings(folder: Path, sample: ModuleType, listen: str, *, live: str, sandbox: str) -> Path:
    """Write the settings of a gateway at *listen* in front of two upstreams, and return their file."""
    routes = "".join(
        f'[[routes]]\nmatch = "{route.match}"\nscopes = "{route.requires}"\npublic = {str(route.public).lower()}\n'
        for route in sample.ROUTES
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
    kept: Mapping[str, str] = {name: value for name, value in os.environ.items() if name.startswith("MACHPAY_")}
    for name in kept:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(kept)


async def _make(gateway: Gateway) -> Made:
    from machpay_gateway.services.users import random_password

    async with gateway:
        account = await gateway.accounts.create("demo", "standard")
        keys = [
            Issued(*await gateway.keys.create(account.id, name=name, scopes=scopes, environment=environment))
            for name, environment, scopes in _KEYS
        ]
        password = random_password()
        user = await gateway.users.create(account.id, _EMAIL, password, role=ADMIN)
        return Made(keys, user.email, password)


def _print_demo(url: str, database: str, made: Made, *, as_json: bool) -> None:
    pages_url = _pages_url(url)
    if as_json:
        keys = [issued_key_document(each.key, each.secret, time.time()) for each in made.keys]
        console = {"url": f"{pages_url}/console", "email": made.email, "password": made.password}
        print_json({"object": "demo", "url": url, "database": database, "keys": keys, "console": console})
        return
    admin, test, reader = made.keys
    click.echo(
        _TOLD.format(
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
            email=made.email,
            password=made.password,
        )
    )


def _program() -> str:
    # In a checkout it is not on the PATH of the other terminal.
    started_as = Path(sys.argv[0])
    return shlex.quote(str(started_as.absolute())) if started_as.stem == "machpay-gateway" else "machpay-gateway"
