"""The call of clients that listen to events."""

from starlette.responses import Response

from service.api.request import Request
from service.api.responses import EventStream
from service.domain.decoding import validate
from service.domain.errors.request import FieldError, InvalidRequest, RequestPart
from service.domain.requests import EventsQuery


async def listen_to_events(request: Request, query: EventsQuery) -> Response:
    """Return the events of the shop as server-sent events, without end. (GET /events)

    `Last-Event-ID`, or `after`, resumes after an event; otherwise, only events from now on come. `type=summary` sends
    what has happened in the last half second, and the numbers of all products, without ids.
    """
    after = query.after
    source: RequestPart = "query"
    given = [value for name, value in request.scope["headers"] if name == b"last-event-id"]
    if given and given[0]:  # a browser sends it when it connects again, with the address of the first time
        after, source = validate(EventsQuery, {"after": given[0].decode("latin-1")}, source="header").after, "header"
    feed = request.scope["state"]["event_feed"]
    if after is not None and not feed.is_cursor(after):
        count = "the id of an event" if feed.streams == 1 else f"{feed.streams} ids of events, with _ between them"
        what = f"Input should be the id of a message of this call: {count}"
        raise InvalidRequest(f"The {source} is not valid: see errors.", [FieldError("#/after", what, source)])
    return EventStream(await feed.open(query.type, after))
