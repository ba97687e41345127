"""What the claims of an issuer's tokens mean here: a caller, scopes, an account, an owner and a tier.

The settings are compiled once into a `ClaimMapping`. It decides within their tables alone: a claim selects one of the
tiers and scopes that the settings list for it, and the types of claims are checked, never converted.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.jose.claim_path import (
    ABSENT,
    Absent,
    ClaimName,
    ClaimPath,
    WrongClaimError,
    parse_claim_path,
    parse_claim_paths,
)
from machpay_gateway.core.keys.key import ACCOUNT, is_id_of
from machpay_gateway.core.scopes import Scopes, check_scope_name

# Logs and identity headers contain them; a line break could inject a line or a header.
_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,255}")
_AUDIENCE, _SUBJECT = ClaimPath(("aud",)), ClaimPath(("sub",))
_SCOPE, _SCP = ClaimPath(("scope",)), ClaimPath(("scp",))


@dataclass(frozen=True, slots=True)
class MappedClaims:
    """Who a token's claims say is calling. *tiers* are the values of the tier's claim."""

    subject: str
    scopes: Scopes
    account: str | None = None
    owner: str | None = None
    tiers: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    """A claim that must be one of *values*, or, if it is an array, contain one; each is paired with its type."""

    claim: ClaimPath
    values: frozenset[tuple[type, str | bool]]

    def check(self, claims: Mapping[str, object]) -> None:
        """Raise WrongClaimError unless *claims* meet the condition."""
        value = self.claim.value_in(claims)
        if value is ABSENT:
            msg = f"claim {self.claim} is missing, which require names"
            raise WrongClaimError(msg)
        values = value if isinstance(value, list) else [value]
        # With its type, because 1 equals True in Python.
        if not any(isinstance(item, str | bool) and (type(item), item) in self.values for item in values):
            msg = f"claim {self.claim} has no value that require lists"
            raise WrongClaimError(msg)


@dataclass(frozen=True, slots=True)
class ClaimMapping:
    """The rules for the claims of one issuer, compiled. None where nothing is configured."""

    audience: ClaimPath
    subject: ClaimPath
    scopes: tuple[ClaimPath, ...] | None
    scope_map: Mapping[str, frozenset[str]] | None
    account: ClaimPath | None
    owner: ClaimPath | None
    tier: ClaimPath | None
    tier_map: Mapping[str, str]
    conditions: tuple[Condition, ...]

    def apply(self, claims: Mapping[str, object], audiences: AbstractSet[str]) -> MappedClaims | str:
        """Return what *claims* of a token for one of *audiences* mean, or the first reason why they are refused.

        A claim that is configured must be there, except those of scopes and of the tier: without them, the caller has
        no scopes and the issuer's tier.
        """
        try:
            self._check_audience(claims, audiences)
            for condition in self.conditions:
                condition.check(claims)
            return MappedClaims(
                subject=_name_in(claims, self.subject),
                scopes=self._scopes_in(claims),
                account=None if self.account is None else _account_in(claims, self.account),
                owner=None if self.owner is None else _name_in(claims, self.owner),
                tiers=() if self.tier is None else tuple(_texts(self.tier.texts_in(claims))),
            )
        except WrongClaimError as wrong:
            return str(wrong)

    def tier_of(self, mapped: MappedClaims, default: str) -> str:
        """Return the tier of *mapped*: the first of the table whose value it has, else *default*."""
        return next((tier for value, tier in self.tier_map.items() if value in mapped.tiers), default)

    def _check_audience(self, claims: Mapping[str, object], audiences: AbstractSet[str]) -> None:
        named = self.audience.texts_in(claims)
        if named is ABSENT:
            msg = f"claim {self.audience} is missing, which names the audience"
            raise WrongClaimError(msg)
        if audiences.isdisjoint(_texts(named)):
            msg = f"{self.audience} names somebody else"
            raise WrongClaimError(msg)

    def _scopes_in(self, claims: Mapping[str, object]) -> Scopes:
        names: set[str] = set()
        for values in self._scope_claims_in(claims):
            names.update(values.split(" ") if isinstance(values, str) else _texts(values))  # RFC 8693 §4.2
        if self.scope_map is None:
            return Scopes(frozenset(name for name in names if _is_plain_scope(name)))
        return Scopes(frozenset().union(*(self.scope_map.get(name, frozenset()) for name in names)))

    def _scope_claims_in(self, claims: Mapping[str, object]) -> Iterator[str | Sequence[str] | Absent]:
        if self.scopes is not None:
            yield from (path.texts_in(claims) for path in self.scopes)
        elif "scope" in claims:
            yield _SCOPE.text_in(claims)  # RFC 9068 §2.2.3: never an array
        else:
            yield _SCP.texts_in(claims)  # its older form


def compile_mapping(  # noqa: PLR0913 - one for each setting
    *,
    audience_claim: ClaimName | None,
    subject_claim: ClaimName | None,
    scopes_claim: str | Sequence[ClaimName] | None,
    scope_map: Mapping[str, str | Sequence[str]] | None,
    account_claim: ClaimName | None,
    owner_claim: ClaimName | None,
    tier_claim: ClaimName | None,
    tier_map: Mapping[str, str] | None,
    require: Mapping[str, object] | None,
) -> ClaimMapping:
    """Return the mapping that these settings of an issuer describe. Raises ConfigurationError that names one."""
    if tier_map is not None and tier_claim is None:
        raise ConfigurationError("tier_map needs tier_claim, the claim whose values it lists")
    tier = _path("tier_claim", tier_claim)
    if tier is not None and tier_map is None:
        # Otherwise an issuer could name any tier, also one that is meant for others.
        raise ConfigurationError("tier_claim needs tier_map, a table of its values, as in { gold = 'enterprise' }")
    return ClaimMapping(
        audience=_path("audience_claim", audience_claim) or _AUDIENCE,
        subject=_path("subject_claim", subject_claim) or _SUBJECT,
        scopes=None if scopes_claim is None else _scope_paths(scopes_claim),
        scope_map=None if scope_map is None else _scope_map(scope_map),
        account=_path("account_claim", account_claim),
        owner=_path("owner_claim", owner_claim),
        tier=tier,
        tier_map={} if tier_map is None else _tier_map(tier_map),
        conditions=() if require is None else tuple(_conditions(require)),
    )


def _texts(value: str | Sequence[str] | Absent) -> Sequence[str]:
    if value is ABSENT:
        return ()
    return (value,) if isinstance(value, str) else value


def _name_in(claims: Mapping[str, object], path: ClaimPath) -> str:
    name = path.text_in(claims)
    if name is ABSENT:
        msg = f"claim {path} is missing"
        raise WrongClaimError(msg)
    if not _NAME.fullmatch(name):
        msg = f"claim {path} is not a string of 1 to 255 characters without control characters"
        raise WrongClaimError(msg)
    return name


def _account_in(claims: Mapping[str, object], path: ClaimPath) -> str:
    name = _name_in(claims, path)
    # Upstreams that serve keys too could not tell such a caller from one of the account that has the id. Parsers of
    # header fields strip spaces (RFC 9110 §5.5).
    if is_id_of(ACCOUNT, name.strip()):
        msg = f"claim {path} has the form of the gateway's own account ids"
        raise WrongClaimError(msg)
    return name


def _is_plain_scope(name: str) -> bool:
    """Tell whether *name* is a scope that a token can hold; others are dropped, and refusals name what is missing.

    An odd name must not lock out all callers of its issuer. A `*` is a wildcard of API keys that RFC 6749 §3.3 does not
    know: an issuer's `keys:*` must not become every scope of keys.
    """
    if "*" in name:
        return False
    try:
        check_scope_name(name)
    except ConfigurationError:
        return False
    return True


def _path(setting: str, name: ClaimName | None) -> ClaimPath | None:
    try:
        return None if name is None else parse_claim_path(name)
    except ConfigurationError as exc:
        raise ConfigurationError(f"{setting} {exc}") from exc


def _scope_paths(names: object) -> tuple[ClaimPath, ...]:
    try:
        return parse_claim_paths(names)
    except ConfigurationError as exc:
        raise ConfigurationError(f"scopes_claim {exc}") from exc


def _scope_map(table: object) -> Mapping[str, frozenset[str]]:
    if not isinstance(table, Mapping):
        raise ConfigurationError("scope_map is a table of values and scopes, as in { admin = 'skills:execute' }")
    return {_value("scope_map", value): _mapped_scopes(value, scopes) for value, scopes in table.items()}


def _mapped_scopes(value: str, scopes: object) -> frozenset[str]:
    names = scopes.split() if isinstance(scopes, str) else scopes
    if not isinstance(names, list | tuple | set | frozenset) or not names:
        raise ConfigurationError(f"scope_map.{value}: {scopes!r} is neither a scope nor a list of scopes")
    for name in names:
        if not isinstance(name, str):
            raise ConfigurationError(f"scope_map.{value}: {name!r} is not a scope")
        try:
            check_scope_name(name)
        except ConfigurationError as exc:
            raise ConfigurationError(f"scope_map.{value}: {exc}") from exc
    return frozenset(names)


def _tier_map(table: object) -> Mapping[str, str]:
    if not isinstance(table, Mapping):
        raise ConfigurationError("tier_map is a table of values and tiers, as in { gold = 'enterprise' }")
    for value, tier in table.items():
        if not isinstance(tier, str):
            raise ConfigurationError(f"tier_map.{value}: {tier!r} is not the name of a tier")
    return {_value("tier_map", value): tier for value, tier in table.items()}


def _value(setting: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{setting}: {value!r} is not a value of a claim: write it as text")
    return value


def _conditions(table: object, outer: tuple[str, ...] = ()) -> Iterator[Condition]:
    """Yield a condition for each entry of *table*, in which a table leads inward like a dot of its text."""
    if not isinstance(table, Mapping) or not table:
        raise ConfigurationError("require is a table of claims and their values, as in { repository = 'acme/api' }")
    for name, values in table.items():
        if isinstance(values, Mapping):
            yield from _conditions(values, (*outer, name))
            continue
        try:
            path = parse_claim_path((*outer, name) if outer else name)
        except ConfigurationError as exc:
            raise ConfigurationError(f"require {exc}") from exc
        yield Condition(path, _required_values(path, values))


def _required_values(path: ClaimPath, values: object) -> frozenset[tuple[type, str | bool]]:
    listed = values if isinstance(values, list | tuple | set | frozenset) else [values]
    accepted = [value for value in listed if isinstance(value, str | bool)]
    if not listed or len(accepted) < len(listed):
        raise ConfigurationError(
            f"require.{path}: {values!r} is neither a string, true or false, nor a list of these; a claim must equal "
            "one of them"
        )
    return frozenset((type(value), value) for value in accepted)
