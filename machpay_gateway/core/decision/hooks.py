"""What an application adds to decisions: checks of its own, and identities for credentials of its own."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType
from typing import TypeVar

from machpay_gateway.core.decision.decision import Refusal
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.keys.key import ENVIRONMENTS
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.core.scopes import Scopes, check_scope_name

MAX_CACHE_SECONDS = 3600.0
_MAX_NAME = 255  # characters
_CACHE_SECONDS = "machpay_cache_seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whose a credential is, as `identify` returns it.

    *id* is unique among the identities of the application, of 1 to 255 printable characters. Limits are counted
    against it. Those by account and owner are counted against *account* and *owner*. *tier* is the name of a tier of
    the settings. *environment* is `live` or `test`. *expires_at* is in seconds since the epoch; None is never. *claims*
    is what the application wants to find in `principal.claims`.
    """

    id: str
    scopes: Sequence[str] = ()
    tier: str = "standard"
    account: str | None = None
    owner: str | None = None
    environment: str = "live"
    name: str = ""
    expires_at: float | None = None
    claims: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}), repr=False)


CheckHook = Callable[[RequestFacts, Route, Principal], Refusal | Awaitable[Refusal | None] | None]
IdentifyHook = Callable[[str], Identity | Awaitable[Identity | None] | None]
Hook = TypeVar("Hook", bound=Callable[..., object])


def cached(seconds: float) -> Callable[[Hook], Hook]:
    """Let the gateway use the result of a hook for *seconds*, more than 0 and at most 3600, without a call.

    The result of a check is used for the same principal, route and address; that of `identify` for the same credential.
    Raises ConfigurationError for other seconds.
    """
    given: object = seconds
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given <= MAX_CACHE_SECONDS:
        raise ConfigurationError(f"cached: {seconds!r} is not a number of seconds up to {MAX_CACHE_SECONDS:g}")

    def mark(hook: Hook) -> Hook:
        setattr(hook, _CACHE_SECONDS, float(seconds))
        return hook

    return mark


def cache_seconds(hook: Callable[..., object]) -> float:
    """Return for how many seconds a result of *hook* may be used; 0 without `cached`."""
    seconds: float = getattr(hook, _CACHE_SECONDS, 0.0)
    return seconds


def principal_of(identity: object, tiers: Mapping[str, Tier]) -> Principal:
    """Return the principal of *identity*, as an application returned it.

    Raises ValueError for what is no Identity, or one with an impossible id, tier, scope or environment.
    """
    if not isinstance(identity, Identity):
        raise ValueError(f"identify returned {type(identity).__name__}, not an Identity or None")  # noqa: TRY004 - see above
    names: Mapping[str, object] = {"id": identity.id, "account": identity.account, "owner": identity.owner}
    for name, text in names.items():
        if not _is_name(text) and (name == "id" or text is not None):
            raise ValueError(f"Identity.{name} is not text of 1 to {_MAX_NAME} printable characters")
    if identity.tier not in tiers:
        raise ValueError(f"Identity.tier {identity.tier!r} is not defined; known tiers: {', '.join(tiers)}")
    if identity.environment not in ENVIRONMENTS:
        raise ValueError(f"Identity.environment {identity.environment!r} is neither live nor test")
    if isinstance(identity.scopes, str):
        raise ValueError("Identity.scopes is text: use a list of names")  # noqa: TRY004 - see above
    for name in identity.scopes:
        check_scope_name(name)
    return Principal(
        kind="custom",
        id=identity.id,
        name=identity.name or identity.id,
        account_id=identity.account,
        subject=f"custom:{sha256(identity.id.encode()).hexdigest()}",  # of fixed length, and no other kind's
        owner=identity.owner,
        environment=identity.environment,
        tier=identity.tier,
        limits=tiers[identity.tier],
        scopes=Scopes(frozenset(identity.scopes)),
        expires_at=identity.expires_at,
        claims=MappingProxyType(dict(identity.claims)),
        account_tier=identity.tier,
    )


def _is_name(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text) <= _MAX_NAME and text.isprintable()
