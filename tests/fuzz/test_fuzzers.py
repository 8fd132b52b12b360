"""The fuzzers notice wrong answers and wrong readings: otherwise a run that finds nothing would tell nothing."""

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from service.api.routes import CALLS
from service.domain import decoding
from service.domain.errors.request import MalformedJson
from service.domain.requests import NewOrder
from tests.fuzz import mutations, targets
from tests.fuzz.bodies import FIELDS
from tests.fuzz.grammar import Conversation, Item, make_conversation
from tests.fuzz.oracle import WrongAnswer, judge


def item(name: bytes, **more: Any) -> Item:
    return Item(name, b"GET /livez HTTP/1.1\r\n", is_clear=True, **more)


def answer(
    name: bytes, status: bytes = b"200 OK", *, fields: bytes = b"", body: bytes = b"{}", length: int = -1
) -> bytes:
    head = b"HTTP/1.1 %b\r\nx-request-id: %b\r\n%bcontent-length: %d\r\n\r\n"
    return head % (status, name, fields, len(body) if length < 0 else length) + body


PROBLEM = {
    "type": "/problems/not-found",
    "title": "There is no such path",
    "status": 404,
    "detail": "There is no path /x.",
    "instance": "a",
}


BUG: Mapping[str, Any] = {"type": "/problems/internal-error", "title": "Holdfast has a bug", "status": 500}
MALFORMED: Mapping[str, Any] = {
    "type": "/problems/malformed-request",
    "title": "This is not an HTTP request",
    "status": 400,
}


def problem(name: bytes = b"a", line: bytes = b"404 Not Found", **members: object) -> bytes:
    body = json.dumps({name: value for name, value in {**PROBLEM, **members}.items() if value is not None}).encode()
    return answer(name, line, fields=b"content-type: application/problem+json\r\n", body=body)


def conversation(*items: Item) -> Conversation:
    return Conversation(items, (b"".join([each.data for each in items]),), is_cut=False)


TWO = conversation(item(b"a"), item(b"b"))
ONE = conversation(item(b"a"))


def test_right_answers_are_right() -> None:
    verdict = judge(TWO, b"HTTP/1.1 100 Continue\r\n\r\n" + problem() + answer(b"b"))
    assert verdict.statuses == {"404 not-found": 1, "200": 1}
    assert [answered.status for _, answered in verdict.answered] == [404, 200]


WRONG = {
    "no answer": (ONE, b"", "no answer"),
    "one answer too few": (TWO, answer(b"a"), "no answer"),
    "another order": (TWO, answer(b"b") + answer(b"a"), "too late"),
    "an answer twice": (TWO, answer(b"a") + answer(b"a"), "twice"),
    "one answer too many": (ONE, answer(b"a") + answer(b"z"), "2 answers"),
    "an answer of somebody else": (ONE, answer(b"z"), "no answer"),
    "half an answer": (ONE, answer(b"a", length=9), "not complete"),
    "bytes behind the last answer": (ONE, answer(b"a", fields=b"connection: close\r\n") + b"x", "behind"),
    "a body for HEAD": (conversation(item(b"a", method="HEAD")), answer(b"a"), "not complete"),
    "a status line without a status": (ONE, answer(b"a", b"OK"), "h11"),
    "a bad header field": (ONE, answer(b"a", fields=b"a b: c\r\n"), "h11"),
    "a bug": (ONE, problem(line=b"500 X", **BUG), "500 internal-error"),
    "an error that is plain text": (ONE, answer(b"a", b"404 Not Found"), "no problem"),
    "an unknown problem": (ONE, problem(type="/problems/x"), "documented"),
    "a problem without a title": (ONE, problem(title=None), "documented"),
    "a problem of another status": (ONE, problem(line=b"400 Bad Request"), "members"),
    "a problem of another request": (ONE, problem(instance="b"), "members"),
    "a status that the call does not have": (
        conversation(item(b"a", statuses=frozenset({200}))), problem(), "not documented"),
    "a good request is malformed": (ONE, problem(line=b"400 X", **MALFORMED), "well-formed"),
}  # fmt: skip


@pytest.mark.parametrize(("asked", "received", "message"), WRONG.values(), ids=WRONG)
def test_wrong_answers_are_found(asked: Conversation, received: bytes, message: str) -> None:
    with pytest.raises(WrongAnswer, match=message):
        judge(asked, received)


def test_a_request_that_is_broken_may_stay_without_an_answer() -> None:
    judge(conversation(item(b"a"), Item(b"b", b"\0"), item(b"c")), answer(b"a"))


def test_a_conversation_depends_on_its_seed_and_number_only() -> None:
    assert make_conversation(3, 7) == make_conversation(3, 7)
    assert len({make_conversation(seed, number) for seed in (3, 4) for number in range(50)}) > 90


def test_bodies_have_the_fields_that_the_calls_take() -> None:
    for call in CALLS:
        if call.body is not None:
            taken = {name for model in (call.body, *call.body_with.values()) for name in model.model_fields}
            named = {field.name.decode() for field in FIELDS[(call.method, call.path)]}
            assert named | ({"reference"} & taken) == taken, call.path


READ_JSON = decoding.read_json


def read_loosely(body: bytes) -> object:
    try:
        return json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError):
        raise MalformedJson("This is not JSON.") from None


def read_floats(body: bytes) -> object:
    return json.loads(json.dumps(READ_JSON(body), default=float))


def refuse_escapes(body: bytes) -> object:
    if b"\\" in body:
        raise MalformedJson("This is not JSON.")
    return READ_JSON(body)


@pytest.mark.parametrize("reader", [read_loosely, read_floats, refuse_escapes])
def test_a_reader_of_json_that_differs_from_others_is_found(
    reader: Callable[[bytes], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "read_json", reader)
    assert "AssertionError" in mutations.run("bodies", seed=1, cases=5000).finding


def test_a_quick_way_that_accepts_a_field_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_without_counting(text: bytes) -> NewOrder | None:
        try:
            return NewOrder.model_validate_json(text)
        except ValidationError:
            return None

    monkeypatch.setattr(NewOrder, "read_quickly", read_without_counting)
    assert "AssertionError" in mutations.run("bodies", seed=1, cases=5000).finding


@pytest.mark.parametrize(
    ("name", "function", "wrong"),
    [
        ("fields", "read_id", lambda text: int(text) if text.isdigit() else None),
        (
            "fields",
            "read_idempotency_key",
            lambda scope: scope["request_info"].fields.get(b"idempotency-key", b"k").decode(),
        ),
        ("fields", "weights", lambda headers, name: {"gzip": 2.0}),
        ("queries", "read_query", lambda query, model: model()),
        ("requests", "_divided", lambda data: [data[:-1]]),
    ],
)
def test_a_wrong_reading_is_found(name: str, function: str, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, function, wrong)
    assert "Error" in mutations.run(name, seed=1, cases=5000).finding
