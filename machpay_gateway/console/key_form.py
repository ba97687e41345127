"""A key's settings as people write them into a form: kept as they were written until all of it is right."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from machpay_gateway.console.form_choices import Note, check_environment, limited
from machpay_gateway.console.forms import FieldErrors, Form
from machpay_gateway.core.errors import ConfigurationError, InputError
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.keys.validation import (
    MAX_NETWORKS,
    validate_expiry,
    validate_name,
    validate_networks,
    validate_scopes,
)
from machpay_gateway.core.network.address import parse_network
from machpay_gateway.core.text import masked, quoted

_MOMENT = "%Y-%m-%dT%H:%M:%S"


@dataclass(frozen=True, slots=True)
class KeyForm:
    """What was written, and the *mistakes* in it. *expires* is a moment in UTC as browsers have it, or nothing."""

    name: str = ""
    environment: str = "live"
    scopes: Collection[str] = ()
    addresses: str = ""
    expires: str = ""
    mistakes: FieldErrors = field(default_factory=FieldErrors)

    @classmethod
    def of(cls, form: Form) -> Self:
        """Return what was sent."""
        return cls(
            name=form.text("name"),
            environment=form.text("environment"),
            scopes=form.all("scopes"),
            addresses=form.text("addresses"),
            expires=form.text("expires").strip(),
        )

    @classmethod
    def about(cls, record: KeyRecord) -> Self:
        """Return what the form of a key that is there begins with."""
        return cls(
            name=record.name,
            environment=record.environment,
            scopes=list(record.scopes),
            addresses="\n".join(record.allowed_ips),
            expires="" if record.expires_at is None else _written(record.expires_at),
        )

    @property
    def networks(self) -> list[str]:
        """The addresses one by one: they are apart by lines, blanks and commas."""
        return self.addresses.replace(",", " ").split()

    def expires_at(self) -> float | None:
        """Return the moment in seconds since the epoch, None for never. Raises InputError."""
        return _moment(self.expires) if self.expires else None

    def check(self, known_scopes: Collection[str], now: float, *, kept_expiry: str | None = None) -> None:
        """Note every mistake. A *kept_expiry* was there before, and may be past."""
        with self.mistakes.of("name"):
            validate_name(self.name)
        with self.mistakes.of("environment"):
            check_environment(self.environment)
        with self.mistakes.of("scopes"):
            validate_scopes(self.scopes, known_scopes)
        with self.mistakes.of("addresses"):
            validate_networks(self.networks)
        with self.mistakes.of("expires"):
            if self.expires != kept_expiry:
                validate_expiry(self.expires_at(), now)


def network_notes(networks: Sequence[str], own_address: str | None, covers: Callable[[str], bool]) -> list[Note]:
    """Return what to say of *networks*; whoever types is told when their *own_address* is not among them."""
    notes = limited(_notes(networks), len(networks), MAX_NETWORKS)
    if networks and own_address and all(note.is_right for note in notes) and not any(map(covers, networks)):
        notes.append(Note(f"Your own address, {own_address}, is not among them.", is_right=True))
    return notes


def _notes(networks: Sequence[str]) -> Iterator[Note]:
    for network in networks:
        try:
            yield Note(parse_network(network)[0], is_right=True)
        except ConfigurationError as exc:
            yield Note(masked(str(exc)), is_right=False)


def _written(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime(_MOMENT)


def _moment(text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is not None:
        raise InputError(f"{quoted(text)} is no date and time, such as 2030-01-31T00:00.")
    return found.replace(tzinfo=UTC).timestamp()
