"""The command line: the options for all commands, and the list of commands."""

import os
import re
import sys
from importlib import import_module
from typing import Final

import click

from service.cli.terminal import fail
from service.settings import SETTINGS, Setting

COMMANDS: Final = {
    "serve": ("serve", "Serve the API."),
    "health": ("health_command", "Ask a running service whether it is ready."),
    "doctor": ("doctor", "Examine the Redis that Holdfast is given, and say what to mend."),
    "audit": ("audit", "Check that stock numbers and orders agree."),
    "events": ("events", "Print the event stream as JSON lines."),
    "import": ("import_", "Add the products of a .jsonl or .csv file."),
    "export": ("export", "Print all products on sale, or all pending and completed orders."),
    "archive": ("archive", "Move orders that ended long ago from Redis to a file."),
    "backup": ("backup", "Copy all data of the embedded engine into a new directory, and verify the copy."),
    "restore": ("restore", "Put a backup in the place of the data of the embedded engine."),
    "mark-restored": ("mark_restored", "Finish a restore of your own Redis."),
    "upgrade": ("upgrade", "Bring the data of an older version to the form that this version needs."),
    "key": ("key", "Make API keys, and list them."),
    "openapi": ("openapi", "Print the description of the API (OpenAPI 3.1)."),
    "sales": ("sales", "Print what was sold: orders, units, revenue, and what came back of them."),
    "load": ("load", "Rehearse a sale: send many orders to a running service, and check what became of them."),
}
"""Module and first help line of each command: so `holdfast --help` does not import the modules to find the lines."""


class LazyGroup(click.Group):
    """A group of commands that imports the module of a command only when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"service.cli.{COMMANDS[cmd_name][0]}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


_MACHINE: Final = os.uname()
_PYTHON: Final = ".".join(map(str, sys.version_info[:3]))
_VERSION: Final = f"%(prog)s %(version)s (Python {_PYTHON}, {_MACHINE.sysname} {_MACHINE.machine})"


def _option(setting: Setting) -> click.Option:
    """Return the option of a setting. Its value stays text: `settings.py` reads and checks all values together."""
    default = "" if setting.default is None else f" (default: {str(setting.default).lower()})"
    text = f"{setting.help_text[0].upper()}{setting.help_text[1:]}.{default}"
    if isinstance(setting.default, bool):
        return click.Option([f"{setting.option}/--no-{setting.option[2:]}"], default=None, help=text)
    return click.Option([setting.option], metavar=setting.value_type.metavar, help=text)


@click.pass_context
def _keep_options(ctx: click.Context, /, **options: str | bool | None) -> None:
    ctx.obj = {name: str(value) for name, value in options.items() if value is not None}
    if _has_password(ctx.obj.get("redis_url", "")):
        fail(
            "--redis-url shows its password in the list of processes: use HOLDFAST_REDIS_URL or HOLDFAST_REDIS_URL_FILE"
        )


def _has_password(url: str) -> bool:
    """Return whether a URL of Redis has a password, in one of the two places that `storage/redis_url` reads."""
    return bool(re.match(r"[a-z+]+://[^/@]*:[^/@]+@", url)) or "password=" in url


holdfast = LazyGroup(
    "holdfast",
    params=[_option(setting) for setting in SETTINGS],
    callback=_keep_options,
    help="An order API that never oversells.\n\nWrite options before the command. Each can also be given as an "
    "environment variable: --redis-url is HOLDFAST_REDIS_URL.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
holdfast = click.version_option(package_name="holdfast", message=_VERSION)(holdfast)
