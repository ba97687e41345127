"""Secrets in files: every setting that holds one may name a file instead."""

from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.settings import Settings, load_settings

PASSWORD = token_hex(16)
VALUES = {
    "database": f"postgresql://machpay:{PASSWORD}@db.example.com/machpay",
    "redis": f"redis://machpay:{PASSWORD}@redis.example.com:6379/0",
    "secret_key": PASSWORD,
    "oauth.registration_token": PASSWORD,
}
SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
OAUTH = '[oauth]\nissuer = "https://id.example.org"\nregistration_account = "acct_1"\n'


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty directory: no machpay.toml but the test's own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "secret"


def value_of(settings: Settings, name: str) -> object:
    if name == "oauth.registration_token":
        assert isinstance(settings.oauth, OAuthSettings)
        return settings.oauth.registration_token
    return getattr(settings, name)


def variable(name: str) -> str:
    return f"MACHPAY_{name.replace('.', '__').upper()}"


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_variable_of_a_file_is_read_like_the_variable_itself(name: str, end: str, file: Path) -> None:
    file.write_text(VALUES[name] + end)
    Path("machpay.toml").write_text(OAUTH)
    expected = load_settings(environ={variable(name): VALUES[name]})
    settings = load_settings(environ={f"{variable(name)}_FILE": str(file)})
    assert value_of(settings, name) == value_of(expected, name) == VALUES[name]


@pytest.mark.parametrize("name", VALUES)
def test_the_setting_of_a_file_is_read_like_the_setting_itself(name: str, file: Path) -> None:
    file.write_text(VALUES[name])
    setting = f'{name.rpartition(".")[2]}_file = "{file}"\n'
    Path("machpay.toml").write_text(OAUTH + setting if "." in name else setting + OAUTH)
    assert value_of(load_settings(environ={}), name) == VALUES[name]


@pytest.mark.parametrize(
    "text, environ, options, expected",
    [
        ('redis_file = "{file}"', {}, {}, "redis://file:1"),
        ('redis_file = "{file}"', {"MACHPAY_REDIS": "redis://variable:1"}, {}, "redis://variable:1"),
        ('redis = "redis://toml:1"', {"MACHPAY_REDIS_FILE": "{file}"}, {}, "redis://file:1"),
        ("", {"MACHPAY_REDIS": "redis://variable:1"}, {"redis_file": "{file}"}, "redis://file:1"),
        ("", {"MACHPAY_REDIS_FILE": "{file}"}, {"redis": "redis://python:1"}, "redis://python:1"),
    ],
)
def test_a_later_source_overrides_a_file_and_is_overridden_by_one(
    text: str, environ: Mapping[str, str], options: Mapping[str, Any], expected: str, file: Path
) -> None:
    file.write_text("redis://file:1")
    Path("machpay.toml").write_text(text.format(file=file))
    given: Any = {name: value.format(file=file) for name, value in options.items()}
    settings = load_settings(given, environ={name: value.format(file=file) for name, value in environ.items()})
    assert settings.redis == expected
    assert settings.redis_file == (file if expected == "redis://file:1" else None)


def test_a_file_that_cannot_be_used_stops_the_start_and_is_named_by_its_setting(file: Path) -> None:
    missing, empty, binary = file.with_name("missing"), file.with_name("empty"), file.with_name("binary")
    empty.write_text("\n")
    binary.write_bytes(b"\xff")
    file.write_text(f"gopher://{PASSWORD}")
    Path("machpay.toml").write_text(f'# the database\ndatabase_file = "{missing}"\n')
    with pytest.raises(ConfigurationError) as wrong:
        load_settings(
            environ={
                "MACHPAY_REDIS_FILE": str(file),
                "MACHPAY_SECRET_KEY_FILE": str(empty),
                "MACHPAY_OAUTH__ISSUER": "https://id.example.org",
                "MACHPAY_OAUTH__REGISTRATION_TOKEN_FILE": str(binary),
            }
        )
    assert sorted(str(wrong.value).splitlines()) == sorted(
        [
            f"machpay.toml:2: database_file: {missing} cannot be read: No such file or directory",
            f"MACHPAY_REDIS_FILE: not a URL that starts with {' or '.join(f'{scheme}://' for scheme in SCHEMES)}",
            f"MACHPAY_SECRET_KEY_FILE: {empty} is empty",
            f"MACHPAY_OAUTH__REGISTRATION_TOKEN_FILE: {binary} cannot be read: it is no text in UTF-8",
        ]
    )


def test_a_value_and_its_file_in_one_source_are_a_mistake(file: Path) -> None:
    file.write_text("redis://file:1")
    with pytest.raises(ConfigurationError, match="MACHPAY_REDIS_FILE: is set beside the value itself: set one of the"):
        load_settings(environ={"MACHPAY_REDIS_FILE": str(file), "MACHPAY_REDIS": "redis://variable:1"})


def test_a_file_of_a_setting_that_is_no_secret_is_unknown() -> None:
    with pytest.raises(ConfigurationError, match="MACHPAY_REDIS_PREFIX_FILE: "):
        load_settings(environ={"MACHPAY_REDIS_PREFIX_FILE": "/prefix"})
