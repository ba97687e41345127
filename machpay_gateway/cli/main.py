"""The root command with all groups, and how errors and interrupts end it."""

import io
import re
import sys
from collections import UserDict
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import click

from machpay_gateway.cli.session import CliSession
from machpay_gateway.core.errors import GatewayError, describe_error

_RECORD_COMMANDS = "accounts", "keys", "users", "clients", "grants", "signing-keys", "audit"
_COMMANDS = (
    "init",
    "migrate",
    "backup",
    "restore",
    *_RECORD_COMMANDS,
    "policy",
    "tokens",
    "doctor",
    "serve",
    "tail",
    "top",
    "demo",
)
_INTERRUPTED = 130  # 128 and SIGINT's number, as shells have it


class _Commands(UserDict[str, Any]):
    """The commands by name, each imported when it is used, because all of them take half of the start."""

    def __getitem__(self, name: str) -> click.Command:
        """Return the command with this *name*, which its module has by the same."""
        module: str = self.data[name]
        command: click.Command = getattr(import_module(f"machpay_gateway.cli.{module}"), module)
        return command


class Root(click.Group):
    """Prints the package's errors as one line on stderr, and turns an interrupt into its exit status."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own signature
        """Run the command."""
        try:
            return super().invoke(ctx)
        except GatewayError as exc:
            # A settings error has one line for each mistake; align them.
            raise click.ClickException(re.sub(r"\n(?!\n)", "\n       ", describe_error(exc))) from exc
        except (KeyboardInterrupt, click.Abort):
            click.echo(err=True)  # closes the terminal's ^C
            raise click.exceptions.Exit(_INTERRUPTED) from None


def _build_note() -> str:
    """Return a note for `--version` on whether the request path is compiled."""
    gate = find_spec("machpay_gateway.gate")
    return " (compiled)" if gate and gate.origin and not gate.origin.endswith(".py") else ""


@click.group(
    cls=Root,
    commands=_Commands({name: name.replace("-", "_") for name in _COMMANDS}),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
@click.version_option(package_name="machpay-gateway", message=f"%(prog)s %(version)s{_build_note()}")
@click.option(
    "--config", metavar="FILE", help="Settings file; default: MACHPAY_CONFIG, or machpay.toml in this directory."
)
@click.pass_context
def cli(ctx: click.Context, config: str | None) -> None:
    """MachPay Gateway: accounts, API keys and the policy that guards an HTTP API."""
    ctx.obj = CliSession(config)


def main() -> None:
    """Run the command line of this process."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a masked secret has an ellipsis, which not every terminal can show
    cli(prog_name="machpay-gateway")


if __name__ == "__main__":
    main()
