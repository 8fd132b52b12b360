"""The call of clients that listen to events."""

from starlette.responses import Response

from service.api.request import Request
from service.api.responses import EventStream
from service.domain.decoding import validate
from service.domain.requests import EventsQuery


async def listen_to_events(request: Request, query: EventsQuery) -> Response:
    """Return the events of the shop as server-sent events, without end. (GET /events)

    `Last-Event-ID`, or `after`, resumes after an event; otherwise, only events from now on come. `type=summary` sends
    what has happened in the last half second, and the numbers of all products, without ids.
    """
    after = query.after
    given = [value for name, value in request.scope["headers"] if name == b"last-event-id"]
    if given and given[0]:  # a browser sends it when it connects again, with the address of the first time
        after = validate(EventsQuery, {"after": given[0].decode("latin-1")}, source="header").after
    feed = request.scope["state"]["event_feed"]
    return EventStream(await feed.open(query.type, after))
