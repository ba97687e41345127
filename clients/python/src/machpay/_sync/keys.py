"""`client.keys`: API keys.

Generated from `_async` by generate.py: edit it there.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Unpack

from machpay._call import Call, CallOptions, ChangeOptions, json_of, moment_of, path_of, query_of, strings_of
from machpay._key import IssuedKey, Key, issued_key_from, key_from, listed_key_from
from machpay._not_given import NOT_GIVEN, NotGiven
from machpay._parsing import parse_object
from machpay._sync.page import Page, fetch_page
from machpay._sync.transport import Transport
from machpay._types import Environment, KeyStatus, UsageBucket

if TYPE_CHECKING:
    from machpay._usage import Usage

DAY_SECONDS = 86_400


class Keys:
    """Create, change, rotate and revoke API keys. Needs a credential with the scope for it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        name: str,
        scopes: Sequence[str],
        owner: str | None = None,
        environment: Environment | None = None,
        allowed_ips: Sequence[str] | None = None,
        expires_at: dt.datetime | str | None = None,
        metadata: Mapping[str, object] | None = None,
        **options: Unpack[ChangeOptions],
    ) -> IssuedKey:
        """Create a key. Its `.secret` is shown only once."""
        optional = {
            "owner": owner,
            "environment": environment,
            "allowed_ips": strings_of("allowed_ips", allowed_ips),
            "expires_at": moment_of("expires_at", expires_at),
            "metadata": metadata,
        }
        given = {member: value for member, value in optional.items() if value is not None}
        body = json_of({"name": name, "scopes": strings_of("scopes", scopes), **given})
        return self._issued_key(Call("POST", "/v1/keys", body=body).using(options))

    def list(
        self,
        *,
        environment: Environment | None = None,
        status: KeyStatus | None = None,
        limit: int | None = None,
        after: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Page[Key]:
        """List keys. The page has at most *limit* keys, and starts after the key with the id *after*."""
        query = query_of(limit=limit, after=after, environment=environment, status=status)
        return fetch_page(self._transport, Call("GET", "/v1/keys", query).using(options), listed_key_from)

    def retrieve(self, key_id: str, **options: Unpack[CallOptions]) -> Key:
        """Return a key with its `.etag`."""
        return self._key(Call("GET", path_of("/v1/keys/{key_id}", key_id=key_id)).using(options))

    def update(
        self,
        key_id: str,
        *,
        name: str | NotGiven = NOT_GIVEN,
        scopes: Sequence[str] | NotGiven = NOT_GIVEN,
        owner: str | NotGiven | None = NOT_GIVEN,
        allowed_ips: Sequence[str] | NotGiven | None = NOT_GIVEN,
        expires_at: dt.datetime | str | NotGiven | None = NOT_GIVEN,
        metadata: Mapping[str, object] | NotGiven | None = NOT_GIVEN,
        if_match: str | None = None,
        **options: Unpack[ChangeOptions],
    ) -> Key:
        """Change the given settings. `expires_at=None` means that the key never expires, `owner=None` that it has none.

        With *if_match*, an `.etag`, raises PreconditionFailedError if the key has changed since.
        """
        body = json_of(
            {
                "name": name,
                "scopes": strings_of("scopes", scopes),
                "owner": owner,
                "allowed_ips": strings_of("allowed_ips", allowed_ips),
                "expires_at": moment_of("expires_at", expires_at),
                "metadata": metadata,
            }
        )
        path = path_of("/v1/keys/{key_id}", key_id=key_id)
        return self._key(Call("PATCH", path, body=body, if_match=if_match).using(options))

    def rotate(self, key_id: str, *, grace_seconds: int = DAY_SECONDS, **options: Unpack[ChangeOptions]) -> IssuedKey:
        """Give the key a new `.secret`, shown only once. The old one works for another *grace_seconds*."""
        path = path_of("/v1/keys/{key_id}/rotate", key_id=key_id)
        body = json_of({"grace_seconds": grace_seconds})
        return self._issued_key(Call("POST", path, body=body).using(options))

    def end_grace(self, key_id: str, **options: Unpack[ChangeOptions]) -> Key:
        """End the grace period of the previous secret now."""
        path = path_of("/v1/keys/{key_id}/end-grace", key_id=key_id)
        return self._key(Call("POST", path).using(options))

    def revoke(self, key_id: str, *, self_: bool = False, **options: Unpack[ChangeOptions]) -> Key:
        """Revoke the key permanently. *self_* is required for the key that this client uses."""
        path = path_of("/v1/keys/{key_id}/revoke", key_id=key_id)
        query = query_of(self="true" if self_ else None)
        return self._key(Call("POST", path, query).using(options))

    def usage(
        self,
        key_id: str,
        *,
        start: dt.datetime | str | None = None,
        end: dt.datetime | str | None = None,
        bucket: UsageBucket | None = None,
        **options: Unpack[CallOptions],
    ) -> "Usage":
        """Return the usage of the key by `minute`, `hour` or `day`; by default the last 24 hours by hour."""
        from machpay._usage import usage_from  # noqa: PLC0415 - imported when it is needed

        period = {"from": moment_of("start", start), "to": moment_of("end", end)}
        query = query_of(**{name: None if at is None else str(at) for name, at in period.items()}, bucket=bucket)
        call = Call("GET", path_of("/v1/keys/{key_id}/usage", key_id=key_id), query).using(options)
        return parse_object(self._transport.send(call), usage_from)

    def _issued_key(self, call: Call) -> IssuedKey:
        return parse_object(self._transport.send(call), issued_key_from)

    def _key(self, call: Call) -> Key:
        return parse_object(self._transport.send(call), key_from)
