"""What became of each purchase, as far as its buyer was told. The verdict compares this with the service."""

from array import array
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Final, Literal, NamedTuple

from service.ops.load.client import Answer, NoAnswer
from service.ops.load.shop import problem_name

_NOTHING_DONE: Final = ("overloaded", "storage-unavailable")
"""Problem types of 503 that promise that the request did nothing."""

_MAX_CONTRADICTIONS: Final = 1000


class Outcome(IntEnum):
    """What the buyer of a purchase knows. Some answers may be lost, so that the buyer knows less than the service."""

    NOT_SENT = 0
    REFUSED = 1
    """The service refused the order, or said that it did nothing."""
    UNKNOWN = 2
    """No answer says whether there is an order."""
    SOLD = 3
    PENDING = 4
    """Placed, and left to expire."""
    CANCELLED = 5
    EXPIRED = 6
    MAYBE_SOLD = 7
    """Placed as pending. No answer says whether it was completed."""
    MAYBE_CANCELLED = 8


ALLOWED_STATUSES: Final[Mapping[Outcome, frozenset[str]]] = {
    Outcome.SOLD: frozenset({"completed"}),
    Outcome.PENDING: frozenset({"pending", "expired"}),
    Outcome.CANCELLED: frozenset({"cancelled"}),
    Outcome.EXPIRED: frozenset({"expired"}),
    Outcome.MAYBE_SOLD: frozenset({"completed", "pending", "expired"}),
    Outcome.MAYBE_CANCELLED: frozenset({"cancelled", "pending", "expired"}),
}
"""The statuses that an acknowledged order may have at the end."""


class Ledger:
    """The outcome of each purchase and the id of its order: nine bytes per purchase, until the verdict."""

    def __init__(self) -> None:
        self._outcomes = bytearray()
        self._order_ids = array("q")
        self.contradictions: list[tuple[int, str]] = []
        """Numbers of purchases that got two answers which cannot both be true, and a sentence about them."""

    def note(self, number: int, outcome: Outcome, order_id: int | None = None) -> None:
        """Remember the outcome of a purchase. Without an id, the id that is known stays."""
        if number >= len(self._outcomes):
            more = number + 1 - len(self._outcomes)
            self._outcomes.extend(bytes(more))
            self._order_ids.extend([0] * more)
        self._outcomes[number] = outcome
        if order_id is not None:
            self._order_ids[number] = order_id

    def contradict(self, number: int, sentence: str) -> None:
        """Remember that a purchase got two answers which cannot both be true."""
        if len(self.contradictions) < _MAX_CONTRADICTIONS:
            self.contradictions.append((number, sentence))

    def sent(self) -> Iterator[tuple[int, Outcome, int]]:
        """Yield number, outcome and order id of each purchase that was sent. The id is 0 if none was told."""
        for number, outcome in enumerate(self._outcomes):
            if outcome:
                yield number, Outcome(outcome), self._order_ids[number]

    def __len__(self) -> int:
        return len(self._outcomes) - self._outcomes.count(0)


class Reply(NamedTuple):
    """The answer to one attempt to place an order.

    `result`: placed; refused, which is final; or failed, which may be repeated with the same Idempotency-Key.
    `reason`: the problem type, or why there is no answer. `may_exist`: nevertheless, the order may exist.
    `ended`: the status of a placed order that is gone already.
    """

    result: Literal["placed", "refused", "failed"]
    order_id: int = 0
    reason: str = ""
    may_exist: bool = False
    ended: str = ""
    replayed: bool = False
    retry_after: float = 0.0


def read_reply(answer: Answer | NoAnswer) -> Reply:
    """Return what the answer to a POST /orders says about the order."""
    if isinstance(answer, NoAnswer):
        return Reply("failed", reason=answer.kind, may_exist=answer.was_sent)
    status, reason = answer.status, problem_name(answer)
    body = answer.body if isinstance(answer.body, dict) else {}
    if status == 201:
        order_id = body.get("id")
        if isinstance(order_id, int) and 0 < order_id < 2**63:
            return Reply("placed", order_id, replayed=answer.replayed)
        return Reply("failed", reason="an unreadable order", may_exist=True)
    if status == 410 and isinstance(body.get("order"), dict) and isinstance(body["order"].get("id"), int):
        return Reply("placed", body["order"]["id"], ended=reason.removeprefix("order-"), replayed=True)
    if 300 <= status < 400:
        return Reply("failed", reason=f"redirect (status {status})")
    if 400 <= status < 500:
        # The key of this purchase belongs to no other request, unless the service mixes them up.
        return Reply("refused", reason=reason, may_exist=reason == "idempotency-key-reused")
    retry_after = float(answer.retry_after) if answer.retry_after.isascii() and answer.retry_after.isdigit() else 0.0
    return Reply("failed", reason=reason, may_exist=reason not in _NOTHING_DONE, retry_after=retry_after)


def join_replies(first: Reply, second: Reply) -> tuple[Reply, str]:
    """Return what two answers with the same Idempotency-Key say together, and how they contradict each other."""
    by_result = {reply.result: reply for reply in (first, second)}
    placed, refused = by_result.get("placed"), by_result.get("refused")
    if first.result == second.result == "placed":
        if first.order_id != second.order_id:
            return first, f"its two answers name the orders {first.order_id} and {second.order_id}"
        return first._replace(ended=first.ended or second.ended, replayed=first.replayed or second.replayed), ""
    if placed and refused:
        return placed, f"one answer names the order {placed.order_id}, another says {refused.reason}"
    if placed or refused:
        return placed or refused, ""  # type: ignore[return-value]
    return second._replace(may_exist=first.may_exist or second.may_exist), ""


def outcome_of(reply: Reply, course: str) -> Outcome:
    """Return what the buyer knows after the last answer to the order."""
    if reply.result == "placed":
        if reply.ended:
            return Outcome.CANCELLED if reply.ended == "cancelled" else Outcome.EXPIRED
        return Outcome.SOLD if course == "buy" else Outcome.PENDING
    return Outcome.UNKNOWN if reply.may_exist else Outcome.REFUSED


def outcome_of_ending(course: str, answer: Answer | NoAnswer) -> tuple[Outcome, str]:
    """Return what the buyer knows after the answer to a completion or cancellation, and what is wrong with it."""
    maybe = Outcome.MAYBE_SOLD if course == "complete" else Outcome.MAYBE_CANCELLED
    if isinstance(answer, NoAnswer):
        return maybe, ""
    if answer.status in (200, 204):
        return (Outcome.SOLD if course == "complete" else Outcome.CANCELLED), ""
    reason = problem_name(answer)
    if reason == "order-expired":
        return Outcome.EXPIRED, ""
    if answer.status >= 500:
        return maybe, ""
    return maybe, f"its answer to {course} is {reason}"
