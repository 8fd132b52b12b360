"""`holdfast health` with options besides --live, as in `holdfast --port 9000 health`.

Without such options, `__main__.py` runs the check and does not import click.
"""

import click

from service.cli.health import check_health
from service.environment import read_environment


@click.command("health")
@click.option("--live", is_flag=True, help="Ask /livez instead: whether the process answers, even if Redis does not.")
@click.pass_obj
def command(options: dict[str, str], live: bool) -> int:
    """Ask a running service whether it is ready.

    The request goes to /readyz on HOLDFAST_HOST and HOLDFAST_PORT. Exit code 0: the status was 200; 1: the status was
    something else, or there was none, and a line on stderr says why.
    """
    return check_health({**read_environment(), **options}, live)
