"""`holdfast openapi`."""

import click

from service.cli.terminal import run_and_handle_errors
from service.settings import read_settings


@click.command("openapi")
@click.pass_obj
def command(options: dict[str, str]) -> int:
    """Print the description of the API (OpenAPI 3.1).

    It is what GET /openapi.json of a running service shows. With HOLDFAST_ROOT_PATH, its paths are those behind the
    proxy. Redis and a running service are not needed.
    """
    settings = read_settings(options)

    def work() -> int:
        from service.api.openapi import openapi_text

        print(openapi_text(settings.root_path))
        return 0

    return run_and_handle_errors(work)
