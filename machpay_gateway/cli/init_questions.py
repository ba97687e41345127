"""What `machpay-gateway init` asks on a terminal, for the options that were not given."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import click

from machpay_gateway.cli.new_settings import (
    DEFAULT_DATABASE,
    NewSettings,
    find_application,
    parse_route,
    parse_scopes,
)
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.settings import load_settings

_NONE = "none"


@dataclass(frozen=True, slots=True)
class Answers:
    """The options of `init` on what to write, as they are given; None and empty where they are not."""

    scopes: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    application: str | None = None
    database: str | None = None
    redis: str | None = None
    upstream: str | None = None

    def settings(self) -> NewSettings:
        """Return the settings to write. Raises ConfigurationError."""
        return NewSettings(
            database=self.database or DEFAULT_DATABASE,
            redis=self.redis,
            application=self.application,
            upstream=self.upstream,
            scopes=parse_scopes(self.scopes),
            routes=[parse_route(text) for text in self.routes],
        )


def ask(given: Answers, file: Path) -> Answers:
    """Return *given* with answers to the questions about the rest, each of which is right by itself."""
    click.echo(f"This writes {file}. Enter accepts what is in brackets; everything can be changed there later.\n")
    found_at = find_application(Path.cwd())
    if given.application is None and (found_at is not None or given.upstream is None):
        given = _ask_for(given, "Your FastAPI application, as in main:app", found_at, _with_application)
    if given.application is None and given.upstream is None:
        given = _ask_for(given, "Address of your API, if `machpay-gateway serve` forwards to it", None, _with_upstream)
    if not given.scopes:
        others = "Scopes of your API, as in orders:read orders:write"
        text = others if given.application is None else "Scopes besides those that the application requires"
        given = _ask_for(given, text, None, _with_scopes)
    if not given.routes and given.application is None:
        click.echo("Routes, as in: GET /v1/orders orders:read, or GET /healthz public. An empty line ends them.")
        while (more := _ask_for(given, "Route", "", _with_route)) is not given:
            given = more
    if given.database is None:
        given = _ask_for(given, "Database", DEFAULT_DATABASE, _with_database)
    if given.redis is None:
        given = _ask_for(given, "Redis, if several processes share limits", None, _with_redis)
    click.echo()
    return given


def _with_application(answers: Answers, value: str) -> Answers:
    return replace(answers, application=value)


def _with_upstream(answers: Answers, value: str) -> Answers:
    return replace(answers, upstream=value)


def _with_scopes(answers: Answers, value: str) -> Answers:
    return replace(answers, scopes=(value,))


def _with_route(answers: Answers, value: str) -> Answers:
    return replace(answers, routes=(*answers.routes, value))


def _with_database(answers: Answers, value: str) -> Answers:
    return replace(answers, database=value)


def _with_redis(answers: Answers, value: str) -> Answers:
    return replace(answers, redis=value)


def _ask_for(given: Answers, text: str, default: str | None, with_answer: Callable[[Answers, str], Answers]) -> Answers:
    """Return *given* with the answer to *text*, or as it is for none. A wrong answer is asked for again."""

    def parse(value: str) -> Answers:
        if value in {"", _NONE}:
            return given
        try:
            answers = with_answer(given, value)
            load_settings(answers.settings().options(), environ={})
        except ConfigurationError as exc:
            raise click.BadParameter(str(exc)) from exc
        return answers

    shown = _NONE if default is None else default
    answers: Answers = click.prompt(text, default=shown, show_default=bool(shown), value_proc=parse)
    return answers
