"""The form of an API key's settings: what was typed, kept as it is until all of it is valid."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from machpay_gateway.console.form_choices import LineCheck, limit_checks, validate_environment
from machpay_gateway.console.forms import FieldErrors, Form
from machpay_gateway.core.errors import ConfigurationError, InputError
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.keys.validation import (
    MAX_NETWORKS,
    validate_expiry,
    validate_name,
    validate_networks,
    validate_owner,
    validate_scopes,
)
from machpay_gateway.core.network.address import parse_network
from machpay_gateway.core.scopes import DefinedScopes
from machpay_gateway.core.text import mask_secrets, quote_value

_DATETIME_LOCAL = "%Y-%m-%dT%H:%M:%S"  # the value of an <input type="datetime-local">


@dataclass(frozen=True, slots=True)
class KeyForm:
    """The submitted values and their *errors*. *expires* is the value of a `datetime-local` input in UTC, or empty."""

    name: str = ""
    owner: str = ""
    environment: str = "live"
    scopes: Collection[str] = ()
    addresses: str = ""
    expires: str = ""
    errors: FieldErrors = field(default_factory=FieldErrors)

    @classmethod
    def from_form(cls, form: Form) -> Self:
        """Return the submitted values."""
        return cls(
            name=form.text("name"),
            owner=form.text("owner"),
            environment=form.text("environment"),
            scopes=form.all("scopes"),
            addresses=form.text("addresses"),
            expires=form.text("expires").strip(),
        )

    @classmethod
    def from_record(cls, record: KeyRecord) -> Self:
        """Return the current settings of a key."""
        return cls(
            name=record.name,
            owner=record.owner or "",
            environment=record.environment,
            scopes=list(record.scopes),
            addresses="\n".join(record.allowed_ips),
            expires="" if record.expires_at is None else _format_datetime(record.expires_at),
        )

    @property
    def owner_or_none(self) -> str | None:
        """The owner, None when the field is blank."""
        return self.owner.strip() or None

    @property
    def networks(self) -> list[str]:
        """The allowed addresses one by one. They are separated by white space or commas."""
        return self.addresses.replace(",", " ").split()

    def expires_at(self) -> float | None:
        """Return the expiry in seconds since the epoch, None for never. Raises InputError."""
        return _parse_datetime(self.expires) if self.expires else None

    def validate(self, defined_scopes: DefinedScopes, now: float, *, current_expiry: str | None = None) -> None:
        """Collect all errors. An expiry that is still the *current_expiry* of the key may be in the past."""
        with self.errors.collect("name"):
            validate_name(self.name)
        with self.errors.collect("owner"):
            validate_owner(self.owner_or_none)
        with self.errors.collect("environment"):
            validate_environment(self.environment)
        with self.errors.collect("scopes"):
            validate_scopes(self.scopes, defined_scopes)
        with self.errors.collect("addresses"):
            validate_networks(self.networks)
        with self.errors.collect("expires"):
            if self.expires != current_expiry:
                validate_expiry(self.expires_at(), now)


def check_networks(
    networks: Sequence[str], own_address: str | None, covers_own: Callable[[str], bool]
) -> list[LineCheck]:
    """Return the checks of *networks*, with a warning when none of them covers the user's *own_address*."""
    checks = limit_checks(_checks(networks), len(networks), MAX_NETWORKS)
    if networks and own_address and all(check.is_valid for check in checks) and not any(map(covers_own, networks)):
        checks.append(LineCheck(f"Your own address, {own_address}, is not included.", is_valid=True))
    return checks


def _checks(networks: Sequence[str]) -> Iterator[LineCheck]:
    for network in networks:
        try:
            yield LineCheck(parse_network(network)[0], is_valid=True)
        except ConfigurationError as exc:
            yield LineCheck(mask_secrets(str(exc)), is_valid=False)


def _format_datetime(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime(_DATETIME_LOCAL)


def _parse_datetime(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is not None:
        raise InputError(f"{quote_value(text)} is not a date and time such as 2030-01-31T00:00.")
    return moment.replace(tzinfo=UTC).timestamp()
