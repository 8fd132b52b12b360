"""The HTTP API: which calls there are, how a request is read, and which response it gets.

May import `service.storage`, `service.domain` and Starlette.

The way of a request:
    middleware.py    gives it an id, turns every exception into a response, writes the access log
    traced_app.py    a span of each request, if traces are on
    router.py        finds the row of its path and method
    routes.py        the table of calls
    call.py          reads what the row declares, and calls the handler
    request.py       reading: the id in the path, Idempotency-Key, body, query
    products.py, orders.py, health.py, metrics.py, pages.py   the handlers
    openapi.py, openapi_*.py   the description of the API
    events.py, event_feed.py, sales_summary.py   server-sent events, and the numbers of the live board
    negotiation.py   which form of an answer a client would rather have
    static_files.py  the files of web pages
    exposition.py    the numbers that Prometheus reads
    coalescing.py    one load of a page for all requests that arrive at the same time
    responses.py     JSON responses, and how they are sent
    problems.py      turns an error into an RFC 9457 problem
"""
