"""The process from which tests fork `holdfast`: it has imported all modules. Its client is preloaded.py. Linux only."""

import ctypes
import fcntl
import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from multiprocessing import util
from pathlib import Path
from typing import Any, Final

_MODULES: Final = (
    *("service.cli.main", "service.cli.audit", "service.cli.events", "service.cli.export", "service.cli.import_"),
    *("service.cli.load", "service.ops.load.open_loop", "service.ops.load.readback", "service.ops.load.report"),
    *("service.ops.audit", "service.ops.export", "service.ops.import_products", "service.cli.serve"),
    *("service.storage.opening", "service.engine.launcher", "service.logs", "service.server.serve"),
    *("service.server.running", "service.app", "uvicorn.lifespan.on", "uvloop", "difflib"),
)

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_PR_SET_CHILD_SUBREAPER: Final = 36


def serve() -> None:
    """Run a command, or start a service, for each line of stdin. It is JSON as preloaded.py writes it."""
    for name in _MODULES:
        importlib.import_module(name)
    from service.__main__ import main

    gc.collect()
    gc.freeze()  # a forked process must not look at all of this again, and so get a copy of it

    for line in sys.stdin:
        call = json.loads(line)
        if not call["is_service"]:
            print(json.dumps(_run_command(call, main)), flush=True)
        elif _is_new_service(call):
            main()  # the end of Python is that of every service
            return


def _run_command(call: Any, main: Any) -> int:
    """Run a command in a process of its own, and return its exit code."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code: Any = 1
    try:
        _become(call)
        main()
    except SystemExit as exit_:
        code = exit_.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _is_new_service(call: Any) -> bool:
    """Fork the process of a service. Return whether this is it; the server prints its id and goes on."""
    # The process in between ends at once. So the service becomes a child of the test process, the subreaper.
    reader, writer = os.pipe()
    between = os.fork()
    if between:
        os.close(writer)
        os.waitpid(between, 0)
        print(os.read(reader, 20).decode(), flush=True)
        os.close(reader)
        return False
    if pid := os.fork():
        os.write(writer, str(pid).encode())
        os._exit(0)
    os.setsid()
    os.close(reader)
    os.close(writer)
    warnings.simplefilter("ignore")  # `holdfast serve` runs without -W error, and so do its workers
    sys.warnoptions.clear()
    _become(call)
    if int(call["env"].get("HOLDFAST_WORKERS", 1)) > 1:
        _fork_workers()
    return True


def _become(call: Any) -> None:
    os.environ.clear()
    os.environ.update(call["env"])
    os.chdir(call["folder"])
    for fd, path in ((0, os.devnull), (1, call["stdout"]), (2, call["stderr"])):
        os.dup2(os.open(path, os.O_RDONLY if fd == 0 else os.O_WRONLY | os.O_APPEND), fd)
    sys.argv = ["holdfast", *call["args"]]


def _fork_workers() -> None:
    """Let multiprocessing fork the workers of this service from a copy of it, which stays as the service is now.

    So they have imported everything, and nothing else has happened in them. Like workers that Python starts anew, they
    are children of the service, have its standard streams, and inherit which signals are blocked.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    requests, of_copy = socket.socketpair()
    if os.fork() == 0:
        requests.close()
        _fork_on_request(of_copy)
    of_copy.close()
    start_anew = util.spawnv_passfds

    def fork(path: bytes, args: Sequence[Any], fds: Sequence[int]) -> int:
        if "--multiprocessing-fork" not in args:  # the resource tracker
            return start_anew(path, args, fds)
        blocked = [int(signum) for signum in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
        call = {"code": args[args.index("-c") + 1], "fds": list(fds), "blocked": blocked}
        socket.send_fds(requests, [json.dumps(call).encode()], fds)
        return int(requests.recv(20))

    util.spawnv_passfds = fork  # type: ignore[assignment]


def _fork_on_request(requests: socket.socket) -> None:
    """Fork a worker for each request, until the service has ended. A worker ends with SystemExit."""
    folder = Path.cwd()
    os.chdir("/")  # tests look at the processes in the folder
    for signum in _SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    while True:
        message, fds, _, _ = socket.recv_fds(requests, 65_536, 100)
        if not message:
            os._exit(0)
        call = json.loads(message)
        between = os.fork()
        if between == 0:
            between = os.getpid()
            if worker := os.fork():
                requests.sendall(str(worker).encode())
                os._exit(0)
            break
        os.waitpid(between, 0)
        for fd in fds:
            os.close(fd)
    while os.getppid() == between:
        time.sleep(0.001)
    requests.close()
    above_all = [fcntl.fcntl(fd, fcntl.F_DUPFD, 200) for fd in fds]
    for fd, number in zip(above_all, call["fds"], strict=True):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(folder)
    for signum in _SIGNALS:
        signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, call["blocked"])
    sys.argv = ["-c", "--multiprocessing-fork"]
    exec(call["code"], {})
    sys.exit()
