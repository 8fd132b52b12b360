"""Options of commands that are dates or times."""

import re

import click

from service.domain.times import Milliseconds, parse_timestamp


def check_time(ctx: click.Context, parameter: click.Parameter, text: str | None) -> Milliseconds | None:
    """Return the moment of an option. A date is its first moment in UTC."""
    if text is None:
        return None
    is_date = re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII)
    try:
        return parse_timestamp(f"{text}T00:00:00Z" if is_date else text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a date such as 2026-11-26, and not a time such as 2026-11-26T09:30:00Z"
        ) from None
