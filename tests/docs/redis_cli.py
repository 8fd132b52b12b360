"""A replacement for redis-cli where it is not installed: it prints the same for the options that the documents use.

`tests/docs/test_redis_cli.py` compares the two where both exist. Options: -s, -h, -p, --user, --pass, --json,
--no-raw; then --scan and --pattern, or a command and its arguments.
"""

import argparse
import json
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any

import hiredis


class _Status(str):
    """A simple string, which redis-cli prints without quotes."""


def main(args: Sequence[str]) -> int:
    """Send a command and print its reply."""
    parser = argparse.ArgumentParser(prog="redis-cli", add_help=False)
    parser.add_argument("-s", dest="socket")
    parser.add_argument("-h", dest="host", default="127.0.0.1")
    parser.add_argument("-p", dest="port", type=int, default=6379)
    parser.add_argument("--user", default="default")
    parser.add_argument("--pass", dest="password", default=os.environ.get("REDISCLI_AUTH"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--no-raw", action="store_true")
    parser.add_argument("--no-auth-warning", action="store_true")
    parser.add_argument("--scan", action="store_true")
    parser.add_argument("--pattern", default="*")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(args)
    if options.socket:
        client = socket.socket(socket.AF_UNIX)
        client.connect(options.socket)
    else:
        client = socket.create_connection((options.host, options.port))
    reader = hiredis.Reader(encoding="utf-8", replyError=lambda text: Exception(text))
    with client:
        if options.password:
            error = _call(client, reader, "AUTH", options.user, options.password)
            if isinstance(error, Exception):
                print(f"AUTH failed: {error}")
        if options.json:
            _call(client, reader, "HELLO", "3")
        if options.scan:
            cursor = ""
            while cursor != "0":
                cursor, names = _call(client, reader, "SCAN", cursor or "0", "MATCH", options.pattern)
                for name in names:
                    print(_show(name, "") if options.no_raw else name)
            return 0
        reply = _call(client, reader, *options.command)
    if not (options.json or options.no_raw):
        print("\n".join(_raw(reply)))
    elif options.json:
        print(json.dumps(reply, separators=(",", ":"), ensure_ascii=False))
    else:
        print(_show(reply, ""))
    return 1 if isinstance(reply, Exception) else 0


def _call(client: socket.socket, reader: Any, *command: str) -> Any:
    client.sendall(hiredis.pack_command(command))  # type: ignore[arg-type]
    first = b""
    while True:
        data = client.recv(65_536)
        first = first or data[:1]
        reader.feed(data)
        reply = reader.gets()
        if reply is not False:
            return _Status(reply) if first == b"+" else reply


def _raw(reply: Any) -> list[str]:
    """Return the lines that redis-cli prints into a pipe."""
    if isinstance(reply, list):
        return [line for item in reply for line in _raw(item)]
    return ["" if reply is None else str(reply)]


def _show(reply: Any, indent: str) -> str:
    if isinstance(reply, Exception):
        return f"(error) {reply}"
    if isinstance(reply, _Status):
        return reply
    if reply is None:
        return "(nil)"
    if isinstance(reply, int):
        return f"(integer) {reply}"
    if isinstance(reply, str):
        return '"' + reply.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    if not reply:
        return "(empty array)"
    width = len(str(len(reply)))
    inner = indent + " " * (width + 2)
    shown = [f"{index:>{width}}) {_show(item, inner)}" for index, item in enumerate(reply, 1)]
    return ("\n" + indent).join(shown)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
