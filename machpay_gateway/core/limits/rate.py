"""The limits of subjects, and tiers: rates in the notation of `limits`, calendar quotas, and concurrency."""

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Literal, NamedTuple, Self, cast, get_args

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.limits.calendar import PeriodUnit

MAX_LIMIT = 10**12
MAX_CONCURRENCY = 10**6
_MOST_RATES = 4  # of one subject; each takes up to 400 bytes a subject
MAX_KEYS = 10**6
CONCURRENCY = "concurrency"  # the policy's name in headers and refusals
LimitedBy = Literal["key", "account", "owner", "address"]
LIMITED_BY: tuple[LimitedBy, ...] = get_args(LimitedBy)
_MINUTE = 60
MAX_WINDOW_SECONDS = 10**9  # 31 years; limiters store milliseconds in 40 bits
_UNIT_SECONDS = {"minute": _MINUTE, "hour": 60 * _MINUTE}
_COMMON = re.compile(r"([0-9]{1,18})/(?:(minute|hour)|([2-9]|[1-9][0-9]) (minute|hour)s)")
_NO_WINDOW = re.compile(r"(?:/|per)\s*0+\s*[a-z]", re.IGNORECASE)  # `limits` takes `5/0 minutes` for `5/minute`
_QUOTA = re.compile(r"\s*([0-9]{1,18})\s*(?:/|per)\s*(?:1\s*)?([a-z]+?)s?\s*", re.IGNORECASE)
_EXAMPLES = {"Rate": "1000/minute", "Quota": "50000/month"}


class Rate(NamedTuple):
    """At most *limit* units in any *window_seconds*. *name* is the policy's: `minute`, `2-hours`."""

    limit: int
    window_seconds: int
    name: str


class Quota(NamedTuple):
    """At most *limit* units in each calendar day or month, in UTC. *name*, the policy's, is that of the unit."""

    limit: int
    name: PeriodUnit


@dataclass(frozen=True, slots=True, eq=False)
class Limits:
    """What one subject may do: all of *rates* and *quotas* hold at once, and *concurrency* requests in flight."""

    rates: tuple[Rate, ...] = ()
    quotas: tuple[Quota, ...] = ()
    concurrency: int | None = None

    @classmethod
    def parse(
        cls, rate: str | Sequence[str] = (), concurrency: int | None = None, quota: str | Sequence[str] | None = None
    ) -> Self:
        """Return the limits in the notation of settings. Raises ConfigurationError, also when there is none.

        *quota* is None where no quota can be set.
        """
        limits = cls(parse_rates(rate), () if quota is None else parse_quotas(quota), concurrency)
        if concurrency is not None and (type(concurrency) is not int or not 1 <= concurrency <= MAX_CONCURRENCY):
            raise ConfigurationError(
                f"Concurrency {concurrency!r} is not a number of requests: use 1 to {MAX_CONCURRENCY}"
            )
        if not (limits.rates or limits.quotas or concurrency is not None):
            way_out = "a rate or a concurrency" if quota is None else "a rate, a concurrency or a quota"
            raise ConfigurationError(f"sets no limit: give it {way_out}")
        for name in {rate.name for rate in limits.rates} & {quota.name for quota in limits.quotas}:
            raise ConfigurationError(
                f"A rate and a quota are both per {name}, so their policies have one name: "
                "write the rate in another unit"
            )
        return limits

    @property
    def counted(self) -> tuple[Rate | Quota, ...]:
        """The limits that count units: its rates, then its quotas."""
        return *self.rates, *self.quotas

    def local_share(self, workers: int) -> "Limits":
        """Return the limits of each of *workers* while they share no counters: an equal part, and at least 1."""
        return Limits(
            tuple(rate._replace(limit=max(1, rate.limit // workers)) for rate in self.rates),
            tuple(quota._replace(limit=max(1, quota.limit // workers)) for quota in self.quotas),
            None if self.concurrency is None else max(1, self.concurrency // workers),
        )


@dataclass(frozen=True, slots=True)
class SharedLimits:
    """Limits that several keys share: `rate`, `concurrency` and `quota` of an account or an owner.

    Raises ConfigurationError for what is no limit, and when there is none.
    """

    rate: str | Sequence[str] = ()
    concurrency: int | None = None
    quota: str | Sequence[str] = ()
    limits: Limits = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", _hashable(self.rate))
        object.__setattr__(self, "quota", _hashable(self.quota))
        object.__setattr__(self, "limits", Limits.parse(self.rate, self.concurrency, self.quota))


@dataclass(frozen=True, slots=True)
class AnonymousLimits:
    """The limits of callers of public routes, each by its address block: an IPv4 address or an IPv6 /64.

    Unless they are *enforced*, they count and refuse nothing. Raises ConfigurationError.
    """

    rate: str | Sequence[str] = ()
    concurrency: int | None = None
    enforce: bool = True
    limits: Limits = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", _hashable(self.rate))
        object.__setattr__(self, "enforce", parse_flag("enforce", self.enforce))
        object.__setattr__(self, "limits", Limits.parse(self.rate, self.concurrency))


@dataclass(frozen=True, slots=True)
class RouteLimit:
    """A limit of one route beside those of tiers: *by* key, account, owner or address, each of which has its own count.

    Unless it is enforced (*enforce*), it counts and refuses nothing. Raises ConfigurationError.
    """

    rate: str | Sequence[str] = ()
    concurrency: int | None = None
    by: LimitedBy = "key"
    enforce: bool = True
    limits: Limits = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.by not in LIMITED_BY:
            raise ConfigurationError(f"by is one of {', '.join(LIMITED_BY)}, not {self.by!r}")
        object.__setattr__(self, "rate", _hashable(self.rate))
        object.__setattr__(self, "enforce", parse_flag("enforce", self.enforce))
        object.__setattr__(self, "limits", Limits.parse(self.rate, self.concurrency))


@dataclass(frozen=True, slots=True)
class Tier:
    """A named set of limits for one key: *rate* in `limits` notation (`"1000/minute"`, or a list), and *concurrency*.

    *quota* counts calendar days or months (`"50000/month"`, or a list). *account* and *owner* are limits that all keys
    of an account, and all of its keys with one owner, share. Unless the tier is enforced (*enforce*), all of its limits
    count and refuse nothing. *max_keys* is how many working keys an account of the tier may have, None for any number.
    Raises ConfigurationError.
    """

    rate: str | Sequence[str]
    concurrency: int
    quota: str | Sequence[str] = ()
    account: SharedLimits | Mapping[str, object] | None = None
    owner: SharedLimits | Mapping[str, object] | None = None
    max_keys: int | None = None
    enforce: bool = True
    limits: Limits = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not parse_rates(self.rate):
            raise ConfigurationError(f"Rate {self.rate!r} is not a rate: a tier needs one, as in 1000/minute")
        if self.concurrency is None:
            raise ConfigurationError(f"Concurrency None is not a number of requests: use 1 to {MAX_CONCURRENCY}")
        if self.max_keys is not None and (type(self.max_keys) is not int or not 1 <= self.max_keys <= MAX_KEYS):
            raise ConfigurationError(f"{self.max_keys!r} is not a number of keys: use 1 to {MAX_KEYS}")
        values: dict[str, object] = {
            "rate": _hashable(self.rate),
            "quota": _hashable(self.quota),
            "limits": Limits.parse(self.rate, self.concurrency, self.quota),
            "account": _shared_limits("account", self.account),
            "owner": _shared_limits("owner", self.owner),
            "enforce": parse_flag("enforce", self.enforce),
        }
        for attribute, value in values.items():
            object.__setattr__(self, attribute, value)

    @property
    def limit(self) -> int:
        """The limit of its first rate, in units."""
        return self.limits.rates[0].limit

    @property
    def window_seconds(self) -> int:
        """The window of its first rate."""
        return self.limits.rates[0].window_seconds

    @property
    def rate_text(self) -> str:
        """Its rates and quotas as settings have them: `1000/minute, 50000/month`."""
        return ", ".join(map(describe_limit, self.limits.counted))

    def per_minute(self) -> float | None:
        """Return the units that its tightest rate of a minute or more admits in one minute on average; None without."""
        return min(
            (
                rate.limit * _MINUTE / rate.window_seconds
                for rate in self.limits.rates
                if rate.window_seconds >= _MINUTE
            ),
            default=None,
        )

    @property
    def has_quotas(self) -> bool:
        """Whether it has a quota of any subject."""
        every = (self.limits, self.account_limits, self.owner_limits)
        return any(limits is not None and limits.quotas for limits in every)

    @property
    def account_limits(self) -> Limits | None:
        """The limits that all keys of an account share."""
        return None if self.account is None else cast("SharedLimits", self.account).limits

    @property
    def owner_limits(self) -> Limits | None:
        """The limits that all keys of an owner share."""
        return None if self.owner is None else cast("SharedLimits", self.owner).limits


def describe_limit(limit: Rate | Quota) -> str:
    """Return *limit* as settings have it: `1000/minute`, `5/2 hours`."""
    return f"{limit.limit}/{limit.name.replace('-', ' ')}"


def describe_limits(limits: Limits) -> str:
    """Return *limits* in a line: `1000/minute, 50000/month, 50 concurrent`."""
    texts = [describe_limit(limit) for limit in limits.counted]
    return ", ".join(texts if limits.concurrency is None else [*texts, f"{limits.concurrency} concurrent"])


def tier_of(name: str, tiers: Mapping[str, Tier]) -> Tier:
    """Return the tier of that *name*, or what every one of *tiers* allows when it is not configured.

    An account may have a tier that this process does not know. A refusal would turn an operator's mistake into an
    outage. So it gets, in each window, no more than any configured tier would give.
    """
    return tiers.get(name) or _strictest(tuple(tiers.values()))


@lru_cache
def _strictest(tiers: tuple[Tier, ...]) -> Tier:
    # Not by `Tier(…)`: it may have more windows than one tier may.
    strictest, lowest_limits = copy(tiers[0]), _lowest([tier.limits for tier in tiers])
    object.__setattr__(strictest, "limits", lowest_limits)
    object.__setattr__(strictest, "rate", tuple(map(describe_limit, lowest_limits.rates)))
    object.__setattr__(strictest, "quota", tuple(map(describe_limit, lowest_limits.quotas)))
    object.__setattr__(strictest, "concurrency", lowest_limits.concurrency)
    for name in ("account", "owner"):
        shared = [limits for tier in tiers if (limits := getattr(tier, name)) is not None]
        lowest = copy(shared[0]) if shared else None
        if lowest is not None:
            object.__setattr__(lowest, "limits", _lowest([limits.limits for limits in shared]))
        object.__setattr__(strictest, name, lowest)
    object.__setattr__(strictest, "enforce", any(tier.enforce for tier in tiers))
    return strictest


def _lowest(limits: Sequence[Limits]) -> Limits:
    """Return the limits that admit only what all of *limits* admit."""
    rates: dict[int, Rate] = {}
    for rate in chain.from_iterable(one.rates for one in limits):
        rates[rate.window_seconds] = min(rate, rates.get(rate.window_seconds, rate))
    quotas: dict[str, Quota] = {}
    for quota in chain.from_iterable(one.quotas for one in limits):
        quotas[quota.name] = min(quota, quotas.get(quota.name, quota))
    concurrency = min((one.concurrency for one in limits if one.concurrency is not None), default=None)
    return Limits(tuple(rates.values()), tuple(quotas.values()), concurrency)


def _hashable(value: str | Sequence[str]) -> str | Sequence[str]:
    return tuple(value) if isinstance(value, list) else value


def parse_flag(name: str, value: object) -> bool:
    """Return the flag *value*; text is how the environment has it. Raises ConfigurationError."""
    if value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} is true or false, not {value!r}")
    return value


def _shared_limits(name: str, value: SharedLimits | Mapping[str, object] | None) -> SharedLimits | None:
    if value is None or isinstance(value, SharedLimits):
        return value
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{name} {value!r} is not a table of rate, concurrency and quota")
    if unknown := set(value) - {"rate", "concurrency", "quota"}:
        raise ConfigurationError(f"{name}: {min(unknown)!r} is not a setting here; known: rate, concurrency, quota")
    try:
        return SharedLimits(**value)  # type: ignore[arg-type]  # it checks the values
    except ConfigurationError as exc:
        raise ConfigurationError(f"{name}: {exc}") from exc


def parse_rates(rate: str | Sequence[str]) -> tuple[Rate, ...]:
    """Return the rates of a text or a list of texts. A text may have several, with `;`, `,` or `|` between them.

    Raises ConfigurationError: for what is no rate, and for two rates of one window.
    """
    rates = tuple(parse_rate(text) for text in _texts(rate, "Rate"))
    if len(rates) > _MOST_RATES:
        raise ConfigurationError(f"Rate {rate!r} has {len(rates)} windows: use {_MOST_RATES} or fewer")
    for at, one in enumerate(rates):
        for other in rates[:at]:
            if other.window_seconds == one.window_seconds:
                raise ConfigurationError(f"Rate {rate!r} has two limits for one window ({one.name}): drop one of them")
    return rates


def parse_quotas(quota: str | Sequence[str]) -> tuple[Quota, ...]:
    """Return the quotas of a text or a list of texts. Raises ConfigurationError, as `parse_rates` does."""
    quotas: list[Quota] = []
    for text in _texts(quota, "Quota"):
        match = _QUOTA.fullmatch(text)
        unit = match[2].lower() if match else ""
        if match is None or unit not in ("day", "month"):
            raise ConfigurationError(
                f"Quota {text!r} is not a number a calendar day or month, as in 50000/month; other windows are for rate"
            )
        if not 0 < int(match[1]) <= MAX_LIMIT:
            raise ConfigurationError(f"Quota {text!r} is out of range: use 1 to {MAX_LIMIT}")
        if any(unit == other.name for other in quotas):
            raise ConfigurationError(f"Quota {quota!r} has two limits a {unit}: drop one of them")
        quotas.append(Quota(int(match[1]), cast("PeriodUnit", unit)))
    return tuple(quotas)


def _texts(value: str | Sequence[str], name: str) -> Iterator[str]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ConfigurationError(f"{name} {value!r} is neither text, as in {_EXAMPLES[name]}, nor a list of it")
    for text in texts:
        parts = re.split("[;,|]", text)
        for part in parts:
            if len(parts) > 1 and not part.strip(" 0123456789"):
                raise ConfigurationError(
                    f"{name} {text!r}: {part!r} has no window; `;`, `,` and `|` stand between limits, not in numbers"
                )
        yield from parts


def parse_rate(rate: str) -> Rate:
    """Return one *rate* in the notation of `limits`. Raises ConfigurationError when it is not a rate."""
    if (common := _COMMON.fullmatch(str(rate))) is not None:
        # The forms of the defaults. `limits` parses them to the same, but importing that library takes 80 ms.
        limit, unit, multiple, units = int(common[1]), common[2], common[3], common[4]
        _check_limit(rate, limit)
        if unit:
            return Rate(limit, _UNIT_SECONDS[unit], unit)
        return Rate(limit, int(multiple) * _UNIT_SECONDS[units], f"{multiple}-{units}s")
    from limits import parse_many  # noqa: PLC0415 - see above

    try:
        item, *others = parse_many(rate)
    except ValueError as exc:
        raise ConfigurationError(
            f"Rate {rate!r} is not a rate: write a number and a window, as in 1000/minute"
        ) from exc
    if others:
        raise ConfigurationError(f"Rate {rate!r} is more than one rate: give one")
    _check_limit(rate, item.amount)
    if _NO_WINDOW.search(rate) or item.get_expiry() > MAX_WINDOW_SECONDS:
        raise ConfigurationError(f"Rate {rate!r} has no usable window: use 1 to {MAX_WINDOW_SECONDS} seconds")
    name = item.GRANULARITY.name if item.multiples == 1 else f"{item.multiples}-{item.GRANULARITY.name}s"
    return Rate(item.amount, item.get_expiry(), name)


def _check_limit(rate: str, limit: int) -> None:
    if not 0 < limit <= MAX_LIMIT:
        raise ConfigurationError(f"Rate {rate!r} is out of range: use 1 to {MAX_LIMIT} per window")


TIERS: Mapping[str, Tier] = {
    "test": Tier("100/minute", 5),
    "standard": Tier("1000/minute", 50),
    "enterprise": Tier("10000/minute", 500),
}
