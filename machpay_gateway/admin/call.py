"""One call of the key API, as an operation sees it: who calls, what was sent, and the gateway that can do it."""

from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import Request

from machpay_gateway.admin.caller import Caller
from machpay_gateway.admin.fields import Readings
from machpay_gateway.admin.problems import ProblemError
from machpay_gateway.admin.reading import read_body
from machpay_gateway.admin.requests import Sent
from machpay_gateway.assembly import Gateway
from machpay_gateway.core.key import KeyRecord

T = TypeVar("T", bound=Sent)


@dataclass(frozen=True, slots=True)
class Call:
    """A *request* of the *caller* at the moment *now*: what its query *asked*, and its *body* read whole."""

    gateway: Gateway
    request: Request
    caller: Caller
    asked: Sent
    body: bytes
    now: float

    def query(self, model: type[T]) -> T:
        """Return what the query asked, which the table of operations says is a *model*."""
        assert isinstance(self.asked, model)  # noqa: S101 - the table and the operation say the same
        return self.asked

    def sent(self, model: type[T], kept: frozenset[str] = frozenset()) -> T:
        """Return the body as a *model*; *kept* are the scopes that the key has already. Raises ProblemError."""
        readings = Readings(self.caller, frozenset(self.gateway.policy.scopes), self.now, kept)
        return read_body(self.body, model, readings)

    async def key(self) -> KeyRecord:
        """Return the key that the path names. Raises ProblemError when the caller has none of that id."""
        record = await self.gateway.keyring.get(self.caller.account_id, self.key_id)
        if record is None or not self.caller.sees(record):
            raise self.no_such_key()
        return record

    @property
    def key_id(self) -> str:
        """The id of a key that the path names."""
        return str(self.request.path_params["id"])

    def no_such_key(self) -> ProblemError:
        """Return what is said of a key that is not there, or that is not the caller's to know of."""
        return ProblemError("not_found", "There is no key with this id.")
