"""What the page for operators says of PostgreSQL."""

import asyncio
import os
import re
import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from machpay_gateway import Gateway
from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.stores.schema import METADATA
from machpay_gateway.stores.sql import SqlStore
from machpay_gateway.stores.sql.engine import database_url
from tests.postgres.servers import Server
from tests.postgres.tls import tls_in_front_of
from tests.redises.ports import HOST
from tests.redises.tls import write_certificates

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.fixture
def grants() -> str:
    (block,) = re.findall(r"^```sql\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(block)


def test_the_rights_name_every_table(grants: str) -> None:
    assert set(re.findall(r"\b[a-z]+(?:_[a-z]+)*\b", grants)) == {*METADATA.tables, "alembic_version", "machpay"}


def runbook(opening: str) -> str:
    """Return the page's commands of the shell that begin with *opening*."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if block.startswith(opening)]
    return str(block)


async def test_a_backup_is_made_and_put_back_as_the_page_says(
    postgres_server: Server, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = f"{Path(sys.executable).parent}:{postgres_server.programs}"
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "DATABASE": postgres_url}
    environment |= {"MACHPAY_DATABASE": postgres_url}

    async def run(commands: str) -> str:
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-euc", commands),
            cwd=tmp_path,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await shell.communicate()
        assert shell.returncode == 0, output.decode()
        return output.decode()

    monkeypatch.setenv("MACHPAY_SECRET_KEY", secrets.token_hex(32))
    async with Gateway(database=postgres_url) as gateway:
        account = await gateway.accounts.create("acme", "standard")
        kept, _ = await gateway.keys.create(account.id, name="kept", scopes=[], environment="live")
        await run(runbook("pg_dump"))
        await gateway.keys.revoke(None, kept.id)
        later, _ = await gateway.keys.create(account.id, name="later", scopes=[], environment="live")
        output = await run(runbook("pg_restore"))  # while a process has it open
        assert "2 rows, whole." in output
        assert await gateway.store.key(None, later.id) is None
        record = await gateway.store.key(None, kept.id)
        assert record is not None
        assert record.revoked_at is None


@pytest.fixture
def served_url(postgres_server: Server, postgres_url: str, grants: str) -> str:
    """The database as the role has it that the page gives its rights to."""
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute(
        "DO $$ BEGIN CREATE ROLE machpay LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
        grants,
        database=name,
    )
    return postgres_url.replace("postgres@", "machpay@")


async def test_who_has_these_rights_can_do_everything_that_is_done_with_keys(served_url: str) -> None:
    async with Gateway(database=served_url) as gateway:
        account = await gateway.accounts.create("main", "standard")
        key, secret = await gateway.keys.create(account.id, name="deploy", scopes=["skills:list"], environment="live")
        await gateway.keys.rotate(account.id, key.id)
        await gateway.keys.update(account.id, key.id, name="renamed")
        await gateway.accounts.set_tier("main", "enterprise")
        await gateway.keys.revoke(account.id, key.id)
        report = await gateway.keys.inspect(secret)
        assert report.position == "previous"
        assert report.key is not None
        assert (report.key.name, report.key.tier, report.key.version) == ("renamed", "enterprise", 4)
        assert (await gateway.store.audit_head()).sequence == 6


@pytest.mark.parametrize("statement", ["UPDATE audit_log SET actor_id = 'nobody'", "DELETE FROM audit_log"])
async def test_who_has_these_rights_cannot_rewrite_the_log(
    postgres_server: Server, served_url: str, statement: str
) -> None:
    name = served_url.rpartition("/")[2]
    with pytest.raises(RuntimeError, match="permission denied for table audit_log"):
        postgres_server.execute("SET ROLE machpay", statement, database=name)


def test_the_password_is_in_no_repr() -> None:
    assert "hunter2" not in repr(database_url("postgresql://gate:hunter2@db/keys"))


@pytest.fixture
async def tls_url(
    postgres_server: Server, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    ca_path, chain_path = write_certificates(tmp_path)
    monkeypatch.setenv("PGSSLROOTCERT", str(ca_path))
    async with tls_in_front_of(postgres_server, chain_path) as port:
        yield postgres_url.replace(str(postgres_server.port), str(port)) + "?sslmode=verify-full"


async def test_a_server_whose_certificate_is_right_is_served_over_tls(tls_url: str) -> None:
    store = SqlStore(tls_url)
    await store.open()
    assert list(await store.accounts()) == []
    await store.close()


@pytest.mark.parametrize("wrong", ["name", "authority", "no authority"])
async def test_a_server_that_cannot_be_verified_is_unavailable(
    tls_url: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = tls_url
    if wrong == "name":
        url = tls_url.replace(HOST, "localhost")
    elif wrong == "authority":
        (tmp_path / "other").mkdir()
        monkeypatch.setenv("PGSSLROOTCERT", str(write_certificates(tmp_path / "other")[0]))
    else:
        monkeypatch.delenv("PGSSLROOTCERT")
        monkeypatch.setenv("HOME", str(tmp_path))
    store = SqlStore(url)
    with pytest.raises(StoreUnavailable):
        await store.open()
    await store.close()


async def test_a_server_without_tls_is_not_spoken_to_where_it_is_asked_for(postgres_url: str) -> None:
    store = SqlStore(f"{postgres_url}?sslmode=require")
    with pytest.raises(StoreUnavailable):
        await store.open()
    await store.close()
