"""The Python snippets of the public guide, run verbatim against a served gateway."""

import asyncio
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from machpay import AuthenticationError, MachPay, NotFoundError, PermissionDeniedError

from machpay_gateway import Gateway
from machpay_gateway.cli.demo import load_sample
from machpay_gateway.core.keys.key import KeyRecord, SecretRecord
from machpay_gateway.core.scopes import KNOWN_SCOPES
from machpay_gateway.server import create_app
from tests.keyrings import logged
from tests.redises.waiting import wait_until
from tests.servers import serving

GUIDE = Path(__file__).parents[2].parent / "shared" / "guide" / "authentication.md"
NAMED_IN_THE_GUIDE = ("key_abc123", "key_old123")


@dataclass(frozen=True)
class Served:
    """The sample API behind a gateway with the key API, and an admin's secret."""

    url: str
    secret: str
    database: str
    sample: ModuleType

    def client(self, api_key: str) -> MachPay:
        return MachPay(api_key=api_key, base_url=self.url, max_retries=0)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    sample, database = load_sample(), f"sqlite:///{tmp_path}/keys.db"

    async def prepared() -> str:
        async with Gateway(database=database) as gateway:
            account = await gateway.accounts.create("main", "standard")
            record, secret = await gateway.keys.create(
                account.id, name="admin", scopes=KNOWN_SCOPES, environment="live"
            )
            for number, key_id in enumerate(NAMED_IN_THE_GUIDE):
                await gateway.store.add_key(named(record, key_id, number), logged())
            return secret

    secret = asyncio.run(prepared())
    app = create_app(sample.app, database=database, routes=sample.ROUTES, unlisted_routes="deny", usage_seconds=1)
    with serving(app) as (host, port):
        url = f"http://{host}:{port}"
        monkeypatch.setenv("MACHPAY_BASE_URL", url)
        monkeypatch.setenv("MACHPAY_API_KEY", secret)
        monkeypatch.setenv("MACHPAY_ADMIN_KEY", secret)
        yield Served(url, secret, database, sample)


def named(record: KeyRecord, key_id: str, number: int) -> KeyRecord:
    """Return a key of the same account with an id that the guide names."""
    return replace(record, id=key_id, secrets=(SecretRecord(bytes([number]) * 32, "sk_live_…0000", record.created_at),))


def snippet(opening: str) -> str:
    """Return the guide's block of Python that has *opening* in it."""
    if not GUIDE.is_file():
        pytest.skip("the guide is not beside this checkout (../shared/guide/authentication.md)")
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if opening in block]
    return str(block)


def run(*openings: str) -> dict[str, Any]:
    """Run the blocks in one namespace, and return it."""
    names: dict[str, Any] = {"os": os}
    for opening in openings:
        exec(snippet(opening), names)  # noqa: S102 - the guide's own code is what is tested
    return names


def test_every_block_of_python_in_the_guide_is_run_here() -> None:
    openings = ("client = MachPay()", 'MachPay(api_key="', "admin.keys.create", "admin.keys.update")
    blocks = {snippet(opening) for opening in openings}
    assert len(blocks) == len(re.findall(r"^```python$", GUIDE.read_text(), re.MULTILINE))


def test_a_client_picks_its_key_up_from_the_environment(served: Served) -> None:
    with run("client = MachPay()")["client"] as client:
        assert client.whoami().name == "admin"
        assert client.skills.execute(skill_id="text-summarizer", input={}).output == "Done."
    assert served.secret not in repr(client)


@pytest.mark.usefixtures("served")
def test_a_client_takes_a_key_as_an_argument() -> None:
    with (
        run("from machpay import MachPay\nclient", 'MachPay(api_key="')["client"] as client,
        pytest.raises(AuthenticationError),
    ):
        client.whoami()  # the guide's key is a made-up one


def test_the_automated_rotation_creates_a_key_and_revokes_the_old_one(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    names = run("admin.keys.create")
    admin, new_key = names["admin"], names["new_key"]
    assert capsys.readouterr().out == f"New key created: {new_key.id}\n"
    assert admin.keys.retrieve("key_old123").status == "revoked"
    with served.client(new_key.secret) as deployed:
        me = deployed.whoami()
        assert (me.name, tuple(me.scopes)) == ("production-api-v2", ("account:read", "skills:execute"))
        assert deployed.skills.execute(skill_id="sentiment", input={}).output == "Done."
        with pytest.raises(PermissionDeniedError):
            deployed.keys.list()
    admin.close()


def test_the_allowlist_holds_from_the_next_request(served: Served) -> None:
    names = run("admin.keys.create", "admin.keys.update")
    admin, new_key = names["admin"], names["new_key"]
    assert admin.keys.retrieve("key_abc123").allowed_ips == ("203.0.113.10", "203.0.113.0/24")
    with served.client(new_key.secret) as deployed:
        assert deployed.whoami().id == new_key.id
        admin.keys.update(key_id=new_key.id, allowed_ips=["203.0.113.10", "203.0.113.0/24"])
        with pytest.raises(PermissionDeniedError) as refused:
            deployed.whoami()
        assert refused.value.code == "address_not_allowed"
        admin.keys.update(key_id=new_key.id, allowed_ips=["127.0.0.1"])
        assert deployed.whoami().id == new_key.id
    admin.close()


def test_a_rotation_in_the_guides_four_steps(served: Served) -> None:
    with served.client(served.secret) as admin:
        old = admin.keys.create(name="production-api", scopes=["skills:execute", "skills:list"])
        # 1. Create a new key with the same permissions. 2. Deploy it. 3. Verify that it works.
        new = admin.keys.create(name="production-api-v2", scopes=list(old.scopes))
        assert old.secret
        assert new.secret
        with served.client(old.secret) as before, served.client(new.secret) as after:
            assert [skill.id for skill in after.skills.list()] == [skill.id for skill in before.skills.list()]
            # 4. Revoke the old one, after confirming that everything works.
            admin.keys.revoke(old.id)
            with pytest.raises(AuthenticationError):
                before.skills.list()
            assert after.skills.list().data
        with pytest.raises(NotFoundError):
            admin.keys.revoke("key_of_nobody")


def test_the_use_of_a_key_is_seen_by_whoever_manages_it(served: Served) -> None:
    with served.client(served.secret) as admin:
        key = admin.keys.create(name="production-api", scopes=["skills:list"])
        assert key.secret
        with served.client(key.secret) as deployed:
            assert deployed.skills.list().data
            with pytest.raises(PermissionDeniedError):
                deployed.skills.execute(skill_id="sentiment", input={})
        wait_until(lambda: admin.keys.usage(key.id).total.requests == 2, seconds=10, claim="both requests are stored")
        usage = admin.keys.usage(key.id, bucket="day")
        assert (usage.key_id, usage.bucket, len(usage.data)) == (key.id, "day", 1)
        assert dict(usage.total.outcomes) == {"allowed": 1, "insufficient_scope": 1}
        assert dict(usage.total.routes) == {"GET /v1/skills": 1, "POST /v1/skills/execute": 1}
        assert usage.total.latency_ms.p50 is not None
        assert admin.keys.retrieve(key.id).last_used_at is not None
