"""Schemathesis on the served key API: responses of a real server are checked against the OpenAPI document."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from machpay_gateway import Tier
from machpay_gateway.assembly import ConfiguredGateway
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.keys.leak import LeakSettings
from machpay_gateway.gateway import Gateway
from machpay_gateway.server import create_app
from tests.admin.conftest import Api, Caller
from tests.admin.scanner import scanners_keys
from tests.applications import ok
from tests.servers import serving

# Each switched off for a reason; every other check of schemathesis is on.
SWITCHED_OFF = {
    "positive_data_acceptance": "which scopes, ids and later moments there are is not a schema's to say",
}
SCOPES = ("keys:manage", "skills:*", "account:read")


@dataclass
class Found:
    """The results of a run: *responses* by operation and status, and the *failures* that schemathesis reports."""

    responses: dict[str, Counter[int]] = field(default_factory=dict)
    checks: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def examples(self) -> int:
        return sum(counted.total() for counted in self.responses.values())

    def note(self, event: events.EngineEvent) -> None:
        """Record *event*."""
        if isinstance(event, events.NonFatalError | events.FatalError):
            self.failures.append(str(event))
        if not isinstance(event, events.ScenarioFinished):
            return
        recorder = event.recorder
        for case_id, interaction in recorder.interactions.items():
            label = recorder.cases[case_id].value.operation.label
            if interaction.response is not None:
                self.responses.setdefault(label, Counter())[interaction.response.status_code] += 1
        for checks in recorder.checks.values():
            for check in checks:
                self.checks[check.name] += 1
                if check.failure_info is not None:
                    self.failures.append(
                        f"{check.name}: {check.failure_info.failure}\n{check.failure_info.code_sample}"
                    )


def fuzzed(*, max_examples: int, seed: int) -> Found:
    """Send valid and invalid requests to the key API, *max_examples* for each operation and phase."""
    results = Found()
    with served() as (url, api, caller_id, secret):
        config = SchemathesisConfig.from_dict(
            {
                "seed": seed,
                "auth": {"openapi": {"bearer": {"bearer": secret}}},
                "generation": {"max-examples": max_examples, "deterministic": True, "database": "none"},
                "checks": {name: {"enabled": False} for name in SWITCHED_OFF},
                "operations": [
                    # Other methods than the public one require a credential, which the fuzzer does not send here: 401.
                    {"include-path": "/v1/leaks", "checks": {"unsupported_method": {"enabled": False}}}
                ],
            }
        )
        schema = schemathesis.openapi.from_url(f"{url}/v1/openapi.json", config=config)

        @schema.hook
        def filter_case(_context: Any, case: Any) -> bool:  # noqa: ANN401 - schemathesis' own
            # A listed key may be the calling one, which must not revoke itself during the run.
            return caller_id not in case.path_parameters.values()

        for event in from_schema(schema).execute():
            results.note(event)
        caller = asyncio.run(stored_key(api.gateway, caller_id))
    assert caller is not None
    assert caller.version == 1, "the run changed the key that it calls with"
    return results


@contextmanager
def served() -> Iterator[tuple[str, Api, str, str]]:
    """Serve the key API on loopback; yield its address and its parts, and the id and the secret of an admin's key."""
    tiers = {"enterprise": Tier(rate="1000000000/minute", concurrency=1000)}
    with TemporaryDirectory() as folder:
        leaks = LeakSettings(str(scanners_keys(Path(folder))))
        database = f"sqlite:///{folder}/keys.db"  # in memory there is no room for apps
        app = create_app(ok, database=database, tiers=tiers, failure_limit="1000000000/minute", leaks=leaks)
        api = Api.of(app)
        key_id, secret = asyncio.run(admins_key(api))
        with serving(app) as (host, port):
            yield f"http://{host}:{port}", api, key_id, secret


async def admins_key(api: Api) -> tuple[str, str]:
    """Return the id and the secret of a key, made before the server's own event loop has the database open."""
    async with api.gateway:
        key_id, secret = await api.guarded.key(scopes=SCOPES, tier="enterprise")
        admin = Caller(api, key_id, secret)
        await admin.granted(await admin.app(scopes=[]))
        await api.close()
    return key_id, secret


async def stored_key(gateway: Gateway, key_id: str) -> KeyRecord | None:
    """Return the key, from a database that is opened for it."""
    async with ConfiguredGateway(database=gateway.settings.database) as another:
        return await another.keys.get(None, key_id)
