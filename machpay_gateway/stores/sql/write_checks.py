"""Whether a database takes writes, for `machpay-gateway doctor`: it may be full, read-only, or a replica.

Nothing remains of what it writes to find out.
"""

import shutil
import time
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from machpay_gateway.core.check_result import CheckResult, CheckStatus
from machpay_gateway.core.clock_skew import ClockSkew
from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.stores.sql.engine import Database

_SKEW_SECONDS = 1.0
_PROBES = 5  # of the clock, of which the fastest counts
_LEAST_BYTES, _FEW_BYTES = 1_000_000, 100_000_000  # on the disk of a SQLite file
_DISK_FULL = "53100"  # SQLSTATE
_CLOCK = text("SELECT extract(epoch FROM clock_timestamp())")
_CONDITION = text("""
    SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on',
      CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
        ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END
""")
# More than fits into free pages, so that files grow. A temporary table needs the right TEMPORARY, which PUBLIC has.
_GROW = (
    "CREATE TEMPORARY TABLE machpay_doctor (filler text) ON COMMIT DROP",
    "ALTER TABLE machpay_doctor ALTER filler SET STORAGE PLAIN",
    "INSERT INTO machpay_doctor SELECT repeat('x', 7000) FROM generate_series(1, 200)",
)


def check_disk(path: Path) -> CheckResult | None:
    """Return what is wrong with the disk of a SQLite file, which cannot even be read when the disk is full."""
    free = shutil.disk_usage(path.parent).free
    if free < _LEAST_BYTES:
        return _wrong(f"the disk of {path.parent} is full: no change and no usage can be stored", "free disk space")
    if free < _FEW_BYTES:
        message = f"the disk of {path.parent} has {free // 1_000_000} MB left: once it is full, nothing can be stored"
        return CheckResult("database writes", CheckStatus.WARNING, message, "free disk space")
    return None


async def read_only_reason(connection: AsyncConnection) -> str | None:
    """Return why a server takes no writes, and how far a replica is behind; None when it takes them."""
    is_replica, is_read_only, seconds_behind = (await connection.execute(_CONDITION)).one()
    if is_replica:
        lag = "an unknown time" if seconds_behind is None else f"{seconds_behind:.1f} s"
        return f"a replica, {lag} behind its primary"
    return "by default_transaction_read_only" if is_read_only else None


async def write_findings(database: Database) -> list[CheckResult]:
    """Return whether *database* has room for writes and, of a server, how far its clock is off.

    Raises StoreUnavailable.
    """
    if database.is_sqlite:
        return [await _check_file(database)]
    return [await _check_server(database), await _check_clock(database)]


async def _check_file(database: Database) -> CheckResult:
    try:
        async with database.write_transaction("doctor"):
            pass
    except StoreUnavailable as exc:
        return _wrong(f"it takes no writes ({_reason(exc)})", "check the owner and the mode of the file and its folder")
    return check_disk(Path(str(database.url.database))) or _takes_writes()


async def _check_server(database: Database) -> CheckResult:
    try:
        async with database.write_transaction("doctor") as connection:
            await _grow(connection)
    except StoreUnavailable as exc:
        if _sqlstate(exc) == _DISK_FULL:
            return _wrong("the server's disk is full: no change and no usage can be stored", "free disk space there")
        message = f"whether the server's disk is full cannot be checked ({_reason(exc)})"
        return CheckResult("database writes", CheckStatus.WARNING, message, "GRANT TEMPORARY ON DATABASE … TO …")
    return _takes_writes()


async def _grow(connection: AsyncConnection) -> None:
    for statement in _GROW:
        await connection.exec_driver_sql(statement)


async def _check_clock(database: Database) -> CheckResult:
    skew = ClockSkew()
    async with database.read_connection("clock") as connection:
        for _ in range(_PROBES):
            sent_at = time.time()
            skew.add(sent_at, float((await connection.execute(_CLOCK)).scalar_one()), time.time())
    ahead = -(skew.seconds or 0.0)
    if abs(ahead) <= _SKEW_SECONDS:
        return CheckResult("database clock", CheckStatus.OK, f"within {_SKEW_SECONDS:.0f} s of this host's")
    direction = "ahead of" if ahead > 0 else "behind"
    message = (
        f"{abs(ahead):.1f} s {direction} this host's: keys and tokens expire by this host's, logs cannot be compared"
    )
    return CheckResult("database clock", CheckStatus.WARNING, message, "set the clocks of both by NTP")


def _takes_writes() -> CheckResult:
    return CheckResult("database writes", CheckStatus.OK, "it takes writes")


def _wrong(message: str, way_out: str) -> CheckResult:
    return CheckResult("database writes", CheckStatus.WRONG, message, way_out)


def _sqlstate(exc: StoreUnavailable) -> str | None:
    return getattr(getattr(exc.__cause__, "orig", None), "sqlstate", None)


def _reason(exc: StoreUnavailable) -> str:
    error = getattr(exc.__cause__, "orig", None) or exc.__cause__ or exc
    return str(error).splitlines()[0].rpartition(">: ")[2]
