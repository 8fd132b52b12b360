"""Sends what grammar.py makes to a real service, over many connections, and lets oracle.py judge the answers.

Each connection has a number, and its bytes depend only on the seed and on this number.
"""

import asyncio
import json
import re
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import uvloop
from httpx2 import HTTPError

from service.domain.api_key import digest_of
from tests.fuzz.checks import errors_in_log, findings_of_audit
from tests.fuzz.grammar import KEY, LIMITED_KEY, Conversation, make_conversation
from tests.fuzz.oracle import WrongAnswer, judge
from tests.support.service_process import ServiceProcess, redis_client

CONNECTIONS: Final = 48
"""At the same time. With many more, Redis is never done, and the service refuses work (503): that tells nothing."""

_BATCH: Final = 2000
"""Connections between two checks of the service."""

_PATIENCE: Final = 30.0
"""Seconds after which a connection without its answers has failed."""

_MAX_GROWTH: Final = 48
"""MiB by which the memory of the service may grow after the first quarter of a run: caches have their limits."""

_STREAM: Final = b"content-type: text/event-stream"
"""Of the answers that have no end."""

_MAX_FINDINGS: Final = 10
"""After so many, more of them tell nothing new."""


@dataclass
class Report:
    """What a run has found. `cases`: requests that were sent, or bytes in the place of a request."""

    seed: int
    cases: int = 0
    connections: int = 0
    seconds: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    """In MiB, after each batch."""
    orders: int = 0
    placed: set[str] = field(default_factory=set)
    """References of orders that were answered with 201: they must be in Redis."""
    refused: set[str] = field(default_factory=set)
    """References of orders that were refused: they must not be in Redis."""

    def __str__(self) -> str:
        memory = self.memory[:: len(self.memory) // 10 + 1]
        statuses = ", ".join(f"{status}: {count:,}" for status, count in sorted(self.statuses.items()))
        return (
            f"sockets: {self.cases:,} cases on {self.connections:,} connections in {self.seconds:.0f} s "
            f"({self.cases / (self.seconds or 1):,.0f}/s), seed {self.seed}, {len(self.findings)} findings\n"
            f"  answers: {statuses}\n  {self.orders:,} orders in the shop; memory in MiB: {memory}"
        )


def run(seed: int, cases: int, *, first: int = 0) -> Report:
    """Send at least this number of cases. `first`: the number of the first connection."""
    report = Report(seed)
    with tempfile.TemporaryDirectory(prefix="holdfast-fuzz-") as folder:
        keys = f"fuzz sha256:{digest_of(KEY).hex()} scopes=all;"
        keys += f"limited sha256:{digest_of(LIMITED_KEY).hex()} scopes=catalog:read rate=5/s"
        service = ServiceProcess(Path(folder), durability="none", log_format="json", api_keys=keys)
        try:
            service.client.headers["Authorization"] = f"Bearer {KEY.decode()}"
            service.wait_until_ready()
            for number in range(1, 10):
                service.add_product(id=number, stock=0 if number == 9 else 500_000_000)
            started = time.monotonic()
            while report.cases < cases and len(report.findings) < _MAX_FINDINGS:
                # A short run is one batch, which ends when it has sent enough.
                uvloop.run(_send_batch(service.port, report, first + report.connections, cases))
                _check_service(service, report)
            report.seconds = time.monotonic() - started
            _check_memory(report)
            _check_shop(service, report)
        finally:
            service.close()
    return report


async def _send_batch(port: int, report: Report, first: int, cases: int) -> None:
    numbers = iter(range(first, first + _BATCH))

    async def client() -> None:
        for number in numbers:
            if report.cases >= cases or len(report.findings) >= _MAX_FINDINGS:
                return
            conversation = make_conversation(report.seed, number)
            report.cases += len(conversation.items)
            report.connections += 1
            received = b""
            try:
                received = await asyncio.wait_for(_converse(port, conversation), _PATIENCE)
                _note(report, conversation, received)
            except (WrongAnswer, OSError, RuntimeError) as error:  # uvloop raises the latter if the service resets
                sent = b"".join(conversation.pieces)
                report.findings.append(
                    f"connection {number}: {error!r}\n  sent: {sent[:3000]!r}\n  received: {received[:3000]!r}"
                )

    await asyncio.gather(*[client() for _ in range(CONNECTIONS)])


async def _converse(port: int, conversation: Conversation) -> bytes:
    """Send everything, then the client's end. Return what comes until the service closes, or a stream begins."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**26)
    try:
        for place, piece in enumerate(conversation.pieces):
            if place:
                await asyncio.sleep(0.001 if len(conversation.pieces) < 9 else 0)
            writer.write(piece)
        if conversation.is_cut:
            return b""
        writer.write_eof()
        received = bytearray()
        while part := await reader.read(2**20):
            received += part
            if _STREAM in received[-len(part) - len(_STREAM) :]:
                break
        return bytes(received)
    finally:
        writer.close()


def _note(report: Report, conversation: Conversation, received: bytes) -> None:
    verdict = judge(conversation, received)
    report.statuses += verdict.statuses
    for item, answer in verdict.answered:
        if item.reference and 400 <= answer.status < 500:
            report.refused.add(item.reference)
        elif item.reference and item.is_whole and answer.status == 201 and not answer.is_replayed:
            report.placed.add(item.reference)


def _check_service(service: ServiceProcess, report: Report) -> None:
    """Check that the service serves others as if nothing had happened, and that it has logged no error."""
    answers: list[object] = []
    try:
        product = service.add_product(stock=1)
        answers += [service.order(product).status_code, service.order(product).status_code, service.answers("/readyz")]
    except (HTTPError, AssertionError) as error:
        answers.append(error)
    if answers != [201, 409, 200]:
        report.findings.append(f"after connection {report.connections}, good requests are answered with {answers}")
    if errors := errors_in_log(service):
        report.findings.append(f"the service logged: {errors[0][:3000]}")
    if sys.platform == "linux":
        [kilobytes] = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{service.process.pid}/status").read_text())
        report.memory.append(int(kilobytes) // 1024)


def _check_memory(report: Report) -> None:
    after_start = report.memory[len(report.memory) // 4 :]
    if after_start and after_start[-1] - after_start[0] > _MAX_GROWTH:
        report.findings.append(f"the memory of the service grows, in MiB: {report.memory}")


def _check_shop(service: ServiceProcess, report: Report) -> None:
    """Check that placed orders are in Redis, that refused ones have left nothing there, and that all is balanced."""
    if found_by_audit := findings_of_audit(service):
        report.findings.append(found_by_audit)
    with redis_client(service.engine_url) as redis:
        keys = list(redis.scan_iter("{shop}:order:*", count=10_000))
        report.orders = len(keys)
        found: set[str | None] = set()
        for at in range(0, len(keys), 10_000):
            pipeline = redis.pipeline(transaction=False)
            for key in keys[at : at + 10_000]:
                pipeline.hget(key, "reference")
            found.update(pipeline.execute())
    if lost := report.placed - found:
        report.findings.append(f"{len(lost)} orders were answered with 201, but are not in Redis, such as {lost.pop()}")
    if left := report.refused & found:
        report.findings.append(f"{len(left)} orders were refused, but are in Redis, such as {left.pop()}")


def describe(seed: int, number: int) -> str:
    """Return the requests of a connection, for a reader."""
    conversation = make_conversation(seed, number)
    lines = [json.dumps([item.id.decode(), item.is_clear, item.data.decode("latin-1")]) for item in conversation.items]
    return "\n".join(lines)
