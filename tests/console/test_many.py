"""With 10,000 keys and 90 days of usage every page of the Console is fast.

The data is that of an account with some thousand requests a minute. It is inserted with SQL, past the store.
"""

import json
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from statistics import median

from httpx2 import AsyncClient

from machpay_gateway.console.app import PAGES
from machpay_gateway.core.usage.counters import BOUNDS, DAY, HOUR, MINUTE, Bucket
from machpay_gateway.core.usage.overview import PERIODS
from tests.console.harness import serving_console
from tests.prepared import new_sqlite

PATIENCE_SECONDS = 0.3  # of CPU time: the Console and its database run in this process, and others do not count
ROUNDS = 3  # slow pages are measured again: another process may have slowed the CPU down
KEYS = 10_000
BUSY_KEYS = 10  # at every hour; the first one in every minute of the week that minutes are kept
SPORADIC_KEYS = 300  # in the last hour
DAYS = 90
# What an account's requests are like: by route, what becomes of them.
KINDS = [
    (f"GET /v1/resource-{number}", outcome, status)
    for number in range(8)
    for outcome, status in (("allowed", 200), ("allowed", 404), ("rate_limited", 429))
]
KEY_KINDS = KINDS[:6]
_HISTOGRAM = (0, 3, 5, 9, 20, 13, 7, 2, 1, 1, 0, 0, 0, 0)
_COUNTS = [f"latency_{number:02}" for number in range(len(BOUNDS) + 1)]


def key_id(number: int) -> str:
    return f"key_{sha256(str(number).encode()).hexdigest()[:22]}"


def fill(path: Path, account_id: str, now: float) -> None:
    """Write keys, usage and changes of the account into the database at *path*."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO keys (id, account_id, name, environment, scopes, allowed_ips, metadata, version, created_at,"
            " changed_at) VALUES (?, ?, ?, 'live', '[\"skills:list\"]', '[]', '{}', 1, ?, ?)",
            ((key_id(n), account_id, f"service-{n:05}", now - n * 600, now - n * 600) for n in range(KEYS)),
        )
        digests = [sha256(key_id(n).encode()).digest() for n in range(KEYS)]
        connection.executemany(
            "INSERT INTO key_secrets (digest, key_id, position, masked, created_at) VALUES (?, ?, 0, ?, ?)",
            ((digests[n], key_id(n), f"sk_live_…{n:04x}", now - n * 600) for n in range(KEYS)),
        )
        connection.executemany(
            "INSERT INTO secret_uses (digest, key_id, last_used_at) VALUES (?, ?, ?)",
            ((digests[n], key_id(n), now - n) for n in range(KEYS)),
        )
        connection.executemany(
            "INSERT INTO audit_log (sequence, at, actor_kind, actor_id, action, account_id, object_id, before, after,"
            " digest) VALUES (?, ?, 'user', 'user_x', 'key.create', ?, ?, '{}', ?, x'00')",
            (
                (n + 1000, now - (KEYS - n) * 600, account_id, key_id(n), json.dumps({"name": f"service-{n:05}"}))
                for n in range(KEYS)
            ),
        )
        for subject, kinds in ((account_id, KINDS), *((key_id(n), KEY_KINDS) for n in range(BUSY_KEYS))):
            for bucket, seconds in ((HOUR, DAYS * DAY.seconds), (DAY, DAYS * DAY.seconds)):
                _count(connection, subject, kinds, bucket, starts(now, bucket, seconds))
        _count(connection, account_id, KINDS, MINUTE, starts(now, MINUTE, DAY.seconds))
        _count(connection, key_id(0), KEY_KINDS, MINUTE, starts(now, MINUTE, MINUTE.retention_seconds))
        for number in range(SPORADIC_KEYS):
            _count(connection, key_id(number + BUSY_KEYS), KEY_KINDS, MINUTE, starts(now, MINUTE, HOUR.seconds))


def starts(now: float, bucket: Bucket, seconds: int) -> range:
    newest = bucket.start_of(now)
    return range(newest - seconds + bucket.seconds, newest + 1, bucket.seconds)


def _count(
    connection: sqlite3.Connection,
    subject: str,
    kinds: Sequence[tuple[str, str, int]],
    bucket: Bucket,
    begins: range,
) -> None:
    values = ", ".join(map(str, _HISTOGRAM))
    connection.executemany(
        f"INSERT INTO usage_{bucket.name}s (subject, start, route, outcome, status, seconds, {', '.join(_COUNTS)})"  # noqa: S608 - names of ours
        f" VALUES (?, ?, ?, ?, ?, 1.5, {values})",
        ((subject, start, *kind) for start in begins for kind in kinds),
    )


async def cpu_seconds(browser: AsyncClient, address: str) -> float:
    """Return the CPU time that a request for *address* takes, the median of three."""
    took = []
    for _ in range(3):
        began = time.process_time()
        answer = await browser.get(f"/console{address}")
        took.append(time.process_time() - began)
        assert answer.status_code == 200, (address, answer.text)
    return median(took)


def addresses() -> list[str]:
    """Return the paths of all pages, with parameters for those that have some."""
    usage = [
        f"/{name}?{of}period={period}"
        for name in ("usage", "usage.json", "usage.csv")
        for of in ("", f"key={key_id(0)}&")
        for period in PERIODS
    ]
    by_path = {
        "/keys": [
            "/keys",
            f"/keys?after={key_id(KEYS // 2)}",
            "/keys?search=service-09999",
            "/keys?search=no+such+key",
            f"/keys?search={key_id(77)}",
            "/keys?status=revoked",
            "/keys?environment=test",
        ],
        "/keys/{id}": [f"/keys/{key_id(0)}"],
        "/keys/{id}/revoke": [f"/keys/{key_id(0)}/revoke"],
        "/addresses": ["/addresses?addresses=192.0.2.0/24"],
        "/usage": [address for address in usage if address.startswith("/usage?")],
        "/usage.json": [address for address in usage if address.startswith("/usage.json?")],
        "/usage.csv": [address for address in usage if address.startswith("/usage.csv?")],
    }
    return [
        address
        for page in PAGES
        if page.method == "GET"
        for address in by_path.get(page.path, [] if "{" in page.path else [page.path])
    ]


async def test_every_page_is_fast_with_many_records(tmp_path: Path) -> None:
    path = tmp_path / "many.db"
    async with serving_console(database=new_sqlite(path)) as rig:
        fill(path, rig.account.id, time.time())
        browser = await rig.signed_in()
        slow = dict.fromkeys(addresses(), 0.0)
        for _ in range(ROUNDS):
            took = {address: await cpu_seconds(browser, address) for address in slow}
            slow = {address: each for address, each in took.items() if each >= PATIENCE_SECONDS}
    assert slow == {}
