"""Many keys of many accounts over many workers: no limit of a price list is passed, whoever shares it."""

import time
from collections.abc import Mapping
from itertools import product

import pytest

from machpay_gateway import Tier
from tests.drills.checker import Call, Limit, Outcome, Reading, Request, Span, read_limits
from tests.drills.load import Answer, Plan
from tests.drills.loads import READY_SECONDS, notes_in, print_row, running_loads
from tests.drills.workers import Fleet, running_workers
from tests.redises.servers import running_server

WORKERS, PROCESSES, ACCOUNTS = 4, 8, 5
OWNERS = ("ada", "ada", "bob", "cyd")  # of the keys of each account
SECONDS = 40.0
CONNECTIONS = 60  # of a process: three for each key
REFUSALS_PER_SECOND = 800
HOLD_SECONDS = 0.1
BURST_SECONDS = 3.0
TIER = Tier(
    ["60 per 3 second", "130 per 15 second"],
    10,
    account={"rate": ["150 per 3 second", "330 per 15 second"], "concurrency": 12},
    owner={"rate": ["80 per 3 second", "170 per 15 second"]},
)
# Written once more, for the checker reads nothing of the gateway.
LIMITS = [
    Limit("3-seconds", "key", 60, 3),
    Limit("15-seconds", "key", 130, 15),
    Limit("concurrency", "key", 10, None),
    Limit("account-3-seconds", "account", 150, 3),
    Limit("account-15-seconds", "account", 330, 15),
    Limit("account-concurrency", "account", 12, None),
    Limit("owner-3-seconds", "owner", 80, 3),
    Limit("owner-15-seconds", "owner", 170, 15),
]


@pytest.mark.drill
@pytest.mark.timeout(180)
async def test_no_limit_of_a_price_list_is_passed_and_nobody_is_refused_wrongly() -> None:
    with running_server() as server, running_workers(WORKERS, server.url, {"standard": TIER}) as fleet:
        answers, calls = await _calls(fleet)
        fleet.check_logs()
    readings, wrong = read_limits(calls, LIMITS)
    print_row(
        f"{WORKERS} workers, {PROCESSES} load processes, {ACCOUNTS * len(OWNERS)} keys of {ACCOUNTS} accounts",
        answers,
        f"refused wrongly {wrong}",
    )
    for reading in readings:
        print(_line(reading))
    assert {answer.status for answer in answers} == {200, 429}
    assert {policy for call in calls for policy in call.violated} <= {limit.policy for limit in LIMITS}
    assert [reading.limit.policy for reading in readings if reading.over] == []
    assert wrong == 0
    # Beside a window, slots are named by what the worker last heard of them, a second ago or so.
    windows = [reading for reading in readings if reading.limit.window_seconds is not None]
    assert [reading.limit.policy for reading in windows if reading.unexplained] == []
    idle = [reading.limit.policy for reading in readings if reading.highest < 0.9 * reading.limit.limit]
    assert idle == [], "the load has not reached these limits"


def _line(reading: Reading) -> str:
    limit = reading.limit
    within = "at once" if limit.window_seconds is None else f"in {limit.window_seconds:g} s"
    return (
        f"{limit.policy} | at most {reading.highest} of {limit.limit} {within} | {reading.over} over it | "
        f"named in {reading.named} refusals, {reading.unexplained} of them wrongly"
    )


async def _calls(fleet: Fleet) -> tuple[list[Answer], list[Call]]:
    """Let all keys be used: half of the processes ask in bursts, and after a third of the time half all the time."""
    subjects: dict[str, dict[str, str]] = {}
    for account, owner in product([f"acct{number}" for number in range(ACCOUNTS)], OWNERS):
        [(key_id, secret)] = await fleet.keys(account=account, owner=owner)
        subjects[secret] = {"key": key_id, "account": account, "owner": f"{account} {owner}"}
    began_at = time.monotonic() + READY_SECONDS
    plans = [
        Plan(
            ports=[*fleet.ports[number % WORKERS :], *fleet.ports[: number % WORKERS]],
            path=f"/slow?seconds={HOLD_SECONDS}",
            secrets=list(subjects) if number == 0 else _favored(list(subjects)),
            notes=notes_in(fleet),
            connections=CONNECTIONS,
            starts_at=began_at + number % 2 * SECONDS / 3,
            ends_at=began_at + SECONDS,
            refused_pause_seconds=CONNECTIONS * PROCESSES / REFUSALS_PER_SECOND,
            burst_seconds=0.0 if number % 2 else BURST_SECONDS,
        )
        for number in range(PROCESSES)
    ]
    answers, calls = list[Answer](), list[Call]()
    with running_loads(plans, fleet.folder) as loads:
        for load in loads:
            for answer in load.answers():
                answers.append(answer)
                calls.append(_call(answer, subjects[load.plan.secrets[answer.number]]))
    return answers, calls


def _favored(secrets: list[str]) -> list[str]:
    """Return the keys that are used most: one of the first account, those of an owner in the second, all of the others.

    So each kind of limit is the tightest one for somebody.
    """
    one, owners = secrets[:1], secrets[len(OWNERS) : len(OWNERS) + OWNERS.count("ada")]
    return [*(one * 4), *(owners * 2), *secrets[2 * len(OWNERS) :]]


def _call(answer: Answer, subjects: Mapping[str, str]) -> Call:
    outcome: Outcome = "admitted" if answer.status == 200 else "refused"
    request = Request(answer.sent, answer.entered, outcome)  # a refusal is entered when it comes
    return Call(request, Span(answer.entered, answer.left), answer.came, subjects, answer.violated)
