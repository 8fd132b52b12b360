"""`holdfast key new` and `holdfast key list`."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from service.cli.terminal import OK, fail, run_and_handle_errors
from service.settings import read_settings

T = TypeVar("T")


@click.group("key")
def command() -> None:
    """Make API keys, and list them.

    A key is shown once, when it is made. The file, HOLDFAST_API_KEYS_FILE, has only its SHA-256. To take a key away,
    delete its line: a running service reads the file every second.
    """


def _checked(parse: Callable[[str], T]) -> Callable[[click.Context, click.Parameter, Any], T | None]:
    def check(ctx: click.Context, param: click.Parameter, value: str | None) -> T | None:
        if value is None:
            return None
        try:
            return parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from None

    return check


def _name(text: str) -> str:
    from service.domain.api_key import parse_name

    return parse_name(text)


def _scopes(text: str) -> frozenset[str]:
    from service.domain.api_key import parse_scopes

    return parse_scopes(text.split(","))


def _shops(text: str) -> frozenset[str]:
    from service.domain.api_key import parse_shops

    return parse_shops(text.split(","))


def _rate(text: str) -> Any:
    from service.domain.api_key import parse_rate

    return parse_rate(text)


def _expiry(text: str) -> Any:
    from service.domain.api_key import parse_expiry

    return parse_expiry(text)


@command.command("new")
@click.argument("name", callback=_checked(_name))
@click.option(
    "--scopes",
    required=True,
    callback=_checked(_scopes),
    help="What the key may do, with commas between: catalog:read, catalog:write, stock:write, orders:read, "
    "orders:write, ops:read; or all.",
)
@click.option("--shops", callback=_checked(_shops), help="Only for these shops, with commas between. Default: all.")
@click.option("--expires", callback=_checked(_expiry), help="When it ends, such as 2027-01-01T00:00:00Z.")
@click.option("--days", type=click.IntRange(1, 36_500), help="In how many days it ends.")
@click.option("--rate", callback=_checked(_rate), help="Requests per worker, such as 50/s, 600/min or 9000/h.")
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Add it to this file. Default: HOLDFAST_API_KEYS_FILE.",
)
@click.pass_obj
def new(
    options: dict[str, str],
    name: str,
    scopes: frozenset[str],
    shops: frozenset[str] | None,
    expires: Any,
    days: int | None,
    rate: Any,
    file: Path | None,
) -> int:
    """Make a key, and print it. It is shown only now.

    NAME stands in the log and in the events of what is done with the key. A new key with the name of an old one
    replaces it without a pause: delete the line of the old one when nobody uses it any more.

    Only the key goes to stdout. Without a file, its line is printed to stderr: put it into the file, or into
    HOLDFAST_API_KEYS.
    """
    if expires is not None and days is not None:
        return fail("give either --expires or --days")
    file = file or read_settings(options).api_keys_file

    def work() -> int:
        from service.domain.api_key import ApiKey, digest_of, new_secret
        from service.domain.times import Milliseconds
        from service.key_file import add_key

        ends_at = Milliseconds(int(time.time() + days * 86_400) * 1000) if days is not None else expires
        secret = new_secret()
        key = ApiKey(name, digest_of(secret.encode()), scopes, ends_at, rate, shops)
        if file is not None:
            try:
                add_key(file, key)
            except (OSError, ValueError) as error:
                return fail(f"{file}: {getattr(error, 'strerror', None) or error}")
            print(f"added to {file}: {key.line()}", file=sys.stderr)
        else:
            print(key.line(), file=sys.stderr)
        print(secret)
        return OK

    return run_and_handle_errors(work)


@command.command("list")
@click.option("--file", type=click.Path(dir_okay=False, path_type=Path), help="Default: HOLDFAST_API_KEYS_FILE.")
@click.pass_obj
def list_keys(options: dict[str, str], file: Path | None) -> int:
    """Print the keys of a file: name, scopes, end and rate of each. Nobody can print the keys themselves."""
    file = file or read_settings(options).api_keys_file
    if file is None:
        return fail("give --file, or set HOLDFAST_API_KEYS_FILE")

    def work() -> int:
        from service.domain.api_key import parse_keys
        from service.domain.times import format_timestamp
        from service.key_file import read_key_file

        try:
            keys = parse_keys(read_key_file(file))
        except (OSError, ValueError) as error:
            return fail(f"{file}: {getattr(error, 'strerror', None) or error}")
        width = max((len(key.name) for key in keys), default=0)
        for key in keys:
            _, digest, *members = key.line().split()
            has_ended = key.expires_at is not None and key.expires_at <= time.time() * 1000
            ended = [f"(ended {format_timestamp(key.expires_at)})"] if has_ended and key.expires_at is not None else []
            print(f"{key.name:{width}}  {digest[:17]}…  {' '.join([*members, *ended])}")
        return OK

    return run_and_handle_errors(work)
