"""What all commands do on a terminal: exit codes, messages for the operator, progress bars, broken pipes."""

import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import click

from service.settings import SETTINGS, InvalidSettings

if TYPE_CHECKING:
    from tqdm import tqdm

OK: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
INTERRUPTED: Final = 130

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n)")
"""Control characters, without tab and line ends: a terminal may obey them."""


def run(command: click.Command, arguments: list[str]) -> int:
    """Run a command, and return its exit code. Without arguments, print the help."""
    try:
        code: int | None = command.main(arguments or ["--help"], prog_name="holdfast", standalone_mode=False)
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
            if isinstance(error, click.NoSuchOption) and error.option_name in {setting.option for setting in SETTINGS}:
                name = error.option_name
                print(f"Write {name} before the command: holdfast {name} ...", file=sys.stderr)
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    except InvalidSettings as error:
        for variable, reason in error.reasons.items():
            fail(f"{variable}: {reason}")
        return WRONG_USAGE
    except OSError as error:  # the help cannot be printed, because the disk is full, for example
        drop_output()
        return fail(str(error))
    return code or OK


def fail(reason: str, code: int = FAILED) -> int:
    """Print for the operator why the command failed, and return its exit code."""
    with suppress(OSError):  # `2>&1 | head -1`: the exit code matters even if nobody reads the reason
        print(f"holdfast: {reason}", file=sys.stderr)
    return code


def printable(text: str) -> str:
    """Return data of a shop as they may be printed to stdout: on a terminal, control characters appear as `\\u001b`.

    The name of a product may have such characters. Files and pipes get the data as they are.
    """
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text) if sys.stdout.isatty() else text


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 order`, `2,000 orders`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def run_and_handle_errors(work: Callable[[], int], failed: Callable[[str], int] = fail) -> int:
    """Run work that prints its result to stdout. Turn its errors into messages, and return the exit code.

    `failed`: reports a reason why the work could not be done, and returns the exit code.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # JSON is UTF-8, whatever the locale is
    code = OK
    try:
        code = work()
        sys.stdout.flush()  # an error must come here, where it is handled, and not at exit
        return code
    except BrokenPipeError:  # `holdfast events | head`: nobody needs the rest, but the result of the work stays
        drop_output()
        return code
    except OSError as error:  # the disk is full, for example
        drop_output()
        return failed(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED


def drop_output() -> None:
    """Throw away what is still buffered for stdout: writing it at exit would fail again."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


class NoProgressBar:
    """Shows nothing. It has the parts of tqdm's progress bar that commands use."""

    n = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, number: float = 1) -> None:
        pass

    def set_postfix_str(self, text: str, refresh: bool) -> None:
        pass


def progress_bar(total: int | None, unit: str, **options: Any) -> "tqdm[Any] | NoProgressBar":
    """Return a progress bar on stderr. It shows nothing if stderr is not a terminal."""
    if not sys.stderr.isatty():
        return NoProgressBar()
    from tqdm import tqdm

    return tqdm(total=total, unit=unit, unit_scale=True, leave=False, **options)
