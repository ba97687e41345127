"""One request to the key API as an operation sees it: the caller, the parsed query and body, and the services."""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Protocol, TypeVar

from starlette.requests import Request

from machpay_gateway.admin.caller import Caller
from machpay_gateway.admin.problems import ProblemError
from machpay_gateway.admin.request_body import invalid_field, parse_body
from machpay_gateway.admin.requests import RequestModel, ValidationContext
from machpay_gateway.core.accounts.management import ManagedRecord
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.gateway import Gateway
from machpay_gateway.services.oauth_clients import OAuthClients
from machpay_gateway.services.revocation import Revocation


class Versioned(ManagedRecord, Protocol):
    """A record with a version, which each change raises."""

    @property
    def version(self) -> int:
        """Its current version."""


T = TypeVar("T", bound=RequestModel)
R = TypeVar("R", bound=ManagedRecord)
V = TypeVar("V", bound=Versioned)


@dataclass(frozen=True, slots=True)
class AdminRequest:
    """A *request* of the *caller* at the time *now*, with its *parsed_query* and its *raw_body*."""

    gateway: Gateway
    request: Request
    caller: Caller
    parsed_query: RequestModel
    raw_body: bytes
    now: float

    def query(self, model: type[T]) -> T:
        """Return the query, which is a *model* according to the table of operations."""
        assert isinstance(self.parsed_query, model)  # noqa: S101 - the table and the operation name the same model
        return self.parsed_query

    def body(self, model: type[T], current_scopes: frozenset[str] = frozenset()) -> T:
        """Return the body as a *model*. An update may keep the record's *current_scopes*. Raises ProblemError."""
        context = ValidationContext(self.caller, self.gateway.scopes, self.now, current_scopes)
        return parse_body(self.raw_body, model, context)

    @property
    def oauth_clients(self) -> OAuthClients:
        """The use cases on OAuth clients."""
        return self.gateway.oauth_clients

    @property
    def revocation(self) -> Revocation:
        """The use cases on grants."""
        return self.gateway.revocation

    async def key(self) -> KeyRecord:
        """Return the key that the path names. Raises ProblemError if the caller has no key with that id."""
        return self.require_record(await self.gateway.keys.get(self.caller.account_id, self.id), "key")

    @property
    def id(self) -> str:
        """The id in the path."""
        return str(self.request.path_params["id"])

    def require_record(self, record: R | None, kind: str) -> R:
        """Return *record*. Raises ProblemError if it does not exist or the caller may not read it."""
        if record is None or not self.caller.can_read(record):
            raise ProblemError("not_found", f"There is no {kind} with this id.")
        return record

    async def check_cursor(
        self, after: str | None, find: Callable[[str | None, str], Awaitable[ManagedRecord | None]], kind: str
    ) -> None:
        """Raise ProblemError if the page should start after a record that the caller may not read."""
        if after is None:
            return
        record = await find(self.caller.account_id, after)
        if record is None or not self.caller.can_read(record):
            raise invalid_field("query.after", f"There is no {kind} with this id.")

    def precondition(self, kind: str, *conditions: Callable[[V], None]) -> Callable[[V], None]:
        """Return a check of a record right before it is changed (optimistic locking).

        It raises ProblemError if If-Match does not list the record's version (RFC 9110 §13.1.1). *conditions* are
        further checks.
        """
        headers = self.request.headers.getlist("if-match")
        tags = {tag.strip() for value in headers for tag in value.split(",")}

        def check(record: V) -> None:
            if headers and not tags & {"*", f'"{record.version}"'}:
                raise ProblemError("precondition_failed", f"The {kind} has changed: retrieve it anew.")
            for condition in conditions:
                condition(record)

        return check

    def scopes_precondition(self, scopes: Collection[str], current: Collection[str], kind: str) -> Callable[[V], None]:
        """Return a check that a record still has those of its *current* scopes which the new *scopes* rely on.

        These are the scopes that the caller may keep but not assign. A concurrent request may have removed one.
        """
        kept_scopes = frozenset(scope for scope in scopes if scope in current and not self.caller.may_assign(scope))

        def check(record: V) -> None:
            if not kept_scopes <= record.scopes.names:
                raise ProblemError("conflict", f"The {kind}'s scopes have changed meanwhile: retrieve it anew.")

        return check
