"""A replacement for curl where it is not installed: -i, -X, -H, -d, -o, --json and others on one http:// URL."""

import argparse
import http.client
import sys
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit


def main(args: Sequence[str]) -> int:
    """Send a request and print its answer."""
    parser = argparse.ArgumentParser(prog="curl")
    parser.add_argument("--no-progress-meter", action="store_true")
    parser.add_argument("-s", "-N", "-sN", action="store_true")  # without progress, and at once: it is always so
    parser.add_argument("-o", dest="output")
    parser.add_argument("--max-time", type=float)
    parser.add_argument("-i", dest="show_headers", action="store_true")
    parser.add_argument("-X", dest="method")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="data")
    parser.add_argument("--json")
    parser.add_argument("url")
    options = parser.parse_args(args)
    url = urlsplit(options.url if "://" in options.url else f"http://{options.url}")
    body = options.data if options.json is None else options.json
    headers = {"Accept": "*/*"}
    if body is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded" if options.json is None else "application/json"
    headers |= {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in options.headers)}
    method = options.method or ("GET" if body is None else "POST")
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=options.max_time)
    path = url.path + (f"?{url.query}" if url.query else "")
    connection.request(method, path or "/", body.encode() if body is not None else None, headers)
    response = connection.getresponse()
    if options.show_headers:
        print(f"HTTP/1.1 {response.status} {response.reason}")
        for name, value in response.getheaders():
            print(f"{name}: {value}")
        print()
    sys.stdout.flush()
    with (
        open(options.output, "wb") if options.output else sys.stdout.buffer as output,  # noqa: PTH123
        suppress(TimeoutError),  # the answer of /events has no end
    ):
        while part := response.read1(65_536):
            output.write(part)
    connection.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
