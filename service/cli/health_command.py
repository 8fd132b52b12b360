"""`holdfast health` with other options, as in `holdfast --port 9000 health`. `__main__.py` has the short way."""

import click

from service.cli.health import check_health
from service.environment import read_environment


@click.command("health")
@click.option("--live", is_flag=True, help="Ask only whether the process answers, not whether Redis does (/livez).")
@click.pass_obj
def command(options: dict[str, str], live: bool) -> int:
    """Ask a running service whether it can take orders.

    Asks /readyz on HOLDFAST_HOST and HOLDFAST_PORT. Exits with 0 if the answer is 200, and with 1 and a line that
    says why if it is not.
    """
    return check_health({**read_environment(), **options}, live)
