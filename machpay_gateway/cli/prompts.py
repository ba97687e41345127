"""What commands ask people for: whether they mean it, and what must not be an argument."""

import sys

import click

_LONGEST_PASSWORD = 4096  # characters of stdin that are looked at


def is_terminal() -> bool:
    """Tell whether a person can be asked."""
    return sys.stdin.isatty()


def confirmed(question: str, *, yes: bool, doing: str) -> None:
    """Return when *question* is answered with yes, or *yes* was said before. Raises a click exception else."""
    if yes:
        return
    if not is_terminal():
        raise click.UsageError(f"There is nobody to ask: add --yes to {doing}.")
    if not click.confirm(question, err=True):
        raise click.ClickException("Nothing was changed.")


def read_password(*, asks: bool = True) -> str:
    """Return a password, asked for twice on a terminal unless it *asks* for none, else from stdin.

    Never from an argument, which others can see.
    """
    if asks and is_terminal():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    password = sys.stdin.read(_LONGEST_PASSWORD).rstrip("\r\n")
    if not password:
        raise click.UsageError("Nothing came on standard input, where the password is read from.")
    return password
