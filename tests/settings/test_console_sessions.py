"""How long sessions of the Console last unused, and when a password is asked for again."""

import pytest

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.settings import load_settings
from machpay_gateway.settings.console import ConsoleSettings

URL = "https://console.example.com"


def test_a_session_ends_after_an_hour_and_a_password_is_asked_for_after_a_quarter_unless_told_otherwise() -> None:
    assert (ConsoleSettings(URL).idle_minutes, ConsoleSettings(URL).confirm_minutes) == (60, 15)
    assert ConsoleSettings(URL, confirm_minutes=0).confirm_minutes == 0


@pytest.mark.parametrize("name, value", [
    ("idle_minutes", 0), ("idle_minutes", 721), ("idle_minutes", True), ("idle_minutes", "soon"), ("idle_minutes", 1.5),
    ("confirm_minutes", -1), ("confirm_minutes", 721), ("confirm_minutes", None),
])  # fmt: skip
def test_what_is_no_number_of_minutes_is_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=name):
        ConsoleSettings(URL, **{name: value})  # type: ignore[arg-type]  # the subject of the test


def test_the_environment_sets_both(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("URL", URL), ("IDLE_MINUTES", "5"), ("CONFIRM_MINUTES", "0")):
        monkeypatch.setenv(f"MACHPAY_CONSOLE__{name}", value)
    assert load_settings({}).console == ConsoleSettings(URL, idle_minutes=5, confirm_minutes=0)
