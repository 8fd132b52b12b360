"""The entry point of the `holdfast` command and of `python -m service`."""

import sys


def main() -> None:
    """Run the command that is named on the command line, and exit with its code."""
    arguments = sys.argv[1:]
    if arguments in (["health"], ["health", "--live"]):
        # Containers run this every few seconds. The import of click alone takes longer than the whole check.
        from service.cli.health import check_health
        from service.environment import read_environment

        sys.exit(check_health(read_environment(), live="--live" in arguments))
    from service.cli.main import holdfast
    from service.cli.terminal import run

    sys.exit(run(holdfast, arguments))


if __name__ == "__main__":
    main()
