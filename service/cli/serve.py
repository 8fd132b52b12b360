"""`holdfast serve`."""

import click

from service.cli.terminal import OK, fail
from service.settings import read_settings


@click.command("serve")
@click.pass_obj
def command(options: dict[str, str]) -> int:
    """Serve the API.

    Without --redis-url, Holdfast starts an embedded engine and stops it at the end.
    """
    settings = read_settings(options)
    from service.logs import configure_logging
    from service.server.serve import serve
    from service.server.start_up import CannotStart

    configure_logging(settings.log_level, settings.log_format, in_background=True)
    try:
        serve(settings)
    except CannotStart as error:
        return fail(error.reason)
    return OK
