"""Decides whether the answers on a connection are right. h11 reads them: a parser that the service does not use."""

import json
import re
from collections import Counter
from typing import Final, NamedTuple

import h11

from service.domain.errors.catalog import all_problems
from tests.fuzz.grammar import Conversation, Item

_PROBLEMS: Final = {f"/problems/{problem.name}": problem for problem in all_problems()}
_OF_BAD_BYTES: Final = {"malformed-request", "request-timeout", "head-too-large", "unsupported-http-version"}
"""Problems that a request cannot have that is well formed, as far as HTTP is concerned."""

_ID: Final = re.compile(rb"\r\nx-request-id: ([^\r]*)", re.IGNORECASE)


class WrongAnswer(Exception):
    """The service has answered as it must not."""


class Answer(NamedTuple):
    """An answer. `id`: its X-Request-Id. `problem`: the name of its problem, or an empty text."""

    status: int
    id: bytes
    problem: str
    is_replayed: bool
    is_last: bool


class Verdict(NamedTuple):
    """What became of the requests of a connection. Each request in `answered` has its answer."""

    statuses: Counter[str]
    answered: list[tuple[Item, Answer]]


def judge(conversation: Conversation, received: bytes) -> Verdict:
    """Return what became of the requests. Raise WrongAnswer if anything is wrong."""
    by_id = {item.id: (place, item) for place, item in enumerate(conversation.items)}
    clear, is_open = _clear_items(conversation.items)
    answers = _read_answers(received, by_id, len(clear))
    last_place = -1
    answered = []
    for answer in answers:
        place, item = by_id.get(answer.id, (last_place, None))
        if item is None:
            continue
        if place <= last_place:
            raise WrongAnswer(f"the answer {answer.id!r} comes twice, or too late")
        last_place = place
        answered.append((item, answer))
        if place < len(clear):
            _check_clear(item, answer)
    if not conversation.is_cut:
        missing = [item.id for item, answer in zip(clear, [*answers, *[None] * len(clear)], strict=False)
                   if answer is None or answer.id != item.id]  # fmt: skip
        if missing:
            raise WrongAnswer(f"no answer, or not in its place: {missing[0]!r}")
    # Each answer has a request line, but bytes that are no request at all are refused, too: once, at the end.
    limit = b"".join(conversation.pieces).count(b"HTTP/") + 1 if is_open else len(clear)
    if len(answers) > limit:
        raise WrongAnswer(f"{len(answers)} answers to {limit} requests")
    statuses = Counter(f"{answer.status} {answer.problem}".strip() for answer in answers)
    return Verdict(statuses, answered)


def _clear_items(items: tuple[Item, ...]) -> tuple[list[Item], bool]:
    """Return the items that must be answered, and whether others behind them may be answered, too."""
    clear: list[Item] = []
    for item in items:
        if not item.is_clear:
            return clear, True
        clear.append(item)
        if item.is_last:
            return clear, False
    return clear, False


def _check_clear(item: Item, answer: Answer) -> None:
    if answer.problem in _OF_BAD_BYTES:
        raise WrongAnswer(f"{answer.status} {answer.problem} for a well-formed request, {item.id!r}")
    if item.statuses and answer.status not in item.statuses:
        raise WrongAnswer(f"{answer.status} {answer.problem} for {item.id!r} is not documented")


def _read_answers(received: bytes, by_id: dict[bytes, tuple[int, Item]], clear: int) -> list[Answer]:
    """Return the answers. `clear`: how many of them are for well-formed requests."""
    answers: list[Answer] = []
    rest = received
    while rest:
        if answers and answers[-1].is_last:
            raise WrongAnswer(f"bytes behind the last answer: {rest[:100]!r}")
        head, _, behind = rest.partition(b"\r\n\r\n")
        while head.startswith(b"HTTP/1.1 100 "):
            rest = behind
            head, _, behind = rest.partition(b"\r\n\r\n")
        found = _ID.search(head)
        _, item = by_id.get(found[1], (0, None)) if found else (0, None)
        # Behind a request that is cut off, a HEAD can be a part of that request, which has another method.
        has_no_body = len(answers) < clear or not behind or behind.startswith(b"HTTP/")
        is_head = item is not None and item.method == "HEAD" and has_no_body
        try:
            read = _read_answer(rest, "HEAD" if is_head else "GET")
        except h11.RemoteProtocolError as error:
            raise WrongAnswer(f"h11 cannot read the answer: {error}: {rest[:200]!r}") from None
        if read is None and b"content-type: text/event-stream" in head:  # has no end
            return [*answers, Answer(200, found[1] if found else b"", "", is_replayed=False, is_last=True)]
        if read is None:
            raise WrongAnswer(f"the answer is not complete: {rest[:200]!r}")
        answer, rest = read
        answers.append(answer)
    return answers


def _read_answer(data: bytes, method: str) -> tuple[Answer, bytes] | None:
    """Return an answer and the bytes behind it, or None if it is not complete."""
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    parser.send(h11.EndOfMessage())
    parser.receive_data(data)
    head = parser.next_event()
    if not isinstance(head, h11.Response):
        return None
    body = b""
    while isinstance(event := parser.next_event(), h11.Data):
        body += event.data
    if not isinstance(event, h11.EndOfMessage):
        return None
    fields = {bytes(name): bytes(value) for name, value in head.headers}
    problem = "" if method == "HEAD" or head.status_code < 400 else _check_problem(head.status_code, fields, body)
    if head.status_code >= 500 and head.status_code != 503 and method == "HEAD":
        raise WrongAnswer(f"{head.status_code} for HEAD")
    is_replayed = b"idempotent-replayed" in fields
    is_last = fields.get(b"connection") == b"close"
    return Answer(head.status_code, fields[b"x-request-id"], problem, is_replayed, is_last), parser.trailing_data[0]


def _check_problem(status: int, fields: dict[bytes, bytes], body: bytes) -> str:
    """Return the name of a problem, which must have all its members."""
    if fields.get(b"content-type") != b"application/problem+json":
        raise WrongAnswer(f"{status} is no problem+json: {fields}, {body[:200]!r}")
    try:
        document = json.loads(body)
        problem = _PROBLEMS[document["type"]]
        texts = (document["title"], document["detail"], document["instance"])
        expected = (problem.status, problem.title, fields[b"x-request-id"].decode())
        is_complete = (document["status"], document["title"], document["instance"]) == expected and all(texts)
    except (ValueError, KeyError, TypeError) as error:
        raise WrongAnswer(f"{status} has no documented problem: {error!r}, {body[:200]!r}") from None
    if not is_complete or problem.status != status:
        raise WrongAnswer(f"{status} has members that are wrong: {body[:200]!r}")
    if status >= 500 and status != 503 and problem.name != "unsupported-http-version":
        raise WrongAnswer(f"{status} {problem.name}")
    return problem.name
