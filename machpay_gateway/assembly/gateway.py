"""Builds a gateway from settings."""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Literal, Unpack

from machpay_gateway.assembly.adapters import (
    assertions_for,
    grants_for,
    hooks_for,
    identifier_for,
    ledger_for,
    limiter_for,
    proofs_for,
    reports_for,
    signing_for,
    store_for,
    tokens_for,
    traces_for,
)
from machpay_gateway.assembly.application import scopes_of
from machpay_gateway.assembly.cache_size import default_cache_size
from machpay_gateway.assembly.opened import OpenedStore
from machpay_gateway.core.decision.credential_reader import CredentialReader
from machpay_gateway.core.decision.failures import Failures
from machpay_gateway.core.decision.policy import Policy
from machpay_gateway.core.decision.restored_records import RestoredRecords
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.keys.ports import ChangedRecord
from machpay_gateway.core.limits.load_shedder import PROBE_SECONDS, LoadShedder
from machpay_gateway.core.limits.rate import parse_rate
from machpay_gateway.core.scopes import DefinedScopes, ScopeSetting
from machpay_gateway.gate import Gate
from machpay_gateway.gateway import Gateway, Lifecycle
from machpay_gateway.log_throttle import LogThrottle
from machpay_gateway.problem_pages import PROBLEM_ROUTE, problem_paths
from machpay_gateway.services.lazy_services import LazyServices
from machpay_gateway.settings import Options, Settings, load_settings
from machpay_gateway.stores.cache import KeyCache
from machpay_gateway.stores.change_poller import ChangePoller
from machpay_gateway.telemetry.loop_lag import LoopLag
from machpay_gateway.telemetry.refusals import RefusalLog
from machpay_gateway.telemetry.steps import StepTimes
from machpay_gateway.telemetry.usage import UsageRecorder
from machpay_gateway.web.page_hosts import PageGuard
from machpay_gateway.web.request_facts import Trust, request_ids

logger = logging.getLogger("machpay_gateway")

OwnRoutes = Callable[[Settings], Sequence[Route]]


class ConfiguredGateway(Gateway):
    """A gateway built from settings; `async with Gateway(…) as gateway` opens and closes it.

    Give it to `MachPayAuth(app, gateway=gateway)` to share its `keys` and `accounts` with your own code.
    """

    __slots__ = ()

    def __init__(
        self,
        *,
        own_routes: OwnRoutes | Sequence[Route] = (),
        carries: bool = False,
        workers: int = 1,
        has_served: bool = False,
        settings: Settings | None = None,
        **options: Unpack[Options],
    ) -> None:
        """Read `machpay.toml` and the environment; *options* override both. Raises ConfigurationError.

        *settings* are used as they are, if given.

        *own_routes* are those of the gateway's own APIs that are served beside the application, by its settings. One
        that *carries* requests to upstreams serves only the environments that have one. *workers* is how many processes
        are known to serve with these settings, of which others may start later; 0 in a process that does not serve.
        *has_served* is whether this one goes on for one that served: a Redis that refuses it does not stop its start.
        """
        settings = settings or load_settings(options)
        policy = policy_for(settings, own_routes(settings) if callable(own_routes) else own_routes, carries=carries)
        scopes = defined_scopes(settings, policy)
        if workers == 0 and settings.application is not None:
            scopes.include(partial(scopes_of, settings.application, settings.file.parent))
        hosts = settings.page_hosts
        store = store_for(settings)
        opened = OpenedStore(store)
        limiter = limiter_for(settings, store, ledger_for(settings, opened), workers, has_served=has_served)
        changes = ChangePoller(
            opened.changes_after,
            clock=time.time,
            trust_seconds=settings.trust_seconds,
            on_replaced=limiter.forget_versions,
        )
        key_cache = KeyCache(
            opened, settings.tiers, changes, clock=time.time, size=settings.cache_size or default_cache_size(workers)
        )
        traces = traces_for(settings)
        signing = signing_for(settings, opened, store)
        grants = grants_for(settings, opened, changes)
        tokens = tokens_for(settings, signing, key_cache, grants)
        # The hooks of the application are for requests: a command on records imports none.
        identifier = identifier_for(settings, tokens) if workers else None
        reports = reports_for(settings)
        assertions = assertions_for(settings)
        proofs = proofs_for(settings, limiter)
        restored = RestoredRecords(_restored_log(), clock=time.monotonic)
        shedder = LoadShedder()
        failures = Failures(*parse_rate(settings.failure_limit)[:2])

        async def invalidate(changed: Sequence[ChangedRecord]) -> None:
            for record in changed:
                changes.note(record.id)
            await limiter.invalidate(changed)

        async def clean_up() -> None:
            await opened.drop_quota_units(time.time())
            if settings.oauth is not None:
                await services.oauth_clients.remove_unused(settings.oauth.registration_days)

        services = LazyServices(settings, policy, scopes, store, limiter, signing, tokens, proofs, invalidate)
        recorder = UsageRecorder(opened, seconds=settings.usage_seconds, clean_up=clean_up, tiers=settings.tiers)
        opened.lifecycle = lifecycle = Lifecycle(
            store,
            limiter,
            recorder=recorder,
            signing=signing,
            loop_lag=LoopLag(PROBE_SECONDS, shedder.probe),
            others=(key_cache, identifier or tokens, *(() if reports is None else (reports,))),
            settings=settings,
            policy=policy,
        )
        super().__init__(
            settings=settings,
            lifecycle=lifecycle,
            policy=policy,
            scopes=scopes,
            gate=Gate(
                policy,
                keys=key_cache,
                tokens=tokens,
                limiter=limiter,
                failures=failures,
                restored=restored,
                shedder=shedder,
                proofs=proofs,
                identifier=identifier,
                hooks=hooks_for(settings) if workers else None,
                brand=settings.brand,
            ),
            restored=restored,
            shedder=shedder,
            trust=Trust(
                settings.trusted_proxies,
                settings.client_ip_header.lower().encode(),
                CredentialReader(settings.credentials),
            ),
            page_guard=None if hosts is None else PageGuard(hosts),
            request_ids=request_ids(os.urandom(8)),
            brand=settings.brand,
            legacy_headers=settings.legacy_headers,
            failures=failures,
            limiter=limiter,
            key_cache=key_cache,
            proofs=proofs,
            recorder=recorder,
            steps=StepTimes(),
            traces=traces,
            refusals=RefusalLog(),
            store=store,
            services=services,
            signing_keys=signing,
            assertions=assertions,
            reports=reports,
        )


def _restored_log() -> Callable[[int], None]:
    throttle = LogThrottle(logger)

    def log(count: int) -> None:
        throttle.log(
            logging.WARNING,
            "The database has older records than the limiter's version markers, as after a restored backup: the "
            "database is believed. So far %d records.",
            count,
        )

    return log


def defined_scopes(settings: Settings, policy: Policy) -> DefinedScopes:
    """Return the scopes that the *settings* and the routes of the *policy* define."""
    form: Literal["table", "list", "none"] = "none"
    if settings.scopes:
        form = "table" if isinstance(settings.scopes, Mapping) else "list"
    setting = ScopeSetting(settings.file, form, has_application=settings.application is not None)
    return DefinedScopes(policy.scopes, setting)


def with_own_routes(gateway: Gateway, own_routes: OwnRoutes) -> Gateway:
    """Return a gateway that has *own_routes* too, and all else in common with *gateway*; which may be that itself.

    Raises ConfigurationError for a route of the settings in the same place.
    """
    policy = policy_for(gateway.settings, own_routes(gateway.settings))
    if policy.routes == gateway.policy.routes:
        return gateway
    parts = {field.name: getattr(gateway, field.name) for field in fields(Gateway)}
    return Gateway(**(parts | {"policy": policy, "gate": gateway.gate.with_policy(policy)}))


def policy_for(settings: Settings, own_routes: Sequence[Route] = (), *, carries: bool = False) -> Policy:
    """Compile what a gateway with these *settings* decides by; *own_routes* are served beside the configured ones."""
    served = frozenset(settings.environments)
    routes, unlisted = settings.routes, served
    if carries:
        # An environment without an upstream has no other server: its credentials are refused.
        services = settings.all_services
        routes = tuple(route.within(services[route.service].environments) for route in settings.routes)
        unlisted = served & settings.upstreams.environments
    return Policy(
        routes,
        tiers=settings.tiers,
        anonymous=settings.anonymous,
        unlisted=settings.unlisted_routes,
        environments=served,
        unlisted_environments=unlisted,
        scopes=settings.scopes,
        own_routes=[route.within(frozenset(settings.environments)) for route in own_routes],
        pages=dict.fromkeys(problem_paths(settings.brand), PROBLEM_ROUTE),
    )
