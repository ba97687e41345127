"""A digest of what decides about requests: operators see by it that all workers and hosts serve by the same policy."""

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import orjson

from machpay_gateway.settings.model import Settings

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# They say where and how a host serves, and may differ between hosts that decide alike.
_OF_HOSTS = frozenset({"server", "upstreams", "services", "proxy", "traces"})
_CHARACTERS = 12


def policy_digest(settings: Settings) -> str:
    """Return the digest of *settings*, without what is a secret or belongs to one host."""
    decisive = _fields(settings, without=_OF_HOSTS)
    return sha256(orjson.dumps(decisive, option=orjson.OPT_SORT_KEYS)).hexdigest()[:_CHARACTERS]


def _fields(value: "DataclassInstance", without: Collection[str] = ()) -> dict[str, object]:
    # Fields that `repr` leaves out are secrets, or follow from the others.
    names = (field.name for field in fields(value) if field.repr and field.name not in without)
    return {name: _canonical(getattr(value, name)) for name in names}


def _canonical(value: object) -> object:
    """Return *value* as JSON that is the same in every process."""
    if is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            return {str(name): _canonical(item) for name, item in value.items()}
        case AbstractSet():
            return sorted(map(str, value))
        case Sequence():
            return [_canonical(item) for item in value]
    return str(value)
