"""The entry point of the `holdfast` command and of `python -m service`."""

import os
import sys


def main() -> None:
    """Run the command that is named on the command line, and exit with its code."""
    _open_standard_streams()
    arguments = sys.argv[1:]
    if arguments in (["health"], ["health", "--live"]):
        # Containers run this every few seconds. The import of click alone takes longer than the whole check.
        from service.cli.health import check_health
        from service.environment import read_environment

        _exit(check_health(read_environment(), live="--live" in arguments))
    if arguments[-1:] == ["serve"] and "import" not in arguments:
        _end_on_signals()
    from service.cli.main import holdfast
    from service.cli.terminal import run

    _exit(run(holdfast, arguments))


def _exit(code: int) -> None:
    """End with this code, also if nobody reads what is still to be written: Python itself would end with 120 then."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if stream is sys.stdout and not isinstance(error, BrokenPipeError):  # the disk is full, for example
                code = code or 1
    sys.exit(code)


def _open_standard_streams() -> None:
    """Open those of stdin, stdout and stderr that are closed: otherwise sockets would get their numbers."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest free number, which is fd
            setattr(sys, name, open(fd, mode, closefd=False))  # noqa: SIM115


def _end_on_signals() -> None:
    """End with code 0 on SIGINT, SIGTERM and SIGHUP while modules are imported: there is nothing to stop yet.

    os._exit, not an exception: CPython drops an exception that a signal handler raises while it compiles a module.
    """
    import signal

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signum != signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(signum, lambda *_: os._exit(0))


if __name__ == "__main__":
    main()
