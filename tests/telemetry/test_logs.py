"""What the gateway's processes say: both forms, what a line of JSON has, and that no secret comes out whole."""

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from machpay_gateway.core.keys.key import mint_secret
from machpay_gateway.telemetry.logs import configure_logging

SECRETS = {
    "key": mint_secret("live", os.urandom(32)),
    "refresh token": "rt_mp1_" + os.urandom(16).hex(),
    "signed token": ".".join(("eyJ" + "hbGciOiJSUzI1NiJ9", "eyJ" + "zdWIiOiIxIn0", os.urandom(32).hex())),
    "password": f"postgresql://machpay:{os.urandom(8).hex()}@db/machpay",
}
logger = logging.getLogger("machpay_gateway.tests")
Said = Callable[[], str]


class Held:
    """What an argument may be: anything that has a text."""

    def __init__(self, secret: str) -> None:
        self.secret = secret

    def __repr__(self) -> str:
        return f"Held({self.secret})"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging.getLogger(), "level", logging.WARNING)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    return lambda: capsys.readouterr().err


@pytest.fixture(params=["text", "json"])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def fail(secret: str) -> None:
    raise ValueError(f"from {secret}") from KeyError(secret)


def says_in_the_message(secret: str) -> None:
    logger.warning(f"it is {secret}, yes")  # noqa: G004 - as another library may


def says_in_arguments(secret: str) -> None:
    logger.warning("it is %s and %r and %s", secret, {"of": [secret]}, Held(secret))


def says_in_members(secret: str) -> None:
    deep: object = Held(secret)
    for _ in range(12):
        deep = [deep, {secret: secret}]
    logger.warning("beside it", extra={"one": secret, "two": {secret: Held(secret)}, secret: 1, "deep": deep})


def says_by_an_exception_and_its_cause(secret: str) -> None:
    try:
        fail(secret)
    except ValueError:
        logger.exception("it failed")


def says_by_a_group_of_exceptions(secret: str) -> None:
    logger.error("they failed", exc_info=ExceptionGroup(secret, [ValueError(secret), KeyError(secret)]))


def says_by_the_stack(secret: str) -> None:
    exec(compile(f"logger.warning('here', stack_info=True)  # {secret}", secret, "exec"), {"logger": logger})  # noqa: S102


def says_what_nobody_caught(secret: str) -> None:
    try:
        fail(secret)
    except ValueError as exc:
        sys.excepthook(ValueError, exc, exc.__traceback__)


def says_a_warning(secret: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)  # by what `catch_warnings` puts back
        warnings.warn(secret, stacklevel=1)
        logging.captureWarnings(capture=False)


def says_a_line_that_cannot_be_made(secret: str) -> None:
    logger.warning("%d of %s", secret, secret)


WAYS = [value for name, value in list(globals().items()) if name.startswith("says_")]


@pytest.mark.parametrize("says", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("kind", SECRETS)
def test_secrets_are_masked(form: str, kind: str, says: Callable[[str], None], said: Said) -> None:
    secret = SECRETS[kind]
    configure_logging(form)
    says(secret)
    told = said()
    assert told.strip(), "it says something"
    assert secret not in told
    hidden = secret.partition("machpay:")[2].partition("@")[0] or secret[-24:]
    assert hidden not in told
    if form == "json":
        assert all(isinstance(json.loads(line), dict) for line in told.splitlines())


def lines(said: Said) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said().splitlines()]


def test_a_line_of_json_has_time_level_logger_and_message(said: Said) -> None:
    configure_logging("json", worker=4711)
    logger.warning("%d of %s", 3, "four", extra={"route": "GET /", "key": None, "worker": "another"})
    (line,) = lines(said)
    moment = line.pop("time")
    assert (moment[10], moment[19], moment[23:]) == ("T", ".", "Z")
    assert list(line.items()) == [
        ("level", "warning"),
        ("logger", "machpay_gateway.tests"),
        ("message", "3 of four"),
        ("worker", 4711),  # what comes beside a message does not take the place of ours
        ("route", "GET /"),
        ("key", None),
    ]


def test_nested_values_stay_json_to_a_depth(said: Said) -> None:
    configure_logging("json")
    secret = SECRETS["key"]
    nested: Any = "deep"
    for _ in range(10):
        nested = [nested]
    logger.warning("x", extra={"data": {"list": [1, True, None, 2.5, secret], secret: ("a",)}, "nested": nested})
    (line,) = lines(said)
    masked_secret = line["data"]["list"][-1]
    assert masked_secret != secret
    assert line["data"] == {"list": [1, True, None, 2.5, masked_secret], masked_secret: ["a"]}
    assert line["nested"] == [[[[[[[["[['deep']]"]]]]]]]]  # the rest as text


def test_an_exception_is_one_member_with_its_cause(said: Said) -> None:
    configure_logging("json")
    says_by_an_exception_and_its_cause("x")
    (line,) = lines(said)
    assert line["message"] == "it failed"
    assert "Traceback (most recent call last):\n" in line["exception"]
    assert "\nThe above exception was the direct cause of the following exception:\n" in line["exception"]
    assert line["exception"].endswith("ValueError: from x")
    assert "worker" not in line


@pytest.mark.parametrize("value", ["\ud800", 2**70, float("nan"), b"\xff", "\x1b[31m\n{"], ids=repr)
def test_every_line_is_json(value: object, said: Said) -> None:
    configure_logging("json")
    logger.warning("%s", value, extra={"of": value})
    (line,) = lines(said)
    assert line["level"] == "warning"


def test_the_text_form_has_time_level_and_message(said: Said) -> None:
    configure_logging("text", worker=1)
    logger.info("%d of %s", 3, "four", extra={"route": "GET /"})
    assert said().endswith(" INFO machpay_gateway.tests: 3 of four\n")


def test_records_below_the_level_are_dropped(form: str, said: Said) -> None:
    configure_logging(form, level="error")
    logger.warning("not this")
    assert not said()


def test_configuring_again_replaces_the_handler(said: Said) -> None:
    configure_logging("text")
    configure_logging("json")
    logger.warning("once")
    assert len(lines(said)) == 1


def test_an_interrupt_is_not_logged_as_an_error(said: Said) -> None:
    configure_logging("json")
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert said() == "KeyboardInterrupt\n"
