"""Records what clients sent and what they were told. Each record is in a file before the next step is taken."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

NOT_DONE: Final = frozenset({"storage-unavailable", "overloaded"})
"""Problem types of 503 that promise: this request did nothing."""


@dataclass
class Attempt:
    """One request of an operation. `status`: None if no answer came. Times in seconds since the start of the run."""

    sent: float
    answered: float | None = None
    status: int | None = None
    answer: Any = None

    @property
    def problem(self) -> str | None:
        """The name of the problem type, or None."""
        if self.status is None or self.status < 400 or not isinstance(self.answer, dict):
            return None
        return str(self.answer.get("type", "")).removeprefix("/problems/")

    @property
    def is_done(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def is_known(self) -> bool:
        """Whether the answer says what became of the request, and repeating it would change nothing."""
        return self.status is not None and self.status < 500


@dataclass
class Operation:
    """What a client wants: the same request, sent until its outcome is known."""

    number: int
    client: int
    kind: str
    method: str
    path: str
    body: Any = None
    key: str | None = None
    of: int | None = None
    """The number of the operation whose key is used again."""
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The mark by which its effects are found in Redis: the reference of an order, or a reason."""
        return f"op-{self.number}"

    @property
    def order_id(self) -> int | None:
        """The order in its path."""
        parts = self.path.split("/")
        return int(parts[2]) if parts[1] == "orders" and len(parts) > 2 else None

    @property
    def done(self) -> Attempt | None:
        """The last attempt with a good answer."""
        return next((attempt for attempt in reversed(self.attempts) if attempt.is_done), None)

    @property
    def placed_id(self) -> int | None:
        """The order that it placed, also if the answer came only when that order had ended."""
        last = self.attempts[-1] if self.attempts else None
        if self.kind not in ("place", "repeat") or last is None or not isinstance(last.answer, dict):
            return None
        found = last.answer if last.is_done else last.answer.get("order", {})
        return found.get("id")

    @property
    def outcome(self) -> str:
        """`done`, `refused`, `nothing` (each answer promised that nothing was done) or `unknown`."""
        if self.done or self.placed_id:
            return "done"
        if self.attempts and self.attempts[-1].is_known:
            return "refused"
        return "nothing" if all(attempt.problem in NOT_DONE for attempt in self.attempts) else "unknown"


@dataclass
class FaultRecord:
    """A fault, in seconds since the start. `unsafe_from`: from then until `undone`, no change may be confirmed."""

    name: str
    began: float
    undone: float | None = None
    healthy: float | None = None
    unsafe_from: float | None = None


class History:
    """All operations and faults of a run. `path`: the file of its records, one JSON object per line."""

    def __init__(self, path: Path | None = None) -> None:
        self.operations: list[Operation] = []
        self.faults: list[FaultRecord] = []
        self._file = path.open("a", buffering=1) if path else None
        self._start = time.monotonic()

    def now(self) -> float:
        return round(time.monotonic() - self._start, 4)

    @property
    def next_number(self) -> int:
        return len(self.operations) + 1

    def begin(self, client: int, kind: str, method: str, path: str, **fields: Any) -> Operation:
        """Add an operation. `fields`: `body`, `key` and `of` of Operation."""
        operation = Operation(self.next_number, client, kind, method, path, **fields)
        self.operations.append(operation)
        self._write("begin", number=operation.number, client=client, kind=kind, method=method, path=path, **fields)
        return operation

    def send(self, operation: Operation) -> Attempt:
        """Note that a request is about to be sent."""
        attempt = Attempt(self.now())
        operation.attempts.append(attempt)
        self._write("send", number=operation.number, at=attempt.sent)
        return attempt

    def answer(self, operation: Operation, attempt: Attempt, status: int | None, answer: Any) -> None:
        """Note an answer. Without a status: why there is none."""
        attempt.answered, attempt.status, attempt.answer = self.now(), status, answer
        position = operation.attempts.index(attempt)
        self._write(
            "answer", number=operation.number, attempt=position, at=attempt.answered, status=status, answer=answer
        )

    def begin_fault(self, name: str) -> FaultRecord:
        fault = FaultRecord(name, self.now())
        self.faults.append(fault)
        self._write("fault", name=name, at=fault.began)
        return fault

    def end_fault(self, fault: FaultRecord) -> None:
        self._write("fault_ended", **vars(fault))

    def attempts(self) -> Iterator[tuple[Operation, Attempt]]:
        for operation in self.operations:
            for attempt in operation.attempts:
                yield operation, attempt

    def close(self) -> None:
        if self._file:
            self._file.close()

    def _write(self, record: str, **fields: Any) -> None:
        if self._file:
            self._file.write(json.dumps({"record": record, **fields}) + "\n")
