"""Prompts: confirmations, and passwords, which must not be arguments."""

import sys

import click

_LONGEST_PASSWORD = 4096  # characters that are read from stdin


def is_terminal() -> bool:
    """Return whether standard input is a terminal, so that a person can be prompted."""
    return sys.stdin.isatty()


def confirm(question: str, *, yes: bool, action: str) -> None:
    """Ask *question* unless *yes* is set. Raises a click exception when the answer is no, or there is no terminal."""
    if yes:
        return
    if not is_terminal():
        raise click.UsageError(f"There is no terminal to confirm on: add --yes to {action}.")
    if not click.confirm(question, err=True):
        raise click.ClickException("Nothing was changed.")


def read_password(*, prompts: bool = True) -> str:
    """Return a password: on a terminal from a prompt, twice, if it *prompts*; else from stdin.

    Never from an argument, which the process list shows.
    """
    if prompts and is_terminal():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    password = sys.stdin.read(_LONGEST_PASSWORD).rstrip("\r\n")
    if not password:
        raise click.UsageError("Standard input is empty: the password is read from there.")
    return password
