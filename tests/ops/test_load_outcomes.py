"""What the answers of a shop tell the buyers of a rehearsal."""

import pytest

from service.ops.load.client import Answer, NoAnswer
from service.ops.load.outcomes import (
    Ledger,
    Outcome,
    Reply,
    join_replies,
    outcome_of,
    outcome_of_ending,
    read_reply,
)

ORDER = {"id": 5, "products": [], "total_price": 0}


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (Answer(201, ORDER), Reply("placed", 5)),
        (Answer(201, ORDER, replayed=True), Reply("placed", 5, replayed=True)),
        (Answer(201, None), Reply("failed", reason="an unreadable order", may_exist=True)),
        (Answer(201, {"id": 2**63}), Reply("failed", reason="an unreadable order", may_exist=True)),
        (
            Answer(410, {"type": "/problems/order-expired", "order": ORDER}),
            Reply("placed", 5, ended="expired", replayed=True),
        ),
        (Answer(409, {"type": "/problems/insufficient-stock"}), Reply("refused", reason="insufficient-stock")),
        (Answer(422, {"type": "/shop/problems/customer-required"}), Reply("refused", reason="customer-required")),
        (
            Answer(422, {"type": "/problems/idempotency-key-reused"}),
            Reply("refused", reason="idempotency-key-reused", may_exist=True),
        ),
        (Answer(403, None), Reply("refused", reason="status 403")),
        (Answer(307, None), Reply("failed", reason="redirect (status 307)")),
        (
            Answer(503, {"type": "/problems/overloaded"}, retry_after="2"),
            Reply("failed", reason="overloaded", retry_after=2),
        ),
        (Answer(503, {"type": "/problems/outcome-unknown"}), Reply("failed", reason="outcome-unknown", may_exist=True)),
        (Answer(502, None, retry_after="soon"), Reply("failed", reason="status 502", may_exist=True)),
        (Answer(500, {"type": "<b>"}), Reply("failed", reason="status 500", may_exist=True)),
        (NoAnswer("timeout", was_sent=True), Reply("failed", reason="timeout", may_exist=True)),
        (NoAnswer("cannot connect", was_sent=False), Reply("failed", reason="cannot connect")),
    ],
)
def test_an_answer_says_whether_there_may_be_an_order(answer: Answer | NoAnswer, reply: Reply) -> None:
    assert read_reply(answer) == reply


PLACED, REFUSED, LOST = Reply("placed", 5), Reply("refused", reason="no"), Reply("failed", reason="x", may_exist=True)


@pytest.mark.parametrize(
    ("first", "second", "outcome", "contradiction"),
    [
        (PLACED, PLACED._replace(replayed=True), Outcome.SOLD, ""),
        (PLACED, PLACED._replace(order_id=6), Outcome.SOLD, "its two answers name the orders 5 and 6"),
        (REFUSED, PLACED, Outcome.SOLD, "one answer names the order 5, another says no"),
        (LOST, PLACED, Outcome.SOLD, ""),
        (LOST, REFUSED, Outcome.REFUSED, ""),
        (LOST, Reply("failed", reason="overloaded"), Outcome.UNKNOWN, ""),
        (Reply("failed", reason="overloaded"), Reply("failed", reason="overloaded"), Outcome.REFUSED, ""),
        (LOST, PLACED._replace(ended="expired"), Outcome.EXPIRED, ""),
    ],
)
def test_two_answers_with_one_key_are_joined(first: Reply, second: Reply, outcome: Outcome, contradiction: str) -> None:
    reply, found = join_replies(first, second)
    assert (outcome_of(reply, "buy"), found) == (outcome, contradiction)


@pytest.mark.parametrize(
    ("course", "answer", "outcome", "is_wrong"),
    [
        ("complete", Answer(200, ORDER), Outcome.SOLD, False),
        ("complete", Answer(410, {"type": "/problems/order-expired"}), Outcome.EXPIRED, False),
        ("complete", Answer(410, {"type": "/problems/order-cancelled"}), Outcome.MAYBE_SOLD, True),
        ("complete", Answer(404, {"type": "/problems/order-not-found"}), Outcome.MAYBE_SOLD, True),
        ("complete", Answer(503, None), Outcome.MAYBE_SOLD, False),
        ("cancel", Answer(204, None), Outcome.CANCELLED, False),
        ("cancel", Answer(409, {"type": "/problems/order-completed"}), Outcome.MAYBE_CANCELLED, True),
        ("cancel", NoAnswer("timeout", was_sent=True), Outcome.MAYBE_CANCELLED, False),
    ],
)
def test_the_answer_to_the_end_of_a_pending_order_says_how_it_ended(
    course: str, answer: Answer | NoAnswer, outcome: Outcome, is_wrong: bool
) -> None:
    found, wrong = outcome_of_ending(course, answer)
    assert (found, bool(wrong)) == (outcome, is_wrong)


def test_the_ledger_keeps_the_last_outcome_and_the_id_of_each_purchase_that_was_sent() -> None:
    ledger = Ledger()
    ledger.note(3, Outcome.UNKNOWN)
    ledger.note(1, Outcome.PENDING, 17)
    ledger.note(1, Outcome.CANCELLED)
    assert list(ledger.sent()) == [(1, Outcome.CANCELLED, 17), (3, Outcome.UNKNOWN, 0)]
    assert len(ledger) == 2
