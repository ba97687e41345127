"""One call of the key API, as an operation sees it: who calls, what was sent, and the gateway that can do it."""

from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from starlette.requests import Request

from machpay_gateway.admin.caller import Caller
from machpay_gateway.admin.fields import ValidationContext
from machpay_gateway.admin.problems import ProblemError
from machpay_gateway.admin.request_body import invalid, read_body
from machpay_gateway.admin.requests import RequestModel
from machpay_gateway.core.accounts.management import ManagedRecord
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.gateway import Gateway
from machpay_gateway.services.oauth_clients import OAuthClients
from machpay_gateway.services.revocation import Revocation


class Versioned(ManagedRecord, Protocol):
    """A record that each change makes another version of."""

    @property
    def version(self) -> int:
        """Which one it is."""


T = TypeVar("T", bound=RequestModel)
R = TypeVar("R", bound=ManagedRecord)
V = TypeVar("V", bound=Versioned)


@dataclass(frozen=True, slots=True)
class AdminRequest:
    """A *request* of the *caller* at the moment *now*: what its query *asked*, and its *body* read whole."""

    gateway: Gateway
    request: Request
    caller: Caller
    asked: RequestModel
    body: bytes
    now: float

    def query(self, model: type[T]) -> T:
        """Return what the query asked, which the table of operations says is a *model*."""
        assert isinstance(self.asked, model)  # noqa: S101 - the table and the operation say the same
        return self.asked

    def sent(self, model: type[T], kept: frozenset[str] = frozenset()) -> T:
        """Return the body as a *model*; *kept* are the scopes that what is changed has already. Raises ProblemError."""
        readings = ValidationContext(self.caller, frozenset(self.gateway.policy.scopes), self.now, kept)
        return read_body(self.body, model, readings)

    @property
    def oauth_clients(self) -> OAuthClients:
        """The use cases on clients. Raises ProblemError where the store has no room for them."""
        with _room():
            return self.gateway.oauth_clients

    @property
    def revocation(self) -> Revocation:
        """How grants end. Raises ProblemError as `oauth_clients` does."""
        with _room():
            return self.gateway.revocation

    async def key(self) -> KeyRecord:
        """Return the key that the path names. Raises ProblemError when the caller has none of that id."""
        return self.seen(await self.gateway.keys.get(self.caller.account_id, self.id), "key")

    @property
    def id(self) -> str:
        """The id that the path names."""
        return str(self.request.path_params["id"])

    def scopes_precondition(self, scopes: Collection[str], kept: Collection[str], what: str) -> Callable[[V], None]:
        """Return what refuses a record that has lost a scope since it had those in *kept*.

        That is one of *scopes* that the caller may keep but not assign: another request may have removed it meanwhile.
        """
        relied_on = frozenset(scope for scope in scopes if scope in kept and not self.caller.may_assign(scope))

        def check(record: V) -> None:
            if not relied_on <= record.scopes.names:
                raise ProblemError("conflict", f"The {what}'s scopes have changed meanwhile: retrieve it anew.")

        return check

    def seen(self, record: R | None, what: str) -> R:
        """Return *record*. Raises ProblemError when it is not there, or not the caller's to know of."""
        if record is None or not self.caller.sees(record):
            raise ProblemError("not_found", f"There is no {what} with this id.")
        return record

    async def check_after(
        self, after: str | None, find: Callable[[str | None, str], Awaitable[ManagedRecord | None]], what: str
    ) -> None:
        """See that a page may begin after the id *after*. Raises ProblemError when `seen` would not show it."""
        if after is None:
            return
        mark = await find(self.caller.account_id, after)
        if mark is None or not self.caller.sees(mark):
            raise invalid("query.after", f"There is no {what} with this id.")

    def permit(self, what: str, *conditions: Callable[[V], None]) -> Callable[[V], None]:
        """Return what refuses a record that is not as the caller takes it to be when it is about to be changed.

        That is one that If-Match does not name (RFC 9110 §13.1.1), or that one of *conditions* refuses.
        """
        given = self.request.headers.getlist("if-match")
        tags = {tag.strip() for value in given for tag in value.split(",")}

        def permit(record: V) -> None:
            if given and not tags & {"*", f'"{record.version}"'}:
                raise ProblemError("precondition_failed", f"The {what} has changed: retrieve it anew.")
            for condition in conditions:
                condition(record)

        return permit


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except ConfigurationError as exc:
        raise ProblemError("not_configured", str(exc)) from exc
