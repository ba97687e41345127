"""uvicorn with its clock set ahead, so that a calendar month ends when a drill wants: `… wall_clock SECONDS APP …`."""

import sys
import time

import uvicorn

_TIME = "redis.call('TIME')"


def set_ahead(seconds: int) -> None:
    """Set the wall clock of this process ahead, and that of the server for the scripts of this process."""
    real = time.time
    time.time = lambda: real() + seconds
    # Not before: the gateway's modules have the clock as a default.
    from machpay_gateway.limiters.redis import scripts  # noqa: PLC0415

    load = scripts._load  # noqa: SLF001 - every script comes from there

    def load_ahead(name: str) -> scripts.Script:
        ahead = f"(function() local time = {_TIME}; time[1] = time[1] + {seconds}; return time end)()"
        return scripts.Script(load(name).source.replace(_TIME, ahead))

    scripts._load = load_ahead  # noqa: SLF001 - as above


if __name__ == "__main__":
    set_ahead(int(sys.argv.pop(1)))
    uvicorn.main()
